"""A GGUF in another of the types that we write, from a file of higher precision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import ArgumentError, FileError, ModelError
from .encode import OUTTYPES, TensorType, block_values, decode, encoded_size
from .gguf_file import Contents, Layout, TensorInfo, pad, read_contents
from .output import replacing
from .slices import SLICE, Bad, encoded, encoders

# Bits that a value's precision is counted by: F16 and BF16 divide theirs differently, and either
# may be made from the other.
_BITS = {
    TensorType.F32: 32,
    TensorType.F16: 16,
    TensorType.BF16: 16,
    TensorType.Q8_0: 8,
    TensorType.Q4_0: 4,
}


# Types of what is no weight, such as the ordering of an ordered head: bytes of a value. Copied.
_OTHERS = {24: 1, 25: 2, 26: 4, 27: 8, 28: 8}


@dataclass(frozen=True)
class Requantized:
    path: Path
    outtype: str
    bytes: int


def requantize(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    outtype: str,
    progress: bool = True,
) -> Requantized:
    """Writes `source` to `out` with its matrices as `outtype`: f32, f16, bf16, q8_0 or q4_0.

    Metadata, tokenizer and everything that is not a matrix stay as they are; so do matrices that
    have the type already, and those whose rows are no multiple of its block. Refuses (ModelError) a
    source with a matrix of fewer bits than `outtype`, which would only look precise, or of a type
    that cannot be read. `out` appears whole or not at all.
    """
    source, out = Path(source), Path(out)
    plan = _Plan(source, outtype)
    if out.exists() and any(os.path.samefile(t.file, out) for t in plan.contents.tensors):
        raise ArgumentError(f"{out} is the file to requantize; choose another output.")
    layout = Layout()
    for tensor, kind in plan.tensors:
        layout.add(tensor.name, tensor.shape, kind, _size(tensor.count, kind))
    metadata = plan.contents.metadata
    metadata.u32("general.file_type", OUTTYPES[outtype][1])
    metadata.u32("general.quantization_version", 2)
    metadata.remove("general.alignment")  # tensors are laid out anew, at the default one
    header = layout.header(metadata)
    size = len(header) + layout.data_size
    with replacing(out, size) as handle, _Data() as data:
        handle.write(header)
        _write(handle, data, plan.tensors, layout.sizes, progress)
    return Requantized(out, outtype, size)


def has_type(source: str | os.PathLike[str], outtype: str) -> bool:
    """True when requantize() would change nothing: every matrix has the type, or cannot take it.
    Refuses what requantize() refuses."""
    return all(kind == tensor.kind for tensor, kind in _Plan(Path(source), outtype).tensors)


class _Plan:
    """What becomes of each tensor."""

    def __init__(self, source: Path, outtype: str):
        if outtype not in OUTTYPES:
            raise ArgumentError(f"the type is {outtype!r}; {', '.join(OUTTYPES)} are possible.")
        wanted = OUTTYPES[outtype][0]
        self.contents: Contents = read_contents(source)
        if not self.contents.tensors:
            raise ModelError(f"{source} holds no tensors, only metadata.")
        ends = {file: file.stat().st_size for file in {t.file for t in self.contents.tensors}}
        self.tensors: list[tuple[TensorInfo, int]] = []
        for tensor in self.contents.tensors:
            kind = _kind(tensor)
            if tensor.offset + _size(tensor.count, kind) > ends[tensor.file]:
                raise FileError(f"{tensor.file} ends inside {tensor.name}: it is not complete.")
            if (
                isinstance(kind, TensorType)
                and _is_matrix(tensor)
                and tensor.shape[-1] % block_values(wanted) == 0
            ):
                if _BITS[kind] < _BITS[wanted]:
                    raise ModelError(
                        f"{source}: {tensor.name} is {kind.name}, and {wanted.name} would not "
                        f"bring back what that has lost; give a file of higher precision or ask "
                        f"for {kind.name.lower()} or less."
                    )
                kind = wanted
            self.tensors.append((tensor, kind))


def _size(count: int, kind: int) -> int:
    """Of `count` values, in bytes."""
    return count * _OTHERS[kind] if kind in _OTHERS else encoded_size(count, TensorType(kind))


def _kind(tensor: TensorInfo) -> int:
    """FileError or ModelError for a tensor that cannot be read."""
    if tensor.kind in _OTHERS:
        return tensor.kind
    try:
        kind = TensorType(tensor.kind)
    except ValueError:
        raise ModelError(
            f"{tensor.file}: {tensor.name} has type {tensor.kind}, which cannot be requantized; "
            f"start from {', '.join(k.name for k in TensorType)}."
        ) from None
    if tensor.count == 0 or tensor.shape[-1] % block_values(kind):
        raise FileError(
            f"{tensor.file}: the shape {list(tensor.shape)} of {tensor.name} does not fit its type "
            f"{kind.name}: the file is damaged."
        )
    return kind


def _is_matrix(tensor: TensorInfo) -> bool:
    """Routers and the centroids of an ordered head are small and decide a lot: they stay as they
    are."""
    return len(tensor.shape) > 1 and not tensor.name.endswith(
        ("ffn_gate_inp.weight", "_centroids.weight", ".centroids.weight")
    )


class _Data:
    """The tensors' bytes, by plain reads: a file that shrinks meanwhile is an error, no crash."""

    def __init__(self) -> None:
        self._handles: dict[Path, BinaryIO] = {}

    def __enter__(self) -> _Data:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles.values():
            handle.close()

    def bytes(self, tensor: TensorInfo, start: int, count: int) -> np.ndarray:
        """Of elements [start, start + count), whole blocks."""
        raw = np.empty(_size(count, tensor.kind), dtype=np.uint8)
        if tensor.file not in self._handles:
            self._handles[tensor.file] = tensor.file.open("rb")
        handle = self._handles[tensor.file]
        handle.seek(tensor.offset + _size(start, tensor.kind))
        # readinto of a buffered file is typed as able to return nothing
        if handle.readinto(raw.data) != raw.size:  # type: ignore[attr-defined]
            raise FileError(
                f"{tensor.file} ends inside {tensor.name}: it changed while being read."
            )
        return raw

    def read(self, tensor: TensorInfo, start: int, count: int) -> np.ndarray:
        return decode(self.bytes(tensor, start, count), TensorType(tensor.kind))


def _write(
    handle: BinaryIO,
    data: _Data,
    tensors: list[tuple[TensorInfo, int]],
    sizes: list[int],
    progress: bool,
) -> None:
    with encoders(sum(sizes), progress) as (pool, window, bar):
        for (tensor, kind), size in zip(tensors, sizes, strict=True):
            bar.set_description(tensor.name, refresh=False)
            bad = Bad()
            parts = (
                _copied(data, tensor)
                if kind == tensor.kind
                else encoded(pool, window, data, tensor, TensorType(kind))
            )
            for part, here in parts:
                bad += here
                if not bad:
                    handle.write(part.data)
                bar.update(part.size)
            if bad:
                bad.check(tensor, TensorType(kind))
            pad(handle, size)


def _copied(data: _Data, tensor: TensorInfo) -> Iterator[tuple[np.ndarray, Bad]]:
    for start in range(0, tensor.count, SLICE):
        yield data.bytes(tensor, start, min(SLICE, tensor.count - start)), Bad()
