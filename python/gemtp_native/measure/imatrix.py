"""Collects an importance matrix from a text."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .. import _core
from ..arguments import device_name, gpu_layer_count, thread_count
from ..base.counted import counted
from ..base.whole_file import check_output
from ..errors import ArgumentError, ModelError
from ..gguf.parts import files_of
from ..make.quantize.imatrix import Sums, write_imatrix
from ..tokenizer import note_control
from .perplexity.chunks import read_text, split_ids


@dataclass(frozen=True)
class Collected:
    path: str
    target: str
    texts: list[str]
    entries: int  # matrices; all experts of a layer count as one
    partial: int  # entries with experts that no token used
    chunks: int
    chunk_size: int
    tokens: int
    bytes: int
    seconds: float


Progress = Callable[[int, int], None]


def collect(
    target: str | os.PathLike[str],
    texts: list[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    context: int = 512,
    chunks: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    gpu_layers: int | Literal["auto"] | None = None,
    special: bool = False,
    progress: Progress = lambda _, __: None,
) -> Collected:
    """Runs the texts through a target in chunks of `context` tokens (the first `chunks` of them, or
    all), and writes the importance matrix of its matrices' inputs to `out`. special: control tokens
    that the texts spell are these tokens."""
    start = time.perf_counter()
    check_output(out, *texts, *files_of(target))
    if not texts:
        raise ArgumentError("no text is given, and without one nothing is to be learned.")
    if context < 2:
        raise ArgumentError(f"the context is {context}; it must be at least 2.")
    if chunks is not None and chunks < 1:
        raise ArgumentError(f"the number of chunks is {chunks}; it must be at least 1.")
    contents = [read_text(text) for text in texts]
    sums = _core.ActivationSums(
        os.fspath(target),
        thread_count(threads),
        context,
        device_name(device),
        gpu_layer_count(gpu_layers),
    )
    tokenizer = sums.tokenizer
    if tokenizer is None:
        raise ModelError(
            f"{os.fspath(target)} holds no tokenizer, and without one a text has no tokens; "
            f"convert it again with its tokenizer"
        )
    ids = [i for text in contents for i in tokenizer.encode(text, add_bos=True, special=special)]
    if not special:
        note_control(tokenizer, b"\n".join(contents))
    if len(ids) < context:
        raise ArgumentError(
            f"the text has {counted(len(ids), 'token')}, fewer than a chunk of {context}; give a "
            f"longer text or a smaller context."
        )
    parts = split_ids(ids, context, tokenizer.bos, chunks)
    for i, part in enumerate(parts):
        sums.add(part)
        progress(i + 1, len(parts))
    entries = {name: _stored(target, name, *both) for name, *both in sums.entries()}
    size = write_imatrix(out, entries, [os.fspath(t) for t in texts], len(parts), context)
    return Collected(
        path=os.fspath(out),
        target=os.fspath(target),
        texts=[os.fspath(t) for t in texts],
        entries=len(entries),
        partial=sum(bool(np.any(e.counts == 0)) for e in entries.values()),
        chunks=len(parts),
        chunk_size=context,
        tokens=len(parts) * context,
        bytes=size,
        seconds=time.perf_counter() - start,
    )


def _stored(
    target: str | os.PathLike[str], name: str, counts: np.ndarray, squares: np.ndarray
) -> Sums:
    """Returns the sums in float32, the type in files."""
    with np.errstate(over="ignore"):
        made = Sums(np.asarray(squares, np.float32), np.asarray(counts, np.float32))
    if not np.isfinite(made.squares).all():
        raise ModelError(
            f"{os.fspath(target)}: the activations that meet {name} are beyond all bounds; the "
            f"weights are damaged, convert or download them again"
        )
    return made
