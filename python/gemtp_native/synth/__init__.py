"""`gemtp synth`: pairs of models with the shapes of the released ones and a chosen acceptance.

Their layers cost what real ones cost and add nothing, because the weights of the norms behind them
are zero; see codes.py for how target and drafter know the next token all the same.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..convert.config import ModelConfig
from ..convert.encode import OUTTYPES, TensorType
from ..convert.gguf_file import Layout, Metadata, pad
from ..convert.hyperparameters import rope_freqs, write_hyperparameters
from ..convert.output import check_space, replacing
from ..convert.tensors import Spec, demanded
from ..convert.tokenizer import Tokenizer, tokenizer_from_gguf
from ..errors import ArgumentError, FileError
from .codes import Codes, code_rows, head_sizes, make_codes, selection
from .shapes import SHAPES, VOCAB, drafter_config, target_config
from .vocabulary import made_vocabulary
from .weights import CHUNK, RandomWeights

__all__ = ["SHAPES", "TYPES", "SynthResult", "write_pair"]

TYPES = tuple(OUTTYPES)
_SILENT_NORMS = ("post_attention_norm.weight", "post_ffw_norm.weight", "post_norm.weight")


@dataclass
class SynthResult:
    """A pair that was written."""

    shape: str
    target: str
    drafter: str
    target_bytes: int
    drafter_bytes: int
    parameters: int  # of the target, tables included
    token_bytes: int  # of matrices that the target reads for one token
    accept: float
    seconds: float


def write_pair(
    shape: str,
    out: str | os.PathLike[str],
    accept: float = 0.75,
    outtype: str = "q4_0",
    drafter_type: str | None = None,
    layers: int | None = None,
    vocab: str | os.PathLike[str] | None = None,
    vocab_size: int | None = None,
    seed: int = 0,
    force: bool = False,
    progress: bool = True,
) -> SynthResult:
    """Writes out/target.gguf and out/drafter.gguf.

    shape: one of SHAPES. accept: share of the tokens behind which the drafter's greedy proposal is
    the target's choice. outtype, drafter_type: one of TYPES, of the matrices. layers: of the
    target, fewer than it has. vocab: a GGUF that lends its tokenizer; otherwise one of vocab_size
    tokens is made. The same arguments give the same bytes. Raises ArgumentError, FileError or
    ModelError, and leaves nothing behind then; existing files are replaced only with `force`.
    """
    start = time.monotonic()
    kinds = [_kind(outtype), _kind(drafter_type or outtype)]
    if not 0 <= accept <= 1:
        raise ArgumentError(f"accept is {accept:g}; it must be between 0 and 1.")
    if vocab is not None and vocab_size is not None:
        raise ArgumentError(
            "both a file that lends its vocabulary and a size are given: choose one."
        )
    if seed < 0:
        raise ArgumentError(f"seed is {seed}; it must not be negative.")
    target = target_config(shape, vocab_size or VOCAB, layers)
    tokenizer = made_vocabulary(target.vocab) if vocab is None else tokenizer_from_gguf(Path(vocab))
    if vocab is not None:
        target = target_config(shape, len(tokenizer.tokens), layers)
    drafter = drafter_config(shape, target)
    folder = Path(out)
    paths = [folder / "target.gguf", folder / "drafter.gguf"]
    _check_output(folder, paths, force)

    rng = np.random.Generator(np.random.Philox(seed))
    clusters = drafter.ordered_head.num_centroids if drafter.ordered_head else 0
    codes = make_codes(tokenizer, target.hidden, drafter.hidden, clusters, accept, rng)
    writers = [
        _Writer(c, k, t, shape, tokenizer, codes)
        for c, k, t in zip(
            (target, drafter), kinds, (outtype, drafter_type or outtype), strict=True
        )
    ]
    check_space(folder, sum(w.size for w in writers))
    weights = RandomWeights(rng)
    with tqdm(
        total=sum(w.size for w in writers),
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        disable=not progress or not sys.stderr.isatty(),
        file=sys.stderr,
        leave=False,
    ) as bar:
        for writer, path in zip(writers, paths, strict=True):
            writer.write(path, weights, bar)
    return SynthResult(
        shape=shape,
        target=str(paths[0]),
        drafter=str(paths[1]),
        target_bytes=writers[0].size,
        drafter_bytes=writers[1].size,
        parameters=sum(int(np.prod(s.shape)) for s in writers[0].specs),
        token_bytes=writers[0].token_bytes(),
        accept=accept,
        seconds=time.monotonic() - start,
    )


def _kind(name: str) -> TensorType:
    if name not in OUTTYPES:
        raise ArgumentError(f"the type is {name!r}; {', '.join(OUTTYPES)} are possible.")
    return OUTTYPES[name][0]


def _check_output(folder: Path, paths: list[Path], force: bool) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as e:
        raise FileError(f"the folder {folder} cannot be made: {e.strerror or e}.") from e
    for path in paths:
        if path.is_dir():
            raise FileError(f"{path} is a folder; choose another output folder.")
        if path.exists() and not force:
            raise FileError(f"{path} exists already; remove it, or replace it with --force.")


class _Writer:
    """One file of a pair: what it holds, and the writing of it."""

    def __init__(
        self,
        config: ModelConfig,
        kind: TensorType,
        outtype: str,
        shape: str,
        tokenizer: Tokenizer,
        codes: Codes,
    ):
        self.config, self.codes = config, codes
        metadata = Metadata()
        name = Path(f"synthetic-{shape}{'-drafter' if config.drafter else ''}")
        write_hyperparameters(metadata, config, name, OUTTYPES[outtype][1])
        if config.ordered_head is not None:
            metadata.u32("gemtp.ordered_head.num_centroids", config.ordered_head.num_centroids)
            metadata.u32("gemtp.ordered_head.top_k", config.ordered_head.top_k)
            metadata.f32_array(
                "gemtp.ordered_head.centroids", codes.centroids(config.hidden).reshape(-1)
            )
            metadata.i32_array("gemtp.ordered_head.token_order", codes.token_order)
        tokenizer.write(metadata)
        self.specs = list(demanded(config))
        self.kinds = [kind if s.matrix else TensorType.F32 for s in self.specs]
        layout = Layout()
        self.rope = rope_freqs(config)
        layout.add("rope_freqs.weight", self.rope.shape, TensorType.F32)
        for spec, tensor_kind in zip(self.specs, self.kinds, strict=True):
            layout.add(spec.name, spec.shape, tensor_kind)
        self.header = layout.header(metadata)
        self.sizes = layout.sizes
        self.size = len(self.header) + layout.data_size

    def token_bytes(self) -> int:
        """Bytes of matrices read for one token: no tables, and of the experts those used."""
        total = 0
        for spec, size in zip(self.specs, self.sizes[1:], strict=True):
            if not spec.matrix or spec.name in ("token_embd.weight", "per_layer_token_embd.weight"):
                continue
            if "_exps" in spec.name:
                size = size * self.config.experts_used // self.config.experts
            total += size
        return total

    def write(self, path: Path, weights: RandomWeights, bar: tqdm) -> None:
        with replacing(path, self.size) as handle:
            handle.write(self.header)
            handle.write(self.rope.astype("<f4").tobytes())
            pad(handle, self.sizes[0])
            for spec, kind, size in zip(self.specs, self.kinds, self.sizes[1:], strict=True):
                bar.set_description(f"{path.name} {spec.name}", refresh=False)
                for data in self._contents(spec, kind, size, weights):
                    handle.write(data.data)
                    bar.update(data.nbytes)
                pad(handle, size)

    def _contents(
        self, spec: Spec, kind: TensorType, size: int, weights: RandomWeights
    ) -> Iterator[np.ndarray]:
        c, codes = self.config, self.codes
        if spec.name == "output.weight":
            yield from self._rows(codes.head, head_sizes(codes.silent, c.hidden), kind)
        elif spec.name == "token_embd.weight" and c.drafter:
            yield from self._rows(codes.drafter_head, head_sizes(codes.silent, c.hidden), kind)
        elif spec.name == "token_embd.weight":
            yield from self._rows(codes.embedding, np.full(c.vocab, 1 / 64, np.float32), kind)
        elif spec.name == "nextn.pre_projection.weight":
            yield selection(spec.shape[0], spec.shape[1], kind)
        elif spec.matrix:
            yield from weights.cut(size, spec.shape[-1], kind)
        elif spec.name.endswith("ffn_gate_inp.weight"):
            yield weights.normal(int(np.prod(spec.shape))).view(np.uint8)
        else:
            value = 0.0 if spec.name.endswith(_SILENT_NORMS) else 1.0
            yield np.full(int(np.prod(spec.shape)), value, "<f4").view(np.uint8)

    def _rows(self, order: np.ndarray, sizes: np.ndarray, kind: TensorType) -> Iterator[np.ndarray]:
        width = self.config.hidden
        step = max(1, CHUNK // width)
        for begin in range(0, len(order), step):
            rows = order[begin : begin + step]
            data = code_rows(self.codes.bits[rows], width, sizes[begin : begin + step], kind)
            yield np.ascontiguousarray(data).reshape(-1)
