"""Detects files that a failed download leaves under a model's name."""

from __future__ import annotations

from pathlib import Path

from ..errors import FileError

_LFS = b"version https://git-lfs.github.com/"
_PAGES = (b"<!doctype html", b"<html")


def refuse_impostor(path: Path) -> None:
    """Raises FileError if the file, which could not be read, is a Git LFS pointer or a web page."""
    try:
        with path.open("rb") as handle:
            start = handle.read(512)
    except OSError:
        return
    if start.startswith(_LFS):
        raise FileError(
            f"{path} is a Git LFS pointer, which only names the file: fetch the file itself "
            f"(git lfs pull), or download it."
        )
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGES):
        raise FileError(
            f"{path} is a web page, not the file: download it by the link to the file itself."
        )
