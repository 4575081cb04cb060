"""Shared code of plots. They need `pip install 'gemtp-native[plot]'`."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from ..base.whole_file import replacing
from ..errors import ArgumentError

_FORMATS = ("png", "pdf", "svg", "jpg", "webp")


def check_plot(path: str | os.PathLike[str]) -> None:
    """Raises ArgumentError unless plot() could write to `path`; called before hours of measuring.
    It does not import the plotting library, so that this does not affect the measurements."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ArgumentError(
            "a plot needs matplotlib; install it with: pip install 'gemtp-native[plot]'"
        )
    if _format(path) not in _FORMATS:
        raise ArgumentError(
            f"the plot's name {os.fspath(path)!r} must end in .{', .'.join(_FORMATS)}"
        )


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Saves a matplotlib figure, completely or not at all."""
    with replacing(path) as file:
        figure.savefig(file, format=_format(path), dpi=150)


def _format(path: str | os.PathLike[str]) -> str:
    return os.path.splitext(os.fspath(path))[1].lstrip(".").lower()
