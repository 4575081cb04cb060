"""Defines which token follows which, for the target and for the drafter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...errors import ArgumentError

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


def hashed(seed: int, stream: int, values: np.ndarray) -> np.ndarray:
    """Returns uint64 noise as a function of (seed, stream, value), the same on every machine."""
    first = np.array([(seed + _GOLDEN) & _MASK], np.uint64)
    key = _mixed(_mixed(first) + np.uint64(stream))
    return _mixed(_mixed(values.astype(np.uint64) * np.uint64(_GOLDEN) + key) ^ key)


def shuffled(seed: int, stream: int, values: np.ndarray) -> np.ndarray:
    return values[np.argsort(hashed(seed, stream, values), kind="stable")]


_CYCLE, _ENTRY, _WRONG, _CLUSTER = range(4)  # streams of noise


@dataclass(frozen=True)
class Walk:
    """One cycle through all ordinary tokens. Other tokens lead into it and are never chosen.

    Every array except `cycle` is indexed by token. A *code* is a random vector, one per token; a
    head with the code of t in row u chooses u when its input is the code of t.
    """

    seed: int
    cycle: np.ndarray  # the ordinary tokens in the order of the walk
    following: np.ndarray  # the target's choice after each token
    embedding_code: np.ndarray  # ordinary tokens have their own, others one of those
    target_code: np.ndarray  # of each row of the target's head
    drafter_code: np.ndarray  # of each row of the drafter's head

    @cached_property
    def proposed(self) -> np.ndarray:
        """The drafter's proposal after each token."""
        by_code = np.empty_like(self.drafter_code)
        by_code[self.drafter_code] = np.arange(len(by_code))
        proposed: np.ndarray = by_code[self.embedding_code]
        return proposed

    def clusters(self, count: int) -> np.ndarray:
        """Returns the cluster of each code, all of the same size: [vocab]."""
        codes = np.arange(len(self.following))
        out = np.empty_like(codes)
        out[shuffled(self.seed, _CLUSTER, codes)] = codes // (len(codes) // count)
        return out

    def token_order(self, count: int) -> np.ndarray:
        """Returns the tokens cluster by cluster, by the rows of the drafter's head."""
        return np.argsort(self.clusters(count)[self.drafter_code], kind="stable")


@dataclass(frozen=True)
class Acceptance:
    """Shares of tokens after which the drafter is right. Several shares alternate along the
    cycle."""

    shares: tuple[float, ...]
    every: int = 0  # tokens until the next share; 0: there is only one

    def __str__(self) -> str:
        text = ",".join(f"{share:g}" for share in self.shares)
        return f"{text} accepted" + (f" every {self.every}" if self.every else "")

    def turns(self, length: int) -> np.ndarray:
        """Returns the index of the share at each position of the cycle: [length]."""
        if not self.every:
            return np.zeros(length, np.int64)
        turns: np.ndarray = np.arange(length) // self.every % len(self.shares)
        return turns


def make_walk(ordinary: np.ndarray, vocab: int, accept: Acceptance, seed: int) -> Walk:
    """ordinary: ids of the walk; accept: how often the drafter is right along it.

    Each share is exact to one token over all of its turns (a single token cannot be wrong alone, so
    then there are two), and the wrong tokens are chosen independently of their order in the cycle.
    """
    tokens = np.arange(vocab)
    cycle = shuffled(seed, _CYCLE, ordinary)
    following = tokens.copy()
    following[cycle] = np.roll(cycle, -1)

    embedding_code = tokens.copy()
    special = np.setdiff1d(tokens, ordinary)
    entries = hashed(seed, _ENTRY, special) % np.uint64(len(ordinary))
    embedding_code[special] = ordinary[entries.astype(np.int64)]

    target_code = tokens.copy()  # special tokens have a code that no embedding has
    target_code[following[ordinary]] = ordinary
    following[special] = following[embedding_code[special]]

    at = _wrong(cycle, accept, seed)
    drafter_code = target_code.copy()
    drafter_code[following[at]] = np.roll(at, -1)  # proposes what follows another wrong token
    return Walk(seed, cycle, following, embedding_code, target_code, drafter_code)


def _wrong(cycle: np.ndarray, accept: Acceptance, seed: int) -> np.ndarray:
    """The tokens after which the drafter is wrong: none, or at least two."""
    turns = accept.turns(len(cycle))
    sizes = np.bincount(turns, minlength=len(accept.shares))
    if sizes.min() < 2:
        raise ArgumentError(
            f"{len(sizes)} shares that change every {accept.every:,} tokens do not fit into a walk "
            f"of {len(cycle):,}; choose fewer, or let them change sooner."
        )
    counts = [
        round((1 - share) * int(size)) for share, size in zip(accept.shares, sizes, strict=True)
    ]
    if sum(counts) == 1:
        counts[counts.index(1)] = 2
    # In an order independent of the cycle, the first tokens of each turn.
    places = np.argsort(hashed(seed, _WRONG, cycle), kind="stable")
    chosen = np.zeros(len(cycle), bool)
    for turn, count in enumerate(counts):
        chosen[np.flatnonzero(turns[places] == turn)[:count]] = True
    wrong: np.ndarray = cycle[places[chosen]]
    return wrong
