"""Makes a synthetic pair: plans all of it, then streams it to its two files."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from ...base.whole_file import check_output, check_space, replacing, replacing_all
from ...errors import ArgumentError, FileError
from ...gguf.file import Layout, Metadata, pad
from ...gguf.types import FILE_TYPES, TensorType, block_values
from ..convert.config import ModelConfig
from ..convert.hyperparameters import rope_freqs, write_hyperparameters, write_ordered_head
from ..convert.tensors import Spec, demanded
from ..convert.tokenizer import Tokenizer, tokenizer_from_gguf
from .content import BLOCK, Codes, Noise, selection
from .shapes import VOCAB, drafter_config, target_config
from .vocabulary import made_vocabulary, ordinary_tokens
from .walk import Acceptance, Walk, make_walk

TYPES = tuple(t.name for t in FILE_TYPES.values() if not t.mix and block_values(t.kind) <= BLOCK)
EVERY = 64  # tokens after which the next of several acceptances applies
_TOP_LOGIT = 25.0  # logit of the chosen token; others have deviation 25 · width^-½

# With zero norms a layer adds nothing to the residual but costs the same.
_SILENT_NORMS = ("post_attention_norm.weight", "post_ffw_norm.weight", "post_norm.weight")


@dataclass(frozen=True)
class SynthResult:
    """The pair that was written, or would be."""

    shape: str
    target: str | None  # None: only the drafter was written
    drafter: str
    type: str
    drafter_type: str
    layers: int  # of the target
    shared_kv_layers: int
    target_bytes: int
    drafter_bytes: int
    parameters: int  # of the target, including tables
    drafter_parameters: int
    token_bytes: int  # of weights that the target reads for one token
    draft_bytes: int  # of weights that the drafter reads for one draft step
    vocabulary: str  # the file from which it was taken, or "made"
    vocab_size: int
    accept: float | tuple[float, ...]
    every: int  # tokens until the next of several acceptances applies; 0: there is only one
    seed: int
    seconds: float


@dataclass(frozen=True)
class _Options:
    """The options of write_pair that determine the contents of the files."""

    accept: float | Sequence[float] = 0.75
    outtype: str = "q4_0"
    drafter_type: str | None = None
    layers: int | None = None
    vocab: str | os.PathLike[str] | None = None
    vocab_size: int | None = None
    seed: int = 0
    every: int | None = None


def write_pair(
    shape: str,
    out: str | os.PathLike[str],
    accept: float | Sequence[float] = 0.75,
    outtype: str = "q4_0",
    drafter_type: str | None = None,
    layers: int | None = None,
    vocab: str | os.PathLike[str] | None = None,
    vocab_size: int | None = None,
    seed: int = 0,
    every: int | None = None,
    force: bool = False,
    progress: bool = True,
) -> SynthResult:
    """Writes out/target.gguf and out/drafter.gguf, both or neither. `out` may be a new folder.

    shape: one of SHAPES. accept: share of tokens after which the drafter's greedy proposal is the
    target's choice; several shares alternate along the walk, each for `every` tokens (64). outtype,
    drafter_type: one of TYPES, for the matrices. layers: use only this many layers of the target.
    vocab: a GGUF whose tokenizer is used; otherwise a vocabulary of vocab_size tokens is made. The
    same arguments give the same bytes, and the target does not depend on accept. Existing files are
    replaced only with `force`. If it raises ArgumentError, FileError or ModelError, it leaves no
    files behind.
    """
    start = time.monotonic()
    folder = Path(out)
    options = _Options(accept, outtype, drafter_type, layers, vocab, vocab_size, seed, every)
    plan = _make_plan(shape, folder, options)
    _check_parent(folder)
    for path in (plan.target.path, plan.drafter.path):
        if folder.exists():
            check_output(path, *([] if vocab is None else [vocab]))
        _check_place(path, force)
    check_space(folder, plan.target.size + plan.drafter.size)
    with _in_folder(folder):
        _write(plan, progress)
    return plan.result(time.monotonic() - start)


def write_drafter(
    shape: str,
    path: str | os.PathLike[str],
    force: bool = False,
    progress: bool = True,
    **options: Any,
) -> SynthResult:
    """Writes only the drafter, for a target that write_pair made with the same options.

    Its accept, every and drafter_type may differ. options: those of write_pair.
    """
    start = time.monotonic()
    file = Path(path)
    plan = _make_plan(shape, file.parent, _Options(**options))
    plan.drafter.path = file
    check_output(file, *([] if options.get("vocab") is None else [options["vocab"]]))
    _check_place(file, force)
    with _progress(plan.drafter.size, progress) as bar, replacing(file, plan.drafter.size) as out:
        _write_file(out, plan, plan.drafter, bar.update)
    return replace(plan.result(time.monotonic() - start), target=None)


def plan_pair(shape: str, out: str | os.PathLike[str] = ".", **options: Any) -> SynthResult:
    """Returns what write_pair would write with these options, without writing it."""
    return _make_plan(shape, Path(out), _Options(**options)).result(0.0)


def _check_parent(path: Path) -> None:
    if not path.absolute().parent.is_dir():
        raise FileError(f"{path.parent} does not exist, so {path.name} cannot be made there.")


def _check_place(path: Path, force: bool) -> None:
    if os.path.lexists(path) and not force:
        raise FileError(f"{path} exists already; remove it, or replace it with --force.")


# ---------------------------------------------------------------- the plan


@dataclass
class _File:
    """Everything about a file except the values of its tensors."""

    path: Path
    config: ModelConfig
    outtype: str
    specs: list[Spec]
    layout: Layout
    header: bytes

    @property
    def kind(self) -> TensorType:
        return FILE_TYPES[self.outtype].kind

    @property
    def size(self) -> int:
        return len(self.header) + self.layout.data_size

    @property
    def parameters(self) -> int:
        return sum(math.prod(s.shape) for s in self.specs)

    def read_per_token(self) -> int:
        """Bytes of weights read, without tables, and with only the experts and clusters used."""
        c = self.config
        total = float(self.layout.sizes[0])
        for spec, size in zip(self.specs, self.layout.sizes[1:], strict=True):
            share = 1.0
            if spec.name == "per_layer_token_embd.weight":
                share = 0.0
            elif spec.name == "token_embd.weight":
                head = c.ordered_head
                share = float(c.tied) if head is None else head.top_k / head.num_centroids
            elif "_exps.weight" in spec.name:
                share = c.experts_used / c.experts
            total += share * size
        if c.ordered_head is not None:
            total += 4 * c.ordered_head.num_centroids * c.hidden
        return round(total)


@dataclass
class _Plan:
    shape: str
    target: _File
    drafter: _File
    tokenizer: Tokenizer
    walk: Walk
    codes: Codes
    accept: Acceptance
    seed: int

    def result(self, seconds: float) -> SynthResult:
        target, drafter = self.target, self.drafter
        shares, every = self.accept.shares, self.accept.every
        return SynthResult(
            shape=self.shape,
            target=str(target.path),
            drafter=str(drafter.path),
            type=target.outtype,
            drafter_type=drafter.outtype,
            layers=target.config.layers,
            shared_kv_layers=target.config.shared_kv_layers,
            target_bytes=target.size,
            drafter_bytes=drafter.size,
            parameters=target.parameters,
            drafter_parameters=drafter.parameters,
            token_bytes=target.read_per_token(),
            draft_bytes=drafter.read_per_token(),
            vocabulary=str(self.tokenizer.source),
            vocab_size=target.config.vocab,
            accept=shares if every else shares[0],
            every=every,
            seed=self.seed,
            seconds=seconds,
        )


def _make_plan(shape: str, out: Path, o: _Options) -> _Plan:
    types = (o.outtype, o.outtype if o.drafter_type is None else o.drafter_type)
    _check(o, types)
    accept = _acceptance(o)
    # Check the shape before making the vocabulary, which takes a second.
    target_config(shape, layers=o.layers)
    if o.vocab is None:
        tokenizer = made_vocabulary(VOCAB if o.vocab_size is None else o.vocab_size)
    else:
        tokenizer = tokenizer_from_gguf(Path(o.vocab))
    target = target_config(shape, len(tokenizer.tokens), o.layers)
    drafter = drafter_config(shape, target)

    walk = make_walk(ordinary_tokens(tokenizer), target.vocab, accept, o.seed)
    head = drafter.ordered_head
    clusters = None if head is None else walk.clusters(head.num_centroids)
    codes = Codes(o.seed, clusters, drafter.hidden)
    files = []
    for config, kind, name in zip((target, drafter), types, ("target", "drafter"), strict=True):
        metadata = Metadata()
        title = f"synthetic {shape} {name}" + (f", {accept}" if config.drafter else "")
        write_hyperparameters(metadata, config, title, FILE_TYPES[kind].number)
        if config.ordered_head is not None:
            count = config.ordered_head.num_centroids
            centroids = codes.centroids(count, config.hidden)
            write_ordered_head(metadata, config.ordered_head, centroids, walk.token_order(count))
        tokenizer.write(metadata)
        files.append(_plan_file(out / f"{name}.gguf", config, kind, metadata))
    return _Plan(shape, files[0], files[1], tokenizer, walk, codes, accept, o.seed)


def _check(o: _Options, types: tuple[str, str]) -> None:
    for given in types:
        if given not in TYPES:
            raise ArgumentError(f"the type is {given!r}; {', '.join(TYPES)} are possible.")
    if o.vocab is not None and o.vocab_size is not None:
        raise ArgumentError(
            "both a file that lends its vocabulary and a size are given: choose one."
        )
    if not 0 <= o.seed < 1 << 64:
        raise ArgumentError(f"seed is {o.seed}; it must be from 0 to 2^64 - 1.")


def _acceptance(o: _Options) -> Acceptance:
    shares = tuple(o.accept) if isinstance(o.accept, Sequence) else (o.accept,)
    for share in shares:
        if not 0 <= share <= 1:
            raise ArgumentError(f"accept is {share:g}; it must be between 0 and 1.")
    if not shares:
        raise ArgumentError("accept is empty; it must be a number or several.")
    if len(shares) == 1:
        if o.every is not None:
            raise ArgumentError(
                f"every is {o.every}, but accept is one number; give the several to change between."
            )
        return Acceptance(shares)
    every = EVERY if o.every is None else o.every
    if every < 1:
        raise ArgumentError(f"every is {every}; it must be at least 1.")
    return Acceptance(shares, every)


def _plan_file(path: Path, config: ModelConfig, outtype: str, metadata: Metadata) -> _File:
    specs = list(demanded(config))
    layout = Layout()
    layout.add("rope_freqs.weight", (config.head_dim_full // 2,), TensorType.F32)
    for spec in specs:
        layout.add(
            spec.name, spec.shape, FILE_TYPES[outtype].kind if spec.matrix else TensorType.F32
        )
    return _File(path, config, outtype, specs, layout, layout.header(metadata))


# ---------------------------------------------------------------- the values


def _progress(total: int, shown: bool) -> Any:
    return tqdm(
        total=total,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        disable=not shown or not sys.stderr.isatty(),
        file=sys.stderr,
        leave=False,
    )


def _write(plan: _Plan, progress: bool) -> None:
    with (
        _progress(plan.target.size + plan.drafter.size, progress) as bar,
        replacing_all([(file.path, file.size) for file in (plan.target, plan.drafter)]) as handles,
    ):
        for handle, file in zip(handles, (plan.target, plan.drafter), strict=True):
            _write_file(handle, plan, file, bar.update)


def _write_file(
    handle: BinaryIO, plan: _Plan, file: _File, advance: Callable[[int], object]
) -> None:
    noise = Noise(plan.seed)
    handle.write(file.header)
    advance(len(file.header))
    handle.write(rope_freqs(file.config).astype("<f4").tobytes())
    pad(handle, file.layout.sizes[0])
    for spec, size in zip(file.specs, file.layout.sizes[1:], strict=True):
        written = 0
        for data in _values(plan, file, spec, noise):
            handle.write(data.data)
            written += data.size
            advance(data.size)
        assert written == size
        pad(handle, size)


def _values(plan: _Plan, file: _File, spec: Spec, noise: Noise) -> Iterable[np.ndarray]:
    """Yields the bytes of a tensor."""
    c, walk, rows = file.config, plan.walk, plan.codes.rows
    name = spec.name
    count, width = math.prod(spec.shape), spec.shape[-1]
    if name == "nextn.pre_projection.weight":
        # Selects the target's embedding; the state of the previous position is multiplied by zero.
        return selection(c.hidden, width, file.kind)
    if name == "output.weight" or (name == "token_embd.weight" and c.drafter):
        codes = walk.drafter_code if c.drafter else walk.target_code
        return rows(codes, width, _TOP_LOGIT / width, file.kind)
    if name == "token_embd.weight":
        return rows(walk.embedding_code, width, width**-0.5, file.kind)
    if name == "per_layer_token_embd.weight":
        return noise.matrix(count, c.ple_width**-0.5, file.kind)
    if name.endswith("ffn_gate_inp.weight"):
        return noise.matrix(count, 1.0, TensorType.F32)
    if spec.matrix:
        return noise.matrix(count, width**-0.5, file.kind)
    value = 1.0
    if name.endswith(_SILENT_NORMS):
        value = 0.0
    elif name.endswith("attn_q_norm.weight"):
        value = width**-0.5  # scores of unit variance, so that no key dominates
    return (np.full(count, value, "<f4").view(np.uint8),)


@contextlib.contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    """Creates the folder if it does not exist, and removes it again on failure."""
    made = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as e:
        raise FileError(f"{folder} cannot be made: {e.strerror or e}.") from e
    try:
        yield
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
