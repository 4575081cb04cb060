"""Log-probabilities in OpenAI's two shapes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..model import Model, Token

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
MIN_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON cannot express; OpenAI uses this value, too."""


class TokenTexts:
    """The texts of single tokens."""

    def __init__(self, model: Model):
        self._tokenizer: Any = model._engine.tokenizer
        self._known: dict[int, tuple[str, list[int]]] = {}

    def text(self, id: int) -> tuple[str, list[int]]:
        """Returns a token as text and as bytes, because it may be part of a character."""
        if id not in self._known:
            byte = _BYTE.fullmatch(self._tokenizer.token_text(id))
            text = self._tokenizer.decode([id], True)
            spelled = [int(byte[1], 16)] if byte else list(text.encode())
            if len(self._known) > 1 << 16:
                self._known.clear()
            self._known[id] = (text, spelled)
        return self._known[id]

    def chat(self, tokens: list[Token]) -> list[dict[str, Any]]:
        return [
            {
                **self._entry(t.id, t.logprob),
                "top_logprobs": [self._entry(id, p) for id, p in t.top_logprobs],
            }
            for t in tokens
            if t.id >= 0
        ]

    def _entry(self, id: int, logprob: float | None) -> dict[str, Any]:
        text, spelled = self.text(id)
        return {"token": text, "logprob": _finite(logprob), "bytes": spelled}

    def completion(self, tokens: list[Token], offset: int, top: int) -> dict[str, Any]:
        """Log-probabilities for completions. offset: characters of text before the tokens."""
        out: dict[str, Any] = {
            "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [],
        }  # fmt: skip
        for t in tokens:
            if t.id >= 0:
                out["tokens"].append(self.text(t.id)[0])
                out["token_logprobs"].append(_finite(t.logprob))
                likeliest = {self.text(id)[0]: _finite(p) for id, p in t.top_logprobs}
                out["top_logprobs"].append(likeliest if top and likeliest else None)
                out["text_offset"].append(offset)
            offset += len(t.text)
        return out


def _finite(logprob: float | None) -> float | None:
    """None: a prompt's first token, which follows nothing."""
    return None if logprob is None else max(logprob, MIN_LOGPROB)
