"""The content of the tensors: distinguishable codes, and noise that costs as much as weights.

A code is a row of blocks drawn from a bank of random ±1 blocks. The bank is encoded once in the
file's type; a row of any table is then a choice of encoded blocks, so that hundreds of thousands of
rows take as long as copying them. Two codes correlate only by chance: the standard deviation is
width^-½, and over all pairs of tokens the maximum is about 5 of these (0.32 in a drafter of 256
dimensions), far below the 1 of a code with itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...gguf.encode import encode
from ...gguf.types import TensorType, block_values
from .walk import hashed

BLOCK = 32
_BANK = 4096
_CODE, _CLUSTER_CODE, _SIGNS = 16, 17, 18  # streams of noise, distinct from those of the walk
_ROWS_BYTES = 1 << 22  # about how much is made at a time
_NOISE_BLOCKS = 131_071  # 4 Mi values; prime, so that rows and tensors start at different places


class Codes:
    """The codes of a vocabulary. Codes of the same cluster share their first blocks."""

    def __init__(self, seed: int, clusters: np.ndarray | None, drafter_width: int):
        """clusters: [vocab], the cluster of each code; None: codes share nothing."""
        self._seed = seed
        self._clusters = clusters
        # A quarter of the drafter's code identifies the cluster, the rest the token within it.
        self._shared = 0 if clusters is None else drafter_width // BLOCK // 4
        bits = hashed(seed, _SIGNS, np.arange(_BANK * BLOCK)) >> np.uint64(63)
        self._signs = np.where(bits == 1, np.float32(1), np.float32(-1)).reshape(_BANK, BLOCK)

    def _choice(self, codes: np.ndarray, width: int) -> np.ndarray:
        """Returns indices of blocks in the bank: [codes, width / 32]."""
        columns = np.arange(width // BLOCK)
        keys = codes[:, None] * 1024 + columns
        chosen = hashed(self._seed, _CODE, keys)
        if self._clusters is not None:
            shared = columns[: self._shared]
            keys = self._clusters[codes][:, None] * 1024 + shared
            chosen[:, : self._shared] = hashed(self._seed, _CLUSTER_CODE, keys)
        return (chosen % np.uint64(_BANK)).astype(np.int64)

    def rows(
        self, codes: np.ndarray, width: int, amplitude: float, kind: TensorType
    ) -> Iterator[np.ndarray]:
        """Yields the table whose rows are `amplitude` times the first `width` values of `codes`."""
        values = np.ascontiguousarray(self._signs * np.float32(amplitude)).reshape(-1)
        encoded = encode(values, kind).reshape(_BANK, -1)
        items = encoded.view(np.dtype((np.void, encoded.shape[1]))).reshape(-1)
        step = max(1, _ROWS_BYTES // (encoded.shape[1] * width // BLOCK))
        for start in range(0, len(codes), step):
            taken = items[self._choice(codes[start : start + step], width)]
            yield taken.view(np.uint8).reshape(-1)

    def centroids(self, count: int, width: int) -> np.ndarray:
        """Returns the direction shared by the codes of each cluster: [count, width]."""
        keys = np.arange(count)[:, None] * 1024 + np.arange(self._shared)
        chosen = hashed(self._seed, _CLUSTER_CODE, keys) % np.uint64(_BANK)
        out = np.zeros((count, width), np.float32)
        out[:, : self._shared * BLOCK] = self._signs[chosen.astype(np.int64)].reshape(count, -1)
        return out


class Noise:
    """Matrices of uniform noise, taken from different places of a few MiB that repeat."""

    def __init__(self, seed: int):
        self._random = np.random.default_rng(seed)
        self._pools: dict[tuple[float, TensorType], np.ndarray] = {}
        self._at = 0

    def matrix(self, count: int, deviation: float, kind: TensorType) -> Iterator[np.ndarray]:
        """Yields `count` values, a multiple of 32, with this standard deviation."""
        pool = self._pool(deviation, kind)
        left = count // BLOCK
        while left:
            start = self._at % len(pool)
            taken = pool[start : start + left]
            yield taken.reshape(-1)
            self._at += len(taken)
            left -= len(taken)

    def _pool(self, deviation: float, kind: TensorType) -> np.ndarray:
        """Returns encoded noise: [blocks, bytes of 32 values]."""
        key = (deviation, kind)
        if key not in self._pools:
            values = self._random.random(_NOISE_BLOCKS * BLOCK, dtype=np.float32)
            values -= np.float32(0.5)
            values *= np.float32(deviation * 12**0.5)
            self._pools[key] = encode(values, kind).reshape(_NOISE_BLOCKS, -1)
        return self._pools[key]


def selection(rows: int, cols: int, kind: TensorType) -> Iterator[np.ndarray]:
    """Yields a matrix [rows, cols] whose row i selects value i of its input."""
    step = max(1, _ROWS_BYTES // (4 * cols))
    assert cols % block_values(kind) == 0
    for start in range(0, rows, step):
        values = np.eye(min(step, rows - start), cols, start, dtype=np.float32)
        yield encode(values.reshape(-1), kind)
