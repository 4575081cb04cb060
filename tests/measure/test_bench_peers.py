"""tools/bench_peers.py against a stand-in for llama.cpp's server: the figures, and that no process
stays behind whatever goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gemtp_native as gemtp

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import bench_peers  # noqa: E402

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX processes")

TARGET, DRAFTER = gemtp.demo_models()


class Fake:
    def __init__(self, folder: Path):
        self.journal = folder / "journal"
        self.program = folder / "llama-server"
        script = Path(__file__).parent.parent / "support" / "fake_llama_server.py"
        self.program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        self.program.chmod(0o755)

    @property
    def started(self) -> list[dict]:
        if not self.journal.exists():
            return []
        return [json.loads(line) for line in self.journal.read_text().splitlines()]

    def alive(self) -> list[int]:
        return [s["pid"] for s in self.started if Path(f"/proc/{s['pid']}").exists()]

    def arguments(self, *args: object, fake: str = "") -> list[str]:
        extra = f"--journal {self.journal}" + (f" --fake {fake}" if fake else "")
        return [
            *map(str, args or (TARGET, DRAFTER)), "--llama-server", str(self.program),
            "--server-args", extra, "--tokens", "8", "--threads", "1", "--quiet",
            *([] if "--runs" in args else ["--runs", "1"]),
        ]  # fmt: skip


@pytest.fixture
def fake(tmp_path):
    fake = Fake(tmp_path)
    yield fake
    assert fake.alive() == []


def call(capsys, *args: str) -> tuple[int, str, str]:
    try:
        code = bench_peers.main(list(args))
    except SystemExit as e:  # argparse
        code = e.code
    out = capsys.readouterr()
    return code, out.out, out.err


def by_name(report: dict) -> dict[str, dict]:
    return {f["figure"]: f for f in report["figures"]}


def test_figures(fake, capsys):
    args = fake.arguments(
        TARGET, DRAFTER, "--depths", "3,1", "--contexts", 100, "--json", "--runs", 2
    )
    code, out, err = call(capsys, *args)
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["failed"] == {}
    assert report["llama.cpp"]["version"] == "version: 12345 (fake)"
    figures = by_name(report)
    plain = figures["plain decoding"]
    assert plain["llama.cpp"] == pytest.approx(100)
    assert plain["ratio"] == pytest.approx(plain["gemtp"] / 100)
    assert len(plain["runs"]["llama.cpp"]) == len(plain["runs"]["gemtp"]) == 2
    assert figures["prefill of 512"]["llama.cpp"] == pytest.approx(500)
    assert figures["plain decoding behind 100"]["llama.cpp"] == pytest.approx(100)
    assert figures["prefill of 100"]["gemtp"] > 0
    assert figures["ready to generate"]["better"] == "lower"
    assert figures["3 drafts"]["llama.cpp"] == pytest.approx(130)
    assert figures["3 drafts"]["accepted"]["llama.cpp"] == pytest.approx(0.3)
    assert 0 < figures["3 drafts"]["accepted"]["gemtp"] <= 1
    assert figures["auto drafts"]["llama.cpp"] is None
    assert figures["auto drafts"]["gemtp"] > 0

    best = figures["best fixed depth"]
    assert best["llama.cpp"] == pytest.approx(130)
    assert best["depth"]["llama.cpp"] == 3
    own = max((figures[f"{k} drafts"]["gemtp"], k) for k in (1, 3))
    assert (best["gemtp"], best["depth"]["gemtp"]) == own
    gain = figures["best fixed depth over own plain"]
    assert gain["llama.cpp"] == pytest.approx(1.3)
    assert gain["gemtp"] == pytest.approx(own[0] / plain["gemtp"])
    if sys.platform == "linux":
        memory = figures["peak resident memory"]
        assert 0.001 < memory["llama.cpp"] < 1
        assert 0.01 < memory["gemtp"] < 1


def test_servers_get_the_same_conditions(fake, capsys):
    call(capsys, *fake.arguments(TARGET, DRAFTER, "--depths", "2,5", "--runs", 2))
    started = fake.started
    assert [s["spec_draft_n_max"] for s in started] == [0, 2, 5, 5, 2, 0]  # back and forth
    for s in started:
        assert (s["t"], s["tb"], s["np"], s["host"]) == (1, 1, 1, "127.0.0.1")
        assert s["c"] == 768  # 512 and what follows, in whole 256s
        assert s["model"] == str(TARGET)
        assert s["spec_draft_model"] == (str(DRAFTER) if s["spec_draft_n_max"] else None)
        assert s["no_ui"]
        assert s["cache_ram"] == 0


def test_table(fake, capsys):
    code, out, _ = call(capsys, *fake.arguments(TARGET, DRAFTER, "--depths", 1))
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    for words in ("plain decoding", "prefill of 512", "best fixed depth", "1 interleaved round."):
        assert words in out


def test_without_drafter(fake, capsys):
    code, out, _ = call(capsys, *fake.arguments(TARGET, "--json"))
    assert code == 0
    report = json.loads(out)
    assert report["drafter"] is None
    assert not any("draft" in f["figure"] for f in report["figures"])
    assert len(fake.started) == 1


def test_server_without_mtp(fake, capsys, monkeypatch):
    monkeypatch.setenv("FAKE_NO_MTP", "1")
    code, out, _ = call(capsys, *fake.arguments(TARGET, DRAFTER, "--depths", 1, "--json"))
    assert code == 0
    report = json.loads(out)
    assert "no MTP" in report["failed"]["llama.cpp, with drafter"]
    assert by_name(report)["1 drafts"]["llama.cpp"] is None
    assert by_name(report)["best fixed depth"]["ratio"] is None
    assert not fake.started[0]["no_ui"]  # an option that this version does not have


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("dies", "the model does not please me"),
        ("crashes", "out of luck"),
        ("refuses", "answered 400"),
        ("short", "7 tokens where 8 were asked for"),
        ("never", "not ready within 1 seconds"),
        ("hangs", "no answer in 8 seconds"),
    ],
)
def test_failures(fake, capsys, mode, words):
    """Of the plain server: an error. Of one with the drafter: the rest is still compared."""
    args = fake.arguments(TARGET, DRAFTER, "--depths", 1, "--json", fake=mode)
    if mode in ("never", "hangs"):
        args += ["--timeout", "1" if mode == "never" else "8"]
    code, out, err = call(capsys, *args)
    assert (code, out) == (1, "")
    assert err.startswith("bench_peers: error: llama-server ")
    assert words in err
    assert err.count("\n") == 1
    assert fake.alive() == []
    if mode in ("never", "hangs"):
        return  # the own side could be too slow for that
    args = fake.arguments(TARGET, DRAFTER, "--depths", "1,2", "--json", fake=f"drafter:{mode}")
    code, out, err = call(capsys, *args)
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert words in report["failed"]["llama.cpp, 1 drafts"]
    assert by_name(report)["plain decoding"]["ratio"] > 0
    assert by_name(report)["1 drafts"]["llama.cpp"] is None


def test_own_side_is_told_what_is_wrong(fake, capsys, tmp_path):
    for args, words in (
        ([tmp_path / "missing.gguf"], "missing.gguf"),
        ([TARGET, tmp_path / "missing.gguf"], "missing.gguf"),
        ([TARGET, TARGET, "--depths", 1], "holds a target, not a drafter"),
        ([TARGET, "--contexts", "2040"], "2048"),
    ):
        code, out, err = call(capsys, *fake.arguments(*args))
        assert (code, out) == (1, "")
        assert words in err
        assert err.count("\n") == 1


def test_a_model_that_does_not_fit_into_memory(fake, capsys, monkeypatch):
    from gemtp_native import _core

    monkeypatch.setattr(_core, "available_memory", lambda: 5_000_000)
    code, out, err = call(capsys, *fake.arguments(TARGET, DRAFTER))
    assert (code, out) == (1, "")
    assert "there are 0.01 GB" in err
    assert fake.started == []
    assert err.count("\n") == 1


def test_no_server(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, err = call(capsys, str(TARGET))
    assert (code, out) == (1, "")
    assert "not on PATH" in err
    code, out, err = call(capsys, str(TARGET), "--llama-server", str(tmp_path / "none"))
    assert (code, out) == (1, "")
    assert "cannot be run" in err


@pytest.mark.parametrize(
    "args", [[], ["t", "--depths", "0"], ["t", "--depths", "16"], ["t", "--runs", "x"]], ids=str
)
def test_wrong_usage(capsys, args):
    code, out, err = call(capsys, *args)
    assert (code, out) == (2, "")
    assert err.startswith("usage:")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_half_way(fake, number):
    """The server that is running then ends too, also one that does not want to."""
    process = subprocess.Popen(
        [sys.executable, ROOT / "tools" / "bench_peers.py", *fake.arguments(fake="hangs")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    deadline = time.monotonic() + 60
    while not fake.started and time.monotonic() < deadline:
        time.sleep(0.05)
    assert fake.started
    time.sleep(0.5)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == (143 if number == signal.SIGTERM else 130)
    assert (out, err) == (b"", b"")


def test_a_process_that_ignores_its_end_is_killed(fake, capsys, monkeypatch):
    import peers

    monkeypatch.setattr(peers, "PATIENCE", 0.5)
    code, _, err = call(capsys, *fake.arguments(TARGET, fake="stays"))
    assert (code, err) == (0, "")


def test_own_side_times_out():
    import peers

    with (
        pytest.raises(peers.PeerError, match="no answer in 0.01 seconds"),
        peers.start_own(TARGET, 1, 256, timeout=0.01),
    ):
        pass
