"""The processes that render chat templates: how they start, what they are given, how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import gemtp_native as gemtp
from gemtp_native.base import limited_process
from gemtp_native.chat import sandbox
from gemtp_native.chat.sandbox import Template
from process_tree import children
from shipped import with_unknown_template

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture
def pool(monkeypatch):
    """One without processes."""
    own = limited_process.Pool(sandbox.PROGRAM, sandbox.PROCESSES)
    monkeypatch.setattr(sandbox, "pool", own)
    yield own
    for process in own._idle:
        process.end()


def renders(text: str = "x") -> bool:
    return Template("{{ text }}!").render({"text": text}) == text + "!"


def pid_of(pool) -> int:
    (process,) = pool._idle
    return int(process._popen.pid)


def until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def python(code: str, *lines: str, **options) -> subprocess.CompletedProcess[str]:
    source = "from gemtp_native.chat.sandbox import Template\n" + textwrap.dedent(code)
    command = [sys.executable, "-c", source, *lines]
    return subprocess.run(command, text=True, timeout=120, **options)


def test_one_process_is_used_again_and_again(pool):
    assert renders()
    first = pid_of(pool)
    for refused in ("{{ x.y }}", "{% if %}", "{{ ''.__class__.x }}", "{% import 'os' as os %}"):
        with pytest.raises(gemtp.Error):
            Template(refused).render({})
    assert renders()
    assert pid_of(pool) == first


@linux
def test_one_that_broke_a_bound_leaves_nothing_behind(pool):
    before = children()
    for _ in range(3):
        with pytest.raises(gemtp.ModelError, match="takes longer than"):
            Template(ENDLESS, seconds=0.1).render({})
        with pytest.raises(gemtp.ModelError, match="needs more than 512 MB"):
            Template("{{ 'x' * 10**12 }}").render({})
    assert [pid for pid in children() if pid not in before] == []
    assert renders()


def test_one_that_has_ended_meanwhile_is_replaced(pool):
    assert renders()
    (process,) = pool._idle
    process._popen.kill()
    process._popen.wait()
    assert renders()


def test_many_threads_render_at_once(pool):
    results: list[bool] = []

    def work(i: int) -> None:
        results.extend(renders(f"{i} {j}") for j in range(20))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 240
    assert len(pool._idle) <= sandbox.PROCESSES


def test_a_slow_one_holds_up_no_other(pool):
    assert renders()
    slow = threading.Thread(target=lambda: pytest.raises(gemtp.ModelError, _endless))
    slow.start()
    assert until(lambda: not pool._idle)
    assert renders()
    assert slow.is_alive()
    slow.join()


def _endless() -> None:
    Template(ENDLESS, seconds=5).render({})


@linux
def test_it_is_given_nothing(pool, monkeypatch):
    monkeypatch.setenv("SECRET", "sesame")
    monkeypatch.setenv("TZ", "UTC")
    held, _ = os.pipe()
    os.set_inheritable(held, True)
    assert renders()
    pid = pid_of(pool)
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert {e.partition(b"=")[0] for e in environment} <= {b"", b"TZ", b"LD_LIBRARY_PATH"}
    files = [os.readlink(f) for f in Path(f"/proc/{pid}/fd").iterdir()]
    assert all(f.startswith("pipe:") or f == "/dev/null" for f in files)
    assert os.readlink(held_path := f"/proc/self/fd/{held}") not in files, held_path
    os.close(held)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getpgid(pid) != os.getpgid(0)  # Ctrl-C is not for it
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert "_core" not in maps
    assert "numpy" not in maps


@linux
@pytest.mark.parametrize("busy", [False, True])
def test_it_ends_with_the_one_that_started_it(busy):
    code = f"""
    import threading
    from gemtp_native.chat.sandbox import pool
    Template("x").render({{}})
    (process,) = pool._idle
    print(process._popen.pid, flush=True)
    if {busy}:
        Template({ENDLESS!r}, seconds=2).render({{}})
    input()
    """
    source = "from gemtp_native.chat.sandbox import Template\n" + textwrap.dedent(code)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", source], text=True, **pipes) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(0.5)
        assert not gone(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert until(lambda: gone(pid))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_has_processes_of_its_own():
    code = """
    import os, sys
    from gemtp_native.chat.sandbox import pool
    template = Template("{{ a }}")
    before = {p._popen.pid for p in pool._idle}
    pid = os.fork()
    for i in range(20):
        assert template.render({"a": f"{pid} {i}"}) == f"{pid} {i}"
    after = {p._popen.pid for p in pool._idle}
    if pid == 0:
        sys.exit(bool(before & after))
    assert os.waitpid(pid, 0)[1] == 0
    assert template.render({"a": 1}) == "1"
    assert before == after
    """
    done = python(code, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell closes them")
def test_without_standard_streams(tmp_path):
    code = f"""
    text = Template("{{{{ a }}}}").render({{"a": 1}})
    try:
        Template({ENDLESS!r}, seconds=0.2).render({{}})
    except Exception as e:
        text += str(e)
    text += Template("{{{{ a }}}}").render({{"a": 2}})
    open({str(tmp_path / "out")!r}, "w").write(text)
    """
    source = "from gemtp_native.chat.sandbox import Template\n" + textwrap.dedent(code)
    shell = 'exec "$0" -c "$1" <&- >&- 2>&-'
    subprocess.run(["sh", "-c", shell, sys.executable, source], timeout=120)
    said = "1the chat template takes longer than 0.2 seconds; use another template2"
    assert (tmp_path / "out").read_text() == said


def test_nothing_is_printed_at_the_end():
    done = python("Template('x').render({})", capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = python(
        "import gemtp_native as g; g.Model(*g.demo_models())",
        capture_output=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no such timer")
def test_an_interrupted_rendering_is_left_behind(pool):
    class Interrupt(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupt

    assert renders()
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(Interrupt):
            Template(ENDLESS).render({})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert renders()


def test_where_the_system_bounds_no_memory_it_is_looked_at(pool, monkeypatch):
    monkeypatch.setattr(limited_process, "_footprint", lambda pid: sandbox.MEMORY)
    assert renders()
    asked: list[int] = []
    monkeypatch.setattr(limited_process, "_footprint", lambda pid: asked.append(pid) or 1 << 40)
    pid = pid_of(pool)
    with pytest.raises(gemtp.ModelError, match="needs more than 512 MB of memory"):
        Template(ENDLESS, seconds=60).render({})
    assert asked[0] == pid
    monkeypatch.undo()
    assert renders()


# ---------------------------------------------------------------- what cannot be started


def test_a_program_with_python_in_it(pool, monkeypatch, tmp_path):
    """Its interpreter is found in Python's folder; without one, a sentence says what to do."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "app"))
    monkeypatch.setattr(sys, "_base_executable", str(tmp_path / "app"), raising=False)
    assert renders()
    pool.begin_in_child()
    monkeypatch.setattr(sys, "base_exec_prefix", str(tmp_path))
    with pytest.raises(gemtp.ModelError) as error:
        Template("x", "the chat template of t.gguf")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert str(error.value) == (
        "the chat template of t.gguf runs in a process of its own, and there is no interpreter "
        f"for it beside {tmp_path / 'app'}, so set sys.executable to the path of a Python {version}"
    )
    monkeypatch.setattr(sys, "executable", None)
    with pytest.raises(gemtp.ModelError, match="beside this program"):
        Template("x")


READY = "import sys, time; out = sys.stdout.buffer; out.write(b'\\1' + bytes(7) + b'+'); "
READY += "out.flush(); sys.stdin.buffer.read(100); "
STRANGE = {
    "ends at once": ("", "does not run jinja2"),
    "says nothing": ("import time; time.sleep(60)", "does not run jinja2"),
    "ends in a rendering": (READY, "brings the process down that renders it"),
    "says something else": (
        READY + "print('hello there', flush=True); time.sleep(60)",
        "brings the process",
    ),
    "a huge answer": (READY + "out.write(b'\\xff' * 10**7)", "brings the process down"),
    "no text": (
        READY + "out.write(b'\\4' + bytes(7) + b'+T\\xff\\xfe')",
        "brings the process down",
    ),
    "an empty answer": (READY + "out.write(bytes(8)); out.flush(); time.sleep(60)", "brings the"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_what_one_says_is_not_trusted(pool, monkeypatch, tmp_path, what):
    source, sentence = STRANGE[what]
    with monkeypatch.context() as patch:
        (tmp_path / "strange.py").write_text(source)
        patch.setattr(limited_process, "_MAIN", tmp_path / "strange.py")
        patch.setattr(limited_process, "STARTING", 3.0)
        with pytest.raises(gemtp.ModelError, match=sentence):
            Template("x")
    assert pool._idle == []
    assert renders()


# ---------------------------------------------------------------- early


def test_a_first_chat_finds_one_that_has_started():
    target, drafter = with_unknown_template()
    code = f"""
    import gemtp_native as g
    from gemtp_native.chat import prompt
    from gemtp_native.chat.sandbox import pool
    model = g.Model({str(target)!r}, {str(drafter)!r})
    prompt._early.join()
    (process,) = pool._idle
    for _ in range(3):
        model.chat_prompt([{{"role": "user", "content": "?"}}])
    assert pool._idle == [process]
    assert g.Model({str(target)!r}).chat_prompt([{{"role": "user", "content": "?"}}])
    assert pool._idle == [process]
    """
    done = python(code, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_program_may_end_while_one_starts():
    code = f"import gemtp_native as g; g.Model({str(with_unknown_template()[0])!r})"
    for _ in range(10):
        done = python(code, capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_template_that_is_known_needs_none():
    code = """
    import sys
    import gemtp_native as g
    model = g.Model(*g.demo_models())
    model.chat_prompt([{"role": "user", "content": "?"}])
    sys.exit({"subprocess", "gemtp_native.base.limited_process"} & {*sys.modules} != set())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == 0


def test_what_does_not_chat_starts_none():
    code = """
    import sys
    from gemtp_native.cli import main
    import gemtp_native as g
    assert main(["generate", str(g.demo_models()[0]), "x", "--max-tokens", "1"]) == 0
    sys.exit({"subprocess", "gemtp_native.base.limited_process"} & {*sys.modules} != set())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == 0
