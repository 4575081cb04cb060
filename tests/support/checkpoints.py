"""Small checkpoints for tests: committed random ones, and pairs whose drafter is often right.

Needs only numpy and safetensors. A checkpoint here is a Hugging Face folder, so every test that
uses one also runs the converter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from gemtp_native.gguf.file import Metadata, read_contents, read_metadata
from gemtp_native.gguf.rewrite import rewrite
from gemtp_native.make.convert import convert

GOLDEN = Path(__file__).parent.parent / "golden"
ARCHITECTURES = ("e2b", "e4b", "12b", "26b-a4b", "31b")
BOS = 2


@dataclass(frozen=True)
class Pair:
    """Two GGUF files."""

    target: Path
    drafter: Path


def read_config(folder: Path) -> dict[str, Any]:
    """Reads config.json of a checkpoint."""
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def vocab_size(arch: str) -> int:
    """Returns the vocabulary size of a committed pair."""
    config = read_config(GOLDEN / arch / "target")
    return config.get("text_config", config)["vocab_size"]


def window(arch: str) -> int:
    """Returns the sliding window of a committed pair."""
    config = read_config(GOLDEN / arch / "target")
    return config.get("text_config", config)["sliding_window"]


def random_prompt(arch: str, length: int, seed: int) -> list[int]:
    """Returns BOS and `length - 1` ordinary tokens."""
    rng = np.random.default_rng(seed)
    return [BOS, *rng.integers(5, vocab_size(arch), length - 1).tolist()]


# ---------------------------------------------------------------- tokenizer


def write_tokenizer(folder: Path, vocab: int) -> None:
    """Writes a tokenizer.json in Gemma's style: `vocab` entries, of which 5 are special and 256
    bytes."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    merges = [["t", "h"], ["th", "e"], ["\u2581", "the"], ["i", "n"], ["e", "r"]]
    letters = ["\u2581", "\n", "t", "h", "e", "i", "n", "r"]
    text = []
    for piece in [*letters, *("".join(pair) for pair in merges), *map(chr, range(0x3B1, 0x3E1))]:
        if len(tokens) + len(text) < vocab:
            text.append(piece)
    tokens += text
    if len(tokens) != vocab:
        raise ValueError(
            f"a tokenizer of {vocab} entries cannot be made, only 261 to {len(tokens)}"
        )
    known = set(text)
    data = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": i, "content": tokens[i], "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False, "special": True,
            }
            for i in range(5)
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": None,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [m for m in merges if {*m, "".join(m)} <= known],
        },
    }  # fmt: skip
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")


# ---------------------------------------------------------------- checkpoints


def committed(arch: str, out: Path) -> Path:
    """Copies a committed pair to `out`/target (with a tokenizer) and `out`/drafter."""
    for part in ("target", "drafter"):
        source, folder = GOLDEN / arch / part, out / part
        folder.mkdir(parents=True)
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_bytes((source / name).read_bytes())
    write_tokenizer(out / "target", vocab_size(arch))
    return out


# Scale of the layers' outputs in `agreeing`, chosen so that drafts are right more often than not,
# but the layers' inputs still decide many tokens.
TARGET_BRANCHES = {"e2b": 0.18, "e4b": 0.14, "12b": 0.4, "26b-a4b": 0.5, "31b": 0.4}
DRAFTER_BRANCHES = 0.1
TOP_LOGIT = 12.0  # of the permutation's token: likely, but not certain, at temperature 1


def agreeing(
    arch: str,
    out: Path,
    seed: int = 0,
    tokens: Sequence[int] | None = None,
    top_logit: float = TOP_LOGIT,
) -> Path:
    """Makes a pair from the committed one whose rounds accept none, some or all of their drafts.

    The target's head maps token t to its image under a permutation, the drafter's head knows that
    permutation for most tokens, and the layers of both add a little: enough to change the choice
    now and then, so that a wrong K/V entry or position becomes visible in the text. `tokens` are
    the permuted tokens; None: all but the first five.
    """
    if not (out / "target").exists():
        committed(arch, out)
    rng = np.random.default_rng(seed)
    target = _load(out / "target")
    drafter = _load(out / "drafter")
    embedding = _only(target, "embed_tokens.weight")  # [vocab, backbone]
    vocab, backbone = embedding.shape
    hidden = drafter["pre_projection.weight"].shape[0]

    following = np.arange(vocab)  # token -> the target's preferred next token
    permuted = np.arange(5, vocab) if tokens is None else np.asarray(tokens)
    following[permuted] = rng.permutation(permuted)

    _scale_branches(target, TARGET_BRANCHES[arch])
    # Product of a row of length r and a parallel normalised vector of length sqrt(n).
    length = np.linalg.norm(embedding, axis=1).mean()
    head = np.empty_like(embedding)
    head[following] = embedding * top_logit / (length * backbone**0.5)
    target["lm_head.weight"] = head

    _scale_branches(drafter, DRAFTER_BRANCHES)
    projection = np.linalg.qr(rng.standard_normal((backbone, backbone)))[0][:hidden]
    pre = drafter["pre_projection.weight"]  # [hidden, 2 * backbone]: embedding, then h
    pre[:, :backbone] = projection
    pre[:, backbone:] *= 0.5
    known = rng.random(vocab) < 0.85
    source = np.where(known, np.arange(vocab), rng.permutation(vocab))
    rows = (embedding @ projection.T)[source]
    rows *= top_logit / (np.linalg.norm(rows, axis=1, keepdims=True) * hidden**0.5)
    drafter_head = np.empty((vocab, hidden), np.float32)
    drafter_head[following] = rows
    drafter["model.embed_tokens.weight"] = drafter_head
    if "masked_embedding.token_ordering" in drafter:
        # A centroid is the sum of its cluster's rows: the right cluster usually scores high.
        order = drafter["masked_embedding.token_ordering"]
        count = len(drafter["masked_embedding.centroids.weight"])
        clusters = drafter_head[order].reshape(count, -1, hidden)
        drafter["masked_embedding.centroids.weight"] = clusters.sum(axis=1)
    _store(out / "target", target, tie_word_embeddings=False)
    _store(out / "drafter", drafter)
    return out


def with_tiny_weights(arch: str, out: Path) -> Path:
    """Makes a committed pair in which three in four rows of every matrix, and three in four values
    of every vector, are around 2^-40, around the smallest normal float, or subnormal.
    """
    committed(arch, out)
    factors = np.array([1, 2.0**-38, 2.0**-124, 2.0**-136])
    for part in ("target", "drafter"):
        tensors = _load(out / part)
        for name, tensor in tensors.items():
            if tensor.dtype == np.float32 and tensor.size > 1:
                rows = factors[np.arange(len(tensor)) % 4].reshape(-1, *[1] * (tensor.ndim - 1))
                tensors[name] = (tensor * rows).astype(np.float32)
        _store(out / part, tensors)
    return out


def with_vocabulary_of(lender: Pair, out: Path) -> Pair:
    """Makes an agreeing pair of a hundredth of the shipped pair's size, with the tokenizer, the
    template and the purpose of `lender`, for tests that need a real vocabulary and must be fast.
    Its texts consist of whole ASCII tokens.
    """
    metadata = [read_contents(path).metadata for path in (lender.target, lender.drafter)]
    tokens = read_metadata(lender.target)["tokenizer.ggml.tokens"]
    texts = [i for i, t in enumerate(tokens) if t.isascii() and not t.startswith(b"<")]
    folder = out / "checkpoints"
    _widen(committed("12b", folder), len(tokens))
    agreeing("12b", folder, tokens=texts, top_logit=20.0)
    files = []
    for part, lent in zip(("target", "drafter"), metadata, strict=True):
        plain = out / f"plain-{part}.gguf"
        convert(folder / part, plain, "q8_0", tokenizer=False, progress=False)
        files.append(out / f"{part}.gguf")
        rewrite(plain, files[-1], partial(_lend_tokenizer, lent))
    return Pair(*files)


def _lend_tokenizer(lent: Metadata, metadata: Metadata) -> None:
    for key, value in lent.items():
        if key.startswith("tokenizer.") or key == "gemtp.completes":
            metadata.raw(key, value)


def _widen(folder: Path, vocab: int) -> None:
    """Adds tokens, with rows of the same size, and lengthens the window of the committed pair."""
    rng = np.random.default_rng(0)
    for part in ("target", "drafter"):
        tensors = _load(folder / part)
        for name, rows in tensors.items():
            if name.endswith("embed_tokens.weight"):
                more = rng.standard_normal((vocab - len(rows), rows.shape[1])) * rows.std()
                tensors[name] = np.concatenate([rows, more.astype(rows.dtype)])
        longer = {"sliding_window": 128, "max_position_embeddings": 2048}
        _store(folder / part, tensors, vocab_size=vocab, **longer)


def _load(folder: Path) -> dict[str, np.ndarray]:
    tensors = load_file(folder / "model.safetensors")
    return {
        name: t.astype(np.float32) if t.dtype == np.float16 else t for name, t in tensors.items()
    }


def _store(folder: Path, tensors: dict[str, np.ndarray], **config: Any) -> None:
    save_file(
        {k: np.ascontiguousarray(v) for k, v in tensors.items()}, folder / "model.safetensors"
    )
    values = read_config(folder) | config
    if "text_config" in values:
        values["text_config"] |= config
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")


def _only(tensors: dict[str, np.ndarray], suffix: str) -> np.ndarray:
    (found,) = [t for name, t in tensors.items() if name.endswith("." + suffix)]
    return found


def _scale_branches(tensors: dict[str, np.ndarray], factor: float) -> None:
    last = ("post_attention_layernorm", "post_feedforward_layernorm", "post_per_layer_input_norm")
    for name, tensor in tensors.items():
        if name.removesuffix(".weight").endswith(last):
            tensor *= factor


# ---------------------------------------------------------------- GGUF


def to_gguf(folder: Path, out: Path, outtype: str) -> Pair:
    """Converts `folder`/target and `folder`/drafter to files in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    pair = Pair(out / f"target-{outtype}.gguf", out / f"drafter-{outtype}.gguf")
    convert(folder / "target", pair.target, outtype, progress=False)
    convert(folder / "drafter", pair.drafter, outtype, progress=False)
    return pair
