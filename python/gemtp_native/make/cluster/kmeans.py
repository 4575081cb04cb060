"""Balanced k-means: clusters of exactly equal size, deterministic, on hundreds of thousands of rows
in a minute or two.

First the rows are bisected repeatedly along principal directions. Then clusters are paired with
neighbours, and the rows of each pair are divided again: the half that lies closer to one of the two
centres belongs to it. This is the best division for these centres, so the squared distances shrink
with every sweep, and sizes never change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

_CHUNK_BYTES = 64 << 20  # bytes of scores computed at a time
_NEIGHBOURS = 16  # nearest clusters, one of which is the partner in a sweep
_PATIENCE, _LITTLE = 8, 1e-3  # stops when 8 sweeps together gain less than this share

Progress = Callable[[int, int], None]  # done, total


def balanced_kmeans(
    rows: np.ndarray, clusters: int, seed: int, sweeps: int, progress: Progress
) -> np.ndarray:
    """Returns labels [n] of float32 rows [n, width]; each of `clusters` labels occurs n / clusters
    times."""
    rng = np.random.default_rng(seed)
    members = _bisect(rows, clusters, rng)
    centres = rows[members.reshape(-1)].reshape(*members.shape, -1).mean(axis=1)
    total = float(np.square(rows - rows.mean(axis=0)).sum())
    gains: list[float] = []
    for sweep in range(sweeps):
        progress(sweep, sweeps)
        before = float(np.square(centres, dtype=np.float64).sum())
        _share_anew(rows, members, centres, _pairs(centres, rng))
        # The sum of squared distances is sum |x|^2 - size * sum |centre|^2.
        after = float(np.square(centres, dtype=np.float64).sum())
        gains.append(members.shape[1] * (after - before))
        if sum(gains[-_PATIENCE:]) < _LITTLE * total and len(gains) >= _PATIENCE:
            break
    progress(sweeps, sweeps)
    labels = np.empty(len(rows), np.int64)
    labels[members.reshape(-1)] = np.repeat(np.arange(clusters), members.shape[1])
    return labels


def order_of(labels: np.ndarray) -> np.ndarray:
    """Returns the row indices cluster by cluster, ascending within each: int32."""
    return np.argsort(labels, kind="stable").astype(np.int32)


def means(rows: np.ndarray, labels: np.ndarray, clusters: int) -> np.ndarray:
    """Returns the mean row of each label; labels occur equally often. float32 [clusters, width]."""
    ordered = rows[order_of(labels)].reshape(clusters, -1, rows.shape[1])
    return np.asarray(ordered.mean(axis=1), np.float32)


def chunks(count: int, width: int) -> Iterator[slice]:
    """Yields slices of `count` rows such that `width` floats per row fit into a chunk."""
    step = max(1, _CHUNK_BYTES // (4 * width))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _bisect(rows: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the row indices of each cluster: [clusters, size]."""
    members = np.empty((clusters, len(rows) // clusters), np.int64)
    stack = [(np.arange(len(rows)), 0, clusters)]
    while stack:
        found, first, count = stack.pop()
        if count == 1:
            members[first] = found
            continue
        own = rows[found]
        by_side = np.argsort(own @ _direction(own, rng), kind="stable")
        left = count // 2
        cut = left * members.shape[1]
        stack.append((found[by_side[:cut]], first, left))
        stack.append((found[by_side[cut:]], first + left, count - left))
    return members


def _direction(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Approximates the direction in which the rows differ most, by a few power iterations."""
    mean = np.asarray(rows.mean(axis=0))
    v: np.ndarray = rng.standard_normal((rows.shape[1],)).astype(np.float32)
    for _ in range(4):
        along = rows @ v
        along -= along.mean()
        v = np.asarray(along @ rows - float(along.sum()) * mean, np.float32)
        length = float(np.linalg.norm(v))
        if not length > 0:  # all rows are equal
            return np.asarray(0 * v)
        v /= length
    return v


def _pairs(centres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pairs clusters with one of their nearest neighbours, each at most once: [pairs, 2]."""
    count = len(centres)
    squares = np.einsum("kw,kw->k", centres, centres)
    distance = squares[:, None] + squares - 2 * (centres @ centres.T)
    np.fill_diagonal(distance, np.inf)
    near = min(_NEIGHBOURS, count - 1)
    nearest = np.argpartition(distance, near - 1, axis=1)[:, :near]
    free = np.ones(count, bool)
    pairs = []
    for cluster in rng.permutation(count):
        choices = nearest[cluster][free[nearest[cluster]]]
        if not free[cluster] or not len(choices):
            continue
        partner = choices[rng.integers(len(choices))]
        free[[cluster, partner]] = False
        pairs.append((cluster, partner))
    return np.array(pairs, np.int64).reshape(-1, 2)


def _share_anew(
    rows: np.ndarray, members: np.ndarray, centres: np.ndarray, pairs: np.ndarray
) -> None:
    size, width = members.shape[1], rows.shape[1]
    for part in chunks(len(pairs), 2 * size * width):
        of = pairs[part]
        both = members[of].reshape(len(of), 2 * size)
        values = rows[both]  # [pairs, 2 * size, width]
        towards = centres[of[:, 0]] - centres[of[:, 1]]
        along = np.matmul(values, towards[:, :, None])[:, :, 0]
        order = np.argsort(-along, axis=1, kind="stable")
        both = np.take_along_axis(both, order, axis=1)
        values = np.take_along_axis(values, order[:, :, None], axis=1)
        members[of] = both.reshape(len(of), 2, size)
        centres[of] = values.reshape(len(of), 2, size, width).mean(axis=2)
