"""Divides a text into the chunks that are scored, like llama.cpp's llama-perplexity, so that
results are comparable."""

from __future__ import annotations

import os

from ...base.counted import counted
from ...base.input_file import read_input
from ...errors import ArgumentError, FileError, ModelError
from ...model import Model

SHORTEST = 3  # tokens of a chunk, so that its second half has a token to score


def read_text(path: str | os.PathLike[str]) -> bytes:
    """Returns the UTF-8 text of a file or a pipe, without its final newline (llama.cpp drops it
    too)."""
    data = read_input(path, pipe=True)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise FileError(
            f"{os.fspath(path)} is not UTF-8: byte {e.start} is 0x{data[e.start]:02X}; give a text "
            f"file in UTF-8"
        ) from e
    return data[:-1] if data.endswith(b"\n") else data


def token_ids(model: Model, text: str | bytes, special: bool = False) -> list[int]:
    """Returns the tokens of the whole text, with BOS in front if the model has one. special:
    control tokens that the text spells are these tokens."""
    if not model._engine.has_tokenizer:
        raise ModelError(
            "the model holds no tokenizer, and without one a text has no tokens; convert it again "
            "with its tokenizer"
        )
    return model._ids_of(text, special)


def split(model: Model, ids: list[int], context: int, limit: int | None = None) -> list[list[int]]:
    """Returns consecutive chunks of `context` tokens, at most `limit`; the rest at the end is not
    used. The first token of each chunk is replaced by BOS, if the model has one.

    Raises ArgumentError for a context that the model cannot hold, and for fewer tokens than two
    chunks.
    """
    if not SHORTEST <= context <= model.context:
        raise ArgumentError(
            f"the context is {context}; it must be between {SHORTEST} and the {model.context} "
            f"tokens that the model can hold"
        )
    if limit is not None and limit < 1:
        raise ArgumentError(f"the number of chunks is {limit}; it must be at least 1")
    if len(ids) < 2 * context:
        raise ArgumentError(
            f"the text has {counted(len(ids), 'token')} and a context of {context} needs at least "
            f"{2 * context}, two chunks; give a longer text or a smaller context"
        )
    return split_ids(ids, context, model._engine.tokenizer.bos, limit)


def split_ids(ids: list[int], context: int, bos: int, limit: int | None) -> list[list[int]]:
    """The same for a vocabulary whose BOS is `bos` (-1: none), without checks."""
    count = len(ids) // context
    chunks = []
    for i in range(count if limit is None else min(limit, count)):
        chunk = ids[i * context : (i + 1) * context]
        if bos >= 0:
            chunk[0] = bos
        chunks.append(chunk)
    return chunks


def first_scored(context: int) -> int:
    """Returns the index in a chunk of the first token that is scored. Row context/2 is the first
    whose prediction counts, because earlier rows see little of the text."""
    return context // 2 + 1
