"""A GGUF writer that can also write invalid files: every count, offset and byte of the layout can
be set. Only for tests; valid files are written by ``gemtp_native.make.convert``."""

from __future__ import annotations

import copy
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

# Numbers of value types.
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {
    U8: "B",
    I8: "b",
    U16: "H",
    I16: "h",
    U32: "I",
    I32: "i",
    F32: "f",
    BOOL: "?",
    U64: "Q",
    I64: "q",
    F64: "d",
}

# Numbers of tensor types, and (elements, bytes) of their blocks.
T_F32, T_F16, T_Q4_0, T_Q8_0, T_Q8_1, T_I32, T_BF16 = 0, 1, 2, 8, 9, 26, 30
BLOCKS = {
    T_F32: (1, 4),
    T_F16: (1, 2),
    T_Q4_0: (32, 18),
    T_Q8_1: (32, 36),
    T_Q8_0: (32, 34),
    T_I32: (1, 4),
    T_BF16: (1, 2),
}


def encode_text(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def encode_scalar(kind: int, value: object) -> bytes:
    if kind == STRING:
        assert isinstance(value, (str, bytes))
        return encode_text(value)
    return struct.pack("<" + FORMATS[kind], value)


def encode_array(element: int, values: Sequence[object], count: int | None = None) -> bytes:
    head = struct.pack("<IQ", element, len(values) if count is None else count)
    return head + b"".join(encode_scalar(element, v) for v in values)


@dataclass
class Key:
    name: str | bytes
    kind: int
    payload: bytes


@dataclass
class Tensor:
    name: str | bytes
    shape: list[int]  # file order: the contiguous dimension first
    kind: int
    data: bytes
    offset: int | None = None  # None: the right one


@dataclass
class Gguf:
    keys: list[Key] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    magic: bytes = b"GGUF"
    version: int = 3
    tensor_count: int | None = None  # None: the true one
    key_count: int | None = None
    alignment: int = 32  # of the layout; general.alignment is a key like any other

    def copy(self) -> Gguf:
        return copy.deepcopy(self)

    def put(self, name: str | bytes, kind: int, value: object) -> None:
        """Adds a scalar, or replaces the key of that name in its place."""
        self.put_raw(name, kind, encode_scalar(kind, value))

    def put_array(self, name: str, element: int, values: Sequence[object]) -> None:
        self.put_raw(name, ARRAY, encode_array(element, values))

    def put_raw(self, name: str | bytes, kind: int, payload: bytes) -> None:
        for key in self.keys:
            if key.name == name:
                key.kind, key.payload = kind, payload
                return
        self.keys.append(Key(name, kind, payload))

    def drop(self, name: str) -> None:
        before = len(self.keys) + len(self.tensors)
        self.keys = [k for k in self.keys if k.name != name]
        self.tensors = [t for t in self.tensors if t.name != name]
        assert len(self.keys) + len(self.tensors) == before - 1, name

    def tensor(self, name: str) -> Tensor:
        return next(t for t in self.tensors if t.name == name)

    def encode(self) -> bytes:
        """Returns the file. Nothing follows the last tensor, so that every byte is needed."""
        tensor_count = len(self.tensors) if self.tensor_count is None else self.tensor_count
        key_count = len(self.keys) if self.key_count is None else self.key_count
        mask = 2**64 - 1
        out = bytearray(self.magic)
        out += struct.pack("<IQQ", self.version, tensor_count & mask, key_count & mask)
        for key in self.keys:
            out += encode_text(key.name) + struct.pack("<I", key.kind) + key.payload
        data = bytearray()
        for tensor in self.tensors:
            data += bytes(-len(data) % self.alignment)
            offset = len(data) if tensor.offset is None else tensor.offset
            out += encode_text(tensor.name) + struct.pack("<I", len(tensor.shape))
            out += b"".join(struct.pack("<Q", d & mask) for d in tensor.shape)
            out += struct.pack("<IQ", tensor.kind, offset & mask)
            data += tensor.data
        if self.tensors:
            out += bytes(-len(out) % self.alignment)
        return bytes(out + data)


def random_tensor(
    random: np.random.Generator, name: str, shape: list[int], kind: int, mean: float = 0.0
) -> Tensor:
    """Makes values around ``mean``, scaled so that activations stay near 1."""
    count = int(np.prod(shape))
    block, block_bytes = BLOCKS[kind]
    scale = shape[0] ** -0.5 if len(shape) > 1 else 0.05
    if block == 1:
        values = (mean + scale * random.standard_normal(count)).astype(np.float32)
        if kind == T_F32:
            data = values.tobytes()
        elif kind == T_F16:
            data = values.astype(np.float16).tobytes()
        else:
            data = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    else:
        blocks = random.integers(0, 256, (count // block, block_bytes), dtype=np.uint8)
        step = scale / (4 if kind == T_Q4_0 else 64)
        blocks[:, :2] = np.full(len(blocks), step, np.float16).view(np.uint8).reshape(-1, 2)
        data = blocks.tobytes()
    return Tensor(name, shape, kind, data)


def read_array(path: Path, key: str) -> list:
    """Reads the strings or numbers of a metadata array, found by its key without parsing the
    file."""
    data = path.read_bytes()
    at = data.index(encode_text(key)) + len(encode_text(key))
    kind, element, count = struct.unpack_from("<IIQ", data, at)
    assert kind == ARRAY
    at += 16
    if element != STRING:
        return list(struct.unpack_from(f"<{count}{FORMATS[element]}", data, at))
    texts = []
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", data, at)
        texts.append(data[at + 8 : at + 8 + length].decode())
        at += 8 + length
    return texts
