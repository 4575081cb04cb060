"""The examples of docs/python.md run, one after the other, as they stand."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

MANUAL = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.fixture
def logging_as_it_was():
    logger = logging.getLogger("gemtp_native")
    level, handlers = logger.level, list(logging.root.handlers)
    yield
    logger.setLevel(level)
    for handler in set(logging.root.handlers) - set(handlers):
        logging.root.removeHandler(handler)


@pytest.mark.skipif(not MANUAL.exists(), reason="the manual is not beside the tests")
def test_the_examples(tmp_path, monkeypatch, logging_as_it_was):
    monkeypatch.chdir(tmp_path)
    text = MANUAL.read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(examples) > 8
    names: dict[str, object] = {}
    for example in examples:
        line = text[: text.index(example)].count("\n")
        exec(compile("\n" * line + example, str(MANUAL), "exec"), names)
