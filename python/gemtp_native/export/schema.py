"""The part of JSON Schema that gemtp.schema.json uses, with readable errors."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

Schema = Mapping[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


@cache
def schema() -> dict[str, Any]:
    """Loads gemtp.schema.json."""
    text = Path(__file__).with_name("gemtp.schema.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def problem(value: Any, of: Schema, key: str = "") -> str | None:
    """Returns why `value` does not fit, as a sentence that names the key; None if it fits."""
    of = _resolved(of)
    if "anyOf" in of:
        options = [_resolved(option) for option in of["anyOf"]]
        if any(problem(value, option, key) is None for option in options):
            return None
        # Of the alternatives only an object can have problems inside.
        if isinstance(value, dict):
            for option in options:
                if option.get("type") == "object":
                    return problem(value, option, key)
        return _misfit(value, of, key)
    if not _fits(value, of):
        return _misfit(value, of, key)
    if isinstance(value, dict):
        return next(_problems_inside(value, of, key), None)
    return None


def _resolved(of: Schema) -> Schema:
    while "$ref" in of:
        inner: Any = schema()
        for part in of["$ref"].removeprefix("#/").split("/"):
            inner = inner[part]
        of = inner
    return of


def _fits(value: Any, of: Schema) -> bool:
    """Whether `value` fits, not counting the members of an object."""
    if "const" in of and (value != of["const"] or isinstance(value, bool)):
        return False
    if "enum" in of and value not in of["enum"]:
        return False
    if "type" in of:
        whole = isinstance(value, float) and value.is_integer()  # 3.0 is an integer in JSON Schema
        if isinstance(value, bool) or not (
            isinstance(value, _TYPES[of["type"]]) or (of["type"] == "integer" and whole)
        ):
            return False
    if isinstance(value, (int, float)) and not (
        of.get("minimum", value) <= value <= of.get("maximum", value)
        and ("exclusiveMinimum" not in of or value > of["exclusiveMinimum"])
    ):
        return False
    return not isinstance(value, str) or re.search(of.get("pattern", ""), value) is not None


def _problems_inside(value: dict[str, Any], of: Schema, key: str) -> Iterator[str]:
    known = of.get("properties", {})
    for name, inner in value.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"possible are {', '.join(known)}."
            yield f"{_below(key, name)} is not a key; {hint}"
        elif (found := problem(inner, known[name], _below(key, name))) is not None:
            yield found
    for name in of.get("required", ()):
        if name not in value:
            yield f"{_below(key, name)} is missing."
    if len(value) < of.get("minProperties", 0):
        yield f"{key or 'it'} is empty; it must have one of {', '.join(known)}."


def _below(key: str, name: str) -> str:
    shown = name if name.isprintable() and len(name) <= 60 else f"{ascii(name[:57])}..."
    return f"{key}.{shown}" if key else shown


def _misfit(value: Any, of: Schema, key: str) -> str:
    return f"{key or 'it'} is {_shown(value)}; it must be {_wanted(of)}."


def _wanted(of: Schema) -> str:
    of = _resolved(of)
    if "anyOf" in of:
        return " or ".join(_wanted(option) for option in of["anyOf"])
    if "const" in of:
        return json.dumps(of["const"])
    if "enum" in of:
        return " or ".join(json.dumps(option) for option in of["enum"])
    kind: str = of["type"]
    if kind == "object":
        return f"an object with {', '.join(of['properties'])}"
    if kind in ("string", "null"):
        return str(of.get("title", "a string" if kind == "string" else kind))
    article = "an" if kind == "integer" else "a"
    if "exclusiveMinimum" in of:
        return f"{article} {kind} above {of['exclusiveMinimum']}, at most {of['maximum']}"
    return f"{article} {kind} from {of['minimum']} to {of['maximum']}"


def _shown(value: Any) -> str:
    """Formats a value on one line, shortened."""
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):  # int refuses to print thousands of digits
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 60 else f"{text[:57]}..."
