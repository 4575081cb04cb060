"""Models in several files: name-00001-of-00003.gguf and so on. Any of them stands for all."""

from __future__ import annotations

import os
import re

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def names(path: PathLike) -> list[str] | None:
    """Of all parts, if `path` is named like one; whether they are there is not looked at."""
    found = _NAME.fullmatch(os.fsdecode(path))
    if found is None or not 1 <= int(found["number"]) <= int(found["count"]):
        return None
    count = found["count"]
    return [f"{found['stem']}-{i:05}-of-{count}.gguf" for i in range(1, int(count) + 1)]


def first_of(path: PathLike) -> str:
    """The file that stands for the model: the first part, or `path` itself."""
    found = names(path)
    return found[0] if found else os.fsdecode(path)


def files_of(path: PathLike) -> list[str]:
    """The files that a model lies in, by its own word. FileError for a set that is not whole."""
    if names(path) is None:
        return [os.fsdecode(path)]
    from .. import _core

    return _core.GgufFile(path).parts


def size_of(path: PathLike) -> int:
    """Bytes of all its files."""
    return sum(map(os.path.getsize, files_of(path)))
