"""Random weights for layers: dense, bounded, and keeping the variance of what they multiply."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..convert.encode import TensorType, block_values, encode, encoded_size

CHUNK = 1 << 22  # bytes written at a time
_VALUES = 1 << 24  # of the pool that matrices are cut from
# Root mean square of the quants -8 .. 7 and -127 .. 127, all equally likely.
_QUANT_RMS = {TensorType.Q4_0: 4.637, TensorType.Q8_0: 73.6}


class RandomWeights:
    """Matrices are pieces of one pool, from random places of it."""

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        self._pools: dict[TensorType, np.ndarray] = {}
        self._scaled: tuple[TensorType, int] | None = None  # what _bytes was made for
        self._bytes = np.empty(0, np.uint8)

    def normal(self, count: int) -> np.ndarray:
        return self._rng.standard_normal(count, dtype=np.float32)

    def cut(self, size: int, width: int, kind: TensorType) -> Iterator[np.ndarray]:
        """`size` bytes of rows of `width` weights with variance 1 / width."""
        pool = self._pool(width, kind)
        block = encoded_size(block_values(kind), kind)
        while size > 0:
            n = min(size, CHUNK // block * block)
            begin = int(self._rng.integers(0, (pool.size - n) // block + 1)) * block
            yield pool[begin : begin + n]
            size -= n

    def _pool(self, width: int, kind: TensorType) -> np.ndarray:
        if self._scaled == (kind, width):
            return self._bytes
        rms = _QUANT_RMS.get(kind)
        if kind not in self._pools:
            self._pools[kind] = self._quants(kind) if rms else self.normal(_VALUES)
        pool = self._pools[kind]
        if rms:
            scale = np.float16(1 / (rms * np.sqrt(width)))
            pool[:, :2] = np.frombuffer(scale.astype("<f2").tobytes(), np.uint8)
            self._bytes = pool.reshape(-1)
        else:
            self._bytes = encode(pool / np.float32(np.sqrt(width)), kind)
        self._scaled = (kind, width)
        return self._bytes

    def _quants(self, kind: TensorType) -> np.ndarray:
        blocks = _VALUES // block_values(kind)
        pool = self._rng.integers(
            0, 256, (blocks, encoded_size(block_values(kind), kind)), dtype=np.uint8
        )
        if kind == TensorType.Q8_0:
            pool[:, 2:][pool[:, 2:] == 128] = 0  # -128 is not a quant that encoders give
        return pool
