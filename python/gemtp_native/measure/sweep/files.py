"""The models of a sweep: given files, or one file in several types."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import ArgumentError
from ...gguf.types import file_type
from ...make.quantize import has_type, quantize


@dataclass(frozen=True)
class Variant:
    """A model, with its name in tables."""

    name: str
    path: Path


def named(paths: Iterable[str | os.PathLike[str]]) -> list[Variant]:
    """Returns files with their names, and as much of their folders as makes the names unique."""
    files = [Path(p) for p in paths]
    for i, file in enumerate(files):
        if file in files[:i]:
            raise ArgumentError(f"{file} is given twice")
    for depth in range(1, max(len(f.absolute().parts) for f in files)):
        names = ["/".join(f.absolute().with_suffix("").parts[-depth:]) for f in files]
        if len(set(names)) == len(files):
            return [Variant(name, file) for name, file in zip(names, files, strict=True)]
    return [Variant(str(file), file) for file in files]


def quantized(
    source: str | os.PathLike[str], types: Sequence[str], folder: Path, progress: bool = True
) -> list[Variant]:
    """Returns `source` in each of `types`: the file itself if it already has the type, else a new
    file in `folder`. Raises ModelError, before anything is written, for a type more precise than
    the source."""
    source = Path(source)
    for i, kind in enumerate(types):
        file_type(kind)
        if kind in types[:i]:
            raise ArgumentError(f"the type {kind} is given twice")
    ready = {kind: has_type(source, kind) for kind in types}
    variants = []
    for kind in types:
        path = source
        if not ready[kind]:
            path = folder / f"{source.stem}-{kind}.gguf"
            quantize(source, path, kind, allow_requantize=True, progress=progress)
        variants.append(Variant(kind, path))
    return variants
