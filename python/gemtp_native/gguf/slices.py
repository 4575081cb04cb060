"""Encodes tensors slice by slice on several threads, and counts values that a type cannot hold."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from ..base.ending import sleeping_at_end
from ..errors import FileError, ModelError
from .encode import LARGEST, encode
from .types import TensorType

SLICE = 1 << 19  # values per slice: 2 MiB of float32; whole blocks of every type


class Stored(Protocol):
    """A tensor in a file."""

    @property
    def name(self) -> str: ...
    @property
    def file(self) -> Path: ...
    @property
    def count(self) -> int: ...


T = TypeVar("T", bound=Stored, contravariant=True)


class Source(Protocol[T]):
    def read(self, tensor: T, start: int, count: int) -> np.ndarray:
        """Reads elements [start, start + count) in row order, as float32."""


def encoded(
    pool: ThreadPoolExecutor,
    window: int,
    source: Source[T],
    tensor: T,
    kind: TensorType,
    importance: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, Bad]]:
    """Yields (bytes, count of values that the type cannot hold) slice by slice. At most `window`
    slices are in memory.

    importance: [matrices, columns], the weights of errors for a tensor of that many matrices."""

    def work(values: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, Bad]:
        bad = count_bad(values, kind)
        if bad:
            return values.view(np.uint8), bad
        try:
            return encode(values, kind, weights), bad
        except ModelError as e:
            raise ModelError(f"{tensor.file}: {tensor.name}: {e}") from None

    waiting: deque[Future[tuple[np.ndarray, Bad]]] = deque()
    matrices = [None] if importance is None else list(importance)
    for i, start, count in _slices(tensor.count, len(matrices)):
        weights = matrices[i]
        if weights is not None:
            weights = np.resize(np.roll(weights, -start), count)
        values = source.read(tensor, start, count)
        with sleeping_at_end():
            waiting.append(pool.submit(work, values, weights))
        if len(waiting) == window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _slices(count: int, matrices: int) -> Iterator[tuple[int, int, int]]:
    """Yields (matrix, first value, number of values); no slice spans two matrices."""
    size = count // matrices
    for i in range(matrices):
        for start in range(i * size, (i + 1) * size, SLICE):
            yield i, start, min(SLICE, (i + 1) * size - start)


@contextmanager
def encoders(
    total: int, progress: bool, threads: int | None = None
) -> Iterator[tuple[ThreadPoolExecutor, int, tqdm[Any]]]:
    """Provides the means for writing a file: threads for encoding (which releases the GIL; reading
    and writing stay in order), the window of encoded(), and a progress bar for `total` bytes."""
    workers = threads or _processors()
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(
            total=total,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            disable=not progress or not sys.stderr.isatty(),
            file=sys.stderr,
            leave=False,
        ) as bar,
    ):
        yield pool, workers + 1, bar


def _processors() -> int:
    """Returns the number of processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


class Bad(NamedTuple):
    """Counts of values that cannot be stored."""

    not_finite: int = 0
    too_large: int = 0

    def __bool__(self) -> bool:
        return self.not_finite + self.too_large > 0

    def __add__(self, other: Any) -> Bad:
        return Bad(self.not_finite + other.not_finite, self.too_large + other.too_large)

    def check(self, tensor: Stored, kind: TensorType) -> None:
        if self.not_finite:
            raise FileError(
                f"{tensor.file}: {tensor.name} holds {self.not_finite} values that are NaN or "
                f"infinite: the file is damaged, download or make it again."
            )
        if self.too_large:
            raise ModelError(
                f"{tensor.file}: {tensor.name} holds {self.too_large} values beyond "
                f"{LARGEST[kind]:g}, the largest of {kind.name}; write it as bf16 or f32."
            )


def count_bad(values: np.ndarray, kind: TensorType) -> Bad:
    largest = np.float32(LARGEST[kind])
    if values.min() >= -largest and values.max() <= largest:  # false if there is a NaN
        return Bad()
    finite = int(np.count_nonzero(np.isfinite(values)))
    return Bad(values.size - finite, finite - int(np.count_nonzero(np.abs(values) <= largest)))
