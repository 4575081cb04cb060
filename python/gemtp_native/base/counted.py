"""Counts in sentences."""

from __future__ import annotations


def counted(count: int, what: str) -> str:
    """Returns "1 token" or "2,048 tokens". what: the word for one, to which an s is added."""
    return f"{count:,} {what if count == 1 else what + 's'}"
