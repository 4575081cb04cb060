"""Numbers in texts of others."""

from __future__ import annotations


def whole_number(text: str) -> int | None:
    """Returns the number that up to nine digits spell; None for anything else. (`int` also takes
    digits of other scripts, signs and underscores, and raises for thousands of digits.)"""
    return int(text) if len(text) <= 9 and text.isascii() and text.isdigit() else None
