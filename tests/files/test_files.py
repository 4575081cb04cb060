"""Everything that writes a file writes it whole or not at all, and over nothing but files; nothing
that reads one waits for a pipe or reads a device."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import checkpoints
import gemtp_native as gemtp
from gemtp_native.base import whole_file
from gemtp_native.base.input_file import read_input
from gemtp_native.base.whole_file import check_output, replacing, replacing_all, write_whole
from gemtp_native.cli import main
from gemtp_native.cli.conversation import Conversation
from gemtp_native.errors import ArgumentError, FileError

TARGET, DRAFTER = gemtp.demo_models()
TEXT = "def mean(values):\n    total = 0\n" * 40

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX files and signals")


@pytest.fixture(scope="module")
def material(tmp_path_factory, pair) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("material")
    (folder / "text").write_text(TEXT)
    hf = checkpoints.committed("12b", folder / "hf") / "target"
    return {"text": folder / "text", "hf": hf, "f32": pair.target, "drafter": pair.drafter}


# Of each command that writes a file, how it is called to write one.
WRITERS: dict[str, Callable[[dict[str, Path], object], list[object]]] = {
    "convert": lambda m, out: ["convert", m["hf"], out],
    "quantize": lambda m, out: ["quantize", m["f32"], out, "q8_0"],
    "imatrix": lambda m, out: [
        "imatrix", TARGET, m["text"], "-o", out, "--context", 16, "--chunks", 1,
    ],
    "cluster": lambda m, out: ["cluster", m["drafter"], "-o", out, "--replace"],
    "synth": lambda m, out: [
        "synth", "e2b", "--drafter-only", out, "--layers", 2, "--vocab-size", 4096, "--force",
    ],
    "export": lambda m, out: ["export", "--init", out, "--target", TARGET, "--force"],
    "bench": lambda m, out: [
        "bench", TARGET, "--only", "prefill", "--prompt", 4, "--runs", 1, "--threads", 1,
        "--csv", out,
    ],
    "sweep": lambda m, out: [
        "sweep", "--targets", TARGET, "--drafters", DRAFTER, "--prompts", 1, "--runs", 1,
        "--tokens", 2, "--chunks", 1, "--context", 64, "--csv", out,
    ],
}  # fmt: skip
PLOTTERS: dict[str, list[object]] = {
    "bench": ["bench", TARGET, "--only", "prefill", "--prompt", 4, "--runs", 1],
    "tune": ["tune", TARGET, "--no-save"],
    "sweep": ["sweep", "--targets", TARGET, "--drafters", DRAFTER],
}


@pytest.fixture(autouse=True)
def no_waiting():
    """A command that waits for a pipe fails."""
    if os.name != "posix":
        yield
        return

    def waited(*_: object) -> None:
        raise AssertionError("it waits for a pipe, or reads without end")

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def listing(folder: Path) -> dict[str, object]:
    """Names, what they are, and what is in them."""
    found: dict[str, object] = {}
    for path in sorted(folder.iterdir()):
        mode = path.lstat().st_mode
        found[path.name] = os.readlink(path) if path.is_symlink() else stat.S_IFMT(mode)
        if stat.S_ISREG(mode):
            found[path.name] = path.read_bytes()
    return found


def is_one_error(err: str) -> bool:
    return err.startswith("gemtp: error: ") and err.count("\n") == 1


# ---------------------------------------------------------------- what is written to


def no_files(folder: Path) -> dict[Path, str]:
    """path -> words of the error."""
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    os.symlink("/dev/null", folder / "to a device")
    os.symlink("pipe", folder / "to a pipe")
    os.symlink("around", folder / "around")
    with socket.socket(socket.AF_UNIX) as sock:
        here = os.getcwd()
        os.chdir(folder)  # for the name of a socket is short
        sock.bind("socket")
        os.chdir(here)
    return {
        folder / "pipe": "is a pipe, which is never replaced",
        folder / "folder": "is a folder, which is never replaced",
        folder / "to a device": "is a device, which is never replaced",
        folder / "to a pipe": "is a pipe, which is never replaced",
        folder / "socket": "is a socket, which is never replaced",
        folder / "around": "cannot be written: ",
        folder / "none" / "file": "its folder does not exist; create it first",
        folder / ("n" * 300): "cannot be written: ",
        Path("/dev/null"): "is a device",
    }


@posix
@pytest.mark.parametrize("name", WRITERS)
def test_outputs_that_are_no_files(gemtp_main, material, tmp_path, name):
    cases = no_files(tmp_path)
    before = listing(tmp_path)
    for path, words in cases.items():
        code, out, err = gemtp_main(*WRITERS[name](material, path))
        assert (code, out) == (1, ""), path
        assert is_one_error(err)
        assert words in err
    assert listing(tmp_path) == before
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@posix
@pytest.mark.parametrize("name", PLOTTERS)
def test_plots_over_what_is_no_file(gemtp_main, tmp_path, name):
    pytest.importorskip("matplotlib")
    os.mkfifo(tmp_path / "pipe.png")
    code, _, err = gemtp_main(*PLOTTERS[name], "--plot", tmp_path / "pipe.png")
    assert (code, "is a pipe, which is never replaced" in err) == (1, True)
    assert is_one_error(err)


@posix
def test_sessions_and_conversations_over_what_is_no_file(tmp_path):
    cases = no_files(tmp_path)
    model = gemtp.Model(TARGET, threads=1, context=64)
    session = model.session()
    session.append("def f")
    before = listing(tmp_path)
    for path in cases:
        for save in (session.save, Conversation(model).save):
            with pytest.raises(FileError):
                save(path)
    assert listing(tmp_path) == before


@posix
@pytest.mark.parametrize("name", WRITERS)
def test_links_lead_to_what_is_written(gemtp_main, material, tmp_path, name):
    """To a file that is there, and to one that is not; names may be long, and bytes."""
    inner = tmp_path / "inner"
    inner.mkdir()
    target = os.fsencode(inner) + b"/caf\xe9" + b"n" * 245 + b".x"
    link = tmp_path / "link"
    os.symlink(target, os.fsencode(link))
    kept = None
    for old in (None, b"old"):
        if old is not None:
            Path(os.fsdecode(target)).write_bytes(old)
            os.chmod(target, 0o640)
        code, _, err = gemtp_main(*WRITERS[name](material, link))
        assert (code, err) == (0, "")
        assert link.is_symlink()
        assert os.listdir(os.fsencode(inner)) == [os.path.basename(target)]
        data = Path(os.fsdecode(target)).read_bytes()
        assert len(data) > 50
        if name not in ("bench", "sweep"):  # figures of one run
            assert kept in (None, data)
        kept = data
    assert stat.S_IMODE(os.stat(target).st_mode) == 0o640  # that of the file before
    assert sorted(os.listdir(tmp_path)) == ["inner", "link"]


@pytest.mark.parametrize("name", WRITERS)
def test_inputs_are_never_the_output(gemtp_main, material, tmp_path, name):
    source = {
        "convert": material["hf"] / "model.safetensors",
        "quantize": material["f32"],
        "imatrix": material["text"],
        "cluster": material["drafter"],
        "bench": TARGET,
        "sweep": DRAFTER,
    }.get(name)
    if source is None:
        return
    before = source.read_bytes()
    code, _, err = gemtp_main(*WRITERS[name](material, source))
    assert code == (2 if name == "convert" else 1)
    assert "is one of the files to read; choose another output" in err
    assert source.read_bytes() == before


@posix
@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_fills_up(gemtp_main, material, tmp_path, name):
    """The kernel refuses to write more than some bytes of a file."""
    import resource

    out = tmp_path / "out"
    out.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, before[1]))
    try:
        code = main([str(a) for a in WRITERS[name](material, out)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 1
    assert listing(tmp_path) == {"out": b"old"}


@posix
@pytest.mark.skipif(os.geteuid() == 0 if os.name == "posix" else False, reason="root may all")
def test_folders_and_files_that_may_not_be_written(tmp_path):
    write_whole(tmp_path / "file", b"old")
    os.chmod(tmp_path / "file", 0o400)
    with pytest.raises(FileError, match="it is write-protected"):
        write_whole(tmp_path / "file", b"new")
    os.chmod(tmp_path, 0o500)
    with pytest.raises(FileError, match="Permission denied"):
        write_whole(tmp_path / "other", b"new")
    os.chmod(tmp_path, 0o700)
    assert listing(tmp_path) == {"file": b"old"}


@posix
def test_where_output_goes_already(tmp_path):
    """`gemtp bench --csv FILE > FILE`, and --csv /dev/stdout."""
    code = (
        "import sys; from gemtp_native.base.whole_file import check_output; "
        "check_output(sys.argv[1])"
    )
    for path in (tmp_path / "out", "/dev/stdout"):
        with (tmp_path / "out").open("wb") as out:
            process = subprocess.run(
                [sys.executable, "-c", code, path], stdout=out, stderr=subprocess.PIPE, text=True
            )
        assert "is where what is printed goes already" in process.stderr


@posix
def test_a_session_is_not_saved_where_output_goes(tmp_path):
    code = (
        "import sys, gemtp_native as g\n"
        "session = g.Model(g.demo_models()[0], threads=1, context=64).session()\n"
        "session.append('a')\n"
        "print('before', flush=True)\n"
        "try:\n    session.save(sys.argv[1])\n"
        "except g.FileError as e:\n    print(e, file=sys.stderr)\n"
        "print('after')"
    )
    for path in (tmp_path / "out", "/dev/stdout"):
        with (tmp_path / "out").open("wb") as out:
            command = [sys.executable, "-c", code, path]
            done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True)
        assert done.stderr == (
            f"{path} is where what is printed goes already; choose another output.\n"
        )
        assert (tmp_path / "out").read_text() == "before\nafter\n"


# ---------------------------------------------------------------- how it is written


def test_modes(tmp_path):
    if os.name != "posix":
        return
    mask = os.umask(0o022)
    try:
        for name, private in (("usual", False), ("private", True)):
            write_whole(tmp_path / name, b"x", private)
    finally:
        os.umask(mask)

    def mode(name: str) -> int:
        return stat.S_IMODE((tmp_path / name).stat().st_mode)

    assert (mode("usual"), mode("private")) == (0o644, 0o600)
    os.chmod(tmp_path / "usual", 0o600)
    os.chmod(tmp_path / "private", 0o644)
    write_whole(tmp_path / "usual", b"y")
    write_whole(tmp_path / "private", b"y", private=True)
    assert (mode("usual"), mode("private")) == (0o600, 0o600)


def test_sessions_and_conversations_are_private(tmp_path):
    model = gemtp.Model(TARGET, threads=1, context=64)
    session = model.session()
    session.append("def f")
    somebodys = tmp_path / "session.part"
    somebodys.write_text("somebody's")
    for name, save in (("session", session.save), ("talk", Conversation(model).save)):
        for _ in range(2):
            save(tmp_path / name)
        if os.name == "posix":
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["session", "session.part", "talk"]
    assert somebodys.read_text() == "somebody's"
    assert model.restore(tmp_path / "session").tokens == session.tokens


def test_saves_of_a_session_at_once(tmp_path):
    """Whoever reads meanwhile finds one of them, whole."""
    model = gemtp.Model(TARGET, threads=1, context=64)
    sessions = [model.session() for _ in range(3)]
    for session, text in zip(sessions, ("def f", "class A", "import os"), strict=True):
        session.append(text)
    path = tmp_path / "session"
    sessions[0].save(path)
    expected = [s.tokens for s in sessions]
    threads = [
        threading.Thread(target=lambda s=s: [s.save(path) for _ in range(30)]) for s in sessions
    ]
    for thread in threads:
        thread.start()
    for _ in range(50):
        assert model.restore(path).tokens in expected
    for thread in threads:
        thread.join()
    assert os.listdir(tmp_path) == ["session"]


def test_several_files_appear_together_or_not_at_all(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    rename, calls = os.replace, []

    def write_both() -> None:
        with replacing_all([(one, 3), (two, 3)]) as handles:
            for handle in handles:
                handle.write(b"new")

    def second_fails(source: Path, destination: Path) -> None:
        calls.append(destination)
        if destination == two and calls.count(two) == 1:
            raise OSError(5, "Input/output error")
        rename(source, destination)

    for old in ({}, {"one": b"old one"}, {"one": b"old one", "two": b"old two"}):
        for name, data in old.items():
            (tmp_path / name).write_bytes(data)
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(whole_file.os, "replace", second_fails)
            with pytest.raises(FileError, match="one and .*two cannot be written: Input/output"):
                write_both()
        assert listing(tmp_path) == old
    write_both()
    assert listing(tmp_path) == {"one": b"new", "two": b"new"}


def test_errors_of_the_block_leave_nothing(tmp_path):
    for error in (KeyboardInterrupt, SystemExit, ValueError):
        with pytest.raises(error):
            write_of(tmp_path / "file", 4, error)
    assert listing(tmp_path) == {}
    with pytest.raises(FileError, match=r"bytes are needed, [\d,]+ are free"):
        write_of(tmp_path / "file", 1 << 60, None)
    assert listing(tmp_path) == {}
    for wrong in ("a\0b", "", "."):
        with pytest.raises(FileError):
            check_output(wrong)
    with pytest.raises(ArgumentError):
        check_output(TARGET, DRAFTER, TARGET)


def write_of(path: Path, size: int, error: type[BaseException] | None) -> None:
    with replacing(path, size) as handle:
        handle.write(b"half")
        if error is not None:
            raise error


STOPS = """
import sys, time
from gemtp_native.base import whole_file
from gemtp_native.cli import main

def finish(self):
    self.handle.flush()
    print("writing", flush=True)
    time.sleep(60)

whole_file._Unfinished.finish = finish
sys.exit(main(sys.argv[1:]))
"""


@posix
@pytest.mark.parametrize("name", WRITERS)
def test_signals_leave_nothing_half_written(hangups_heard, material, tmp_path, name):
    out = tmp_path / "out"
    out.write_text("old")
    argv = [str(a) for a in WRITERS[name](material, out)]
    number = signal.SIGHUP if name in ("quantize", "export") else signal.SIGTERM
    with subprocess.Popen(
        [sys.executable, "-c", STOPS, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"writing\n"
        assert len(os.listdir(tmp_path)) == 2
        process.send_signal(number)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (128 + number, b"", b"")
    assert listing(tmp_path) == {"out": b"old"}


@posix
def test_a_signal_takes_away_the_folder_of_a_pair(tmp_path):
    argv = ["synth", "e2b", "--out", tmp_path / "pair", "--layers", 2, "--vocab-size", 4096]
    with subprocess.Popen(
        [sys.executable, "-c", STOPS, *map(str, argv)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    assert listing(tmp_path) == {}


# ---------------------------------------------------------------- what is read

# Of each file that a command reads, how it is called to read one; True where a pipe makes sense.
READERS: dict[str, tuple[Callable[[dict[str, Path], object], list[object]], bool]] = {
    "generate": (lambda m, p: ["generate", p, "def"], False),
    "the drafter": (lambda m, p: ["generate", TARGET, "def", "--drafter", p], False),
    "a prompt": (lambda m, p: ["generate", TARGET, "--file", p], True),
    "a schema": (lambda m, p: ["generate", TARGET, "def", "--json-schema", p], True),
    "a grammar": (lambda m, p: ["generate", TARGET, "def", "--grammar", p], True),
    "chat": (lambda m, p: ["chat", p], False),
    "a template": (lambda m, p: ["chat", TARGET, "--template", p], True),
    "a conversation": (lambda m, p: ["chat", TARGET, "--load", p], False),
    "serve": (lambda m, p: ["serve", p, "--port", 0], False),
    "keys": (lambda m, p: ["serve", TARGET, "--port", 0, "--api-key-file", p], True),
    "convert": (lambda m, p: ["convert", p, "out"], False),
    "a tokenizer": (
        lambda m, p: ["convert", m["hf"].parent / "drafter", "out", "--target-dir", p], False,
    ),
    "quantize": (lambda m, p: ["quantize", p, "out", "q8_0"], False),
    "an imatrix": (lambda m, p: ["quantize", m["f32"], "out", "q8_0", "--imatrix", p], False),
    "imatrix": (lambda m, p: ["imatrix", p, m["text"], "-o", "out"], False),
    "its text": (lambda m, p: ["imatrix", TARGET, p, "-o", "out"], True),
    "cluster": (lambda m, p: ["cluster", p, "-o", "out"], False),
    "cluster's text": (
        lambda m, p: ["cluster", m["drafter"], "-o", "out", "--target", TARGET, "--text", p], True,
    ),
    "inspect": (lambda m, p: ["inspect", p], False),
    "a vocabulary": (lambda m, p: ["synth", "e2b", "--out", "out", "--vocab", p], False),
    "bench": (lambda m, p: ["bench", p], False),
    "tune": (lambda m, p: ["tune", p, "--no-save"], False),
    "perplexity": (lambda m, p: ["perplexity", p, m["text"]], False),
    "a text": (lambda m, p: ["perplexity", TARGET, p], True),
    "sweep": (lambda m, p: ["sweep", "--targets", p, "--drafters", DRAFTER], False),
    "sweep's text": (
        lambda m, p: ["sweep", "--targets", TARGET, "--drafters", DRAFTER, "--text", p], True,
    ),
    "gemtp.json": (lambda m, p: ["export", p, "--to", "gemtp"], False),
    "demo": (lambda m, p: ["demo", "--target", p, "--drafter", p], False),
}  # fmt: skip


@posix
@pytest.mark.parametrize("name", READERS)
def test_inputs_that_are_no_files(gemtp_main, material, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    argv, pipes = READERS[name]
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty folder").mkdir()
    for path in ("/dev/zero", "empty folder", "pipe"):
        code, out, err = gemtp_main(*argv(material, path))
        if path == "pipe" and pipes:  # nobody writes to it: it is empty
            assert "Traceback" not in err
            continue
        assert code in (1, 2)
        assert out == ""
        assert is_one_error(err), err
        assert path in err
    assert sorted(os.listdir(tmp_path)) == ["empty folder", "pipe"]


@posix
def test_files_of_a_checkpoint_that_are_pipes(gemtp_main, tmp_path):
    for name in ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json"):
        folder = checkpoints.committed("12b", tmp_path / name) / "target"
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        gemtp_main("convert", folder, tmp_path / "out")  # a pipe is as good as nothing


@posix
def test_sessions_profiles_and_tokenizers_that_are_no_files(tmp_path):
    model = gemtp.Model(TARGET, threads=1, context=64)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(FileError, match="a pipe"):
            model.restore(path)
        with pytest.raises(FileError):
            gemtp.Tokenizer(path)


@posix
def test_texts_from_pipes(tmp_path):
    """`gemtp generate --file <(command)`, and no more of it than makes sense."""
    command = [sys.executable, "-m", "gemtp_native", "generate", TARGET, "--max-tokens", "1"]

    def run(source: str, *args: object) -> subprocess.CompletedProcess:
        shell = subprocess.Popen(["sh", "-c", source], stdout=subprocess.PIPE)
        try:
            return subprocess.run([*command, *args], stdin=shell.stdout, capture_output=True,
                                  text=True, timeout=60)  # fmt: skip
        finally:
            shell.stdout.close()
            shell.wait()

    for way in (["--file", "/dev/stdin"], ["-"]):
        assert run("printf 'def f'", *way).returncode == 0
        process = run("cat /dev/zero", *way)
        assert process.returncode == 1
        assert "is too large: it has more than 16,777,216 bytes" in process.stderr
        assert is_one_error(process.stderr)


@posix
@pytest.mark.parametrize("end", ["\\", ""], ids=ascii)
@pytest.mark.parametrize("begin", ["", '"""'], ids=ascii)
def test_messages_without_end(begin, end):
    """Of one line, of lines that go on, and of a quotation."""
    line = "x" * 10_000 + end
    source = f"printf %s '{begin}'; " + (f"yes '{line}'" if begin or end else "cat /dev/zero")
    shell = subprocess.Popen(["sh", "-c", source], stdout=subprocess.PIPE)
    command = [sys.executable, "-m", "gemtp_native", "chat", TARGET, "--lines"]
    process = subprocess.run(command, stdin=shell.stdout, capture_output=True, text=True)
    shell.stdout.close()
    shell.wait()
    assert process.returncode == 1
    assert "standard input has a message of more than 16,777,216 characters" in process.stderr
    assert is_one_error(process.stderr)


def test_files_of_any_size(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FileError, match="it has more than 1,000 bytes"):
        read_input(tmp_path / "sparse", 1000)
    (tmp_path / "small").write_bytes(b"x" * 1000)
    assert read_input(tmp_path / "small", 1000) == b"x" * 1000
