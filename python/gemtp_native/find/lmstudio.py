"""Models in LM Studio's folder: publisher/name/file.gguf."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..base.input_file import read_text_input
from ..errors import FileError
from . import check_name
from .choose import candidates, check_wish, choose

_MOST_BYTES = 1 << 16  # size limit of a file with a path


def model_in(name: str, role: str = "target") -> Path:
    """Returns the file of "publisher/name" or "publisher/name:Q4_0"."""
    model, colon, wanted = name.partition(":")
    pieces = check_name(model, "a model of LM Studio's (publisher/name)", 2)
    for root in roots():
        folder = root.joinpath(*pieces)
        if folder.is_dir():
            files = {p.name: p.stat().st_size for p in folder.iterdir() if p.is_file()}
            wish = check_wish(wanted) if colon else None
            return folder / choose(candidates(files), wish, role, f"lmstudio:{model}").name
    raise FileError(f"LM Studio has no {model} in {' or '.join(map(str, roots()))}.")


def roots() -> list[Path]:
    """LM Studio's folder, which may be moved by a file in its home, and that of older versions."""
    home = Path.home()
    found = [home / ".lmstudio/models", home / ".cache/lm-studio/models"]
    pointer = home / ".lmstudio-home-pointer"
    with contextlib.suppress(FileError):
        found.insert(0, Path(read_text_input(pointer, _MOST_BYTES, pipe=False).strip()) / "models")
    return list(dict.fromkeys(found))
