"""tools/bench_serve.py against a stand-in for llama.cpp's server."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from test_bench_peers import DRAFTER, TARGET, Fake, fake  # noqa: F401

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tools"))

import bench_serve  # noqa: E402

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX processes")


@pytest.fixture(autouse=True)
def needs_the_extra():
    pytest.importorskip("uvicorn")


def test_figures(fake: Fake, capsys):  # noqa: F811
    arguments = [*fake.arguments(), "--clients", "1,3", "--requests", "2", "--plain", "--json"]
    assert bench_serve.main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["failed"] == {}
    names = {(f["side"], f["drafts"], f["clients"]) for f in report["figures"]}
    assert names == {
        (side, drafts, n)
        for side, drafts in (
            ("gemtp", "auto"), ("gemtp", "plain"), ("llama.cpp", "3 drafts"), ("llama.cpp", "plain")
        )
        for n in (1, 3)
    }  # fmt: skip
    for f in report["figures"]:
        assert f["tokens_per_second"] > 0
        assert (f["accepted"] is None) == (f["drafts"] == "plain")
    assert set(report["ratios"]) == {"1", "3"}
    started = fake.started
    assert [s["np"] for s in started] == [3, 3]
    assert [s["c"] for s in started] == [3 * 256] * 2
    assert {s["spec_type"] for s in started} == {None, "draft-mtp"}
    shown = bench_serve.text(report)
    assert max(map(len, shown.splitlines()[:12])) <= 100
    assert "best over best" in shown


def test_a_peer_that_fails_is_said(fake: Fake, capsys):  # noqa: F811
    assert bench_serve.main([*fake.arguments(fake="crashes"), "--clients", "1"]) == 0
    assert "llama.cpp, 3 drafts: a server gave no answer" in capsys.readouterr().out
    assert bench_serve.main([*fake.arguments(), "--llama-server", "/no/such"]) == 1
    assert "cannot be run" in capsys.readouterr().err


def test_gemtp_alone(capsys):
    arguments = [str(TARGET), str(DRAFTER), "--only-own", "--clients", "1,2", "--tokens", "8"]
    assert bench_serve.main([*arguments, "--runs", "1", "--threads", "1", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "gemtp, auto" in out
    assert "llama.cpp" not in out
