"""A logits processor that forces the beginning of an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gemtp_native as gemtp


def forced_beginning(
    model: gemtp.Model, text: str, after: int
) -> tuple[Callable[[Any, Any], None], list[int]]:
    """Returns the processor, for a prompt of `after` tokens, and the forced tokens of `text`."""
    script = model.tokenize(text, add_bos=False, special=True)

    def processor(tokens: Any, logits: Any) -> None:
        at = len(tokens) - after
        if at < len(script):
            value = logits[script[at]]
            logits[:] = -float("inf")
            logits[script[at]] = value

    return processor, script
