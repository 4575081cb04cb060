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
    if out.exists() and os.path.samefile(source, out):
        raise ArgumentError(f"{out} is the file to requantize; choose another output.")
    layout = Layout()
    for tensor, kind in plan.tensors:
        layout.add(tensor.name, tensor.shape, kind)
    metadata = plan.contents.metadata
    metadata.u32("general.file_type", OUTTYPES[outtype][1])
    metadata.u32("general.quantization_version", 2)
    metadata.remove("general.alignment")  # tensors are laid out anew, at the default one
    header = layout.header(metadata)
    size = len(header) + layout.data_size
    with replacing(out, size) as handle, _Data(source) as data:
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
        if self.contents.values.get("split.count", 0) not in (0, 1):
            raise ModelError(f"{source} is a part of a model in several files; merge them first.")
        if not self.contents.tensors:
            raise ModelError(f"{source} holds no tensors, only metadata.")
        end = source.stat().st_size
        self.tensors: list[tuple[TensorInfo, TensorType]] = []
        for tensor in self.contents.tensors:
            kind = _kind(tensor)
            if tensor.offset + encoded_size(tensor.count, kind) > end:
                raise FileError(f"{source} ends inside {tensor.name}: it is not complete.")
            if _is_matrix(tensor) and tensor.shape[-1] % block_values(wanted) == 0:
                if _BITS[kind] < _BITS[wanted]:
                    raise ModelError(
                        f"{source}: {tensor.name} is {kind.name}, and {wanted.name} would not "
                        f"bring back what that has lost; give a file of higher precision or ask "
                        f"for {kind.name.lower()} or less."
                    )
                kind = wanted
            self.tensors.append((tensor, kind))


def _kind(tensor: TensorInfo) -> TensorType:
    """FileError or ModelError for a tensor that cannot be read."""
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
    """Routers are small and decide a lot: they stay F32, as the converter writes them."""
    return len(tensor.shape) > 1 and not tensor.name.endswith("ffn_gate_inp.weight")


class _Data:
    """The tensors' bytes, by plain reads: a file that shrinks meanwhile is an error, no crash."""

    def __init__(self, path: Path):
        self._path = path
        self._handle = path.open("rb")

    def __enter__(self) -> _Data:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def bytes(self, tensor: TensorInfo, start: int, count: int) -> np.ndarray:
        """Of elements [start, start + count), whole blocks."""
        kind = TensorType(tensor.kind)
        raw = np.empty(encoded_size(count, kind), dtype=np.uint8)
        self._handle.seek(tensor.offset + encoded_size(start, kind))
        if self._handle.readinto(raw.data) != raw.size:
            raise FileError(f"{self._path} ends inside {tensor.name}: it changed while being read.")
        return raw

    def read(self, tensor: TensorInfo, start: int, count: int) -> np.ndarray:
        return decode(self.bytes(tensor, start, count), TensorType(tensor.kind))


def _write(
    handle: BinaryIO,
    data: _Data,
    tensors: list[tuple[TensorInfo, TensorType]],
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
                else encoded(pool, window, data, tensor, kind)
            )
            for part, here in parts:
                bad += here
                if not bad:
                    handle.write(part.data)
                bar.update(part.size)
            bad.check(tensor, kind)
            pad(handle, size)


def _copied(data: _Data, tensor: TensorInfo) -> Iterator[tuple[np.ndarray, Bad]]:
    for start in range(0, tensor.count, SLICE):
        yield data.bytes(tensor, start, min(SLICE, tensor.count - start)), Bad()
