"""The prompt as part of a completion: its text, and log-probabilities of its tokens."""

from __future__ import annotations

import codecs
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..results import Token
from .tokens import TokenTexts

if TYPE_CHECKING:
    from ..model import Model

_scoring = threading.Lock()  # each scoring has keys and values of its own, beside the budget


def echoed(
    model: Model,
    prompt: str | list[int],
    special: bool,
    top: int | None,
    cancelled: Callable[[], bool],
) -> list[Token]:
    """Returns the prompt's tokens, without a <bos> that the request has not given.

    Args:
        special: control tokens that the prompt spells are these tokens.
        top: number of likeliest tokens to return for each; None: no log-probabilities.
        cancelled: asked between passes.
    """
    ids = model._ids_of(prompt, special)
    scores: list[tuple[float | None, list[tuple[int, float]]]] = [(None, [])] * len(ids)
    if top is not None and len(ids) > 1:
        with _scoring:
            scores[1:] = model._engine.score_with_likeliest(ids, 1, top, cancelled)
    texts = _texts(model, ids, isinstance(prompt, str))
    tokens = [
        Token(id, "target", text, logprob, likeliest)
        for id, text, (logprob, likeliest) in zip(ids, texts, scores, strict=True)
    ]
    added = isinstance(prompt, str) and "".join(texts) != prompt
    return tokens[1:] if added else tokens


def _texts(model: Model, ids: list[int], spelled: bool) -> list[str]:
    """Returns the text that each token completes. spelled: control tokens are text, too."""
    known = TokenTexts(model)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    visible = [spelled or model.detokenize([id]) != "" for id in ids]
    out = [
        decoder.decode(bytes(known.text(id)[1])) if shown else ""
        for id, shown in zip(ids, visible, strict=True)
    ]
    if out:
        out[-1] += decoder.decode(b"", True)
    return out
