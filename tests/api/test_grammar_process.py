"""The process that tries grammars: what it is given, how it ends, and that another one follows."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import gemtp_native as gemtp
from gemtp_native.base import limited_process
from gemtp_native.grammar import Grammars, helper, source_of
from process_tree import children

pytest.importorskip("llguidance")
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


@pytest.fixture(scope="module")
def model() -> gemtp.Model:
    return gemtp.Model(gemtp.demo_models()[0], threads=1, context=256)


def process_of(grammars: Grammars) -> limited_process.LimitedProcess:
    assert grammars._helper is not None
    (process,) = grammars._helper._pool._idle
    return process


def compiles(model: gemtp.Model, grammars: Grammars, regex: str) -> bool:
    return grammars.constraint(model._engine, source_of(regex=regex)) is not None


@linux
def test_it_is_given_nothing(model, monkeypatch):
    monkeypatch.setenv("SECRET", "sesame")
    held, _ = os.pipe()
    os.set_inheritable(held, True)
    grammars = Grammars()
    assert compiles(model, grammars, "a")
    pid = process_of(grammars)._popen.pid
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert {e.partition(b"=")[0] for e in environment} <= {b"", b"TZ", b"LD_LIBRARY_PATH"}
    files = [os.readlink(f) for f in Path(f"/proc/{pid}/fd").iterdir()]
    assert all(f.startswith("pipe:") or f == "/dev/null" for f in files)
    assert os.readlink(f"/proc/self/fd/{held}") not in files
    os.close(held)
    assert os.getpgid(pid) != os.getpgid(0)  # Ctrl-C is not for it
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert "Max core file size        0 " in limits
    assert "Max file size             0 " in limits


def test_one_is_used_again_and_replaced_when_it_has_ended(model):
    grammars = Grammars()
    assert compiles(model, grammars, "a")
    first = process_of(grammars)
    assert compiles(model, grammars, "b")
    assert process_of(grammars) is first
    first._popen.kill()
    first._popen.wait()
    assert compiles(model, grammars, "c")
    assert process_of(grammars) is not first


@linux
def test_it_ends_with_its_model():
    before = children()
    grammars = Grammars()
    model = gemtp.Model(gemtp.demo_models()[0], threads=1, context=256)
    assert compiles(model, grammars, "a")
    assert len(children()) > len(before)
    del grammars
    assert children() == before


def test_a_late_one_is_refused(model, monkeypatch):
    monkeypatch.setattr(helper, "_PATIENCE", 0.0)
    with pytest.raises(gemtp.ArgumentError, match="or it takes too long; make it simpler"):
        compiles(model, Grammars(), "(a|b)c?" * 100_000)  # takes longer than to end the process


def test_one_that_does_not_start_is_not_done_without(model, monkeypatch, tmp_path):
    (tmp_path / "ends.py").write_text("")
    monkeypatch.setattr(limited_process, "_MAIN", tmp_path / "ends.py")
    with pytest.raises(gemtp.ArgumentError, match="tries grammars cannot be started"):
        compiles(model, Grammars(), "a")


def test_where_there_is_no_interpreter_grammars_are_compiled_without(
    model, monkeypatch, tmp_path, caplog
):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "app"))
    monkeypatch.setattr(sys, "_base_executable", str(tmp_path / "app"), raising=False)
    monkeypatch.setattr(sys, "base_exec_prefix", str(tmp_path))
    grammars = Grammars()
    assert compiles(model, grammars, "a")
    assert compiles(model, grammars, "b")
    (record,) = caplog.records
    assert "no process can be started to try grammars in (there is no interp" in record.getMessage()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_has_one_of_its_own():
    code = """
    import os, sys
    import gemtp_native as g
    model = g.Model(g.demo_models()[0], threads=1, context=256)
    assert model.generate("x", regex="[0-9]{3}").text.isdigit()
    (process,) = model._grammars._helper._pool._idle
    pid = os.fork()
    assert model.generate("x", regex=f"[0-9]{{4}}{pid}").text.endswith(str(pid))
    if pid == 0:
        sys.exit(model._grammars._helper._pool._idle[0]._popen.pid == process._popen.pid)
    assert os.waitpid(pid, 0)[1] == 0
    assert process._popen.poll() is None
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@linux
def test_it_ends_with_the_one_that_started_it():
    code = """
    import gemtp_native as g
    model = g.Model(g.demo_models()[0], threads=1, context=256)
    model.generate("x", regex="[0-9]")
    (process,) = model._grammars._helper._pool._idle
    print(process._popen.pid, flush=True)
    input()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as parent:
        stat = Path(f"/proc/{int(parent.stdout.readline())}/stat")
        assert stat.exists()
        parent.kill()
        parent.wait()
        end = time.monotonic() + 20
        while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < end
            time.sleep(0.02)
