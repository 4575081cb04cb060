"""A vocabulary for synthetic models: copied from a GGUF, or made."""

from __future__ import annotations

import itertools
import string
from pathlib import Path

import numpy as np

from ..convert.tokenizer import BYTE, CONTROL, NORMAL, Tokenizer
from ..errors import ArgumentError

# The ids that Gemma 4 gives them.
_SPECIAL = {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 4: "<mask>"}
_MARKERS = {
    46: "<|tool>",
    47: "<tool|>",
    48: "<|tool_call>",
    49: "<tool_call|>",
    50: "<|tool_response>",
    51: "<tool_response|>",
    52: '<|"|>',
    98: "<|think|>",
    100: "<|channel>",
    101: "<channel|>",
    105: "<|turn>",
    106: "<turn|>",
}
_FIRST_BYTE = 238  # ids 238 to 493 are the 256 bytes
_FIRST_WORD = _FIRST_BYTE + 256
SMALLEST = 1024


def made_vocabulary(size: int) -> Tokenizer:
    """Control tokens and bytes where Gemma 4 has them, then the strings of a to z by length."""
    if size < SMALLEST:
        raise ArgumentError(f"the vocabulary has {size} tokens; at least {SMALLEST} are needed.")
    names = {**_SPECIAL, **_MARKERS}
    tokens, types = [], []
    for i in range(_FIRST_WORD):
        if i >= _FIRST_BYTE:
            tokens.append(b"<0x%02X>" % (i - _FIRST_BYTE))
            types.append(BYTE)
        else:
            tokens.append(names.get(i, f"<unused{i}>").encode())
            types.append(CONTROL)
    merges = []
    for text in itertools.islice(_words(), size - _FIRST_WORD):
        tokens.append(text.encode())
        types.append(NORMAL)
        if len(text) > 1:
            merges.append(f"{text[:-1]} {text[-1]}".encode())
    ids = {"pad": 0, "eos": 1, "bos": 2, "unk": 3, "mask": 4}
    return Tokenizer(Path("made"), tokens, types, merges, ids)


def _words() -> itertools.chain[str]:
    letters = [*string.ascii_lowercase, "▁", "\n"]
    return itertools.chain.from_iterable(
        map("".join, itertools.product(letters if n == 1 else string.ascii_lowercase, repeat=n))
        for n in itertools.count(1)
    )


def walked(tokenizer: Tokenizer) -> np.ndarray:
    """The ids that generated text may consist of: ordinary tokens behind the reserved ones."""
    ordinary = np.asarray(tokenizer.types) == NORMAL
    ordinary[:300] = False
    return np.flatnonzero(ordinary)
