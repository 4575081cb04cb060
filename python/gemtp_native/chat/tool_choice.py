"""Whether a reply may, must or must not call a function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ArgumentError

_FORM = (
    'tool_choice must be "auto", "none", "required" or '
    '{"type": "function", "function": {"name": ...}}'
)


def required_functions(tool_choice: Any, tools: list[dict[str, Any]]) -> list[str] | None:
    """Returns the functions of which the reply must call one; None if it need not call any. tools:
    as `prepared_tools` returns them."""
    if tool_choice in (None, "auto", "none"):
        return None
    names = [declaration["function"]["name"] for declaration in tools]
    if tool_choice == "required":
        wanted = names
    else:
        function = tool_choice.get("function") if isinstance(tool_choice, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or tool_choice.get("type") != "function":
            raise ArgumentError(_FORM)
        wanted = [name]
        if names and name not in names:
            raise ArgumentError(
                f"tool_choice names {name!r}, but the tools are {', '.join(map(repr, names))}"
            )
    if not names:
        raise ArgumentError("tool_choice asks for a call, but there are no tools")
    return wanted
