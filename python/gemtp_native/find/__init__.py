"""Finds the files of a model that the user names; see docs/models.md.

path/to/file.gguf, or a folder that has GGUF files
demo: the pair shipped with the package
hf:owner/name, hf:owner/name:Q4_0, hf:owner/name:folder/file.gguf
ollama:name, ollama:name:tag
lmstudio:publisher/name, lmstudio:publisher/name:Q4_0
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import ArgumentError, FileError

__all__ = ["AUTO", "DEMO", "drafter_path", "is_name", "model_path"]

AUTO = "auto"
DEMO = "demo"
_SCHEMES = ("hf:", "ollama:", "lmstudio:")

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def is_name(value: object) -> bool:
    """Whether the value names a model by its origin instead of its path."""
    return isinstance(value, (str, os.PathLike)) and str(value).startswith(_SCHEMES)


def model_path(value: PathLike, role: str = "target", progress: bool = True) -> PathLike:
    """Returns the file of a target or a drafter, downloaded first if necessary. A path is returned
    unchanged, unless it is a folder with GGUF files: then the one that suits."""
    if value == DEMO:
        return Path(__file__).parents[1] / "data" / f"{role}.gguf"
    if not is_name(value):
        if os.path.isdir(value):
            return _in_folder(Path(os.fsdecode(value)), role)
        _refuse_bare_name(os.fsdecode(value))
        return value
    scheme, _, name = str(value).partition(":")
    if scheme == "hf":
        from .hub import parse, pull

        return pull(parse(name), role, progress=progress).path
    if scheme == "ollama":
        from .ollama import model_of

        return model_of(name, role)
    from .lmstudio import model_in

    return model_in(name, role)


def drafter_path(value: PathLike, target: PathLike, named: PathLike) -> PathLike:
    """Works like model_path() for a drafter; "auto" is the drafter that belongs to `target`, the
    path of the model that the user called `named`. Raises FileError if there is none, and
    ModelError if none of those found fits."""
    if value != AUTO:
        return model_path(value, "drafter")
    if is_name(named):
        scheme, _, name = str(named).partition(":")
        if scheme == "hf":
            from .hub import drafter_of, parse

            return drafter_of(parse(name), target)
        if scheme == "ollama":
            from .ollama import drafter_of as ollama_drafter_of

            return ollama_drafter_of(name, target)
    from .beside import drafter_beside

    return drafter_beside(target)


def _refuse_bare_name(value: str) -> None:
    """Raises FileError, which says what to write, for a name on the hub or of Ollama without its
    scheme. A path of an existing file is none."""
    if value.endswith(".gguf") or os.path.lexists(value):
        return
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(:[\w.-]+)?", value):
        raise FileError(f"there is no file {value}; a repository on the hub is named hf:{value}")
    if re.fullmatch(r"[\w-][\w.-]*:[\w.-]+", value):
        raise FileError(f"there is no file {value}; a model of Ollama is named ollama:{value}")


def _in_folder(folder: Path, role: str) -> PathLike:
    from .choose import candidates, choose

    found = candidates({p.name: p.stat().st_size for p in folder.glob("*.gguf") if p.is_file()})
    if not found and (folder / "config.json").is_file():
        raise FileError(
            f"{folder} holds a Hugging Face checkpoint, no GGUF; gemtp convert makes one of it"
        )
    if not found:
        return folder  # the reader reports what is wrong
    return folder / choose(found, None, role, str(folder)).name


def check_name(value: str, what: str, parts: int) -> list[str]:
    """Splits a name like "owner/name" into parts, none of which leads out of a folder."""
    found = value.split("/")
    if len(found) != parts or any(p in ("", ".", "..") or "\\" in p for p in found):
        raise ArgumentError(f"{value!r} does not name {what}")
    return found
