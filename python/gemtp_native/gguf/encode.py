"""Converts float32 values to the bytes of a GGUF tensor type, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError
from .types import TensorType

try:
    from .. import _core
except ImportError:  # the converter also runs from a checkout
    _core = None  # type: ignore[assignment]

# Largest magnitude that a type can hold. Scales are float16; minimums are float16 or, in the K
# types, small multiples of a float16.
_F16_MAX = 65504.0
_LEVELS = {
    TensorType.F16: 1,
    TensorType.Q4_0: 8,
    TensorType.Q4_1: 1,
    TensorType.Q5_0: 16,
    TensorType.Q5_1: 1,
    TensorType.Q8_0: 127,
    TensorType.Q2_K: 15,
    TensorType.Q3_K: 31 * 3,
    TensorType.Q4_K: 63,
    TensorType.Q5_K: 63,
    TensorType.Q6_K: 127 * 31,
    TensorType.IQ4_NL: 113,
    TensorType.IQ4_XS: 31 * 113,
}
LARGEST = {
    TensorType.F32: float(np.finfo(np.float32).max),
    TensorType.BF16: 3.3895313892515355e38,
    TensorType.MXFP4: 6 * 2.0**125,
    **{kind: _F16_MAX * levels for kind, levels in _LEVELS.items()},
}

# Blocks whose largest value is below this have a scale of 0 in float16; 1/scale would overflow.
_TINY = np.float32(2.0**-100)


def encode(x: np.ndarray, kind: TensorType, importance: np.ndarray | None = None) -> np.ndarray:
    """Encodes x: flat float32, finite, whole blocks. Returns uint8 in file order.

    importance: like x, the weight of each value's error. Blocks follow each other along a row, so
    any run of whole blocks can be encoded separately.
    """
    if kind == TensorType.F32:
        out = x.astype("<f4", copy=False)
    elif kind == TensorType.F16:
        out = x.astype("<f2")
    elif kind == TensorType.BF16:  # round to nearest, ties to even
        bits = x.view(np.uint32)
        rounded = bits + ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
        out = (rounded >> np.uint32(16)).astype("<u2")
    elif _core is not None:
        out = _core.encode(int(kind), x, importance)
    else:
        out = _encode_without_core(x, kind)
    return out.reshape(-1).view(np.uint8)


def decode(data: np.ndarray, kind: TensorType) -> np.ndarray:
    """Decodes data: uint8 in file order, whole blocks. Returns flat float32. Raises FileError for a
    scale that is NaN or infinite."""
    if kind == TensorType.F32:
        return data.view("<f4").astype(np.float32, copy=False)
    if kind == TensorType.F16:
        return data.view("<f2").astype(np.float32)
    if kind == TensorType.BF16:  # the upper half of a float32
        return (data.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    return _core.decode(int(kind), data)


def _encode_without_core(x: np.ndarray, kind: TensorType) -> np.ndarray:
    """Makes the same bytes with the encoders of the gguf package, for the types it supports."""
    try:
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import quantize
    except ImportError:
        raise ArgumentError(
            f"writing {kind.name} from a checkout without the compiled core takes the package "
            f"gguf: install it (pip install gguf) or gemtp-native itself (pip install .)."
        ) from None

    x = np.where(np.abs(x) < _TINY, np.float32(0), x)
    # gguf encodes 16 rows at a time; wide rows keep its loop short.
    wide = 1 << 13
    body = x.size // wide * wide
    try:
        parts: list[Any] = [
            quantize(part, GGMLQuantizationType(int(kind))).reshape(-1)
            for part in (x[:body].reshape(-1, wide), x[body:].reshape(1, -1))
            if part.size
        ]
    except NotImplementedError:
        raise ArgumentError(
            f"writing {kind.name} takes the compiled core, which this checkout lacks; install the "
            f"package (pip install .) or choose q8_0 or q4_0."
        ) from None
    return np.concatenate(parts)
