"""tools/bench_depth.py on the shipped pair."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from statistics import median

import pytest

import gemtp_native as gemtp

TOOL = Path(__file__).parent.parent.parent / "tools" / "bench_depth.py"
TARGET, DRAFTER = map(str, gemtp.demo_models())


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("bench_depth", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(tool, capsys, *args) -> tuple[int, str, str]:
    try:
        code = tool.main([str(arg) for arg in args])
    except SystemExit as e:  # argparse
        code = e.code
    out = capsys.readouterr()
    return code, out.out, out.err


def test_figures(tool, capsys):
    args = (TARGET, DRAFTER, DRAFTER, "--depths", "1,4", "--tokens", 40, "--runs", 2, "--json")
    code, out, _ = call(tool, capsys, *args)
    report = json.loads(out)
    assert code == 0
    assert report["identical"] is True
    assert (report["tokens"], report["runs"], len(report["workloads"])) == (40, 2, 2)
    for workload in report["workloads"]:
        rates = workload["tokens_per_second"]
        assert list(rates) == ["0", "1", "4", "auto"]
        assert all(rate > 0 for rate in rates.values())
        texts = workload["texts"]
        assert len(texts) == 2
        assert rates == {depth: median(text[depth] for text in texts) for depth in rates}
        assert rates[workload["best"]] == max(rates[depth] for depth in ("0", "1", "4"))
        for figure, base in (("over_best", workload["best"]), ("over_plain", "0")):
            assert workload[figure] == median(text["auto"] / text[base] for text in texts)
        assert sum(workload["auto_depths"]) > 0


def test_table(tool, capsys):
    code, out, _ = call(tool, capsys, TARGET, DRAFTER, "--depths", 2, "--tokens", 20, "--runs", 1)
    assert code == 0
    assert "drafter.gguf" in out
    assert "All texts are the same." in out


def test_texts_that_differ_are_an_error(tool, capsys, monkeypatch):
    monkeypatch.setattr(tool.TextStream, "tokens", property(lambda self: [id(self)]))
    code, out, _ = call(tool, capsys, TARGET, DRAFTER, "--depths", 2, "--tokens", 20, "--runs", 1)
    assert code == 1
    assert "TEXTS DIFFER" in out


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ((TARGET, DRAFTER, "--depths", "16"), 2, "depths are 1 to 15"),
        ((TARGET, DRAFTER, "--depths", "2,x"), 2, "depths are 1 to 15"),
        ((TARGET, DRAFTER, "--tokens", "0"), 2, "at least 1"),
        ((TARGET, "none.gguf"), 1, "none.gguf"),
        ((TARGET, TARGET), 1, "drafter"),
    ],
    ids=str,
)
def test_bad_arguments(tool, capsys, args, code, words):
    got, out, err = call(tool, capsys, *args)
    assert (got, out) == (code, "")
    assert words in err
    assert "Traceback" not in err
