"""Patterns and formats of JSON schemas, as regular expressions of llguidance between slashes."""

from __future__ import annotations

import re
from collections.abc import Iterable

_DATE = (
    "[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|"
    "02-(0[1-9]|1[0-9]|2[0-8]))"
)
_MINUTE = "([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_MINUTE}:[0-5][0-9](\.[0-9]{{1,6}})?(Z|[+-]{_MINUTE})"
_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = rf"{_LABEL}(\.{_LABEL}){{0,3}}"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_HEX = "[0-9a-f]"
_GROUP = f"{_HEX}{{1,4}}"
_GROUPS = f"({_GROUP}(:{_GROUP}){{0,2}})?"
_PORT = "(:[0-9]{1,4})?"
_PATH = r"[A-Za-z0-9._~!$&'()*+,;=:@-]*"
_CLOCK = "T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S)"
_DAYS = "([0-9]+Y([0-9]+M([0-9]+D)?)?|[0-9]+M([0-9]+D)?|[0-9]+D)"

FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": f"P({_DAYS}({_CLOCK})?|{_CLOCK}|[0-9]+W)",
    "email": rf"[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+){{0,3}}@{_HOST}\.[a-z]{{2,24}}",
    "hostname": _HOST,
    "ipv4": rf"{_BYTE}(\.{_BYTE}){{3}}",
    "ipv6": f"({_GROUP}:){{7}}{_GROUP}|{_GROUPS}::{_GROUPS}",
    "uuid": f"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}",
    "uri": rf"[a-z][a-z0-9+.-]{{0,20}}:\/\/{_HOST}{_PORT}(\/{_PATH})*(\?{_PATH})?(#{_PATH})?",
}
"""Texts of a format; not all of them, where all would be hard to spell."""


class PatternError(ValueError):
    """A pattern that cannot be followed; the message says why."""


def contained(pattern: object) -> str:
    """Returns the regular expression of the texts in which a pattern of JSON schema is found."""
    if not isinstance(pattern, str):
        raise PatternError("it is no text")
    return "|".join(_anchored(part) for part in _alternatives(pattern))


def excluded(names: Iterable[str]) -> str:
    """Returns the regular expression of the names."""
    return "|".join(_slashed(re.escape(name)) for name in names)


def _anchored(part: list[str]) -> str:
    begins, ends = part[:1] == ["^"], part[-1:] == ["$"]
    inner = "".join(part[begins : len(part) - ends])
    # A group of its own: the alternatives inside belong together.
    return f"{'' if begins else '(?s:.)*'}(?:{inner}){'' if ends else '(?s:.)*'}"


def _alternatives(pattern: str) -> list[list[str]]:
    """Splits a pattern at the | outside of all groups, and each part into its characters, escapes
    and classes."""
    parts: list[list[str]] = [[]]
    depth = at = 0
    in_class = False
    while at < len(pattern):
        piece = pattern[at : at + 2] if pattern[at] == "\\" else pattern[at]
        at += len(piece)
        if piece == "\\":
            raise PatternError("it ends with a backslash")
        if piece[0] == "\\":
            piece = _escape(piece, in_class)
        elif in_class:
            in_class = piece != "]"
            piece = r"\[" if piece == "[" else piece
        elif piece == "[":
            in_class = True
            if pattern[at : at + 1] == "^":
                piece, at = "[^", at + 1
        elif piece == "(":
            if re.match(r"\?(=|!|<=|<!)", pattern[at : at + 3]):
                raise PatternError("it looks ahead or behind")
            depth += 1
        elif piece == ")":
            depth -= 1
            if depth < 0:
                break
        elif piece == "|" and depth == 0:
            parts.append([])
            continue
        elif piece in "^$" and depth:
            raise PatternError(f"it has {piece} inside a group")
        parts[-1].append(_slashed(piece))
    if depth or in_class:
        raise PatternError("its brackets do not match")
    for part in parts:
        if any(piece == "^" for piece in part[1:]) or any(piece == "$" for piece in part[:-1]):
            raise PatternError("it has ^ or $ in its middle")
    return parts


def _escape(piece: str, in_class: bool) -> str:
    """Classes hold ASCII alone, which every dialect has in them."""
    character = piece[1]
    if character in "dw":
        inside = "0-9" if character == "d" else "A-Za-z0-9_"
        return inside if in_class else f"[{inside}]"
    if character in "bB" and not (in_class and character == "b"):
        raise PatternError("it has \\b")
    if character.isdigit() and character != "0":
        raise PatternError("it refers back to a group")
    return r"\x08" if character == "b" else piece


def _slashed(piece: str) -> str:
    """Between slashes and on one line."""
    if piece == "/":
        return r"\/"
    return {"\n": r"\n", "\r": r"\r"}.get(piece, piece)
