"""The fuzz targets in Python, without a fuzzer: what was found once, and a few random inputs."""

from __future__ import annotations

import importlib
import json
import random
from pathlib import Path

import pytest

from harness import TARGETS, Choices

FUZZ = Path(__file__).parents[1] / "fuzz"


@pytest.mark.parametrize("target", TARGETS)
def test_inputs(target, monkeypatch, tmp_path):
    monkeypatch.setenv("GEMTP_CACHE_DIR", str(tmp_path))
    one_input = importlib.import_module(f"fuzz_{target}").one_input
    found = sorted((FUZZ / "found" / target).glob("*"))
    inputs = [path.read_bytes() for path in found]
    chosen = random.Random(target)
    inputs += [chosen.randbytes(chosen.choice([8, 60, 300])) for _ in range(60)]
    for data in inputs:
        one_input(data)


def test_inputs_choose_what_is_edited():
    """None of it without edits, the same for the same bytes, and all sorts for others."""
    sound = {"a": [1, {"b": "c"}], "d": None}
    assert Choices(b"").edited(sound, 0) == sound
    chosen = random.Random(1)
    inputs = [chosen.randbytes(30) for _ in range(200)]
    edited = [json.dumps(Choices(data).edited(sound, 2)) for data in inputs]
    assert edited == [json.dumps(Choices(data).edited(sound, 2)) for data in inputs]
    assert len(set(edited)) > 100
