"""The safetensors files of a Hugging Face folder, read in slices.

Plain reads, not a mapping: a file that shrinks while it is read is an error and no crash, and pages
of a mapping do not count as our memory.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...base.input_file import open_input
from ...errors import FileError
from ...gguf.impostor import refuse_impostor
from .config import read_json_object, refuse_adapter

_INDEX = "model.safetensors.index.json"
_ITEM_SIZE = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4}
_MAX_HEADER = 100_000_000  # bytes, by the format
FLOAT_TYPES = ("F32", "F16", "BF16")
_PIECE = 1 << 20  # values compared at a time

# transformers has named the same tensor model.X, model.language_model.X and
# language_model.model.X; X is its canonical name.
_WRAPPERS = re.compile(r"^(?:model\.|language_model\.)+")


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies: `nbytes` bytes of `dtype` from `offset` in `file`."""

    name: str  # as stored
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)


class Checkpoint:
    """All tensors of a folder by canonical name (wrappers stripped). Close after use."""

    def __init__(self, model_dir: Path):
        self.files, promised = _weight_files(model_dir)
        self.tensors: dict[str, StoredTensor] = {}
        self.copies: list[StoredTensor] = []  # the same tensors under other names
        self._open: dict[Path, BinaryIO] = {}
        try:
            for file in self.files:
                self._add(file)
        except BaseException:
            self.close()
            raise
        stored = {(t.name, t.file.name) for t in (*self.tensors.values(), *self.copies)}
        for name, file_name in promised.items():
            if (name, file_name) not in stored:
                raise FileError(f"{model_dir / file_name} lacks {name}, which {_INDEX} puts there.")

    def _add(self, file: Path) -> None:
        for tensor in _read_header(file):
            name = _WRAPPERS.sub("", tensor.name)
            other = self.tensors.setdefault(name, tensor)
            if other is tensor:
                continue
            if tensor.name == other.name or not self.equal(tensor, other):
                raise FileError(
                    f"{file} holds {tensor.name}, which {other.file} holds already as "
                    f"{other.name}; remove one of them."
                )
            self.copies.append(tensor)

    def close(self) -> None:
        for handle in self._open.values():
            handle.close()
        self._open.clear()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def equal(self, a: StoredTensor, b: StoredTensor) -> bool:
        """Whether two tensors hold the same values, possibly of different types."""
        if a.shape != b.shape or not {a.dtype, b.dtype} <= _ITEM_SIZE.keys():
            return False
        pieces = [(at, min(_PIECE, a.count - at)) for at in range(0, a.count, _PIECE)]
        return all(np.array_equal(self.read(a, *p), self.read(b, *p)) for p in pieces)

    def read(self, tensor: StoredTensor, start: int, count: int) -> np.ndarray:
        """Returns elements [start, start + count) in row order: float32, or int64 for integers."""
        size = _ITEM_SIZE[tensor.dtype]
        raw = np.empty(count * size, dtype=np.uint8)
        try:
            handle = self._open.get(tensor.file)
            if handle is None:
                handle = self._open[tensor.file] = open_input(tensor.file)
            handle.seek(tensor.offset + start * size)
            got = handle.readinto(raw.data)  # type: ignore[attr-defined]
        except OSError as e:
            raise FileError(f"{tensor.file} cannot be read: {e.strerror or e}.") from e
        if got != raw.size:
            raise FileError(
                f"{tensor.file} ends inside {tensor.name}: it changed while being read."
            )
        if tensor.dtype == "BF16":  # the upper half of a float32
            return (raw.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
        if tensor.dtype == "F16":
            return raw.view("<f2").astype(np.float32)
        if tensor.dtype == "F32":
            return raw.view("<f4").astype(np.float32, copy=False)
        return raw.view("<i8" if tensor.dtype == "I64" else "<i4").astype(np.int64, copy=False)


def _weight_files(model_dir: Path) -> tuple[list[Path], dict[str, str]]:
    """Returns the files, one or the index's shards, and the index: tensor -> file name."""
    single = model_dir / "model.safetensors"
    if single.is_file():
        return [single], {}
    index = model_dir / _INDEX
    if not index.is_file():
        refuse_adapter(model_dir)
        raise FileError(
            f"{model_dir} holds neither model.safetensors nor {_INDEX}; other weight formats "
            f"are not converted."
        )
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FileError(f"{index} has no 'weight_map' from tensors to files.")
    files: dict[str, Path] = {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or not name or Path(name).name != name or "\\" in name:
            raise FileError(
                f"{index} puts {tensor} into {json.dumps(name)}, which is not the name of a file "
                f"in the folder."
            )
        files.setdefault(name, model_dir / name)
    for path in files.values():
        if not path.is_file():
            raise FileError(f"{path} is missing, though {index.name} names it: download it again.")
    return [files[name] for name in sorted(files)], weight_map


def _read_header(path: Path) -> Iterator[StoredTensor]:
    try:
        with open_input(path) as handle:
            size = os.fstat(handle.fileno()).st_size
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > min(_MAX_HEADER, size - 8):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            tensors = _tensors(path, json.loads(handle.read(length)), 8 + length)
    except (ValueError, RecursionError, struct.error) as e:
        refuse_impostor(path)
        raise FileError(
            f"{path} is not a complete safetensors file ({e}): download it again."
        ) from e
    except OSError as e:
        raise FileError(f"{path} cannot be read: {e.strerror or e}.") from e
    end = 8 + length
    for tensor in sorted(tensors, key=lambda t: (t.offset, t.nbytes)):
        if tensor.offset != end:
            raise FileError(
                f"{path} is not a complete safetensors file ({tensor.name} does not begin where "
                f"the tensor before it ends): download it again."
            )
        end += tensor.nbytes
    if end != size:
        raise FileError(
            f"{path} is not a complete safetensors file ({size} bytes, {end} by its header): "
            f"download it again."
        )
    for tensor in tensors:
        item = _ITEM_SIZE.get(tensor.dtype)
        if item is not None and tensor.count * item != tensor.nbytes:
            raise FileError(
                f"{path}: {tensor.name} has {tensor.nbytes} bytes, its shape needs another count."
            )
        yield tensor


def _tensors(path: Path, header: Any, start: int) -> list[StoredTensor]:
    """Returns the tensors of a header. start: offset of the data. Raises ValueError for a damaged
    header."""
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    found = []
    for name, info in header.items():
        if name == "__metadata__":
            continue
        try:
            (begin, end), shape, dtype = info["data_offsets"], info["shape"], info["dtype"]
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"no dtype, shape and data_offsets of {name}") from None
        numbers = [begin, end, *shape] if isinstance(shape, list) else [None]
        if not all(type(n) is int and n >= 0 for n in numbers) or end < begin:
            raise ValueError(f"no shape or place of {name}")
        if not isinstance(dtype, str):
            raise ValueError(f"no dtype of {name}")
        found.append(StoredTensor(name, path, dtype, tuple(shape), start + begin, end - begin))
    return found
