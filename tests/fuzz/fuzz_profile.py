"""Saved profiles of a machine: a file of any content is used or ignored with a sentence, and never
keeps a model from opening."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import gemtp_native as gemtp
from gemtp_native.profile import FORMAT, Costs, Profile, best_depth, conditions, load, path_of
from harness import Choices, check_sentence, folder


@cache
def _sound() -> tuple[Path, Any]:
    """Where the profile of the shipped pair lies, and what would be used."""
    os.environ["GEMTP_CACHE_DIR"] = str(folder() / "cache")
    target, drafter = gemtp.demo_models()
    path = path_of(target, drafter, 1, "f16")
    path.parent.mkdir(parents=True, exist_ok=True)
    costs = Costs([(1, 0, 0.01), (2, 0, 0.011), (4, 512, 0.013)], [(1, 0, 0.001)])
    profile = Profile("2020-01-01", conditions(target, drafter, 1, "f16", "avx2"), costs, 1e10)
    return path, {"format": FORMAT, **asdict(profile)}


def one_input(data: bytes) -> None:
    c = Choices(data)
    path, sound = _sound()
    if c.below(4) == 0:
        path.write_bytes(c.rest())
    else:
        path.write_text(json.dumps(c.edited(sound, c.below(4))), encoding="utf-8")
    target, drafter = gemtp.demo_models()
    profile, why = load(target, drafter, 1, "f16", "avx2")
    if profile is None:
        check_sentence(why)
    else:
        assert why is None
        assert 0 <= best_depth(profile, 0.7) <= 15
