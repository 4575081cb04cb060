"""What callers pass as messages and tools, checked and in one form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ArgumentError
from .reply import ToolCall

_ROLES = ("system", "developer", "user", "assistant", "model", "tool")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_MAX_NESTING = 64


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """A copy that holds nothing but what JSON can: a template is never shown anything else."""
    if depth > _MAX_NESTING:
        raise ArgumentError(f"{where} is nested more than {_MAX_NESTING} deep; simplify it")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        text = str.__str__(value)
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise ArgumentError(
                f"{where} holds a lone surrogate, which is not a character; clean the input first"
            )
        return text
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ArgumentError(f"{where} has a key that is a {type(key).__name__}, not a str")
        return {
            plain(key, where): plain(item, f"{where}[{key[:40]!r}]", depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    raise ArgumentError(f"{where} is a {type(value).__name__}; pass what JSON can hold")


def prepared(messages: Any) -> list[dict[str, Any]]:
    """Messages as templates expect them. Members that are None are left out."""
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise ArgumentError(
            f"messages is a {type(messages).__name__}; pass a list of "
            '{"role": "user", "content": "..."}'
        )
    out = [_message(m, f"messages[{i}]") for i, m in enumerate(messages)]
    if not out:
        raise ArgumentError("messages is empty; pass at least one message")
    return out


def _message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise ArgumentError(f"{where} is a {type(message).__name__}; it must be a dict")
    given = {key: value for key, value in message.items() if value is not None}
    calls = given.pop("tool_calls", None)
    out: dict[str, Any] = plain(given, where)
    role = out.get("role")
    if role not in _ROLES:
        raise ArgumentError(f"{where}['role'] is {role!r}; it must be one of {', '.join(_ROLES)}")
    if role == "model":
        out["role"] = "assistant"
    if "content" in out and role != "tool":
        out["content"] = _content(out["content"], role, f"{where}['content']")
    reasoning = next((out[name] for name in _REASONING if name in out), None)
    if reasoning is not None:
        out["reasoning_content"] = reasoning
    if calls:
        if isinstance(calls, (str, bytes)) or not isinstance(calls, Iterable):
            raise ArgumentError(f"{where}['tool_calls'] must be a list")
        out["tool_calls"] = [
            _call(call, f"{where}['tool_calls'][{i}]") for i, call in enumerate(calls)
        ]
    responses = out.get("tool_responses")
    if responses is not None and not (
        isinstance(responses, list) and all(isinstance(r, dict) for r in responses)
    ):
        raise ArgumentError(f"{where}['tool_responses'] must be a list of dicts")
    return out


def _content(content: Any, role: str, where: str) -> Any:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ArgumentError(f"{where} is a {type(content).__name__}; it must be text")
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise ArgumentError(
                f'{where}[{i}] is not of the form {{"type": "text", "text": "..."}}; '
                "models are run as text models, without images or sound"
            )
    if role in ("system", "developer"):
        return "\n".join(part["text"].strip() for part in content)
    return content


def _call(call: Any, where: str) -> dict[str, Any]:
    if isinstance(call, ToolCall):
        call = call.as_dict()
    if not isinstance(call, Mapping):
        raise ArgumentError(f"{where} is a {type(call).__name__}; it must be a dict")
    out: dict[str, Any] = plain(call, where)
    function = out.get("function", {k: out.pop(k) for k in ("name", "arguments") if k in out})
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ArgumentError(f"{where} has no name; it must hold a function's name and arguments")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = plain(json.loads(arguments), where)
        except ValueError:
            arguments = None
    if arguments is None and function.get("arguments") is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise ArgumentError(f"the arguments of {where} must be a dict, or JSON text of one")
    function["arguments"] = arguments
    out["function"] = function
    out.setdefault("type", "function")
    return out


def prepared_tools(tools: Any) -> list[dict[str, Any]]:
    """Declarations in the form {"type": "function", "function": {...}}."""
    if tools is None:
        return []
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Iterable):
        raise ArgumentError("tools must be a list of declarations, each a dict")
    out = []
    for i, tool in enumerate(tools):
        declaration = plain(tool, f"tools[{i}]")
        if isinstance(declaration, dict) and "function" not in declaration:
            declaration = {"type": "function", "function": declaration}
        function = declaration.get("function") if isinstance(declaration, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ArgumentError(
                f"tools[{i}] declares no function; it must be a dict with a name, a description "
                "and parameters (JSON schema)"
            )
        out.append(declaration)
    return out


def with_answers_folded(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages of tools as `tool_responses` of the message that made the calls, and what the model
    then answered as its content: for templates that know no messages of tools."""
    out: list[dict[str, Any]] = []
    for message in messages:
        last = out[-1] if out else {}
        if message["role"] == "tool" and last.get("tool_calls") and not last.get("content"):
            response = {"name": _name_of(message, last), "response": message.get("content", "")}
            if isinstance(response["response"], list):
                response["response"] = _joined_parts(response["response"])
            out[-1] = {**last, "tool_responses": [*last.get("tool_responses", []), response]}
        elif (
            message["role"] == last.get("role") == "assistant"
            and last.get("tool_responses")
            and not last.get("content")
            and not message.get("tool_calls")
        ):
            out[-1] = {**last, **message}
        else:
            out.append(message)
    return out


def _name_of(answer: Mapping[str, Any], caller: Mapping[str, Any]) -> str:
    calls = caller["tool_calls"]
    wanted = answer.get("tool_call_id")
    for call in calls:
        if wanted is not None and call.get("id") == wanted:
            return str(call["function"]["name"])
    if isinstance(answer.get("name"), str):
        return str(answer["name"])
    nth = len(caller.get("tool_responses", []))
    return str(calls[nth]["function"]["name"]) if nth < len(calls) else "unknown"


def _joined_parts(parts: list[Any]) -> Any:
    if parts and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in parts):
        return "".join(p["text"] for p in parts)
    return parts


def without_thoughts(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with the thoughts taken out of what the model said, as Gemma's template does it."""
    return [
        {**m, "content": _thoughtless(m["content"])}
        if m.get("role") in ("assistant", "model") and "content" in m
        else m
        for m in messages
    ]


def _thoughtless(content: Any) -> Any:
    if isinstance(content, str):
        text = "".join(part.split("<|channel>")[0] for part in content.split("<channel|>"))
        # Not empty where it was not: a template may ask.
        return text or (" " if content else "")
    if isinstance(content, list):
        return [
            {**part, "text": _thoughtless(part["text"])}
            if isinstance(part, dict) and isinstance(part.get("text"), str)
            else part
            for part in content
        ]
    return content
