"""Profiles: measured costs of passes on a machine, saved in a file."""

from __future__ import annotations

from .file import (
    FORMAT,
    Conditions,
    Costs,
    FileIdentity,
    Profile,
    best_depth,
    check_folder,
    conditions,
    difference,
    expected_speed,
    expected_tokens,
    folder,
    identify,
    load,
    path_of,
    round_seconds,
    save,
    use,
)

__all__ = [
    "FORMAT",
    "Conditions",
    "Costs",
    "FileIdentity",
    "Profile",
    "best_depth",
    "check_folder",
    "conditions",
    "difference",
    "expected_speed",
    "expected_tokens",
    "folder",
    "identify",
    "load",
    "path_of",
    "round_seconds",
    "save",
    "use",
]
