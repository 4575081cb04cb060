"""Models in several files, name-00001-of-00003.gguf and so on, any of which stands for all."""

from __future__ import annotations

import os
import re

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def names(path: PathLike) -> list[str] | None:
    """Returns the names of all parts if `path` is named like a part; they need not exist."""
    found = _NAME.fullmatch(os.fsdecode(path))
    if found is None or not 1 <= int(found["number"]) <= int(found["count"]):
        return None
    count = found["count"]
    return [f"{found['stem']}-{i:05}-of-{count}.gguf" for i in range(1, int(count) + 1)]


def first_of(path: PathLike) -> str:
    """Returns the file that represents the model: the first part, or `path` itself."""
    found = names(path)
    return found[0] if found else os.fsdecode(path)


def files_of(path: PathLike) -> list[str]:
    """Returns the files of a model, according to its metadata. Raises FileError if parts are
    missing."""
    if names(path) is None:
        return [os.fsdecode(path)]
    from .. import _core

    return _core.GgufFile(path).parts


def size_of(path: PathLike) -> int:
    """Returns the total size of a model's files in bytes."""
    return sum(map(os.path.getsize, files_of(path)))
