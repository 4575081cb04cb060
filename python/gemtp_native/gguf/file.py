"""GGUF version 3: writes files with tensors streamed one after the other, and reads metadata and
the locations of tensors."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..base.input_file import open_input
from ..errors import FileError
from . import parts
from .impostor import refuse_impostor
from .types import TensorType, encoded_size

_ALIGNMENT = 32  # GGUF's default; tensors start at multiples of it
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}


def _string(value: str | bytes) -> bytes:
    data = value.encode("utf-8") if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


class Metadata:
    """Key/value pairs in their serialized form, in insertion order."""

    def __init__(self) -> None:
        self._entries: dict[str, bytes] = {}

    def u32(self, key: str, value: int) -> None:
        self._entries[key] = struct.pack("<II", _U32, value)

    def i32(self, key: str, value: int) -> None:
        self._entries[key] = struct.pack("<Ii", _I32, value)

    def f32(self, key: str, value: float) -> None:
        self._entries[key] = struct.pack("<If", _F32, value)

    def boolean(self, key: str, value: bool) -> None:
        self._entries[key] = struct.pack("<I?", _BOOL, value)

    def string(self, key: str, value: str | bytes) -> None:
        self._entries[key] = struct.pack("<I", _STRING) + _string(value)

    def i32_array(self, key: str, values: Sequence[int] | np.ndarray) -> None:
        self._array(key, _I32, len(values), np.asarray(values, dtype="<i4").tobytes())

    def f32_array(self, key: str, values: Sequence[float] | np.ndarray) -> None:
        self._array(key, _F32, len(values), np.asarray(values, dtype="<f4").tobytes())

    def bool_array(self, key: str, values: Sequence[bool]) -> None:
        self._array(key, _BOOL, len(values), bytes(values))

    def string_array(self, key: str, values: Sequence[bytes]) -> None:
        self._array(key, _STRING, len(values), b"".join(map(_string, values)))

    def raw(self, key: str, value: bytes) -> None:
        """Adds a value in the serialized form read from another file."""
        self._entries[key] = value

    def items(self) -> Iterable[tuple[str, bytes]]:
        """Returns keys and values in their serialized form."""
        return self._entries.items()

    def remove(self, key: str) -> None:
        self._entries.pop(key, None)

    def _array(self, key: str, kind: int, count: int, data: bytes) -> None:
        self._entries[key] = struct.pack("<IIQ", _ARRAY, kind, count) + data

    def __len__(self) -> int:
        return len(self._entries)

    def serialize(self) -> Iterable[bytes]:
        for key, value in self._entries.items():
            yield _string(key)
            yield value


class Layout:
    """Names, shapes and types of all tensors, which determine all offsets before writing."""

    def __init__(self) -> None:
        self._infos: list[bytes] = []
        self._end = 0  # end of the last tensor, from the start of the data
        self.sizes: list[int] = []

    def add(self, name: str, shape: Sequence[int], kind: int, size: int | None = None) -> None:
        """Adds a tensor. shape: rows first (GGUF lists the fastest dimension first). size: in
        bytes, required if the type is not a TensorType."""
        if size is None:
            size = encoded_size(int(np.prod(shape, dtype=np.int64)), TensorType(kind))
        dims = b"".join(struct.pack("<Q", n) for n in reversed(shape))
        self._infos.append(
            _string(name)
            + struct.pack("<I", len(shape))
            + dims
            + struct.pack("<IQ", int(kind), self._end)
        )
        self._end += _padded(size)
        self.sizes.append(size)

    def header(self, metadata: Metadata) -> bytes:
        """Returns everything before the data, padded to the alignment."""
        head = b"".join(
            [
                b"GGUF",
                struct.pack("<IQQ", 3, len(self._infos), len(metadata)),
                *metadata.serialize(),
                *self._infos,
            ]
        )
        return head + bytes(_padded(len(head)) - len(head))

    @property
    def data_size(self) -> int:
        return self._end


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def pad(handle: BinaryIO, size: int) -> None:
    """Writes the padding after a tensor of `size` bytes."""
    handle.write(bytes(_padded(size) - size))


def read_metadata(path: Path) -> dict[str, Any]:
    """Reads all key/value pairs; strings as bytes, arrays as numpy arrays or lists of bytes.

    For a model in several parts, reads the first one. Raises FileError for anything that is not a
    well-formed GGUF version 2 or 3.
    """
    values: dict[str, Any] = _read(path, lambda reader: reader.metadata()[0])
    names = parts.names(path)
    if names and values.get("split.no", 0) != 0:
        values = _read(Path(names[0]), lambda reader: reader.metadata()[0])
    return values


@dataclass(frozen=True)
class TensorInfo:
    """The type, shape and location of a tensor."""

    name: str
    file: Path
    shape: tuple[int, ...]  # rows first
    kind: int  # number of its type
    offset: int  # in the file

    @property
    def count(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Contents:
    """Everything in a GGUF except the tensors' data."""

    values: dict[str, Any]  # as read_metadata() returns them
    metadata: Metadata  # the same, ready to be written again
    tensors: list[TensorInfo]


def read_contents(path: Path) -> Contents:
    """Reads a file, or all parts of a model as if they were one file. Raises FileError for anything
    that is not a well-formed GGUF version 2 or 3, or if parts are missing. It does not check that
    tensors' data lie within the file, because that depends on their types."""
    given: Contents = _read(path, lambda reader: reader.contents())
    count = given.values.get("split.count", 1)
    if count in (0, 1):
        return given
    names = parts.names(path)
    if names is None or len(names) != count:
        raise FileError(
            f"{path} is a part of a model in {count} files, which find each other by their names; "
            f"give them names like model-00001-of-{count:05}.gguf."
        )
    return _together([Path(name) for name in names], given.values.get("split.tensors.count"))


def _together(files: list[Path], count: int | None) -> Contents:
    found: list[Contents] = [_read(file, lambda reader: reader.contents()) for file in files]
    for i, (file, part) in enumerate(zip(files, found, strict=True)):
        if (part.values.get("split.no"), part.values.get("split.count")) != (i, len(files)):
            raise FileError(
                f"{file}: by its name it is part {i + 1} of {len(files)}, by its metadata it is "
                f"not; fetch it again under its own name."
            )
    tensors = [tensor for part in found for tensor in part.tensors]
    if len({t.name for t in tensors}) != len(tensors) or count not in (None, len(tensors)):
        raise FileError(
            f"{files[0]}: its {len(files)} parts do not hold the tensors of one model; fetch them "
            f"again together."
        )
    whole = Contents(found[0].values, found[0].metadata, tensors)
    for key in ("split.no", "split.count", "split.tensors.count"):
        whole.values.pop(key, None)
        whole.metadata.remove(key)
    return whole


def _read(path: Path, what: Callable[[_Reader], Any]) -> Any:
    try:
        with open_input(path) as handle:
            return what(_Reader(path, handle))
    except OSError as e:
        raise FileError(f"{path} cannot be read: {e.strerror or e}.") from e
    except (struct.error, ValueError, IndexError) as e:
        refuse_impostor(path)
        raise FileError(f"{path} is not a well-formed GGUF file ({e}).") from e


class _Reader:
    """Reads the file without mapping it, so a file that shrinks raises an error, not a crash."""

    def __init__(self, path: Path, handle: BinaryIO):
        self._path = path
        self._handle = handle
        self._size = os.fstat(handle.fileno()).st_size
        self._at = 0
        self._tensor_count = 0

    def metadata(self) -> tuple[dict[str, Any], Metadata]:
        """Returns the values, and their serialized form."""
        if self._bytes(4) != b"GGUF":
            raise ValueError("it does not start with GGUF")
        version = self._scalar("<I")
        if version not in (2, 3):
            raise ValueError(f"version {version}")
        self._tensor_count = self._scalar("<Q")
        values: dict[str, Any] = {}
        written = Metadata()
        for _ in range(self._scalar("<Q")):
            key = self._text().decode("utf-8")
            if key in values:
                raise ValueError(f"key {key!r} twice")
            start = self._at
            values[key] = self._value(self._scalar("<I"))
            written.raw(key, self._again(start))
        return values, written

    def contents(self) -> Contents:
        values, written = self.metadata()
        return Contents(values, written, self._tensors(self._tensor_count, values))

    def _tensors(self, count: int, values: dict[str, Any]) -> list[TensorInfo]:
        found = []
        for _ in range(count):
            name = self._text().decode("utf-8")
            dims = self._scalar("<I")
            if not 1 <= dims <= 4:
                raise ValueError(f"tensor {name!r} has {dims} dimensions")
            shape = tuple(reversed([self._scalar("<Q") for _ in range(dims)]))
            found.append((name, shape, self._scalar("<I"), self._scalar("<Q")))
        alignment = values.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"alignment {alignment!r}")
        start = -(-self._at // alignment) * alignment
        return [TensorInfo(n, self._path, shape, kind, start + at) for n, shape, kind, at in found]

    def _scalar(self, fmt: str) -> Any:
        (value,) = struct.unpack(fmt, self._bytes(struct.calcsize(fmt)))
        return value

    def _bytes(self, size: int) -> bytes:
        if size > self._size - self._at:
            raise ValueError("it ends too early")
        data = self._handle.read(size)
        if len(data) != size:
            raise ValueError("it became shorter while being read")
        self._at += size
        return data

    def _again(self, start: int) -> bytes:
        """Returns the bytes read since `start`."""
        size, self._at = self._at - start, start
        self._handle.seek(start)
        return self._bytes(size)

    def _text(self) -> bytes:
        return self._bytes(self._scalar("<Q"))

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            item, count = self._scalar("<I"), self._scalar("<Q")
            if item == _STRING:
                if count > self._size // 8:
                    raise ValueError("it ends too early")
                return [self._text() for _ in range(count)]
            fmt = self._format(item)
            raw = self._bytes(count * struct.calcsize(fmt))
            return np.frombuffer(raw, dtype=fmt)
        return self._scalar(self._format(kind))

    def _format(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise ValueError(f"value type {kind}")
        return _SCALARS[kind]
