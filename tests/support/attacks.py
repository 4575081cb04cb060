"""Hostile files, one for each possible defect: ``python attacks.py OUT_DIR`` writes them.

Each starts from a valid file (``tiny_files.py``), which is written too, and breaks one part of it,
which its name describes. A file named ``drafter-*`` is to be opened as the drafter of
``sound-target.gguf``, every other one as a target.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf_bytes as gb
import model_attacks
import tiny_files
from attack_changes import U32_MAX, U64_MAX, Change, assign, drop, put, put_array, put_raw
from gguf_bytes import ARRAY, BOOL, F32, F64, I32, STRING, U8, U32, U64, Gguf, Key, Tensor


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
        ("model", target, model_attacks.model),
        ("experts", tiny_files.sound_experts(), model_attacks.experts),
        ("data", target, model_attacks.data),
        ("drafter", tiny_files.sound_drafter(), model_attacks.drafter),
    )
    for group, base, changes in groups:
        for name, change in changes().items():
            g = base.copy()
            raw = change(g)
            yield Attack(f"{group}-{name}", g.encode() if raw is None else raw)


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
        """Sets general.alignment to 64 while the layout uses 32."""
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
        "padding-overflows": extra([2**63 - 1], gb.T_F32 + 24),  # I8: one byte per element
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


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/support/attacks.py OUT_DIR")
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
