"""tools/check_identity.py: texts that do not depend on how they came about, and one that does."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

import gemtp_native as gemtp

TOOL = Path(__file__).resolve().parents[2] / "tools" / "check_identity.py"


@pytest.fixture
def tool(monkeypatch):
    if not TOOL.is_file():
        pytest.skip("tools/ is not here")
    spec = importlib.util.spec_from_file_location("check_identity", TOOL)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "check_identity", module)
    spec.loader.exec_module(module)
    return module


def test_texts_are_equal(tool, capsys):
    assert tool.main(["--texts", "30", "--seed", "3"]) == 0
    line = capsys.readouterr().out
    assert int(line.split()[0]) >= 30
    for way in tool.WAYS:
        assert way in line


@pytest.mark.parametrize("way", ["stream", "cancel"])
def test_a_difference_is_shown(tool, monkeypatch, capsys, way):
    in_company = tool._in_company

    def wrong(model, case):
        tokens = in_company(model, case)
        return [tokens[0] + 1, *tokens[1:]] if case.way == way and tokens else tokens

    monkeypatch.setattr(tool, "_in_company", wrong)
    assert tool.main(["--texts", "200", "--seed", "3"]) == 1
    case, line = capsys.readouterr().out.splitlines()
    shown = json.loads(case)
    assert shown["case"]["way"] == way
    assert shown["alone"][0] + 1 == shown["found"][0]
    assert line.endswith(": DIFFERENT")


def test_errors_are_one_line(tool, tmp_path, capsys):
    assert tool.main([str(tmp_path / "none.gguf"), "--texts", "1"]) == 1
    assert capsys.readouterr().err.startswith("check_identity: error: ")


def test_the_shipped_pair_is_taken(tool):
    checker = tool.Checker(*gemtp.demo_models(), seed=0)
    checker.batch()
    assert checker.counts["tokens"] > 0
