"""Checks callers' messages and tools and brings them into one form."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ArgumentError
from .reply import ToolCall

_ROLES = ("system", "developer", "user", "assistant", "model", "tool")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_MAX_NESTING = 64
_MOST_BITS = 14000  # of an integer that Python prints

_MEDIA = re.compile(
    "((input_)?(image|audio|video|file|media)|(image|audio|video|file)_url|document|resource)"
)
_PAYLOADS = {"data", "blob", "base64", "b64_json", "bytes", "file_data"}
_DATA_URL = re.compile(r"\s*data:((image|audio|video)/[^,\s]{0,200}|[^,\s]{0,200};base64),")
_TEXT_TYPE = re.compile(r"text/.*|application/(.*\+)?(json|xml|yaml)", re.DOTALL)
_BASE64 = re.compile(r"(iVBORw0KGgo|/9j/|R0lGOD|UklGR|JVBERi0|SUQz|T2dnUw)[A-Za-z0-9+/=\s]{64,}")
_TEXTS = ("text", "input_text", "output_text")  # types of parts
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")
_TEXT_ONLY = "models are run as text models, without images or sound"


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """Returns a copy of JSON types only; templates never see other values."""
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
        if value.bit_length() > _MOST_BITS:
            raise ArgumentError(f"{where} is a number of thousands of digits; pass it as text")
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
    """Returns messages in the form that templates expect, without members that are None."""
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
    old_call = given.pop("function_call", None)  # before there were several
    if old_call is not None and not calls:
        calls = [old_call]
    out: dict[str, Any] = plain(given, where)
    role = out.get("role")
    if role == "function":
        out["role"] = role = "tool"
    if role not in _ROLES:
        raise ArgumentError(f"{where}['role'] is {role!r}; it must be one of {', '.join(_ROLES)}")
    if role == "model":
        out["role"] = "assistant"
    for name in ("images", "audio", "videos"):
        if out.get(name):
            raise ArgumentError(f"{where}[{name!r}] is no text; {_TEXT_ONLY}")
    if role == "tool":
        out["content"] = _answer(out.get("content", ""), f"{where}['content']")
    elif "content" in out:
        if role in ("assistant", "model"):
            _move_thoughts(out)
        out["content"] = _content(out["content"], role, f"{where}['content']")
    reasoning = next((out[name] for name in _REASONING if name in out), None)
    if reasoning is not None:
        if not isinstance(reasoning, str):
            raise ArgumentError(f"the reasoning of {where} is no text")
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
    for i, response in enumerate(responses or []):
        at = f"{where}['tool_responses'][{i}]['response']"
        response["response"] = _answer(response.get("response", ""), at)
    if role in ("assistant", "model") and not (calls or responses):
        out.setdefault("content", "")
    return out


def _content(content: Any, role: str, where: str) -> Any:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ArgumentError(f"{where} is a {type(content).__name__}; it must be text")
    content = [_text_part(part, role) for part in content]
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            found = f"is of the type {kind[:40]!r}" if isinstance(kind, str) else "is no text"
            data = " (a list that is data goes into a dict)" if role == "tool" else ""
            raise ArgumentError(
                f'{where}[{i}] {found}, not {{"type": "text", "text": "..."}}; {_TEXT_ONLY}{data}'
            )
    if role in ("system", "developer"):
        return "\n".join(part["text"].strip() for part in content)
    return content


def _move_thoughts(message: dict[str, Any]) -> None:
    """Makes parts of the content that are thoughts, as other servers answer and want them back, the
    message's reasoning, unless that is given."""
    if not isinstance(message["content"], list):
        return
    thoughts = [p for p in message["content"] if isinstance(p, dict) and p.get("type") in _THOUGHTS]
    message["content"] = [p for p in message["content"] if p not in thoughts]
    texts = [part[name] for part in thoughts for name in ("thinking", "text") if part.get(name)]
    given = any(name in message for name in _REASONING)
    if texts and not given and all(isinstance(t, str) for t in texts):
        message["reasoning_content"] = "\n".join(texts)


def _text_part(part: Any, role: str) -> Any:
    """Returns a part that is text in another form as a text part; any other unchanged."""
    if isinstance(part, str) and role != "tool":
        return {"type": "text", "text": part}
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXTS[1:]:
        return {**part, "type": "text"}
    if kind == "refusal" and role in ("assistant", "model"):
        return {"type": "text", "text": part.get("refusal")}
    return part


def _answer(content: Any, where: str) -> Any:
    """Returns the answer of a tool: data, or text if it is given as text parts."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        if any(isinstance(part.get("type"), str) for part in parts):
            return "".join(part["text"] for part in _content(content, "tool", where))
        if (
            content
            and all(isinstance(part.get("text"), str) for part in parts)
            and (len(parts) == len(content))
        ):
            return "".join(part["text"] for part in parts)
    _refuse_media(content, where)
    if isinstance(content, str):
        _refuse_media(_data_of(content, where), where)
    return content


def _data_of(text: str, where: str) -> Any:
    """Returns the object or list that a tool has answered as JSON text; None for other texts."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return plain(json.loads(text), where)
    except (ValueError, RecursionError):
        return None


def _refuse_media(value: Any, where: str) -> None:
    """Rejects images and the like inside data, because the model would read their bytes as text."""
    if isinstance(value, dict):
        kind = value.get("type")
        inner = [value, *(item for item in value.values() if isinstance(item, dict))]
        if (
            isinstance(kind, str)
            and _MEDIA.fullmatch(kind)
            and any(isinstance(part.get(name), str) for part in inner for name in _PAYLOADS)
        ):
            raise ArgumentError(f"{where} is of the type {kind!r}, no text; {_TEXT_ONLY}")
        if isinstance(value.get("data"), str):
            for name in ("mimeType", "mime_type", "media_type"):
                given = value.get(name)
                if isinstance(given, str) and not _TEXT_TYPE.fullmatch(given):
                    raise ArgumentError(f"{where} is {given[:40]!r}, no text; {_TEXT_ONLY}")
        for key, item in value.items():
            _refuse_media(item, f"{where}[{key[:40]!r}]")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _refuse_media(item, f"{where}[{i}]")
    elif isinstance(value, str) and _DATA_URL.match(value):
        raise ArgumentError(f"{where} is a data: URL, no text; {_TEXT_ONLY}")
    elif isinstance(value, str) and _BASE64.fullmatch(value):
        raise ArgumentError(f"{where} is a file in base64, no text; {_TEXT_ONLY}")


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
        arguments = _read_arguments(arguments)
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, (dict, str)):
        raise ArgumentError(f"the arguments of {where} must be a dict, or JSON text of one")
    function["arguments"] = arguments
    out["function"] = function
    out.setdefault("type", "function")
    return out


def _read_arguments(text: str) -> dict[str, Any] | str | None:
    """Parses arguments; text that is not JSON, as a model may have written, is kept unchanged."""
    if not text.strip():
        return None
    try:
        arguments = plain(
            json.loads(text, parse_constant=_finite, parse_float=_finite), "the arguments"
        )
    except (ValueError, RecursionError):
        return text
    return arguments if arguments is None or isinstance(arguments, dict) else text


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(number)
    return value


def prepared_tools(tools: Any) -> list[dict[str, Any]]:
    """Returns declarations in the form {"type": "function", "function": {...}}."""
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
        if not function["name"].strip():
            raise ArgumentError(f"tools[{i}] declares a function whose name is empty")
        if function.get("strict") not in (None, False, True):
            raise ArgumentError(f"'strict' of the function {function['name']!r} is no boolean")
        out.append(declaration)
    return out


def without_strict(tool: dict[str, Any]) -> dict[str, Any]:
    """Returns a declaration as a template sees it: how calls are masked is not for the model."""
    function = {key: value for key, value in tool["function"].items() if key != "strict"}
    return {**tool, "function": function}


def answers_in_order(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the messages with answers of tools in the order of the calls, each with its call's
    name and id, because Gemma's format distinguishes them only by that."""
    out: list[dict[str, Any]] = []
    at = 0
    while at < len(messages):
        caller = messages[at]
        at += 1
        out.append(caller)
        if not caller.get("tool_calls"):
            continue
        end = at
        while end < len(messages) and messages[end]["role"] == "tool":
            end += 1
        if end > at:
            out[-1:] = _matched(caller, messages[at:end])
        at = end
    return out


def _matched(caller: dict[str, Any], answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    calls = [{**c, "id": c.get("id") or f"call_{i}"} for i, c in enumerate(caller["tool_calls"])]
    names = [call["function"]["name"] for call in calls]
    ids = [call["id"] for call in calls]
    free = list(range(len(calls)))
    places: dict[int, int] = {}  # index of an answer -> index of its call

    def place(i: int, candidates: list[int]) -> None:
        if candidates:
            places[i] = candidates[0]
            if candidates[0] in free:
                free.remove(candidates[0])

    for i, answer in enumerate(answers):
        wanted = answer.get("tool_call_id")
        place(
            i, sorted((n for n, id in enumerate(ids) if id == wanted), key=lambda n: n not in free)
        )
    for i, answer in enumerate(answers):  # answers without a known id
        if i not in places:
            place(i, [n for n in free if _name_of(answer) in (None, names[n])])
    return [
        {**caller, "tool_calls": calls},
        *(
            {**answers[i], "name": names[places[i]], "tool_call_id": ids[places[i]]}
            if i in places
            else {**answers[i], "name": _name_of(answers[i]) or "unknown"}
            for i in sorted(range(len(answers)), key=lambda i: places.get(i, len(calls)))
        ),
    ]


def _name_of(answer: Mapping[str, Any]) -> str | None:
    name = answer.get("name")
    return name if isinstance(name, str) else None


def with_prefaces(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Moves the text before answered calls to their `preface`, because templates write content
    after the answers and end the turn there."""
    out = []
    for message, following in zip(messages, [*messages[1:], {}], strict=True):
        answered = message.get("tool_calls") and following.get("role") == "tool"
        if answered and message.get("content") and not message.get("tool_responses"):
            message = {**message, "preface": content_text(_thoughtless(message["content"])).strip()}
            del message["content"]
        out.append(message)
    return out


def content_text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def with_answers_folded(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turns messages of tools into `tool_responses` of the message with the calls, and the model's
    later answer into its content, for templates without support for messages of tools."""
    out: list[dict[str, Any]] = []
    for message in answers_in_order(messages):
        last = out[-1] if out else {}
        if message["role"] == "tool" and last.get("tool_calls") and not last.get("content"):
            response = {"name": message["name"], "response": message.get("content", "")}
            out[-1] = {**last, "tool_responses": [*last.get("tool_responses", []), response]}
        elif (
            message["role"] == last.get("role") == "assistant"
            and last.get("tool_responses")
            and not last.get("content")
        ):
            if message.get("tool_calls"):  # the model's turn continues with further calls
                out.append({"preface": "", **message})
            else:
                out[-1] = {**last, **message}
        else:
            out.append(message)
    return out


def without_thoughts(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the messages without the model's thoughts, removed like Gemma's template does it."""
    return [
        {**m, "content": _thoughtless(m["content"])}
        if m.get("role") in ("assistant", "model") and "content" in m
        else m
        for m in messages
    ]


def _thoughtless(content: Any) -> Any:
    if isinstance(content, str):
        text = "".join(part.split("<|channel>")[0] for part in content.split("<channel|>"))
        # Never turns non-empty text into empty text, because a template may test for that.
        return text or (" " if content else "")
    if isinstance(content, list):
        return [
            {**part, "text": _thoughtless(part["text"])}
            if isinstance(part, dict) and isinstance(part.get("text"), str)
            else part
            for part in content
        ]
    return content
