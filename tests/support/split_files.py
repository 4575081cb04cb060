"""Splits tiny models into several files, as llama.cpp's tools split large ones."""

from __future__ import annotations

from pathlib import Path

from gguf_bytes import I32, U16, Gguf, Key


def parts_of(whole: Gguf, count: int, empty_first: bool = False) -> list[Gguf]:
    """Returns the parts: the first has all metadata; tensors are spread over all parts in order."""
    holders = count - 1 if empty_first else count
    sizes = [len(whole.tensors) * i // holders for i in range(holders + 1)]
    groups = [whole.tensors[a:b] for a, b in zip(sizes, sizes[1:], strict=False)]
    if empty_first:
        groups.insert(0, [])
    made = []
    for i, tensors in enumerate(groups):
        part = Gguf(keys=list(whole.keys) if i == 0 else [], tensors=list(tensors)).copy()
        part.put("split.no", U16, i)
        part.put("split.count", U16, count)
        part.put("split.tensors.count", I32, len(whole.tensors))
        made.append(part)
    return made


def write_parts(folder: Path, stem: str, parts: list[Gguf]) -> list[Path]:
    paths = [folder / f"{stem}-{i + 1:05}-of-{len(parts):05}.gguf" for i in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part.encode())
    return paths


def key(part: Gguf, name: str) -> Key:
    return next(k for k in part.keys if k.name == name)
