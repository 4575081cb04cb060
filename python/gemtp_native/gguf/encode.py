"""float32 values → the bytes of a GGUF tensor type, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError
from .types import TensorType

try:
    from .. import _core
except ImportError:  # the converter also runs from a checkout
    _core = None  # type: ignore[assignment]

# Largest magnitude that a type holds. Scales are float16; types with a minimum hold that in float16
# or, in the K types, in small multiples of one.
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
    """x: flat float32, finite, a multiple of the block; returns uint8 in file order.

    importance: as x, how much the error of each value counts. Blocks follow each other along a row,
    so any run of whole blocks encodes alone.
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
    """data: uint8 in file order, whole blocks; returns flat float32. FileError for a scale that is
    NaN or infinite."""
    if kind == TensorType.F32:
        return data.view("<f4").astype(np.float32, copy=False)
    if kind == TensorType.F16:
        return data.view("<f2").astype(np.float32)
    if kind == TensorType.BF16:  # the upper half of a float32
        return (data.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    return _core.decode(int(kind), data)


def _encode_without_core(x: np.ndarray, kind: TensorType) -> np.ndarray:
    """The same bytes from gguf's own encoders, for the types that these write."""
    try:
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import quantize
    except ImportError:
        raise ArgumentError(
            f"writing {kind.name} from a checkout without the compiled core takes the package "
            f"gguf: install it (pip install gguf) or gemtp-native itself (pip install .)."
        ) from None

    x = np.where(np.abs(x) < _TINY, np.float32(0), x)
    # gguf works 16 rows at a time; wide rows keep its loop out of the way.
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
