"""What lies under a file's name when a download went wrong."""

from __future__ import annotations

from pathlib import Path

from ..errors import FileError

_LFS = b"version https://git-lfs.github.com/"
_PAGES = (b"<!doctype html", b"<html")


def refuse_impostor(path: Path) -> None:
    """FileError for a Git LFS pointer or a web page in place of a file that cannot be read as what
    it should be. What else may be wrong with it, reading it says."""
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
