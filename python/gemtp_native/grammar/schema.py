"""Examines JSON schemas before they are compiled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..base.whole_number import whole_number

FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
)
"""Formats that can be enforced. JSON Schema treats every other one as an annotation."""

_OF_NAMES = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = (
    "items",
    "additionalProperties",
    "contains",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
)


def parts(schema: Any) -> Iterator[tuple[str, str | int | None, Any]]:
    """Yields the schemas directly inside a schema: (keyword, name or index, schema)."""
    if not isinstance(schema, Mapping):
        return
    for key, value in schema.items():
        if key in _OF_NAMES and isinstance(value, Mapping):
            for name, part in value.items():
                yield key, name, part
        elif key in _LISTS and isinstance(value, list):
            for i, part in enumerate(value):
                yield key, i, part
        elif key in _SINGLE:
            yield key, None, value


def without_unknown_formats(schema: Any) -> Any:
    """Returns a copy without unknown formats, its members in the same order."""
    if not isinstance(schema, dict):
        return schema
    out = dict(schema)
    if "format" in out and not (isinstance(out["format"], str) and out["format"] in FORMATS):
        del out["format"]
    for key, at, part in parts(schema):
        changed = without_unknown_formats(part)
        if at is None:
            out[key] = changed
            continue
        if out[key] is schema[key]:
            out[key] = schema[key].copy()
        out[key][at] = changed
    return out


def is_endless(schema: Any) -> bool:
    """Whether every text that follows the schema would have to contain another such text."""
    names = _references(schema)
    targets = {name: resolved(schema, name) for name in names}
    ends: set[str] = {name for name, part in targets.items() if part is None}
    # References found last are the most likely to end, and then the others can end, too.
    left = [name for name in reversed(names) if name not in ends]
    while left:
        found = [name for name in left if _ends(targets[name], ends) and not ends.add(name)]  # type: ignore[func-returns-value]
        if not found:
            break
        left = [name for name in left if name not in ends]
    return not _ends(schema, ends)


def _references(schema: Any) -> list[str]:
    """Returns the references in the order of discovery, including those in referenced schemas."""
    out: dict[str, None] = {}
    level = [schema]
    while level:
        below: list[Any] = []
        for part in level:
            below += [inner for _, _, inner in parts(part)]
            name = part.get("$ref") if isinstance(part, Mapping) else None
            if isinstance(name, str) and name not in out:
                out[name] = None
                below.append(resolved(schema, name))
        level = below
    return list(out)


def resolved(schema: Any, name: str) -> Any:
    """Returns the referenced schema; None: it is not in this one."""
    if not name.startswith("#"):
        return None
    found = schema
    for step in name[1:].split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping):
            found = found.get(key)
        elif isinstance(found, list) and (at := whole_number(key)) is not None and at < len(found):
            found = found[at]
        else:
            return None
    return found


def _ends(schema: Any, ends: set[str]) -> bool:
    """Whether some text follows the schema with only those references that end."""
    if not isinstance(schema, Mapping):
        return True
    if "const" in schema or "enum" in schema:
        return True
    name = schema.get("$ref")
    if isinstance(name, str) and name not in ends:
        return False
    for key, every in (("allOf", True), ("anyOf", False), ("oneOf", False)):
        choices = schema.get(key)
        if isinstance(choices, list) and choices:
            found = (_ends(choice, ends) for choice in choices)
            if not (all(found) if every else any(found)):
                return False
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or not kinds:
        kinds = ["object"] if "properties" in schema else ["array"] if "items" in schema else [""]
    return any(_kind_ends(schema, kind, ends) for kind in kinds)


def _kind_ends(schema: Mapping[str, Any], kind: Any, ends: set[str]) -> bool:
    if kind == "object":
        members, required = schema.get("properties"), schema.get("required")
        if not isinstance(members, Mapping) or not isinstance(required, list):
            return True
        return all(_ends(members.get(n), ends) for n in required if isinstance(n, str))
    if kind == "array":
        least = schema.get("minItems", 0)
        first = schema.get("prefixItems")
        first = first if isinstance(first, list) else []
        if not isinstance(least, (int, float)):
            return True
        needed = first[: int(least)]
        if least > len(first) and isinstance(schema.get("items"), Mapping):
            needed = [*needed, schema["items"]]
        return all(_ends(part, ends) for part in needed)
    return True
