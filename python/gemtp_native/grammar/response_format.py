"""`response_format` of OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ArgumentError

_KINDS = (
    '{"type": "text"}, {"type": "json_object"} or {"type": "json_schema", "json_schema": {...}}'
)
_NAMED = ("name", "description", "schema", "strict")
_MEMBERS = {
    "text": ("type",),
    "json_object": ("type", "schema"),
    "json_schema": ("type", "json_schema", *_NAMED),
}


def schema_of(response_format: Any) -> Any:
    """Returns the JSON schema that it requires; None: none."""
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if not isinstance(kind, str) or kind not in _MEMBERS:
        raise ArgumentError(f"response_format must be {_KINDS}")
    _check(response_format, _MEMBERS[kind], "response_format")
    schema = response_format.get("schema")
    if kind == "text":
        return None
    named = response_format.get("json_schema")
    if isinstance(named, Mapping):
        if schema is not None:
            raise ArgumentError("response_format has two schemas; leave one out")
        _check(named, _NAMED, "response_format.json_schema")
        schema = named.get("schema")
    if schema is None and kind == "json_object":
        return {"type": "object"}
    if not isinstance(schema, Mapping):
        raise ArgumentError(
            'response_format lacks its schema: {"type": "json_schema", "json_schema": {"name": '
            '"...", "schema": {...}}}'
        )
    return schema


def _check(data: Mapping[Any, Any], members: tuple[str, ...], where: str) -> None:
    for name in data:
        if name not in members:
            raise ArgumentError(f"there is no {where}.{str(name)[:40]}; leave it out")
