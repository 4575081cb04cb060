"""Every command with standard streams that are closed, full, of few characters, or read no more;
and how commands end on signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import checkpoints
import gemtp_native as gemtp
from terminal import read_to_end

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX streams and signals")

TARGET, DRAFTER = gemtp.demo_models()

# Forks for each case, so that Python and numpy start once. The child has its streams as a command
# that was started so: a closed one is None for Python, and its number is free.
RUNNER = """
import json, os, sys, tempfile, traceback
import numpy, tqdm
import gemtp_native.cli
from gemtp_native import _core

measured = _core.ReadBandwidth
_core.ReadBandwidth = lambda threads: measured(threads, 1 << 24)  # not seconds each time

def child(argv, closed, full):
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if name in closed:
            setattr(sys, name, None)
            os.close(number)
        elif name in full:
            os.dup2(os.open("/dev/full", os.O_WRONLY), number)
    try:
        code = gemtp_native.cli.main(argv)
    except SystemExit as e:
        code = e.code
    except BaseException:
        traceback.print_exc()
        code = 99
    os._exit(code)

def read(file):
    file.seek(0)
    return file.read().decode(errors="replace")

for line in sys.stdin:
    argv, closed, full = json.loads(line)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.stdin = open(0, closefd=False)
            sys.stdout = open(1, "w", closefd=False)
            sys.stderr = open(2, "w", closefd=False, buffering=1)
            child(argv, closed, full)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps([code, read(out), read(err)]), flush=True)
"""


@pytest.fixture(scope="module")
def runner():
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=environment,
    ) as process:  # fmt: skip

        def run(argv: list[object], closed=(), full=()) -> tuple[int, str, str]:
            print(
                json.dumps([[str(a) for a in argv], closed, full]), file=process.stdin, flush=True
            )
            return tuple(json.loads(process.stdout.readline()))

        yield run
        process.stdin.close()


@pytest.fixture(scope="module")
def commands(tmp_path_factory, pair) -> dict[str, list[object]]:
    """The shortest that each of them can do, and print something about."""
    folder = tmp_path_factory.mktemp("commands")
    text = folder / "text"
    text.write_text("def mean(values):\n    total = 0\n" * 60)
    hf = checkpoints.committed("12b", folder / "hf")
    few = ["--threads", 1, "--context", 64]
    return {
        "generate": ["generate", TARGET, "def f", "--max-tokens", 2, "--stats", *few],
        "chat": ["chat", TARGET],
        "convert": ["convert", hf / "target", folder / "c.gguf"],
        "pull": ["pull", "hf:nobody/nothing"],
        "quantize": ["quantize", pair.target, folder / "q.gguf", "q8_0"],
        "imatrix": ["imatrix", TARGET, text, "-o", folder / "i.gguf", "--context", 16,
                    "--chunks", 1],
        "cluster": ["cluster", pair.drafter, "-o", folder / "o.gguf", "--replace"],
        "inspect": ["inspect", TARGET],
        "info": ["info"],
        "synth": ["synth", "e2b", "--drafter-only", folder / "s.gguf", "--layers", 2,
                  "--vocab-size", 4096, "--force"],
        "bench": ["bench", TARGET, "--only", "prefill", "--prompt", 4, "--runs", 1, "--quick",
                  "--threads", 1],
        "tune": ["tune", TARGET, "--no-save", "--budget", 0.01, "--context", 0, "--threads", 1],
        "perplexity": ["perplexity", TARGET, text, "--chunks", 1, *few],
        "sweep": ["sweep", "--targets", TARGET, "--drafters", DRAFTER, "--prompts", 1, "--runs", 1,
                  "--tokens", 2, "--chunks", 1, *few],
        "export": ["export", "--target", TARGET, "--to", "llama-server", "--quiet"],
        "demo": ["demo", "--runs", 1, "--max-tokens", 2, "--threads", 1],
        "help": ["--help"],
        "help of one": ["tune", "--help"],
        "version": ["--version"],
    }  # fmt: skip


NAMES = [
    "generate", "chat", "convert", "pull", "quantize", "imatrix", "cluster", "inspect", "info",
    "synth", "bench", "tune", "perplexity", "sweep", "export", "demo", "help", "help of one",
    "version",
]  # fmt: skip
FAIL = ("chat", "pull")  # here, where there is no message and no hub


@pytest.mark.parametrize("name", NAMES)
def test_streams_that_are_closed_or_full(runner, commands, name):
    argv = commands[name]
    usual, out, err = runner(argv)
    assert usual == (1 if name in FAIL else 0), err
    assert bool(out) == (name not in FAIL)
    for how in ("closed", "full"):
        code, _, err = runner(argv, **{how: ["stdout"]})
        assert (code, err.count("\n")) == (1, 1) or name == "generate" or err.count("\n") > 1
        last = err.splitlines()[-1]
        if name not in FAIL:
            why = "Bad file descriptor" if how == "closed" else "No space left on device"
            assert last == f"gemtp: error: standard output cannot be written: {why}"
        assert "Traceback" not in err
    for how in ("closed", "full"):
        code, same, _ = runner(argv, **{how: ["stderr"]})
        assert code == usual
        assert len(same.splitlines()) == len(out.splitlines())  # no statistics or notes in it
    code, _, err = runner(argv, closed=["stdin", "stdout", "stderr"])
    assert (code, err) == (1, "")


def test_every_command_is_tried(commands):
    from gemtp_native.cli import _COMMANDS

    assert set(NAMES) == set(commands)
    assert {*_COMMANDS} - {*commands} == {"serve"}  # which prints nothing, and is tried below


def test_closed_standard_input(runner):
    for argv in (["chat", TARGET], ["chat", TARGET, "--lines"], ["generate", TARGET, "-"]):
        code, out, err = runner(argv, closed=["stdin"])
        assert (code, out) == (1, "")
        assert err == "gemtp: error: standard input cannot be read: Bad file descriptor.\n"


def start(*args: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "gemtp_native", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def test_a_process_whose_output_is_closed():
    """As a shell starts it: gemtp info >&-."""
    process = subprocess.run(
        [sys.executable, "-m", "gemtp_native", "info"], stderr=subprocess.PIPE,
        preexec_fn=lambda: os.close(1),  # noqa: PLW1509
    )  # fmt: skip
    assert process.returncode == 1
    assert process.stderr == (
        b"gemtp: error: standard output cannot be written: Bad file descriptor\n"
    )


@pytest.mark.parametrize("name", ["inspect", "export", "info"])
def test_a_reader_that_has_seen_enough(commands, name):
    process = start(*commands[name])
    process.stdout.close()
    assert (process.stderr.read(), process.wait(timeout=60)) == (b"", 141)
    process.stderr.close()


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_paths_that_are_not_utf8(tmp_path, locale):
    """Printed byte for byte, and as escapes that JSON knows."""
    odd = os.fsencode(tmp_path) + b"/caf\xe9.gguf"
    os.symlink(TARGET, odd)
    environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    def run(*args: object) -> bytes:
        process = subprocess.run(
            [sys.executable, "-m", "gemtp_native", *args], capture_output=True, env=environment
        )
        assert (process.returncode, process.stderr) == (0, b"")
        return process.stdout

    assert run("inspect", odd).startswith(odd + b": gemma4 target")
    (facts,) = json.loads(run("inspect", odd, "--json"))["files"]
    assert os.fsencode(facts["path"]) == odd
    assert b"caf\xe9.gguf" in run("export", "--target", odd, "--to", "llama-server", "--quiet")


def test_figures_begin_on_a_line_of_their_own():
    """--verbose, where text and figures go to one terminal."""
    process = subprocess.run(
        [sys.executable, "-m", "gemtp_native", "generate", TARGET, "def f", "--max-tokens", "3",
         "--verbose"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert "\ngemtp: prompt: " in process.stdout


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_generation_ends_in_order(hangups_heard, number):
    process = start("generate", TARGET, "def f", "--ignore-eos", "--max-tokens", 100_000,
                    "--temperature", 1, "--context", 2048, bufsize=0)  # fmt: skip
    process.stdout.read(5)
    process.send_signal(number)
    process.send_signal(number)  # terminals and shells send it twice
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + number, b"")


def test_a_conversation_ends_in_order():
    """Ctrl-C there stops an answer alone."""
    process = start("chat", TARGET, "--lines", stdin=subprocess.PIPE)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) in (143, -signal.SIGTERM)  # the latter before it began
    process.communicate()


def test_nohup_is_respected():
    code = (
        "import signal, sys, os; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from gemtp_native import cli\n"
        "cli._dispatch = lambda argv: os.kill(os.getpid(), signal.SIGHUP) or 0\n"
        "sys.exit(cli.main(['info']))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_handlers_are_those_of_a_command_alone(gemtp_main):
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    code = "import signal, gemtp_native as g; before = signal.getsignal(signal.SIGTERM)\n"
    code += "m = g.Model(*g.demo_models()); assert signal.getsignal(signal.SIGTERM) is before"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert gemtp_main("info")[0] == 0
    assert {s: signal.getsignal(s) for s in before} == before


def test_ctrl_c_while_modules_are_imported():
    """No traceback from our first line on; Python's own start is not ours."""
    code = (
        "import sys, gemtp_native\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == sys.argv[1]: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from gemtp_native.__main__ import main\n"
        "sys.argv = ['gemtp', 'info']\n"
        "sys.exit(main())"
    )
    for module in ("gemtp_native.cli", "argparse", "gemtp_native.cli.info", "numpy"):
        process = subprocess.run(
            [sys.executable, "-c", code.replace("sys.argv[1]", repr(module))], capture_output=True
        )
        if module != "numpy":  # info needs none
            assert (process.returncode, process.stderr) == (130, b"")


def test_the_package_itself_imports_little():
    """What Ctrl-C could meet before gemtp can see to it."""
    code = (
        "import sys; before = {*sys.modules}; import gemtp_native.__main__\n"
        "print(*sorted({*sys.modules} - before))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(gemtp.__file__).parents[1])}
    command = [sys.executable, "-S", "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert set(process.stdout.split()) <= {
        "__future__", "gemtp_native", "gemtp_native.__main__", "gemtp_native.errors",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "colours"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
    ],
    ids=str,
)
def test_colours_of_a_terminal(environment, colours):
    """Of a command that marks what was drafted by colour, else by other characters."""
    import pty

    ours, theirs = pty.openpty()
    usual = {k: v for k, v in os.environ.items() if k not in ("TERM", "NO_COLOR")}
    argv = ["demo", "--runs", "1", "--max-tokens", "8", "--threads", "1"]
    command = [sys.executable, "-m", "gemtp_native", *argv]
    with subprocess.Popen(command, stdout=theirs, env={**usual, **environment}) as process:
        os.close(theirs)
        said = read_to_end(ours)
    assert process.returncode == 0
    assert (b"\x1b[" in said) == colours


def test_a_server_whose_messages_cannot_be_written():
    """It answers all the same, under a name that JSON can hold."""
    import socket
    import urllib.request

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = ["serve", TARGET, "--port", str(port), "--threads", "1", "--alias", b"caf\xe9"]
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(
            [sys.executable, "-m", "gemtp_native", *argv], stdout=full, stderr=full
        )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                url = f"http://127.0.0.1:{port}/v1/models"
                with urllib.request.urlopen(url, timeout=5) as answer:
                    found = json.load(answer)
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert found["data"][0]["id"] == "caf?"
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
