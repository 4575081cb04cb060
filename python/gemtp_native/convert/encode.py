"""float32 values → the bytes of a GGUF tensor type, and back."""

from __future__ import annotations

import enum

import numpy as np


class TensorType(enum.IntEnum):
    """Tensor types by their number in GGUF."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q8_0 = 8
    BF16 = 30


# outtype -> (type of matrices, general.file_type)
OUTTYPES = {
    "f32": (TensorType.F32, 0),
    "f16": (TensorType.F16, 1),
    "bf16": (TensorType.BF16, 32),
    "q8_0": (TensorType.Q8_0, 7),
    "q4_0": (TensorType.Q4_0, 2),
}

# type -> (values per block, bytes per block)
_BLOCK = {
    TensorType.F32: (1, 4),
    TensorType.F16: (1, 2),
    TensorType.BF16: (1, 2),
    TensorType.Q8_0: (32, 34),
    TensorType.Q4_0: (32, 18),
}

# Largest magnitude that a type holds: blocks keep their scale as float16, amax/127 or amax/8.
_F16_MAX = 65504.0
LARGEST = {
    TensorType.F32: float(np.finfo(np.float32).max),
    TensorType.F16: _F16_MAX,
    TensorType.BF16: 3.3895313892515355e38,
    TensorType.Q8_0: _F16_MAX * 127,
    TensorType.Q4_0: _F16_MAX * 8,
}

# Blocks whose largest value is below this have a scale of 0 in float16; 1/scale would overflow.
_TINY = np.float32(2.0**-100)


def block_values(kind: TensorType) -> int:
    return _BLOCK[kind][0]


def encoded_size(count: int, kind: TensorType) -> int:
    values, size = _BLOCK[kind]
    return count // values * size


def encode(x: np.ndarray, kind: TensorType) -> np.ndarray:
    """x: flat float32, finite, a multiple of the block; returns uint8 in file order.

    Blocks follow each other along a row, so any run of whole blocks encodes alone.
    """
    if kind == TensorType.F32:
        out = x.astype("<f4", copy=False)
    elif kind == TensorType.F16:
        out = x.astype("<f2")
    elif kind == TensorType.BF16:  # round to nearest, ties to even
        bits = x.view(np.uint32)
        rounded = bits + ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
        out = (rounded >> np.uint32(16)).astype("<u2")
    else:
        out = _quantize(x, kind)
    return out.reshape(-1).view(np.uint8)


def decode(data: np.ndarray, kind: TensorType) -> np.ndarray:
    """data: uint8 in file order, whole blocks; returns flat float32."""
    if kind == TensorType.F32:
        return data.view("<f4").astype(np.float32, copy=False)
    if kind == TensorType.F16:
        return data.view("<f2").astype(np.float32)
    if kind == TensorType.BF16:  # the upper half of a float32
        return (data.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    blocks = data.reshape(-1, _BLOCK[kind][1])
    scales = blocks[:, :2].copy().view("<f2").astype(np.float32)  # [blocks, 1]
    if kind == TensorType.Q8_0:
        return (scales * blocks[:, 2:].view(np.int8)).reshape(-1)
    # Q4_0: byte j holds element j in its low and element j + 16 in its high half.
    halves = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    return (scales * (halves.astype(np.float32) - 8)).reshape(-1)


def _quantize(x: np.ndarray, kind: TensorType) -> np.ndarray:
    # Imported here: gguf takes a while to load, and only this needs it.
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import quantize

    x = np.where(np.abs(x) < _TINY, np.float32(0), x)
    # gguf works 16 rows at a time; wide rows keep its loop out of the way.
    wide = 1 << 13
    body = x.size // wide * wide
    parts = [
        quantize(part, GGMLQuantizationType(int(kind))).reshape(-1)
        for part in (x[:body].reshape(-1, wide), x[body:].reshape(1, -1))
        if part.size
    ]
    return np.concatenate(parts)
