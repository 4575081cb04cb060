"""tools/soak.py, for a moment; and that it notices what it looks for."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "soak.py"
SHORT = ["--requests", "40", "--clients", "4", "--questions", "6", "--seed", "2"]


@pytest.fixture
def tool(monkeypatch):
    pytest.importorskip("uvicorn")
    if not TOOL.is_file() or sys.platform != "linux":
        pytest.skip("tools/ is not here, or /proc is not")
    spec = importlib.util.spec_from_file_location("soak", TOOL)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "soak", module)
    spec.loader.exec_module(module)
    return module


def test_soak(tool, capsys):
    assert tool.main(SHORT) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    requests, texts = re.match(r"(\d+) requests .*, (\d+) texts compared", out).groups()
    assert int(requests) >= 40
    assert int(texts) > 5
    for way in ("wait", "stream", "vanish", "dawdle", "wrong"):
        assert way in out
    assert "file descriptors" in out


def test_a_text_that_differs_is_noticed(tool, monkeypatch, capsys):
    asked = tool.questions

    def others(server, count, seed):
        return [
            tool.Question(q.body, [f"{t}." for t in q.texts]) for q in asked(server, count, seed)
        ]

    monkeypatch.setattr(tool, "questions", others)
    assert tool.main(SHORT) == 1
    assert "FAILED: " in (out := capsys.readouterr().out)
    assert ", alone [" in out


def test_what_is_left_is_noticed(tool, monkeypatch, capsys):
    monkeypatch.setattr(tool, "MOST_GROWTH", -(1 << 40))
    assert tool.main(SHORT) == 1
    assert "FAILED: memory grew" in capsys.readouterr().out


def test_wrong_answers_are_noticed(tool, monkeypatch, capsys):
    monkeypatch.setattr(tool, "WRONG", [(418, b"{")])
    assert tool.main(SHORT) == 1
    assert "FAILED: wrong: b'{' gives 400" in capsys.readouterr().out
