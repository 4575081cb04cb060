"""Replaces draft="auto" by a number for engines that need one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..profile import Profile, best_depth, load
from .configuration import Configuration

DEFAULT_DEPTH = 3
DEFAULT_ACCEPTANCE = 0.75


@dataclass(frozen=True)
class Depth:
    """The number of drafts per round, and where it comes from."""

    value: int
    source: Literal["configuration", "profile", "default"]
    reason: str = ""  # part of a sentence; for values not from the configuration


def depth_of(configuration: Configuration, acceptance: float = DEFAULT_ACCEPTANCE) -> Depth:
    """Returns the depth. acceptance: share of drafts that are right, with which a saved profile
    gives the best depth."""
    if configuration.drafter is None:
        return Depth(0, "configuration")
    if configuration.draft != "auto":
        return Depth(configuration.draft, "configuration")
    saved, why = _profile(configuration)
    if saved is None:
        return Depth(DEFAULT_DEPTH, "default", f"{DEFAULT_DEPTH}, because {why}")
    value = best_depth(saved, acceptance)
    return Depth(
        value,
        "profile",
        f"{value}, which is best in gemtp on this machine (gemtp tune) if {acceptance:.0%} of the "
        f"drafts are right (--acceptance)",
    )


def _profile(c: Configuration) -> tuple[Profile | None, str]:
    """Returns the profile of this pair on this machine, or why there is none."""
    drafter = c.drafter.gguf if c.drafter is not None else None
    if c.target.gguf is None or drafter is None:
        return None, "there are no GGUF files that gemtp tune could have measured"
    from ..model import system_info

    info = system_info()
    threads = info["threads"] if c.threads is None else c.threads
    saved, why = load(c.target.gguf, drafter, threads, c.kv_type, info["isa"])
    return saved, why or "gemtp tune has saved no profile of the GGUF files"
