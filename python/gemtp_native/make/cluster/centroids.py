"""Fits the centroids by which an ordered head scores its clusters, and measures their accuracy.

A cluster should score as high as its best token: centroid . h ~ max over its rows w of w . h. The
mean of the rows is right on average over all h. Given states h of the drafter in use, the centroids
are fitted to predict which cluster has the best token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .kmeans import chunks

_HELD_OUT = 8  # one in 8 fitting states is held out to decide when to stop
_BATCH = 256


def cluster_odds(
    features: np.ndarray, rows: np.ndarray, order: np.ndarray, clusters: int
) -> np.ndarray:
    """Returns the probability of each cluster under the head's distribution at temperature 1: [n,
    clusters]."""
    out = np.empty((len(features), clusters), np.float32)
    sorted_ = rows[order]
    for part in chunks(len(features), len(rows)):
        logits = features[part] @ sorted_.T
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        sums = logits.reshape(len(logits), clusters, -1).sum(axis=2)
        out[part] = sums / sums.sum(axis=1, keepdims=True)
    return out


def fit(
    centroids: np.ndarray,
    features: np.ndarray,
    odds: np.ndarray,
    seed: int,
    epochs: int,
    progress: Callable[[int, int], None],
) -> np.ndarray:
    """Fits centroids by logistic regression, starting from `centroids`, so that softmax(h .
    centroids) is close to `odds`. Returns those of the epoch that is best on held-out states,
    possibly the start."""
    rng = np.random.default_rng(seed)
    held = np.arange(len(features)) % _HELD_OUT == 0
    x, y = features[~held], odds[~held]
    x_held, y_held = features[held], odds[held]
    c = centroids.astype(np.float32)
    best, best_loss = c.copy(), _loss(c, x_held, y_held)
    first, second = np.zeros_like(c), np.zeros_like(c)  # moments of the gradient (Adam)
    rate = 0.02 * float(np.sqrt(np.square(c).mean()))
    step = 0
    for epoch in range(epochs):
        progress(epoch, epochs)
        lines = rng.permutation(len(x))
        for at in range(0, len(lines), _BATCH):
            batch = lines[at : at + _BATCH]
            step += 1
            gradient = (_softmax(x[batch] @ c.T) - y[batch]).T @ x[batch] / len(batch)
            first += 0.1 * (gradient - first)
            second += 0.01 * (np.square(gradient) - second)
            scale = np.sqrt(second / (1 - 0.99**step)) + 1e-12
            c -= rate * (1 - epoch / epochs) * (first / (1 - 0.9**step)) / scale
        loss = _loss(c, x_held, y_held)
        if loss < best_loss:
            best, best_loss = c.copy(), loss
    progress(epochs, epochs)
    return best


def ranks(
    features: np.ndarray, rows: np.ndarray, labels: np.ndarray, centroids: np.ndarray
) -> np.ndarray:
    """Returns, for each state, the number of clusters that score higher than the one with the best
    token (which the plain head would draft): [n]."""
    out = np.empty(len(features), np.int64)
    for part in chunks(len(features), len(rows)):
        best = (features[part] @ rows.T).argmax(axis=1)
        scores = features[part] @ centroids.T
        own = scores[np.arange(len(best)), labels[best]]
        out[part] = (scores > own[:, None]).sum(axis=1)
    return out


def shares(found: np.ndarray, top: Sequence[int]) -> dict[int, float]:
    """Returns, for each k, the share of ranks() below k."""
    return {k: float((found < k).mean()) for k in top}


def _softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float32)


def _loss(c: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    logits = x @ c.T
    logits -= logits.max(axis=1, keepdims=True)
    log_odds = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -float((y * log_odds).sum() / max(len(x), 1))
