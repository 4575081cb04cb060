"""Vocabularies of synthetic models: made, or the ordinary tokens of another model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from string import ascii_lowercase

import numpy as np

from ...errors import ArgumentError
from ..convert.tokenizer import BYTE, CONTROL, NORMAL, USER_DEFINED, Tokenizer

SMALLEST, LARGEST = 1024, 400_000
_RESERVED = 300  # lower ids are special, unused or markup in Gemma 4
_FIRST_BYTE = 238  # ids 238 to 493 are the 256 bytes
# Control tokens with their ids in Gemma 4.
_CONTROL = {
    0: "<pad>",
    1: "<eos>",
    2: "<bos>",
    3: "<unk>",
    4: "<mask>",
    46: "<|tool>",
    47: "<tool|>",
    98: "<|think|>",
    105: "<|turn>",
    106: "<turn|>",
}
_VISIBLE = {
    48: "<|tool_call>",
    49: "<tool_call|>",
    50: "<|tool_response>",
    51: "<tool_response|>",
    52: '<|"|>',
    100: "<|channel>",
    101: "<channel|>",
}


def made_vocabulary(size: int) -> Tokenizer:
    """Makes special tokens and bytes with the ids of Gemma 4, ASCII, and syllables of a to z."""
    if not SMALLEST <= size <= LARGEST:
        raise ArgumentError(
            f"a vocabulary of {size:,} tokens cannot be made; {SMALLEST:,} to {LARGEST:,} are "
            f"possible."
        )
    texts, types = [], []
    for i in range(_FIRST_BYTE):
        texts.append(_CONTROL.get(i) or _VISIBLE.get(i) or f"<unused{i}>")
        types.append(CONTROL if i in _CONTROL else USER_DEFINED if i in _VISIBLE else NORMAL)
    texts += [f"<0x{byte:02X}>" for byte in range(256)]
    types += [BYTE] * 256
    texts += ["▁", "\n", *map(chr, range(ord("!"), ord("~") + 1))]
    merges = []
    for left, right in _syllables():
        if len(texts) == size:
            break
        texts.append(left + right)
        merges.append(f"{left} {right}".encode())
    types += [NORMAL] * (size - len(types))
    ids = {"pad": 0, "eos": 1, "bos": 2, "unk": 3, "mask": 4}
    return Tokenizer(Path("made"), [text.encode() for text in texts], types, merges, ids)


def _syllables() -> Iterator[tuple[str, str]]:
    """Yields the pairs that merges join: ab, ▁ab, abc, abcd."""
    pairs = ["".join(p) for p in product(ascii_lowercase, repeat=2)]
    yield from product(ascii_lowercase, repeat=2)
    yield from (("▁", pair) for pair in pairs)
    yield from product(pairs, ascii_lowercase)
    yield from product(pairs, repeat=2)


def ordinary_tokens(tokenizer: Tokenizer) -> np.ndarray:
    """Returns the ids of a generated text: no special tokens, and none that ends it."""
    ordinary = np.asarray(tokenizer.types) == NORMAL
    ordinary[:_RESERVED] = False
    ordinary[tokenizer.suppress] = False
    ordinary[list(tokenizer.ids.values())] = False
    ids = np.flatnonzero(ordinary)
    if len(ids) < _RESERVED:
        raise ArgumentError(
            f"{tokenizer.source} has {len(ids)} ordinary tokens from id {_RESERVED} on; a text "
            f"that does not soon repeat itself needs {_RESERVED}."
        )
    return ids
