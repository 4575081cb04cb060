"""Writes a GGUF of the same model with its matrices in other types."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...arguments import thread_count
from ...base.input_file import open_input
from ...base.whole_file import check_output, replacing
from ...errors import FileError, ModelError
from ...gguf.encode import decode
from ...gguf.file import Contents, Layout, Metadata, TensorInfo, pad, read_contents
from ...gguf.slices import SLICE, Bad, count_bad, encoded, encoders
from ...gguf.types import (
    FLOATS,
    FileType,
    Rules,
    TensorType,
    bits,
    block_values,
    encoded_size,
    file_type,
    is_matrix,
)
from .imatrix import ImportanceMatrix

# Types of tensors that are not weights (positions, permutations) and are copied: number -> (name,
# bytes per value).
_OTHERS = {24: ("I8", 1), 25: ("I16", 2), 26: ("I32", 4), 27: ("I64", 8), 28: ("F64", 8)}


@dataclass(frozen=True)
class Quantized:
    """The file that was written, or would be."""

    path: Path
    source: Path
    type: str
    bytes: int
    source_bytes: int
    parameters: int
    bits_per_weight: float  # over the data of all tensors
    types: dict[str, int]  # type -> number of tensors
    tensors: dict[str, str]  # matrix -> type
    weighted: int  # matrices encoded with an importance matrix
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def quantize(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    type: str,
    *,
    overrides: Sequence[tuple[str, TensorType]] = (),
    keep_head: bool = False,
    imatrix: ImportanceMatrix | None = None,
    allow_requantize: bool = False,
    threads: int | None = None,
    progress: bool = True,
) -> Quantized:
    """Writes `source` to `out` with its matrices as `type`, a name of FILE_TYPES: one type for all
    of them, or a mix.

    Metadata, tokenizer and everything that is not a matrix stay unchanged, as do matrices that
    already have the type. overrides: (pattern of a tensor's name, type); the first match applies.
    keep_head: tensors that compute the logits stay unchanged. imatrix: weights of the errors by
    column.

    Raises ModelError for a source with matrices in a block type, unless allow_requantize is given;
    even then for one with fewer bits than `type`, which would only look precise. `out` appears
    complete or not at all.
    """
    start = time.monotonic()
    source, out = Path(source), Path(out)
    thread_count(threads)
    plan = _Plan(source, file_type(type), overrides, keep_head, imatrix, allow_requantize)
    check_output(out, *plan.files, *([] if imatrix is None else [imatrix.path]))
    header = plan.layout.header(plan.metadata())
    size = len(header) + plan.layout.data_size
    with replacing(out, size) as handle, _Data() as data:
        handle.write(header)
        _write(handle, data, plan, threads, progress)
    return plan.result(out, size, time.monotonic() - start)


def plan(
    source: str | os.PathLike[str],
    type: str,
    *,
    overrides: Sequence[tuple[str, TensorType]] = (),
    keep_head: bool = False,
    imatrix: ImportanceMatrix | None = None,
    allow_requantize: bool = False,
) -> Quantized:
    """Returns what quantize() would write, without writing it. Raises the errors that quantize()
    raises before it writes."""
    made = _Plan(Path(source), file_type(type), overrides, keep_head, imatrix, allow_requantize)
    size = len(made.layout.header(made.metadata())) + made.layout.data_size
    return made.result(Path(), size, 0.0)


def has_type(source: str | os.PathLike[str], type: str) -> bool:
    """Whether quantize() would change no tensor, because every matrix already has its type. Raises
    the errors of quantize() with allow_requantize."""
    made = _Plan(Path(source), file_type(type), (), False, None, True)
    return all(kind == tensor.kind for tensor, kind in made.tensors)


class _Plan:
    """The new type of each tensor."""

    def __init__(
        self,
        source: Path,
        wanted: FileType,
        overrides: Sequence[tuple[str, TensorType]],
        keep_head: bool,
        imatrix: ImportanceMatrix | None,
        allow_requantize: bool,
    ):
        self.source, self.wanted, self.imatrix = source, wanted, imatrix
        self.contents: Contents = read_contents(source)
        values, tensors = self.contents.values, self.contents.tensors
        if not tensors:
            raise ModelError(f"{source} holds no tensors, only metadata.")
        arch = values.get("general.architecture", b"").decode(errors="replace")
        layers = values.get(f"{arch}.block_count", 0)
        rules = Rules(
            wanted,
            [t.name for t in tensors],
            layers if isinstance(layers, int) else 0,
            overrides,
            keep_head,
        )
        self._ends = {file: file.stat().st_size for file in {t.file for t in tensors}}
        # The new type; for tensors that are not weights, the number of their type.
        self.tensors: list[tuple[TensorInfo, int]] = []
        self.importance: dict[str, np.ndarray] = {}
        self.layout = Layout()
        self._narrow: Counter[TensorType] = Counter()
        for tensor in tensors:
            kind = self._kind(tensor, rules, allow_requantize)
            self.tensors.append((tensor, kind))
            self.layout.add(tensor.name, tensor.shape, kind, _size(tensor.count, kind))
            if imatrix is not None and kind != tensor.kind and kind not in FLOATS:
                found = imatrix.importance(tensor.name, tensor.shape)
                if found is not None:
                    self.importance[tensor.name] = found
        if imatrix is not None and not self.importance and self.missing:
            raise ModelError(
                f"{imatrix.path} has no entry for any matrix of {source} that is to be quantized: "
                f"it is of another model."
            )

    def _kind(self, tensor: TensorInfo, rules: Rules, allow_requantize: bool) -> int:
        now = self._stored(tensor)
        if now is None:
            return tensor.kind
        width = tensor.shape[-1]
        if not is_matrix(tensor.name, len(tensor.shape)):
            return now
        kind = rules.kind(tensor.name, width, now)
        if now in FLOATS and kind in FLOATS and bits(kind) == bits(now):
            kind = self.wanted.kind if self.wanted.kind in FLOATS else now
        if kind == now:
            return kind
        if bits(now) < bits(kind):
            if self.wanted.mix or kind != self.wanted.kind:
                return now
            raise ModelError(
                f"{self.source}: {tensor.name} is {now.name}, and {kind.name} would not bring back "
                f"what that has lost; give a file of higher precision or ask for "
                f"{now.name.lower()} or less."
            )
        if now not in FLOATS and not allow_requantize:
            raise ModelError(
                f"{self.source}: {tensor.name} is {now.name} already, and to quantize it again "
                f"loses more than to start from the original; give a file in f32, f16 or bf16, or "
                f"say --allow-requantize."
            )
        if kind != self.wanted.kind and width % block_values(self.wanted.kind):
            self._narrow[kind] += 1
        return kind

    def _stored(self, tensor: TensorInfo) -> TensorType | None:
        """Returns None for tensors that are not weights. Raises FileError or ModelError if
        unreadable."""
        if tensor.kind in _OTHERS:
            kind = None
        else:
            try:
                kind = TensorType(tensor.kind)
            except ValueError:
                raise ModelError(
                    f"{tensor.file}: {tensor.name} has type {tensor.kind}, which cannot be "
                    f"quantized; start from {', '.join(k.name for k in FLOATS)}."
                ) from None
        if tensor.count == 0 or (kind is not None and tensor.shape[-1] % block_values(kind)):
            raise FileError(
                f"{tensor.file}: the shape {list(tensor.shape)} of {tensor.name} does not fit its "
                f"type {_name(tensor.kind)}: the file is damaged."
            )
        if tensor.offset + _size(tensor.count, tensor.kind) > self._ends[tensor.file]:
            raise FileError(f"{tensor.file} ends inside {tensor.name}: it is not complete.")
        return kind

    @property
    def files(self) -> list[Path]:
        return list(self._ends)

    def metadata(self) -> Metadata:
        m = self.contents.metadata
        m.u32("general.file_type", self.wanted.number)
        m.u32("general.quantization_version", 2)
        m.remove("general.alignment")  # the new layout has the default alignment
        if self.imatrix is not None:
            self.imatrix.describe(m)
        return m

    def result(self, out: Path, size: int, seconds: float) -> Quantized:
        parameters = sum(t.count for t, _ in self.tensors)
        data = sum(self.layout.sizes)
        notes = [
            f"{count} matrices are written as {kind.name}, because their rows are not a multiple "
            f"of {block_values(self.wanted.kind)} values"
            for kind, count in self._narrow.items()
        ]
        if self.imatrix is not None and self.missing:
            notes.append(
                f"{len(self.missing)} matrices are not in the importance matrix: "
                f"{', '.join(self.missing[:3])}" + (", …" if len(self.missing) > 3 else "")
            )
        counts = Counter(_name(kind) for _, kind in self.tensors)
        return Quantized(
            path=out,
            source=self.source,
            type=self.wanted.name,
            bytes=size,
            source_bytes=sum(self._ends.values()),
            parameters=parameters,
            bits_per_weight=8 * data / parameters,
            types=dict(counts.most_common()),
            tensors={
                t.name: _name(kind) for t, kind in self.tensors if is_matrix(t.name, len(t.shape))
            },
            weighted=len(self.importance),
            notes=notes,
            seconds=seconds,
        )

    @property
    def missing(self) -> list[str]:
        """Matrices in block types without importance, except tables."""
        return [
            t.name
            for t, kind in self.tensors
            if kind != t.kind
            and kind not in FLOATS
            and t.name not in self.importance
            and "token_embd" not in t.name
        ]


def _name(kind: int) -> str:
    return _OTHERS[kind][0] if kind in _OTHERS else TensorType(kind).name


def _size(count: int, kind: int) -> int:
    """Returns the size of `count` values in bytes."""
    return count * _OTHERS[kind][1] if kind in _OTHERS else encoded_size(count, TensorType(kind))


class _Data:
    """Reads the tensors' bytes without mapping, so a file that shrinks raises an error, not a
    crash."""

    def __init__(self) -> None:
        self._handles: dict[Path, BinaryIO] = {}

    def __enter__(self) -> _Data:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles.values():
            handle.close()

    def bytes(self, tensor: TensorInfo, start: int, count: int) -> np.ndarray:
        """Returns the bytes of elements [start, start + count), whole blocks."""
        raw = np.empty(_size(count, tensor.kind), dtype=np.uint8)
        if tensor.file not in self._handles:
            self._handles[tensor.file] = open_input(tensor.file)
        handle = self._handles[tensor.file]
        handle.seek(tensor.offset + _size(start, tensor.kind))
        # readinto of a buffered file is typed as able to return nothing
        if handle.readinto(raw.data) != raw.size:  # type: ignore[attr-defined]
            raise FileError(
                f"{tensor.file} ends inside {tensor.name}: it changed while being read."
            )
        return raw

    def read(self, tensor: TensorInfo, start: int, count: int) -> np.ndarray:
        return self.values(tensor, self.bytes(tensor, start, count))

    def values(self, tensor: TensorInfo, data: np.ndarray) -> np.ndarray:
        """Returns values of whole blocks as float32."""
        try:
            return decode(data, TensorType(tensor.kind))
        except FileError as e:
            raise FileError(f"{tensor.file}: {tensor.name}: {e}") from None


def _write(handle: BinaryIO, data: _Data, plan: _Plan, threads: int | None, progress: bool) -> None:
    with encoders(sum(plan.layout.sizes), progress, threads) as (pool, window, bar):
        for (tensor, kind), size in zip(plan.tensors, plan.layout.sizes, strict=True):
            bar.set_description(tensor.name, refresh=False)
            bad = Bad()
            weights = plan.importance.get(tensor.name)
            parts = (
                _copied(data, tensor)
                if kind == tensor.kind
                else encoded(pool, window, data, tensor, TensorType(kind), weights)
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
        piece = data.bytes(tensor, start, min(SLICE, tensor.count - start))
        weights = tensor.kind not in _OTHERS
        yield piece, count_bad(data.values(tensor, piece), TensorType.F32) if weights else Bad()
