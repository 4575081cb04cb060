"""Detects files that a failed download leaves under a model's name."""

from __future__ import annotations

from pathlib import Path

from ..errors import FileError

_POINTERS = {
    b"version https://git-lfs.github.com/": "Git LFS pointer, which only names the file: fetch the "
    "file itself (git lfs pull), or download it",
    b"/annex/objects/": "git-annex pointer, which only names the file: fetch the file itself (git "
    "annex get), or download it",
    b"# xet version": "pointer of Xet, which only names the file: download the file itself",
}
_PAGES = (b"<!doctype", b"<html", b"<!--", b"<?xml", b"<error")
_REFUSALS = (b'{"error', b"entry not found", b"access to model", b"invalid username or password")


def refuse_impostor(path: Path) -> None:
    """Raises FileError if the file, which could not be read, only points to one, or is a web page
    or what a server says instead of sending it."""
    try:
        with path.open("rb") as handle:
            start = handle.read(512)
    except OSError:
        return
    for beginning, what in _POINTERS.items():
        if start.startswith(beginning):
            raise FileError(f"{path} is a {what}.")
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.lower().startswith(_PAGES):
        raise FileError(
            f"{path} is a web page, not the file: download it by the link to the file itself."
        )
    if text.lower().startswith(_REFUSALS):
        said = " ".join(text.decode("utf-8", "replace").split())[:100]
        raise FileError(
            f"{path} is an answer of a server that refused the file ({said!r}): download it again, "
            f"with the access that it needs."
        )
