"""The conversion itself: folder → plan → GGUF, one tensor slice at a time."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...base.whole_file import check_output, replacing
from ...errors import ArgumentError, FileError, ModelError
from ...gguf.file import Layout, Metadata, pad, read_metadata
from ...gguf.slices import Bad, count_bad, encoded, encoders
from ...gguf.types import FileType, Rules, TensorType, block_values, file_type
from .checkpoint import Checkpoint
from .config import ModelConfig, read_config, read_sampling, unknown_keys
from .hyperparameters import (
    rope_freqs,
    write_hyperparameters,
    write_ordered_head,
    write_sampling,
)
from .tensors import Plan, Spec, make_plan
from .tokenizer import (
    FILES,
    Tokenizer,
    has_tokenizer,
    tokenizer_from_folder,
    tokenizer_from_gguf,
)


@dataclass
class ConvertResult:
    """The result of a conversion."""

    path: Path
    architecture: str
    class_name: str
    outtype: str
    layers: int
    tensors: int
    bytes: int
    seconds: float
    tokenizer: str | None  # its source
    left_out: dict[str, list[str]] = field(default_factory=dict)  # reason -> tensor names
    notes: list[str] = field(default_factory=list)


def convert(
    model_dir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    outtype: str = "q8_0",
    target: str | os.PathLike[str] | None = None,
    tokenizer: bool = True,
    completes: bool = False,
    progress: bool = True,
) -> ConvertResult:
    """Converts a Hugging Face folder of a Gemma 4 target or drafter to a GGUF file.

    outtype: a name of FILE_TYPES, the type of the matrices or a mix of types. target: folder or
    GGUF that lends a drafter its tokenizer. tokenizer=False writes none. completes: the target
    was made to go on with texts, not to chat. An existing `out` is replaced, at the very end and
    at once. Raises FileError, ModelError or ArgumentError; nothing is
    left behind then.
    """
    start = time.monotonic()
    wanted = file_type(outtype)
    if target is not None and not tokenizer:
        raise ArgumentError("a target lends a tokenizer, yet none is to be written: choose one.")
    model_dir, out = Path(model_dir), Path(out)
    if not model_dir.is_dir():
        raise FileError(f"{model_dir} is not a folder; {_what_to_give(model_dir)}.")
    check_output(out)
    config = read_config(model_dir)
    sampling = {} if config.drafter else read_sampling(model_dir)
    if target is not None and not config.drafter:
        raise ArgumentError(
            f"{model_dir} is a target; only a drafter can take a tokenizer from one."
        )
    if completes and config.drafter:
        raise ArgumentError(f"{model_dir} is a drafter; whether a pair completes is the target's.")
    with Checkpoint(model_dir) as checkpoint:
        check_output(out, *checkpoint.files, *([] if target is None else [target]))
        plan = make_plan(config, checkpoint)
        notes = plan.notes
        if unknown := unknown_keys(model_dir):
            notes.append(
                f"config.json has keys that are not of Gemma 4 and that nothing follows: "
                f"{', '.join(unknown[:8])}{', …' if len(unknown) > 8 else ''}"
            )
        vocabulary = _tokenizer(config, model_dir, target, notes) if tokenizer else None

        metadata = Metadata()
        write_hyperparameters(metadata, config, model_dir.resolve().name, wanted.number)
        write_sampling(metadata, sampling)
        if completes:
            metadata.boolean("gemtp.completes", True)
        if config.ordered_head is not None:
            _write_ordered_head(metadata, config, plan, checkpoint)
        if vocabulary is not None:
            vocabulary.write(metadata)
        kinds = _choose_types(plan, config, wanted, notes)
        rope = rope_freqs(config)
        layout = Layout()
        layout.add("rope_freqs.weight", rope.shape, TensorType.F32)
        for (spec, _), kind in zip(plan.tensors, kinds, strict=True):
            layout.add(spec.name, spec.shape, kind)
        header = layout.header(metadata)
        size = len(header) + layout.data_size

        with replacing(out, size) as handle:
            handle.write(header)
            handle.write(rope.astype("<f4").tobytes())
            pad(handle, layout.sizes[0])
            _write_tensors(handle, checkpoint, plan, kinds, layout.sizes[1:], progress)
    return ConvertResult(
        path=out,
        architecture=config.arch,
        class_name=config.class_name,
        outtype=wanted.name,
        layers=config.layers,
        tensors=len(layout.sizes),
        bytes=size,
        seconds=time.monotonic() - start,
        tokenizer=None if vocabulary is None else str(vocabulary.source),
        left_out=plan.left_out,
        notes=notes,
    )


def _what_to_give(path: Path) -> str:
    if path.suffix == ".gguf":
        return "gemtp quantize writes a GGUF in another type"
    if path.is_file():
        return f"give the folder of a Hugging Face model, {path.parent} perhaps"
    name = str(path).removeprefix("hf:")
    if not path.exists() and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        return f"download it first (hf download {name} --local-dir {path.name}) and give its folder"
    return "give the folder of a Hugging Face model"


def _tokenizer(
    config: ModelConfig, model_dir: Path, target: Any, notes: list[str]
) -> Tokenizer | None:
    """Returns the tokenizer of the folder or of the target, padded to the rows of the embedding."""
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
    notes += found.notes
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


def _write_ordered_head(m: Metadata, c: ModelConfig, plan: Plan, checkpoint: Checkpoint) -> None:
    assert c.ordered_head is not None
    assert plan.centroids is not None
    assert plan.token_order is not None
    centroids = checkpoint.read(plan.centroids, 0, plan.centroids.count)
    count_bad(centroids, TensorType.F32).check(plan.centroids, TensorType.F32)
    order = checkpoint.read(plan.token_order, 0, plan.token_order.count)
    if not np.array_equal(np.sort(order), np.arange(c.vocab)):
        raise ModelError(
            f"{plan.token_order.file}: {plan.token_order.name} is not a permutation of the "
            f"{c.vocab} tokens."
        )
    write_ordered_head(m, c.ordered_head, centroids, order)


def _choose_types(
    plan: Plan, config: ModelConfig, wanted: FileType, notes: list[str]
) -> list[TensorType]:
    rules = Rules(wanted, [spec.name for spec, _ in plan.tensors], config.layers)
    kinds = []
    narrow: dict[TensorType, list[Spec]] = {}
    for spec, tensor in plan.tensors:
        kind = TensorType.F32
        if spec.matrix:
            kind = rules.kind(spec.name, spec.shape[-1], TensorType[tensor.dtype])
            if kind != wanted.kind and spec.shape[-1] % block_values(wanted.kind):
                narrow.setdefault(kind, []).append(spec)
        kinds.append(kind)
    for kind, specs in narrow.items():
        notes.append(
            f"{len(specs)} matrices are written as {kind.name}, because their rows are not a "
            f"multiple of {block_values(wanted.kind)} values: "
            f"{', '.join(s.name for s in specs[:3])}" + (", …" if len(specs) > 3 else "")
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
    with encoders(sum(t.nbytes for _, t in plan.tensors), progress) as (pool, window, bar):
        for (spec, tensor), kind, size in zip(plan.tensors, kinds, sizes, strict=True):
            bar.set_description(spec.name, refresh=False)
            bad = Bad()
            for data, here in encoded(pool, window, checkpoint, tensor, kind):
                bad += here
                if not bad:
                    handle.write(data.data)
                bar.update(data.size * tensor.nbytes // size)
            bad.check(tensor, kind)
            pad(handle, size)
