"""`response_format` of OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ArgumentError

_KINDS = (
    '{"type": "text"}, {"type": "json_object"} or {"type": "json_schema", "json_schema": {...}}'
)


def schema_of(response_format: Any) -> Any:
    """The JSON schema that it asks for; None: any text will do."""
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind != "json_schema":
        raise ArgumentError(f"response_format must be {_KINDS}")
    named = response_format.get("json_schema")
    schema = named.get("schema") if isinstance(named, Mapping) else None
    if not isinstance(schema, Mapping):
        raise ArgumentError(
            'response_format lacks its schema: {"type": "json_schema", "json_schema": {"name": '
            '"...", "schema": {...}}}'
        )
    return schema
