"""tools/bench_cancel.py on the shipped pair."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tools"))

import bench_cancel  # noqa: E402

SMALL = ["--prompt", "600", "--tokens", "300", "--trials", "3"]


def test_figures(capsys: pytest.CaptureFixture[str]):
    assert bench_cancel.main([*SMALL, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["prompt_tokens"] == 600
    assert set(report["seconds"]) == {"prefill", "decoding"}
    for s in report["seconds"].values():
        assert 0 <= s["median"] <= s["most"] < 5


def test_table(capsys: pytest.CaptureFixture[str]):
    assert bench_cancel.main(SMALL) == 0
    table = capsys.readouterr().out
    assert "prefill" in table
    assert "decoding" in table


def test_bad_arguments(capsys: pytest.CaptureFixture[str]):
    assert bench_cancel.main(["missing.gguf"]) == 1
    assert "missing.gguf" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        bench_cancel.main(["--trials", "0"])
    assert "--trials" in capsys.readouterr().err
