"""Converts text to token ids and back, without a model."""

from __future__ import annotations

import os
from collections.abc import Iterable

from . import _core
from .arguments import boolean, checked_path, id_list
from .base.log import logger
from .find import model_path


class Tokenizer:
    """The tokenizer of any GGUF file that has one, including files that hold only a vocabulary."""

    def __init__(self, path: str | os.PathLike[str]):
        self._core = _core.Tokenizer(model_path(checked_path("tokenizer file", path)))

    def __repr__(self) -> str:
        return f"<Tokenizer of {self.vocab_size} tokens>"

    def encode(self, text: str | bytes, add_bos: bool = False, special: bool = False) -> list[int]:
        """Returns the ids of ``text``. With ``special``, text that spells a control token becomes
        that token; do not use it for text that a user or a tool wrote."""
        return encoded(self._core, text, add_bos, special)

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """Returns the text of ``ids``; control tokens are written out only with ``special``."""
        return decoded(self._core, ids, special)

    @property
    def vocab_size(self) -> int:
        return self._core.vocab_size

    @property
    def bos(self) -> int:
        """Id of the beginning-of-sequence token; -1 if the file has none."""
        return self._core.bos

    @property
    def end_tokens(self) -> list[int]:
        """Ids that end a generation."""
        return self._core.end_tokens


def encoded(
    tokenizer: _core.Tokenizer, text: str | bytes, add_bos: bool, special: bool
) -> list[int]:
    return tokenizer.encode(text, boolean("add_bos", add_bos), boolean("special", special))


def decoded(tokenizer: _core.Tokenizer, ids: Iterable[int], special: bool) -> str:
    return tokenizer.decode(id_list(ids), boolean("special", special))


def note_control(tokenizer: _core.Tokenizer, text: str | bytes) -> bool:
    """Warns of a control token that a text spells and that counts as text; whether there is one."""
    spelled = tokenizer.spelled_control(text)
    if spelled:
        logger().warning(
            "the prompt spells the control token %s, which counts as text; if it is meant, set "
            "special (--special)",
            spelled,
        )
    return bool(spelled)
