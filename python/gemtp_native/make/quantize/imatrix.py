"""Importance matrices in llama.cpp's formats: for each column of a matrix, the mean square of the
activations that it multiplies. This is the weight of errors in that column.

A GGUF of type "imatrix" holds, for a matrix NAME, the tensors NAME.in_sum2 [matrices, columns]
(sums of squares) and NAME.counts [matrices, 1] (rows summed); `matrices` are the experts of a
layer. Older files (.dat) hold sums and a number of calls. The names are those of the model's
tensors.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...base.input_file import open_input, read_input
from ...base.whole_file import replacing
from ...errors import FileError, ModelError
from ...gguf.file import Layout, Metadata, TensorInfo, pad, read_contents
from ...gguf.impostor import refuse_impostor
from ...gguf.types import TensorType

_SUMS, _COUNTS = ".in_sum2", ".counts"
_MOST_ENTRIES = 1 << 20  # limit for legacy files, whose counts are unbounded


@dataclass(frozen=True)
class Sums:
    """Sums over the activations of a matrix, or of the matrices of all experts."""

    squares: np.ndarray  # [matrices, columns] float32, sums over rows
    counts: np.ndarray  # [matrices] rows; older files have a single count

    def means(self) -> np.ndarray:
        """Returns the importance, [matrices, columns] float32; 1 for matrices without rows."""
        counts = self.counts.astype(np.float64)[:, None]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.where(counts > 0, self.squares / counts, 1).astype(np.float32)


@dataclass(frozen=True)
class ImportanceMatrix:
    path: Path
    entries: dict[str, Sums]
    datasets: list[str]  # the texts from which it was made
    chunks: int

    def importance(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """Returns the importance, [matrices, columns], for a tensor of this shape (rows first);
        None without an entry. It is constant for experts that no row used. Raises ModelError for
        another shape."""
        sums = self.entries.get(name)
        if sums is None:
            return None
        matrices = int(np.prod(shape[:-2], dtype=np.int64)) if len(shape) > 2 else 1
        need = (matrices, shape[-1])
        if sums.squares.size != matrices * shape[-1] or len(sums.counts) not in (1, matrices):
            have = sums.squares.shape
            raise ModelError(
                f"{self.path}: the entry of {name} has {have[0]} x {have[1]} values, the model "
                f"needs {need[0]} x {need[1]}: it is of another model."
            )
        return Sums(sums.squares.reshape(need), sums.counts).means()

    def describe(self, metadata: Metadata) -> None:
        """Returns the metadata keys that record in a quantized file where its importance matrix
        came from."""
        metadata.string("quantize.imatrix.file", os.fspath(self.path).encode("utf-8", "replace"))
        if self.datasets:
            metadata.string("quantize.imatrix.dataset", self.datasets[0])
        metadata.u32("quantize.imatrix.entries_count", len(self.entries))
        metadata.u32("quantize.imatrix.chunks_count", self.chunks)


def read_imatrix(path: str | os.PathLike[str]) -> ImportanceMatrix:
    """Reads either format. Raises FileError for anything else, and for impossible values."""
    path = Path(path)
    with open_input(path) as handle:
        is_gguf = handle.read(4) == b"GGUF"
    refuse_impostor(path)
    found = _read_gguf(path) if is_gguf else _read_legacy(path)
    for name, sums in found.entries.items():
        for values in (sums.squares, sums.counts, sums.means()):
            if not np.all(np.isfinite(values)) or np.any(values < 0):
                raise FileError(
                    f"{path}: the entry of {name} holds values that no sum can have, or whose mean "
                    f"is no number: the file is damaged, make it again."
                )
    if not 0 <= found.chunks < 1 << 32:
        raise FileError(
            f"{path}: its number of chunks is {found.chunks}, which no text has: the file is "
            f"damaged, make it again."
        )
    return found


def _read_gguf(path: Path) -> ImportanceMatrix:
    contents = read_contents(path)
    values = contents.values
    if values.get("general.type", b"imatrix") != b"imatrix":
        raise FileError(f"{path} is a GGUF, but no importance matrix.")
    tensors = {t.name: t for t in contents.tensors}
    entries = {}
    for name, tensor in tensors.items():
        if not name.endswith(_SUMS):
            continue
        base = name.removesuffix(_SUMS)
        counts = tensors.get(base + _COUNTS)
        if counts is None:
            raise FileError(f"{path} holds {name} without {base}{_COUNTS}: it is damaged.")
        sums, number = _floats(path, tensor), _floats(path, counts)
        if number.size == 0 or sums.size % number.size:
            raise FileError(f"{path}: {name} does not fit {counts.name}: it is damaged.")
        entries[base] = Sums(sums.reshape(number.size, -1), number)
    if not entries:
        raise FileError(f"{path} is no importance matrix: it has no tensor NAME{_SUMS}.")
    names = values.get("imatrix.datasets", [])
    datasets = [n.decode(errors="replace") for n in names] if isinstance(names, list) else []
    chunks = values.get("imatrix.chunk_count", 0)
    return ImportanceMatrix(path, entries, datasets, chunks if isinstance(chunks, int) else 0)


def _floats(path: Path, tensor: TensorInfo) -> np.ndarray:
    if tensor.kind != TensorType.F32:
        raise FileError(f"{path}: {tensor.name} is not F32, as sums and counts must be.")
    size = 4 * tensor.count
    if tensor.offset + size > path.stat().st_size:
        raise FileError(f"{path} ends inside {tensor.name}: it is not complete.")
    with open_input(path) as handle:
        handle.seek(tensor.offset)
        raw = handle.read(size)
    if len(raw) != size:
        raise FileError(f"{path} ends inside {tensor.name}: it changed while being read.")
    return np.frombuffer(raw, "<f4")


def _read_legacy(path: Path) -> ImportanceMatrix:
    """Reads a legacy file: i32 number of entries; each: name (i32 length), i32 calls, i32 number of
    values, f32 values, which are sums over calls; then, in newer files, i32 chunks and the name of
    the text."""
    data = read_input(path)
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        if size < 0 or size > len(data) - at:
            raise FileError(f"{path} is no importance matrix, or not a complete one.")
        at += size
        return data[at - size : at]

    def integer() -> int:
        return int(struct.unpack("<i", take(4))[0])

    count = integer()
    if not 1 <= count <= _MOST_ENTRIES:
        raise FileError(f"{path} is no importance matrix.")
    entries = {}
    for _ in range(count):
        try:
            name = take(integer()).decode("utf-8")
        except UnicodeDecodeError:
            raise FileError(f"{path} is no importance matrix.") from None
        calls = integer()
        if calls < 0:
            raise FileError(f"{path}: the entry of {name} counts {calls} calls: it is damaged.")
        sums = np.frombuffer(take(4 * integer()), "<f4")
        if sums.size == 0:
            raise FileError(f"{path}: the entry of {name} is empty.")
        entries[name] = Sums(sums.reshape(1, -1), np.array([max(1, calls)], np.float32))
    chunks, datasets = 0, []
    if at < len(data):
        chunks = integer()
        if at < len(data):
            datasets = [take(integer()).decode(errors="replace")]
    return ImportanceMatrix(path, entries, datasets, chunks)


def write_imatrix(
    out: str | os.PathLike[str],
    entries: Mapping[str, Sums],
    datasets: list[str],
    chunks: int,
    chunk_size: int,
) -> int:
    """Writes llama.cpp's GGUF format. Returns the file's size; it appears complete or not at
    all."""
    metadata = Metadata()
    metadata.string("general.type", "imatrix")
    metadata.string_array("imatrix.datasets", [d.encode("utf-8", "replace") for d in datasets])
    metadata.u32("imatrix.chunk_count", chunks)
    metadata.u32("imatrix.chunk_size", chunk_size)
    layout = Layout()
    parts = []
    for name in sorted(entries):
        sums = entries[name]
        for suffix, values in ((_SUMS, sums.squares), (_COUNTS, sums.counts.reshape(-1, 1))):
            layout.add(name + suffix, values.shape, TensorType.F32)
            parts.append(values)
    header = layout.header(metadata)
    size = len(header) + layout.data_size
    with replacing(Path(out), size) as handle:
        handle.write(header)
        for values, bytes_ in zip(parts, layout.sizes, strict=True):
            handle.write(np.ascontiguousarray(values, "<f4").tobytes())
            pad(handle, bytes_)
    return size
