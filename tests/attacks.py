"""Hostile files, one per thing that can be wrong: ``python tests/attacks.py OUT_DIR`` writes them.

Each starts from a sound file (``tiny_files.py``), which is written too, and breaks one thing; the
name says what. A file named ``drafter-*`` is to be opened as the drafter of ``sound-target.gguf``,
every other one as a target.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import gguf_bytes as gb
import tiny_files
from gguf_bytes import ARRAY, BOOL, F32, F64, I32, STRING, U8, U32, U64, Gguf, Key, Tensor

U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1

Change = Callable[[Gguf], bytes | None]


@dataclass(frozen=True)
class Attack:
    name: str
    data: bytes

    @property
    def is_drafter(self) -> bool:
        return self.name.startswith("drafter-")


def sound_files() -> dict[str, bytes]:
    return {
        "sound-target": tiny_files.sound_target().encode(),
        "sound-experts": tiny_files.sound_experts().encode(),
        "sound-drafter": tiny_files.sound_drafter().encode(),
    }


def all_attacks() -> Iterator[Attack]:
    target = tiny_files.sound_target()
    groups = (
        ("header", target, header),
        ("metadata", target, metadata),
        ("tensors", target, tensors),
        ("vocabulary", target, vocabulary),
        ("model", target, model),
        ("experts", tiny_files.sound_experts(), experts),
        ("data", target, data),
        ("drafter", tiny_files.sound_drafter(), drafter),
    )
    for group, base, changes in groups:
        for name, change in changes().items():
            g = base.copy()
            raw = change(g)
            yield Attack(f"{group}-{name}", g.encode() if raw is None else raw)


def assign(**fields: object) -> Change:
    """Sets attributes of the file."""

    def change(g: Gguf) -> None:
        for name, value in fields.items():
            setattr(g, name, value)

    return change


def put(name: str | bytes, kind: int, value: object) -> Change:
    return lambda g: g.put(name, kind, value)


def put_array(name: str, element: int, values: list) -> Change:
    return lambda g: g.put_array(name, element, values)


def put_raw(name: str, kind: int, payload: bytes) -> Change:
    return lambda g: g.put_raw(name, kind, payload)


def drop(name: str) -> Change:
    return lambda g: g.drop(name)


def header() -> dict[str, Change]:
    def overwrite(at: int, data: bytes) -> Change:
        def change(g: Gguf) -> bytes:
            whole = g.encode()
            return whole[:at] + data + whole[at + len(data) :]

        return change

    def cut(length: int) -> Change:
        return lambda g: g.encode()[:length]

    changes: dict[str, Change] = {
        "wrong-magic": assign(magic=b"GGML"),
        "magic-backwards": assign(magic=b"FUGG"),
        "not-a-model-but-html": lambda _: b"<!DOCTYPE html><html><body>Not found</body></html>\n",
        "git-lfs-pointer": lambda _: (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
        ),
        "all-zero": lambda _: bytes(4096),
        "byte-swapped-counts-too": overwrite(4, struct.pack(">IQQ", 3, 1, 1)),
        "truncated-in-magic": cut(3),
        "truncated-in-version": cut(6),
        "truncated-in-counts": cut(20),
        "truncated-before-metadata": cut(24),
        "truncated-by-half": lambda g: g.encode()[: len(g.encode()) // 2],
        "truncated-by-one-byte": lambda g: g.encode()[:-1],
    }
    for version in (0, 1, 4, 99, U32_MAX, 3 << 24, 2 << 24):
        changes[f"version-{version}"] = assign(version=version)
    for count in (-1, 2**31, 2**62, 2**63, 10_000):
        changes[f"tensor-count-{count}"] = assign(tensor_count=count)
        changes[f"key-count-{count}"] = assign(key_count=count)
    return changes


def metadata() -> dict[str, Change]:
    def array(element: int, count: int, payload: bytes = bytes(64)) -> Change:
        return put_raw("extra", ARRAY, struct.pack("<IQ", element, count) + payload)

    changes: dict[str, Change] = {
        "empty-key": put("", U32, 1),
        "huge-key": put("k" * 70_000, U32, 1),
        "duplicate-key": lambda g: g.keys.append(
            Key("gemma4.block_count", U32, gb.encode_scalar(U32, 3))
        ),
        "key-not-utf8": put(b"\xff\xfe\xfd", U32, 1),
        "key-overlong-utf8": put(b"a\xc0\x80", U32, 1),
        "value-type-13": put_raw("extra", 13, bytes(64)),
        "value-type-huge": put_raw("extra", U32_MAX, bytes(64)),
        "string-longer-than-file": put_raw("extra", STRING, struct.pack("<Q", 2**40)),
        "string-length-wraps": put_raw("extra", STRING, struct.pack("<Q", U64_MAX - 3)),
        "array-of-arrays": array(ARRAY, 1),
        "array-of-unknown-type": array(77, 1),
        "array-longer-than-file": array(U32, 2**40),
        "array-bytes-wrap": array(U64, 2**61),
        "array-count-maximal": array(U8, U64_MAX),
        "array-of-strings-longer-than-file": array(STRING, 2**61),
        "array-of-strings-last-one-cut": array(STRING, 2, struct.pack("<QQ", 0, 2**40)),
        "alignment-is-text": put("general.alignment", STRING, "32"),
        "architecture-missing": drop("general.architecture"),
        "architecture-is-number": put("general.architecture", U32, 4),
        "architecture-not-utf8": put("general.architecture", STRING, b"gemma4\xff"),
        "architecture-unknown": put("general.architecture", STRING, "llama"),
        "architecture-is-empty": put("general.architecture", STRING, ""),
        "block-count-is-text": put("gemma4.block_count", STRING, "3"),
        "embedding-length-is-float": put("gemma4.embedding_length", F32, 32.0),
        "embedding-length-is-array": put_array("gemma4.embedding_length", U32, [32]),
        "pattern-is-text": put("gemma4.attention.sliding_window_pattern", STRING, "sfs"),
        "pattern-is-floats": put_array("gemma4.attention.sliding_window_pattern", F32, [1, 0, 1]),
        "pattern-has-bool-of-2": put_raw(
            "gemma4.attention.sliding_window_pattern",
            ARRAY,
            struct.pack("<IQ", BOOL, 3) + b"\x01\x00\x02",
        ),
        "kv-heads-are-texts": put_array("gemma4.attention.head_count_kv", STRING, list("212")),
        "epsilon-is-integer": put("gemma4.attention.layer_norm_rms_epsilon", U32, 0),
        "tokenizer-model-is-number": put("tokenizer.ggml.model", U32, 4),
    }
    for alignment in (0, 1, 4, 33, 2**21, 2**31):
        changes[f"alignment-{alignment}"] = put("general.alignment", U32, alignment)
    return changes


def tensors() -> dict[str, Change]:
    def extra(
        shape: list[int], kind: int = gb.T_F32, size: int = 64, name: str = "extra"
    ) -> Change:
        return lambda g: g.tensors.append(Tensor(name, shape, kind, bytes(size)))

    def offset(index: int, move: Callable[[int], int]) -> Change:
        """Moves tensor ``index`` away from the offset where it belongs."""

        def change(g: Gguf) -> None:
            at = 0
            for t in g.tensors[:index]:
                at += len(t.data) + -len(t.data) % 32
            g.tensors[index].offset = move(at)

        return change

    def misaligned_start(g: Gguf) -> bytes:
        """general.alignment says 64, the layout keeps to 32."""
        g.put("general.alignment", U32, 64)
        return g.encode()

    def empty_data_section(g: Gguf) -> bytes:
        whole = g.encode()
        return whole[: -sum(len(t.data) + -len(t.data) % 32 for t in g.tensors)]

    return {
        "no-dimensions": extra([]),
        "five-dimensions": extra([1, 1, 1, 1, 1]),
        "dimensions-4-billion": lambda g: _huge_dims(g),
        "zero-dimension": extra([4, 0], size=0),
        "dimension-negative": extra([-1]),
        "product-overflows": extra([2**32, 2**32]),
        "product-wraps-to-small": extra([2**33, 2**31, 1, 4]),
        "bytes-overflow": extra([2**62]),
        "padding-overflows": extra([2**63 - 1], gb.T_F32 + 24),  # I8: one byte an element
        "row-not-whole-blocks": extra([33], gb.T_Q8_0),
        "row-shorter-than-block": extra([16, 2], gb.T_Q4_0),
        "type-withdrawn": extra([16], 4),
        "type-unknown": extra([16], 4711),
        "type-maximal": extra([16], U32_MAX),
        "duplicate-name": extra([16], name="output_norm.weight"),
        "empty-name": extra([16], name=""),
        "overlong-name": extra([16], name="n" * 65),
        "giant-name": extra([16], name="n" * 100_000),
        "name-not-utf8": lambda g: g.tensors.append(Tensor(b"a\xff", [16], gb.T_F32, bytes(64))),
        "overlapping": offset(3, lambda at: at - 32),
        "all-at-offset-zero": offset(4, lambda _: 0),
        "gapped": offset(5, lambda at: at + 32),
        "unaligned": offset(2, lambda at: at + 4),
        "offset-beyond-end": offset(2, lambda _: 2**40),
        "offset-wraps": offset(2, lambda _: U64_MAX - 31),
        "offset-negative": offset(1, lambda _: -32),
        "undersized-data": lambda g: g.encode()[:-100],
        "no-data-at-all": empty_data_section,
        "alignment-not-kept": misaligned_start,
    }


def _huge_dims(g: Gguf) -> bytes:
    g.tensors = [Tensor("extra", [1], gb.T_F32, bytes(4))]
    whole = g.encode()
    at = whole.index(b"extra") + len(b"extra")
    return whole[:at] + struct.pack("<I", U32_MAX) + whole[at + 4 :]


def vocabulary() -> dict[str, Change]:
    tokens, types, merges = tiny_files.TOKENS, tiny_files.TYPES, tiny_files.MERGES
    t = "tokenizer.ggml."

    def with_tokens(change: Callable[[list], None]) -> Change:
        changed = list(tokens)
        change(changed)
        return put_array(t + "tokens", STRING, changed)

    def with_token(index: int, text: str | bytes) -> Change:
        return with_tokens(lambda all_tokens: all_tokens.__setitem__(index, text))

    def with_type(index: int, kind: int) -> Change:
        changed = list(types)
        changed[index] = kind
        return put_array(t + "token_type", I32, changed)

    def with_merge(merge: str | bytes) -> Change:
        return put_array(t + "merges", STRING, [*merges, merge])

    byte = tokens.index("<0x61>")
    changes: dict[str, Change] = {
        "model-llama": put(t + "model", STRING, "llama"),
        "model-empty": put(t + "model", STRING, ""),
        "tokens-missing": drop(t + "tokens"),
        "tokens-none": put_array(t + "tokens", STRING, []),
        "tokens-are-numbers": put_array(t + "tokens", U32, list(range(len(tokens)))),
        "tokens-one-fewer": with_tokens(lambda all_tokens: all_tokens.pop()),
        "tokens-more-than-rows": lambda g: (
            g.put_array(t + "tokens", STRING, [*tokens, "xyz"]),
            g.put_array(t + "token_type", I32, [*types, 1]),
            g.put_array(t + "scores", F32, [0.0] * (len(tokens) + 1)),
            None,
        )[-1],
        "types-missing": drop(t + "token_type"),
        "types-one-fewer": put_array(t + "token_type", I32, types[:-1]),
        "types-are-texts": put_array(t + "token_type", STRING, ["1"] * len(types)),
        "scores-one-fewer": put_array(t + "scores", F32, [0.0] * (len(tokens) - 1)),
        "scores-are-doubles": put_array(t + "scores", F64, [0.0] * len(tokens)),
        "type-0": with_type(270, 0),
        "type-7": with_type(270, 7),
        "type-negative": with_type(270, -1),
        "token-empty": with_token(270, ""),
        "token-not-utf8": with_token(270, b"\xe2\x96"),
        "token-duplicate": with_token(270, tokens[271]),
        "byte-token-declared-text": with_type(byte, 1),
        "byte-token-twice": with_token(byte, "<0x62>"),
        "byte-token-twice-by-case": with_token(byte, "<0x6a>"),
        "merges-missing": drop(t + "merges"),
        "merges-are-numbers": put_array(t + "merges", U32, [1, 2, 3]),
        "merge-without-space": with_merge("th"),
        "merge-empty": with_merge(""),
        "merge-only-space": with_merge(" "),
        "merge-first-part-empty": with_merge(" h"),
        "merge-second-part-empty": with_merge("t "),
        "merge-of-three": with_merge("t h e"),
        "merge-unknown-part": with_merge("t Q"),
        "merge-unknown-product": with_merge("t t"),
        "merge-twice": with_merge(merges[0]),
        "merge-not-utf8": with_merge(b"t \xff"),
    }
    for bad in ("<0x-1>", "<0x1>", "<0x100>", "<0xGG>", "<0x 1>", "0x61", "<0x61", "a"):
        changes[f"byte-token-spelled-{bad.strip('<>').replace(' ', '_')}"] = with_token(byte, bad)
    for key in ("bos", "eos", "eot", "padding", "unknown"):
        name = f"{t}{key}_token_id"
        changes[f"{key}-out-of-range"] = put(name, U32, len(tokens))
        changes[f"{key}-maximal"] = put(name, U32, U32_MAX)
        changes[f"{key}-negative"] = put(name, I32, -1)
        changes[f"{key}-is-text"] = put(name, STRING, "1")
    for key in ("suppress_tokens", "eos_token_ids"):
        changes[f"{key}-out-of-range"] = put_array(t + key, I32, [1, len(tokens)])
        changes[f"{key}-negative"] = put_array(t + key, I32, [-5])
        changes[f"{key}-is-scalar"] = put(t + key, U32, 1)
    return changes


def model() -> dict[str, Change]:
    a, att = "gemma4.", "gemma4.attention."
    changes: dict[str, Change] = {
        "layers-more-than-tensors": put(a + "block_count", U32, 4),
        "shared-layers-all": put(att + "shared_kv_layers", U32, 3),
        "shared-layers-more-than-layers": put(att + "shared_kv_layers", U32, 4),
        "shared-layers-maximal": put(att + "shared_kv_layers", U32, U32_MAX),
        "shared-layers-negative": put(att + "shared_kv_layers", I32, -1),
        "shared-layers-without-source": put(att + "shared_kv_layers", U32, 2),
        "kv-heads-too-few-entries": put_array(att + "head_count_kv", I32, [2, 1]),
        "kv-heads-too-many-entries": put_array(att + "head_count_kv", I32, [2, 1, 2, 1]),
        "kv-heads-no-entries": put_array(att + "head_count_kv", I32, []),
        "kv-heads-one-zero": put_array(att + "head_count_kv", I32, [2, 0, 2]),
        "kv-heads-one-negative": put_array(att + "head_count_kv", I32, [2, -1, 2]),
        "kv-heads-do-not-divide": put(a + "attention.head_count_kv", U32, 3),
        "kv-heads-differ-from-source": put_array(att + "head_count_kv", I32, [2, 1, 1]),
        "pattern-too-few-entries": put_array(att + "sliding_window_pattern", BOOL, [True, False]),
        "pattern-no-entries": put_array(att + "sliding_window_pattern", BOOL, []),
        "feed-forward-too-few-entries": put_array(a + "feed_forward_length", U32, [32, 32]),
        "feed-forward-one-zero": put_array(a + "feed_forward_length", U32, [32, 0, 32]),
        "key-length-odd": put(att + "key_length", U32, 31),
        "value-length-differs": put(att + "value_length", U32, 16),
        "rope-dimensions-differ": put(a + "rope.dimension_count", U32, 16),
        "window-negative": put(att + "sliding_window", I32, -16),
        "per-layer-width-maximal": put(a + "embedding_length_per_layer_input", U32, U32_MAX),
        "per-layer-width-differs": put(a + "embedding_length_per_layer_input", U32, 64),
        "is-a-drafter": lambda _: tiny_files.sound_drafter().encode(),
        "only-a-vocabulary": assign(tensors=[]),
        "matrix-transposed": _swap_shape("per_layer_model_proj.weight"),
        "norm-too-short": _resize("output_norm.weight", [16], 64),
        "norm-quantized": _retype("output_norm.weight", gb.T_Q8_0),
        "embedding-one-dimension": _flatten("token_embd.weight"),
        "embedding-wrong-width": _resize("token_embd.weight", [64, 152], 304 * 34),
        "matrix-three-dimensions": _resize("blk.0.ffn_up.weight", [32, 16, 2], 32 * 34),
        "matrix-type-without-kernel": _retype("blk.0.attn_q.weight", gb.T_Q4_1),
        "matrix-type-integer": _retype("blk.0.ffn_gate.weight", gb.T_I32),
        "embedding-type-without-kernel": _retype("token_embd.weight", gb.T_Q4_1),
        "layer-scale-two-values": _resize("blk.0.layer_output_scale.weight", [2], 8),
        "fused-qkv-wrong-shape": lambda g: g.tensors.append(
            Tensor("blk.0.attn_qkv.weight", [32, 32], gb.T_F32, bytes(32 * 32 * 4))
        ),
        "output-head-wrong-shape": lambda g: g.tensors.append(
            Tensor("output.weight", [32, 16], gb.T_F32, bytes(32 * 16 * 4))
        ),
    }
    widths = {
        "layers": a + "block_count",
        "hidden": a + "embedding_length",
        "feed-forward": a + "feed_forward_length",
        "heads": att + "head_count",
        "kv-heads": att + "head_count_kv",
        "key-length": att + "key_length",
        "key-length-sliding": att + "key_length_swa",
        "window": att + "sliding_window",
        "context": a + "context_length",
    }
    for what, key in widths.items():
        for value in (0, 2**31 - 1, U32_MAX):
            changes[f"{what}-{value}"] = put(key, U32, value)
        changes[f"{what}-64-bit"] = put(key, U64, 2**63 + 1)
        optional = {"key-length-sliding"}
        if what not in optional:
            changes[f"{what}-missing"] = drop(key)
    for what, key in {
        "epsilon": att + "layer_norm_rms_epsilon",
        "softcap": a + "final_logit_softcapping",
        "rope-base": a + "rope.freq_base",
        "rope-base-sliding": a + "rope.freq_base_swa",
    }.items():
        for value in (float("nan"), float("inf"), -1.0):
            changes[f"{what}-{value}"] = put(key, F32, value)
    changes["rope-base-zero"] = put(a + "rope.freq_base", F32, 0.0)
    changes["pattern-missing"] = drop(att + "sliding_window_pattern")
    for tensor in tiny_files.sound_target().tensors:
        name = str(tensor.name)
        # Absent, these have a meaning: V is the raw K; a scale is 1.
        if not name.endswith(("attn_v.weight", "layer_output_scale.weight")):
            changes[f"tensor-missing-{name.removesuffix('.weight')}"] = drop(name)
    return changes


def experts() -> dict[str, Change]:
    a = "gemma4.expert_"
    p = "blk.0."

    def without(*parts: str) -> Change:
        def change(g: Gguf) -> None:
            g.tensors = [t for t in g.tensors if not any(part in str(t.name) for part in parts)]

        return change

    changes: dict[str, Change] = {
        "count-differs-from-tensors": put(a + "count", U32, 8),
        "count-1-less": put(a + "count", U32, 3),
        "count-maximal": put(a + "count", U32, U32_MAX),
        "count-negative": put(a + "count", I32, -4),
        "count-is-text": put(a + "count", STRING, "4"),
        "used-0": put(a + "used_count", U32, 0),
        "used-more-than-count": put(a + "used_count", U32, 5),
        "used-missing": drop(a + "used_count"),
        "width-0": put(a + "feed_forward_length", U32, 0),
        "width-differs": put(a + "feed_forward_length", U32, 64),
        "width-maximal": put(a + "feed_forward_length", U32, U32_MAX),
        "width-missing": drop(a + "feed_forward_length"),
        "no-tensors-at-all": without("exps", "gate_inp", "ffw_norm_1", "ffw_norm_2"),
        "router-missing-in-one-layer": drop(p + "ffn_gate_inp.weight"),
        "gate-without-up": lambda g: setattr(
            g.tensor(p + "ffn_gate_up_exps.weight"), "name", p + "ffn_gate_exps.weight"
        ),
        "two-dimensions": _resize(p + "ffn_down_exps.weight", [32, 128], 128 * 18),
        "nan-scale": lambda g: setattr(
            g.tensor(p + "ffn_down_exps.weight"),
            "data",
            g.tensor(p + "ffn_down_exps.weight").data[:-18] + NAN16 + bytes(16),
        ),
    }
    for name in ("gate_inp.scale", "gate_up_exps.weight", "down_exps.weight", "down_exps.scale"):
        changes[f"tensor-missing-{name}"] = drop(f"{p}ffn_{name}")
    return changes


def _resize(name: str, shape: list[int], size: int) -> Change:
    """Another shape with ``size`` bytes of data: a sound tensor, but not what is needed."""

    def change(g: Gguf) -> None:
        t = g.tensor(name)
        t.shape, t.data = shape, (t.data + bytes(size))[:size]

    return change


def _swap_shape(name: str) -> Change:
    return lambda g: g.tensor(name).shape.reverse()


def _flatten(name: str) -> Change:
    def change(g: Gguf) -> None:
        t = g.tensor(name)
        t.shape = [int(np.prod(t.shape))]

    return change


def _retype(name: str, kind: int) -> Change:
    def change(g: Gguf) -> None:
        t = g.tensor(name)
        block, size = gb.BLOCKS[kind]
        t.kind, t.data = kind, bytes(int(np.prod(t.shape)) // block * size)

    return change


NAN16, INF16 = struct.pack("<e", float("nan")), struct.pack("<e", float("-inf"))


def data() -> dict[str, Change]:
    def overwrite(name: str, at: int, value: bytes) -> Change:
        def change(g: Gguf) -> None:
            t = g.tensor(name)
            at_byte = at % len(t.data)
            t.data = t.data[:at_byte] + value + t.data[at_byte + len(value) :]

        return change

    def everywhere(name: str, block: int, value: bytes) -> Change:
        def change(g: Gguf) -> None:
            t = g.tensor(name)
            t.data = b"".join(
                value + t.data[i + len(value) : i + block] for i in range(0, len(t.data), block)
            )

        return change

    def floats(name: str, value: float, at: int = 0) -> Change:
        return overwrite(name, at, struct.pack("<f", value))

    def recast(name: str, kind: int, value: bytes) -> Change:
        """The matrix as 16-bit floats, one of them broken."""

        def change(g: Gguf) -> None:
            _retype(name, kind)(g)
            overwrite(name, -2, value)(g)

        return change

    nan, inf = float("nan"), float("inf")
    return {
        "nan-scale-q8_0": overwrite("blk.0.attn_q.weight", 34, NAN16),
        "inf-scale-q8_0": overwrite("blk.0.ffn_up.weight", 0, INF16),
        "nan-scale-q8_0-last-block": overwrite("blk.2.attn_output.weight", -34, NAN16),
        "nan-scale-q4_0": overwrite("blk.1.attn_k.weight", 18, NAN16),
        "inf-scale-q4_0": overwrite("blk.0.ffn_down.weight", -18, INF16),
        "nan-scale-in-embedding": overwrite("token_embd.weight", 34 * 100, NAN16),
        "nan-scale-in-per-layer-embedding": everywhere("per_layer_token_embd.weight", 18, NAN16),
        "inf-scale-in-per-layer-embedding": everywhere("per_layer_token_embd.weight", 18, INF16),
        "nan-in-f32-matrix": floats("blk.0.attn_v.weight", nan, 400),
        "inf-in-f32-matrix": floats("per_layer_model_proj.weight", inf, -4),
        "nan-in-f16-matrix": recast("blk.1.attn_v.weight", gb.T_F16, NAN16),
        "inf-in-bf16-matrix": recast("blk.1.attn_v.weight", gb.T_BF16, b"\x80\x7f"),
        "nan-in-norm": floats("blk.1.ffn_norm.weight", nan, 16),
        "inf-in-norm": floats("output_norm.weight", inf),
        "nan-in-layer-scale": floats("blk.0.layer_output_scale.weight", nan),
        "nan-in-rope-factors": floats("rope_freqs.weight", nan),
        "zero-in-rope-factors": floats("rope_freqs.weight", 0.0, 8),
        "negative-in-rope-factors": floats("rope_freqs.weight", -1.0, 8),
    }


def drafter() -> dict[str, Change]:
    a, head = "gemma4-assistant.", "gemtp.ordered_head."
    order = list(range(len(tiny_files.TOKENS)))
    centroids = [0.5] * (tiny_files.CENTROIDS * tiny_files.HIDDEN)

    def other_vocabulary(g: Gguf) -> None:
        g.keys = [k for k in g.keys if not str(k.name).startswith(head)]
        t = g.tensor("token_embd.weight")
        t.shape, t.data = [32, 288], t.data[: 288 * 34]

    def other_backbone(g: Gguf) -> None:
        g.put(a + "embedding_length_out", U32, 64)
        random = np.random.default_rng(3)
        for i, t in enumerate(g.tensors):
            if t.name == "nextn.pre_projection.weight":
                g.tensors[i] = gb.random_tensor(random, str(t.name), [128, 32], gb.T_F32)
            if t.name == "nextn.post_projection.weight":
                g.tensors[i] = gb.random_tensor(random, str(t.name), [32, 64], gb.T_F32)

    def other_head_dim(g: Gguf) -> None:
        """Full layers with heads of 64 instead of the target's 32."""
        for name in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
            g.put(a + name, U32, 64)
        for name, shape in {
            "blk.1.attn_q.weight": [32, 128],
            "blk.1.attn_q_norm.weight": [64],
            "blk.1.attn_output.weight": [128, 32],
            "rope_freqs.weight": [32],
        }.items():
            t = g.tensor(name)
            t.data *= int(np.prod(shape)) // int(np.prod(t.shape))
            t.shape = shape

    def heads_do_not_share(g: Gguf) -> None:
        """Three heads in the sliding layer, where the target has two K/V heads."""
        g.put_array(a + "attention.head_count", I32, [3, 2])
        g.put(a + "attention.head_count_kv", U32, 1)
        g.tensor("blk.0.attn_q.weight").shape = [32, 48]
        g.tensor("blk.0.attn_q.weight").data = g.tensor("blk.0.attn_q.weight").data[:34] * 48
        g.tensor("blk.0.attn_output.weight").shape = [48, 32]
        g.tensor("blk.0.attn_output.weight").kind = gb.T_F32
        g.tensor("blk.0.attn_output.weight").data = bytes(48 * 32 * 4)

    changes: dict[str, Change] = {
        "is-a-target": lambda _: tiny_files.sound_target().encode(),
        "truncated": lambda g: g.encode()[:-1],
        "other-vocabulary": other_vocabulary,
        "other-backbone": other_backbone,
        "other-head-dim": other_head_dim,
        "heads-do-not-share": heads_do_not_share,
        "backbone-missing": drop(a + "embedding_length_out"),
        "backbone-0": put(a + "embedding_length_out", U32, 0),
        "backbone-maximal": put(a + "embedding_length_out", U32, U32_MAX),
        "backbone-differs-from-tensors": put(a + "embedding_length_out", U32, 64),
        "with-per-layer-embedding": put(a + "embedding_length_per_layer_input", U32, 32),
        "with-experts": put(a + "expert_count", U32, 4),
        "window-0": put(a + "attention.sliding_window", U32, 0),
        "centroids-0": put(head + "num_centroids", U32, 0),
        "centroids-do-not-divide": put(head + "num_centroids", U32, 7),
        "centroids-more-than-tokens": put(head + "num_centroids", U32, 608),
        "centroids-maximal": put(head + "num_centroids", U32, U32_MAX),
        "centroids-is-text": put(head + "num_centroids", STRING, "8"),
        "top-k-0": put(head + "top_k", U32, 0),
        "top-k-more-than-centroids": put(head + "top_k", U32, 9),
        "top-k-missing": drop(head + "top_k"),
        "centroid-values-missing": drop(head + "centroids"),
        "centroid-values-too-few": put_array(head + "centroids", F32, centroids[:-1]),
        "centroid-values-are-doubles": put_array(head + "centroids", F64, centroids),
        "centroid-nan": put_array(head + "centroids", F32, [*centroids[:-1], float("nan")]),
        "order-missing": drop(head + "token_order"),
        "order-too-short": put_array(head + "token_order", I32, order[:-1]),
        "order-too-long": put_array(head + "token_order", I32, [*order, 0]),
        "order-repeats": put_array(head + "token_order", I32, [0, *order[:-1]]),
        "order-out-of-range": put_array(head + "token_order", I32, [*order[:-1], len(order)]),
        "order-negative": put_array(head + "token_order", I32, [*order[:-1], -1]),
        "nan-scale": lambda g: setattr(
            g.tensor("blk.0.ffn_up.weight"),
            "data",
            NAN16 + g.tensor("blk.0.ffn_up.weight").data[2:],
        ),
    }
    for name in ("nextn.pre_projection", "nextn.post_projection", "token_embd", "output_norm"):
        changes[f"tensor-missing-{name}"] = drop(name + ".weight")
    return changes


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/attacks.py OUT_DIR")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, content in sound_files().items():
        (folder / f"{name}.gguf").write_bytes(content)
    for attack in all_attacks():
        (folder / f"{attack.name}.gguf").write_bytes(attack.data)
        count += 1
    print(f"{count} hostile files and {len(sound_files())} sound ones in {folder}")


if __name__ == "__main__":
    main()
