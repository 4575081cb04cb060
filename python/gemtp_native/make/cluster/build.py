"""Converts a drafter's plain head to an ordered one, in a new file."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ... import _core
from ...base.counted import counted
from ...base.whole_file import check_output
from ...errors import ArgumentError, FileError, ModelError
from ...gguf.file import Metadata
from ...gguf.parts import files_of
from ...gguf.rewrite import rewrite
from . import centroids as scoring
from .kmeans import balanced_kmeans, means, order_of
from .report import ClusterReport

HEAD = "gemtp.ordered_head"
SHARES = (8, 16, 32)
DRAFTERS = ("gemma4-assistant", "gemma4_assistant", "gemma4_mtp")

_WINDOW = 512  # tokens of text run at a time
_STEPS = 2  # draft steps per round whose states are used
_EPOCHS = 12
_HELD_OUT = 4  # the last 1/4 of the text is used for measuring
_ROWS = 4096  # rows measured without a target

Progress = Callable[[str, int, int], None]
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class ClusterSettings:
    centroids: int | None = None
    """Number of clusters; None: 2048 for Gemma 4's vocabulary, about sqrt(8 vocabulary) for
    others."""
    top_k: int | None = None
    """Clusters that a draft step scores token by token; None: 32, at most half of all."""
    seed: int = 0
    sweeps: int = 100
    """Maximum number of k-means sweeps; it ends earlier when they gain little."""
    positions: int = 4096
    """Number of tokens of the text that are used."""
    replace: bool = False
    """Replace an ordered head that the file already has."""
    threads: int | None = None
    device: str | None = None
    gpu_layers: int | Literal["auto"] | None = None


def cluster(
    drafter: PathLike,
    out: PathLike,
    target: PathLike | None = None,
    text: str | bytes | None = None,
    settings: ClusterSettings | None = None,
    progress: Progress = lambda *_: None,
) -> ClusterReport:
    """Writes `drafter` with an ordered head to `out`, which appears complete or not at all.

    With a target and a text, clusters and centroids are fitted to the drafter's states on the text,
    and measured on its last quarter. Raises ArgumentError, FileError or ModelError before anything
    is written.
    """
    settings, start = settings or ClusterSettings(), time.monotonic()
    if (target is None) != (text is None):
        raise ArgumentError("a target and a text belong together: give both, or neither")
    drafter, out = Path(drafter), Path(out)
    file = _core.GgufFile(drafter)
    _check(file, drafter, target, out, settings)
    name, rows = _head(file, drafter, progress)
    vocab, width = rows.shape
    count = _cluster_count(vocab, settings.centroids, drafter)
    top_k = settings.top_k or min(32, max(1, count // 2))
    if not 1 <= top_k <= count:
        raise ArgumentError(f"top-k is {top_k}; it must be between 1 and the {count} centroids")
    top = sorted({k for k in (*SHARES, top_k) if k <= count})
    old = _existing(file, vocab, width)

    if target is not None and text is not None:
        states = _states(target, drafter, text, settings, progress)
        cut = max(1, len(states) * (_HELD_OUT - 1) // _HELD_OUT)
        used, held = states[:cut], states[cut:]
    else:
        used, held = None, _stand_ins(rows, settings.seed)

    labels = balanced_kmeans(
        rows * _norm(file, width),
        count,
        settings.seed,
        settings.sweeps,
        lambda done, total: progress("clustering", done, total),
    )
    order = order_of(labels)
    centres = means(rows, labels, count)
    if used is not None:
        odds = scoring.cluster_odds(used, rows, order, count)
        centres = scoring.fit(
            centres, used, odds, settings.seed, _EPOCHS,
            lambda done, total: progress("fitting centroids", done, total),
        )  # fmt: skip
    if not np.isfinite(centres).all():
        raise ModelError(
            f"{drafter}: the rows of {name} are so large that their means are no numbers; the file "
            f"is damaged, download or convert it again."
        )
    progress("measuring", 0, 1)
    same = scoring.shares(scoring.ranks(held, rows, labels, centres), top)
    replaced = None
    if old is not None:
        top_old = [k for k in top if k <= len(old[1])]
        replaced = scoring.shares(scoring.ranks(held, rows, old[0], old[1]), top_old)
    _write(file, drafter, out, count, top_k, centres, order, progress)
    row_bytes = next(t[3] for t in file.tensors if t[0] == name) / vocab
    return ClusterReport(
        drafter=str(drafter),
        out=str(out),
        vocabulary=vocab,
        hidden=width,
        centroids=count,
        cluster_size=vocab // count,
        top_k=top_k,
        seed=settings.seed,
        states="rows" if used is None else "text",
        measured=len(held),
        same=same,
        replaced=replaced,
        replaced_centroids=None if old is None else len(old[1]),
        read_before=round(row_bytes * vocab),
        read_after=round(4 * count * width + row_bytes * top_k * (vocab // count)),
        seconds=time.monotonic() - start,
    )


# ---------------------------------------------------------------- what is given


def _check(
    file: _core.GgufFile,
    drafter: Path,
    target: PathLike | None,
    out: Path,
    settings: ClusterSettings,
) -> None:
    arch = file.value("general.architecture")
    if arch not in DRAFTERS:
        raise ModelError(
            f"{drafter} is of the architecture {arch!r}, not a drafter of Gemma 4: only drafters "
            f"have ordered heads."
        )
    if _has_ordered_head(file) and not settings.replace:
        raise ModelError(
            f"{drafter} has an ordered head already; --replace makes another in its place."
        )
    check_output(out, *file.parts, *([] if target is None else files_of(target)))


def _has_ordered_head(file: _core.GgufFile) -> bool:
    return file.value(f"{HEAD}.num_centroids") is not None or any(
        is_head_tensor(t[0]) for t in file.tensors
    )


def is_head_tensor(name: str) -> bool:
    """Whether a tensor belongs to an ordered head, by the names of all converters."""
    return name.startswith(("masked_embd_", "mtp.centroids", "mtp_centroids")) or name.startswith(
        ("mtp.token_ordering", "mtp_token_ordering")
    )


def _head(file: _core.GgufFile, drafter: Path, progress: Progress) -> tuple[str, np.ndarray]:
    shapes = {t[0]: t[2] for t in file.tensors}
    name = "output.weight" if "output.weight" in shapes else "token_embd.weight"
    shape = shapes.get(name, [])
    if len(shape) != 2:
        raise FileError(f"{drafter} has no head: tensor {name} is missing or no matrix.")
    width, vocab = shape
    rows = np.empty((vocab, width), np.float32)
    step = max(1, (32 << 20) // (4 * width))
    for start in range(0, vocab, step):
        progress("reading the head", start, vocab)
        rows[start : start + step] = file.rows(name, start, min(step, vocab - start))
    if not np.isfinite(rows).all():
        raise FileError(f"{drafter}: tensor {name} holds NaN or infinite values; it is damaged.")
    return name, rows


def _cluster_count(vocab: int, wanted: int | None, drafter: Path) -> int:
    if wanted is not None:
        if not 2 <= wanted <= vocab or vocab % wanted:
            raise ArgumentError(
                f"{wanted} centroids cannot share {vocab} tokens equally; choose a divisor, like "
                f"{_nearest_divisor(vocab, wanted)}."
            )
        return wanted
    count = _nearest_divisor(vocab, math.sqrt(8 * vocab))
    if not 2 <= count < vocab:
        raise ModelError(
            f"{drafter} knows {vocab} tokens, which cannot be divided into clusters of one size."
        )
    return count


def _nearest_divisor(n: int, wanted: float) -> int:
    """Returns the divisor of n nearest to `wanted` by ratio; the larger of equally near ones."""
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return min(
        sorted({*small, *(n // d for d in small)}, reverse=True),
        key=lambda d: round(abs(math.log(d / max(wanted, 1))), 6),
    )


def _existing(file: _core.GgufFile, vocab: int, width: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns (labels, centroids) of an ordered head in the metadata."""
    count = file.value(f"{HEAD}.num_centroids")
    if not isinstance(count, int) or count < 1 or vocab % count:
        return None
    order = np.asarray(file.value(f"{HEAD}.token_order"))
    values = np.asarray(file.value(f"{HEAD}.centroids"), np.float32)
    if values.size != count * width or sorted(order.tolist()) != list(range(vocab)):
        return None
    labels = np.empty(vocab, np.int64)
    labels[order] = np.arange(vocab) // (vocab // count)
    return labels, values.reshape(count, width)


# ---------------------------------------------------------------- states


def _states(
    target: PathLike,
    drafter: Path,
    text: str | bytes,
    settings: ClusterSettings,
    progress: Progress,
) -> np.ndarray:
    """Returns the drafter's states on the text, in order: [n, hidden]."""
    from ...model import Model

    model = Model(
        target,
        drafter=drafter,
        threads=settings.threads,
        context=_WINDOW + 1,
        profile=False,
        device=settings.device,
        gpu_layers=settings.gpu_layers,
    )
    ids = model.tokenize(text, add_bos=False)[: settings.positions]
    if len(ids) < 64:
        raise ArgumentError(
            f"the text has {counted(len(ids), 'token')}; give one of at least 64, better some "
            f"thousands"
        )
    start = [b for b in [model._engine.tokenizer.bos] if b >= 0]
    window = model.context - 1
    found = []
    for at in range(0, len(ids), window):
        progress("running the pair", at, len(ids))
        piece = [*start, *ids[at : at + window]]
        if len(piece) > 1:
            states = model._engine.draft_features(piece, _STEPS)
            found.append(states.reshape(-1, states.shape[2]))
    return np.concatenate(found)


def _stand_ins(rows: np.ndarray, seed: int) -> np.ndarray:
    """Substitutes for states: rows of the head, scaled to the length of a normalised state."""
    lines = np.random.default_rng(seed).permutation(len(rows))[:_ROWS]
    lengths = np.linalg.norm(rows[lines], axis=1, keepdims=True)
    scaled = rows[lines] * (math.sqrt(rows.shape[1]) / np.maximum(lengths, 1e-20))
    return np.asarray(scaled, np.float32)


def _norm(file: _core.GgufFile, width: int) -> np.ndarray:
    """Returns the norm's weight, [hidden], by which normalised states are multiplied. Distances
    between rows times this weight approximate differences of logits."""
    if next((t[2] for t in file.tensors if t[0] == "output_norm.weight"), None) != [width]:
        raise FileError("tensor output_norm.weight is missing or misshapen; the file is damaged.")
    norm = np.asarray(file.rows("output_norm.weight", 0, 1)[0])
    if not np.isfinite(norm).all():
        raise FileError("tensor output_norm.weight holds NaN or infinite values; it is damaged.")
    return norm


# ---------------------------------------------------------------- the file


def _write(
    file: _core.GgufFile,
    drafter: Path,
    out: Path,
    count: int,
    top_k: int,
    centres: np.ndarray,
    order: np.ndarray,
    progress: Progress,
) -> None:
    def change(metadata: Metadata) -> None:
        metadata.u32(f"{HEAD}.num_centroids", count)
        metadata.u32(f"{HEAD}.top_k", top_k)
        metadata.f32_array(f"{HEAD}.centroids", centres.reshape(-1))
        metadata.i32_array(f"{HEAD}.token_order", order)

    rewrite(
        drafter,
        out,
        change,
        keep=lambda tensor: not is_head_tensor(tensor),
        progress=lambda done, total: progress("writing", done, total),
    )
