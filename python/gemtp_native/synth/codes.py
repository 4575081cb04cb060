"""Embeddings that know what comes next: codes of +-1, nearly orthogonal, one for every token.

The target's layers add nothing, so the state behind token t is its code. The head's row of the
token that follows t is that code again, and the drafter, whose input projection selects the first
of its coordinates, has in the row of the token that it proposes after t the beginning of the code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..convert.encode import TensorType, encode
from ..convert.tokenizer import Tokenizer
from .vocabulary import walked

# In an ordered head the codes of a cluster share this much of their beginnings: each bit of the
# cluster's own code is turned with probability 1/4. So a token agrees to 0.5 with its own centroid,
# and with the best of 2,048 / 64 others to 2.15 / sqrt(256) = 0.13.
_TURNED = 0.25
# Logit of the right token before the softcap of 30; others stay around 0.
_LOGIT = 12.0
# Rows of tokens that never come out: so much smaller.
_SILENT = 0.25


@dataclass(frozen=True)
class Codes:
    """Which code every row stands for. bits: [vocab, hidden / 8], packed."""

    bits: np.ndarray
    embedding: np.ndarray  # [vocab] code of a token's embedding
    head: np.ndarray  # [vocab] code of a token's row in the head
    drafter_head: np.ndarray  # [vocab] likewise in the drafter's
    silent: np.ndarray  # [vocab] rows that must not win
    following: np.ndarray  # [vocab] the token that comes after each
    clusters: int  # code c belongs to cluster c % clusters; 0: no clusters

    @property
    def token_order(self) -> np.ndarray:
        """[vocab] tokens cluster by cluster, as the drafter's ordered head wants them."""
        return np.argsort(self.drafter_head % self.clusters, kind="stable").astype(np.int32)

    def centroids(self, width: int) -> np.ndarray:
        """[clusters, width] means of the drafter's rows, +-1."""
        sums = np.zeros((self.clusters, width), np.int32)
        for begin in range(0, len(self.bits), self.clusters):
            rows = self.bits[begin : begin + self.clusters, : width // 8]
            sums += 2 * np.unpackbits(rows, axis=1).astype(np.int32) - 1
        return np.where(sums < 0, np.float32(-1), np.float32(1))


def make_codes(
    tokenizer: Tokenizer,
    hidden: int,
    drafter_hidden: int,
    clusters: int,
    accept: float,
    rng: np.random.Generator,
) -> Codes:
    """The codes of a pair whose drafter is right behind a share `accept` of the tokens."""
    vocab = len(tokenizer.tokens)
    bits = rng.integers(0, 256, (vocab, hidden // 8), dtype=np.uint8)
    if clusters:
        width = drafter_hidden // 8
        own = rng.integers(0, 256, (clusters, width), dtype=np.uint8)
        for begin in range(0, vocab, clusters):
            turned = rng.random((clusters, drafter_hidden), dtype=np.float32) < _TURNED
            bits[begin : begin + clusters, :width] = own ^ np.packbits(turned, axis=1)

    # One cycle through all ordinary tokens: no generation repeats itself soon.
    cycle = rng.permutation(walked(tokenizer))
    following = np.empty(vocab, np.int64)
    following[cycle] = np.roll(cycle, -1)
    silent = np.ones(vocab, bool)
    silent[cycle] = False
    # What cannot come out leads into the cycle, as the token does whose code it shares.
    embedding = np.arange(vocab)
    embedding[silent] = rng.choice(cycle, int(silent.sum()))
    following[silent] = following[embedding[silent]]
    head = np.arange(vocab)
    head[following[cycle]] = cycle

    wrong = rng.permutation(cycle)[: round((1 - accept) * len(cycle))]
    if len(wrong) == 1:  # it takes two to be confused
        wrong = cycle[:2]
    drafter_head = head.copy()
    drafter_head[following[wrong]] = np.roll(wrong, -1)
    return Codes(bits, embedding, head, drafter_head, silent, following, clusters)


def code_rows(
    bits: np.ndarray, width: int, size: np.ndarray | float, kind: TensorType
) -> np.ndarray:
    """Rows of +-size, [n, bytes] as a tensor of `kind` stores them. bits: [n, >= width / 8]."""
    signs = np.unpackbits(bits[:, : width // 8], axis=1)
    size = np.broadcast_to(np.asarray(size, np.float32), len(signs))
    if kind not in (TensorType.Q4_0, TensorType.Q8_0):
        values = np.where(signs, size[:, None], -size[:, None])
        return encode(values.reshape(-1), kind).reshape(len(signs), -1)
    # Exact in the middle of the range, where encoding would lose the sign's symmetry.
    blocks = signs.reshape(len(signs), -1, 32)
    if kind == TensorType.Q4_0:
        nibbles = 1 + 14 * blocks  # -7, 7
        quants, largest = nibbles[:, :, :16] | nibbles[:, :, 16:] << 4, 7
    else:
        quants, largest = np.where(blocks, np.uint8(127), np.uint8(129)), 127
    scales = (size / np.float32(largest)).astype("<f2").view(np.uint8).reshape(-1, 1, 2)
    scales = np.broadcast_to(scales, (len(signs), blocks.shape[1], 2))
    return np.concatenate([scales, quants], axis=2).reshape(len(signs), -1)


def head_sizes(silent: np.ndarray, width: int) -> np.ndarray:
    """Size of the values in each row of a head: the dot with the normed state is _LOGIT."""
    size = np.float32(_LOGIT / width)
    return np.where(silent, size * np.float32(_SILENT), size)


def selection(rows: int, columns: int, kind: TensorType) -> np.ndarray:
    """The matrix that takes the first `rows` of `columns` values, as a tensor of `kind`."""
    if kind not in (TensorType.Q4_0, TensorType.Q8_0):
        return encode(np.eye(rows, columns, dtype=np.float32).reshape(-1), kind)
    diagonal = np.arange(rows)
    largest, middle = (7, 8) if kind == TensorType.Q4_0 else (127, 0)
    quants = np.full((rows, columns // 32, 32), middle, np.uint8)
    quants[diagonal, diagonal // 32, diagonal % 32] = middle + largest
    if kind == TensorType.Q4_0:
        quants = quants[:, :, :16] | (quants[:, :, 16:] << np.uint8(4))
    scale = np.frombuffer(np.array(1 / largest, "<f2").tobytes(), np.uint8)
    scales = np.broadcast_to(scale, (rows, columns // 32, 2))
    return np.concatenate([scales, quants], axis=2).reshape(-1)
