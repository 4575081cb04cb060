"""A SentencePiece `tokenizer.model`: pieces and settings, read from the protobuf wire format.

Only the fields that a Gemma tokenizer depends on are looked at, so neither sentencepiece nor
protobuf is needed. Field numbers are those of sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...base.input_file import read_input
from ...errors import FileError, ModelError
from ...gguf.impostor import refuse_impostor

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_MODEL_BPE = 2


@dataclass(frozen=True)
class Piece:
    text: str
    score: float
    kind: int


def read_sentencepiece(path: Path) -> list[Piece]:
    """Returns the pieces by id. Raises ModelError if the model splits text unlike Gemma's."""
    data = read_input(path)
    refuse_impostor(path)
    pieces: list[Piece] = []
    model_type, dummy_prefix, squeeze, normalized = 1, True, True, False  # the proto's defaults
    try:
        for number, value in _fields(data):
            if number == 1:
                pieces.append(_piece(_message(value)))
            elif number == 2:
                for key, setting in _fields(_message(value)):
                    if key == 3:
                        model_type = int(setting)
            elif number == 3:
                for key, setting in _fields(_message(value)):
                    if key == 2:
                        normalized = bool(setting)
                    elif key == 3:
                        dummy_prefix = bool(setting)
                    elif key == 4:
                        squeeze = bool(setting)
    except (ValueError, IndexError, struct.error, TypeError) as e:
        raise FileError(f"{path} is not a complete SentencePiece model ({e}).") from e
    if not pieces:
        raise FileError(f"{path} holds no pieces: it is not a SentencePiece model.")
    if model_type != _MODEL_BPE:
        raise ModelError(f"{path} is not a BPE model; the gemma4 tokenizer works by BPE merges.")
    for wrong, what in (
        (dummy_prefix, "adds a space before the text (add_dummy_prefix)"),
        (squeeze, "removes extra spaces (remove_extra_whitespaces)"),
        (normalized, "normalizes characters (its normalization rule is not identity)"),
    ):
        if wrong:
            raise ModelError(f"{path} {what}, which the gemma4 tokenizer does not.")
    return pieces


def merges_of(pieces: list[Piece]) -> list[tuple[str, str]]:
    """Returns the merges that build the pieces, best first.

    Every split of a piece into two pieces is a merge; it ranks by the score of what it builds, then
    longer left part first, as Hugging Face's conversion of Gemma tokenizers does.
    """
    usable = {p.text: i for i, p in enumerate(pieces) if p.kind in (NORMAL, USER_DEFINED)}
    found: list[tuple[float, int, int, int, int, str, str]] = []
    for text in usable:
        score = pieces[usable[text]].score
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in usable and right in usable:
                found.append(
                    (-score, -len(left), -len(right), usable[text], usable[left], left, right)
                )
    found.sort()
    return [(left, right) for *_, left, right in found]


def _piece(data: bytes) -> Piece:
    text, score, kind = "", 0.0, NORMAL
    for number, value in _fields(data):
        if number == 1:
            text = _message(value).decode("utf-8")
        elif number == 2:
            (score,) = struct.unpack("<f", _message(value))
        elif number == 3:
            kind = int(value)
    if kind not in (NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE):
        raise ValueError(f"piece type {kind}")
    return Piece(text, score, kind)


def _message(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where text is expected")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields (field number, varint or raw bytes) of a protobuf message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if size > len(data) - at:
            raise ValueError("it ends too early")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")
