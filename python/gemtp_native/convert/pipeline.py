"""The conversion itself: folder → plan → GGUF, one tensor slice at a time."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from ..errors import ArgumentError, FileError, ModelError
from .checkpoint import Checkpoint, StoredTensor
from .config import ModelConfig, read_config
from .encode import LARGEST, OUTTYPES, TensorType, block_values, encode
from .gguf_file import Layout, Metadata, pad, read_metadata
from .tensors import Plan, Spec, make_plan
from .tokenizer import (
    FILES,
    Tokenizer,
    has_tokenizer,
    tokenizer_from_folder,
    tokenizer_from_gguf,
)

_SLICE = 1 << 21  # values encoded at a time: 8 MiB of float32
_UNROTATED = 1e30  # frequency divisor of pairs that do not rotate


@dataclass
class ConvertResult:
    """What was written and what was not."""

    path: Path
    architecture: str
    class_name: str
    outtype: str
    layers: int
    tensors: int
    bytes: int
    seconds: float
    tokenizer: str | None  # where it came from
    left_out: dict[str, list[str]] = field(default_factory=dict)  # reason -> tensor names
    notes: list[str] = field(default_factory=list)


def convert(
    model_dir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    outtype: str = "q8_0",
    target: str | os.PathLike[str] | None = None,
    tokenizer: bool = True,
    progress: bool = True,
) -> ConvertResult:
    """Converts a Hugging Face folder of a Gemma 4 target or drafter to a GGUF file.

    outtype: type of the matrices: f32, f16, bf16, q8_0 or q4_0. target: folder or GGUF that lends a
    drafter its tokenizer. tokenizer=False writes none. An existing `out` is replaced, at the very
    end and at once. Raises FileError, ModelError or ArgumentError; nothing is left behind then.
    """
    start = time.monotonic()
    if outtype not in OUTTYPES:
        raise ArgumentError(f"outtype is {outtype!r}; {', '.join(OUTTYPES)} are possible.")
    model_dir, out = Path(model_dir), Path(out)
    if not model_dir.is_dir():
        raise FileError(f"{model_dir} is not a folder; give the folder of a Hugging Face model.")
    if out.is_dir() or not out.name:
        raise ArgumentError(f"{out} is a folder; give the name of the GGUF file to write.")
    if not out.parent.is_dir():
        raise FileError(f"{out.parent} does not exist, so {out.name} cannot be written there.")

    config = read_config(model_dir)
    if target is not None and not config.drafter:
        raise ArgumentError(
            f"{model_dir} is a target; only a drafter can take a tokenizer from one."
        )
    with Checkpoint(model_dir) as checkpoint:
        if any(_same_file(out, file) for file in checkpoint.files):
            raise ArgumentError(f"{out} is one of the files to convert; choose another output.")
        plan = make_plan(config, checkpoint)
        notes: list[str] = []
        vocabulary = _tokenizer(config, model_dir, target, notes) if tokenizer else None

        metadata = Metadata()
        _write_hyperparameters(metadata, config, model_dir, OUTTYPES[outtype][1])
        if config.ordered_head is not None:
            _write_ordered_head(metadata, config, plan, checkpoint)
        if vocabulary is not None:
            vocabulary.write(metadata)
        kinds = _choose_types(plan, OUTTYPES[outtype][0], notes)
        rope = _rope_freqs(config)
        layout = Layout()
        layout.add("rope_freqs.weight", rope.shape, TensorType.F32)
        for (spec, _), kind in zip(plan.tensors, kinds, strict=True):
            layout.add(spec.name, spec.shape, kind)
        header = layout.header(metadata)
        size = len(header) + layout.data_size

        with _replacing(out, size) as handle:
            handle.write(header)
            handle.write(rope.astype("<f4").tobytes())
            pad(handle, layout.sizes[0])
            _write_tensors(handle, checkpoint, plan, kinds, layout.sizes[1:], progress)
    return ConvertResult(
        path=out,
        architecture=config.arch,
        class_name=config.class_name,
        outtype=outtype,
        layers=config.layers,
        tensors=len(layout.sizes),
        bytes=size,
        seconds=time.monotonic() - start,
        tokenizer=None if vocabulary is None else str(vocabulary.source),
        left_out=plan.left_out,
        notes=notes,
    )


def _same_file(a: Path, b: Path) -> bool:
    return a.exists() and os.path.samefile(a, b)


def _tokenizer(
    config: ModelConfig, model_dir: Path, target: Any, notes: list[str]
) -> Tokenizer | None:
    """The tokenizer of the folder, or of the target, padded to the rows of the embedding."""
    if target is not None:
        found = _lent_tokenizer(config, Path(target))
    elif has_tokenizer(model_dir):
        found = tokenizer_from_folder(model_dir, config.token_ids)
    elif config.drafter:
        notes.append(
            "no tokenizer written: the folder holds none and no target lends one (--target-dir); "
            "the drafter works with its target all the same"
        )
        return None
    else:
        raise FileError(
            f"{model_dir} holds no tokenizer ({' or '.join(FILES)}); download it, or write a model "
            f"without one (--no-tokenizer)."
        )
    padding = found.fit(config.vocab)
    if padding:
        notes.append(f"vocabulary padded with {padding} unused tokens to {config.vocab}")
    return found


def _lent_tokenizer(config: ModelConfig, target: Path) -> Tokenizer:
    if target.is_dir():
        other = read_config(target)
        drafter, hidden, vocab = other.drafter, other.hidden, other.vocab
        tokenizer = tokenizer_from_folder(target, other.token_ids)
    elif target.is_file():
        values = read_metadata(target)
        arch = values.get("general.architecture")
        drafter = arch != b"gemma4"
        hidden = values.get("gemma4.embedding_length", config.backbone)
        tokenizer = tokenizer_from_gguf(target, values)
        vocab = len(tokenizer.tokens)
    else:
        raise FileError(f"{target} is neither a folder nor a GGUF file.")
    if drafter:
        raise ModelError(f"{target} is no Gemma 4 target.")
    if hidden != config.backbone:
        raise ModelError(
            f"the drafter is made for a target of hidden size {config.backbone}, {target} has "
            f"{hidden}."
        )
    if vocab != config.vocab:
        raise ModelError(
            f"the drafter has a vocabulary of {config.vocab} tokens, {target} one of {vocab}."
        )
    return tokenizer


def _write_hyperparameters(m: Metadata, c: ModelConfig, model_dir: Path, file_type: int) -> None:
    arch = c.arch
    name = model_dir.resolve().name.encode("utf-8", "replace")
    m.string("general.architecture", arch)
    m.string("general.type", "model")
    m.string("general.name", name)
    m.u32("general.file_type", file_type)
    m.u32("general.quantization_version", 2)
    m.u32(f"{arch}.block_count", c.layers)
    m.u32(f"{arch}.context_length", c.context_length)
    m.u32(f"{arch}.embedding_length", c.hidden)
    _scalar_or_array(m, f"{arch}.feed_forward_length", c.feed_forward)
    m.u32(f"{arch}.attention.head_count", c.heads)
    _scalar_or_array(m, f"{arch}.attention.head_count_kv", c.kv_heads)
    m.u32(f"{arch}.attention.key_length", c.head_dim_full)
    m.u32(f"{arch}.attention.value_length", c.head_dim_full)
    m.u32(f"{arch}.attention.key_length_swa", c.head_dim_sliding)
    m.u32(f"{arch}.attention.value_length_swa", c.head_dim_sliding)
    m.f32(f"{arch}.attention.layer_norm_rms_epsilon", c.rms_eps)
    m.u32(f"{arch}.attention.sliding_window", c.window)
    m.bool_array(f"{arch}.attention.sliding_window_pattern", c.sliding)
    m.u32(f"{arch}.attention.shared_kv_layers", c.shared_kv_layers)
    m.f32(f"{arch}.rope.freq_base", c.rope_base_full)
    m.f32(f"{arch}.rope.freq_base_swa", c.rope_base_sliding)
    m.u32(f"{arch}.rope.dimension_count", c.head_dim_full)
    m.u32(f"{arch}.rope.dimension_count_swa", c.head_dim_sliding)
    m.u32(f"{arch}.embedding_length_per_layer_input", c.ple_width)
    if c.softcap is not None:
        m.f32(f"{arch}.final_logit_softcapping", c.softcap)
    if c.experts:
        m.u32(f"{arch}.expert_count", c.experts)
        m.u32(f"{arch}.expert_used_count", c.experts_used)
        m.u32(f"{arch}.expert_feed_forward_length", c.expert_feed_forward)
    if c.drafter:
        m.u32(f"{arch}.embedding_length_out", c.backbone)
        m.u32(f"{arch}.nextn_predict_layers", c.layers)


def _scalar_or_array(m: Metadata, key: str, values: list[int]) -> None:
    if len(set(values)) == 1:
        m.u32(key, values[0])
    else:
        m.i32_array(key, values)


def _write_ordered_head(m: Metadata, c: ModelConfig, plan: Plan, checkpoint: Checkpoint) -> None:
    assert c.ordered_head and plan.centroids and plan.token_order
    centroids = checkpoint.read(plan.centroids, 0, plan.centroids.count)
    _check_values(plan.centroids, _count_bad(centroids, LARGEST[TensorType.F32]), TensorType.F32)
    order = checkpoint.read(plan.token_order, 0, plan.token_order.count)
    if not np.array_equal(np.sort(order), np.arange(c.vocab)):
        raise ModelError(
            f"{plan.token_order.file}: {plan.token_order.name} is not a permutation of the "
            f"{c.vocab} tokens."
        )
    m.u32("gemtp.ordered_head.num_centroids", c.ordered_head.num_centroids)
    m.u32("gemtp.ordered_head.top_k", c.ordered_head.top_k)
    m.f32_array("gemtp.ordered_head.centroids", centroids)
    m.i32_array("gemtp.ordered_head.token_order", order)


def _rope_freqs(c: ModelConfig) -> np.ndarray:
    """[head_dim / 2] divisors of the full layers' frequencies: 1 rotates, 1e30 stands still."""
    pairs = c.head_dim_full // 2
    rotating = int(c.rope_factor_full * c.head_dim_full // 2)
    freqs = np.full(pairs, _UNROTATED, dtype=np.float32)
    freqs[:rotating] = 1.0
    return freqs


def _choose_types(plan: Plan, wanted: TensorType, notes: list[str]) -> list[TensorType]:
    kinds = []
    narrow: list[Spec] = []
    for spec, _ in plan.tensors:
        kind = wanted if spec.matrix else TensorType.F32
        if spec.shape[-1] % block_values(kind):
            kind = TensorType.F16
            narrow.append(spec)
        kinds.append(kind)
    if narrow:
        notes.append(
            f"{len(narrow)} matrices are written as F16, because their rows are not a multiple of "
            f"{block_values(wanted)} values: {', '.join(s.name for s in narrow[:3])}"
            + (", …" if len(narrow) > 3 else "")
        )
    return kinds


def _write_tensors(
    handle: BinaryIO,
    checkpoint: Checkpoint,
    plan: Plan,
    kinds: list[TensorType],
    sizes: list[int],
    progress: bool,
) -> None:
    # Encoding is numpy on slices, which releases the GIL; reading and writing stay in order here.
    workers = min(4, os.cpu_count() or 1)
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(
            total=sum(t.nbytes for _, t in plan.tensors),
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            disable=not progress or not sys.stderr.isatty(),
            file=sys.stderr,
            leave=False,
        ) as bar,
    ):
        for (spec, tensor), kind, size in zip(plan.tensors, kinds, sizes, strict=True):
            bar.set_description(spec.name, refresh=False)
            bad = 0
            for data, bad_here in _encoded(pool, workers + 1, checkpoint, tensor, kind):
                bad += bad_here
                if not bad:
                    handle.write(data)
                bar.update(data.size * tensor.nbytes // size)
            _check_values(tensor, bad, kind)
            pad(handle, size)


def _encoded(
    pool: ThreadPoolExecutor,
    window: int,
    checkpoint: Checkpoint,
    tensor: StoredTensor,
    kind: TensorType,
) -> Iterator[tuple[np.ndarray, int]]:
    """(bytes, number of values that the type cannot hold) of one slice after the other."""

    def work(values: np.ndarray) -> tuple[np.ndarray, int]:
        bad = _count_bad(values, LARGEST[kind])
        return (values.view(np.uint8) if bad else encode(values, kind)), bad

    waiting: deque[Future[tuple[np.ndarray, int]]] = deque()
    for start in range(0, tensor.count, _SLICE):
        values = checkpoint.read(tensor, start, min(_SLICE, tensor.count - start))
        waiting.append(pool.submit(work, values))
        if len(waiting) == window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _count_bad(values: np.ndarray, largest: float) -> int:
    low, high = float(values.min()), float(values.max())  # NaN where there is one
    if -largest <= low and high <= largest:
        return 0
    return int(values.size - np.count_nonzero(np.abs(values) <= np.float32(largest)))


def _check_values(tensor: StoredTensor, bad: int, kind: TensorType) -> None:
    if bad:
        raise FileError(
            f"{tensor.file}: {tensor.name} holds {bad} values that are not finite or too large for "
            f"{kind.name}: the checkpoint is damaged."
        )


class _replacing:
    """A file beside `path` that takes its place when all went well, and disappears otherwise."""

    def __init__(self, path: Path, size: int):
        self._path = path
        self._size = size
        self._temporary = path.with_name(f"{path.name}.tmp-{secrets.token_hex(4)}")
        self._handle: BinaryIO | None = None

    def __enter__(self) -> BinaryIO:
        free = shutil.disk_usage(self._path.parent).free
        if free < self._size:
            raise FileError(self._full(free))
        try:
            self._handle = self._temporary.open("xb")
        except OSError as e:
            raise FileError(f"{self._path} cannot be written: {e.strerror or e}.") from e
        return self._handle

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        assert self._handle is not None
        try:
            if error is None:
                self._handle.flush()
                os.fsync(self._handle.fileno())
                self._handle.close()
                os.replace(self._temporary, self._path)
                return
        except OSError as e:
            error = e
        # Closing flushes, and so may fail for the same full disk.
        try:
            self._handle.close()
        except OSError:
            pass
        self._temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise FileError(self._full(shutil.disk_usage(self._path.parent).free)) from error
            raise FileError(
                f"{self._path} cannot be written: {error.strerror or error}."
            ) from error

    def _full(self, free: int) -> str:
        return (
            f"not enough space for {self._path}: {self._size:,} bytes are needed, {free:,} are "
            f"free; make room or choose a smaller --outtype."
        )
