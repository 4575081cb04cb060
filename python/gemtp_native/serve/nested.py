"""Reads the objects inside a chat's request: their members, and those without effect here.

Every member of an object is checked. A member that would change the answer but is not supported
here is rejected; one that clients send to every server and that changes nothing is ignored.
"""

from __future__ import annotations

from typing import Any

from ..chat.messages import prepared_tools
from ..chat.tool_choice import required_functions
from ..errors import ArgumentError
from .errors import RequestError
from .fields import Fields

# Members for caches and accounts of other servers, and members of their answers that are sent back.
_OF_OTHERS = (
    "cache_control", "prompt_cache_breakpoint", "provider_specific_fields", "extra_content",
    "thought_signature",
)  # fmt: skip
_OF_MESSAGES = (
    *_OF_OTHERS, "id", "refusal", "annotations", "parsed", "metadata", "created_at", "timestamp",
    "thinking_blocks", "reasoning_details", "response_metadata", "finish_reason", "index",
    "logprobs", "model", "usage", "usage_metadata", "timings", "type", "weight", "stop_reason",
    "additional_kwargs", "invalid_tool_calls", "example", "reasoning_opaque", "reasoning_signature",
    "phase", "prefix", "partial",
)  # fmt: skip
_TEXTS = ("text", "input_text", "output_text")  # types of parts
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_NO_EFFORT = ("default", "auto", "")  # as without the member
_BUDGETS = (
    "thinking_budget", "thinking_budget_tokens", "reasoning_budget", "reasoning_budget_tokens",
)  # fmt: skip


# ---------------------------------------------------------------- messages


def check_messages(f: Fields) -> None:
    """Checks only the members; their values are checked when the prompt is made."""
    for message in f.objects("messages"):
        role = message.text("role")
        content = message.take("content")
        for i, part in enumerate(content if isinstance(content, list) else ()):
            if isinstance(part, dict) and part.get("type") in _TEXTS:
                text = message.inner(f"content[{i}]", part)
                text.take("type")
                text.take("text")
                text.finish((*_OF_OTHERS, "annotations", "citations", "logprobs", "id"))
        for name in ("name", "tool_call_id", "reasoning_content", "reasoning"):
            message.text(name)
        if not isinstance(message.take("thinking"), (str, type(None))):
            message.refuse("thinking", "it must be a text")
        calls = message.take("tool_calls")
        if isinstance(calls, list):
            for call in message.objects("tool_calls"):
                _check_call(call)
        old_call = message.object("function_call")
        if old_call is not None:
            if calls:
                message.refuse("function_call", "tool_calls says it already; leave it out")
            _check_function(old_call)
        message.take("tool_responses")
        message.only("audio", [], "it is not supported; leave it out")
        message.finish(
            (*_OF_MESSAGES, "status") if role in ("tool", "function") else _OF_MESSAGES, empty=True
        )


def _check_call(call: Fields) -> None:
    call.text("id")
    call.only("type", ["function", ""], 'it must be "function"')
    call.take("name")
    call.take("arguments")
    function = call.object("function")
    if function is not None:
        _check_function(function)
    call.finish((*_OF_OTHERS, "index"))


def _check_function(function: Fields) -> None:
    """Checks what is called."""
    function.take("name")
    function.take("arguments")
    function.finish((*_OF_OTHERS, "parsed_arguments"))


# ---------------------------------------------------------------- tools


def tools_of(f: Fields) -> tuple[list[Any] | None, dict[str, Any], bool]:
    """Returns declarations, keywords about them, and whether only one call is wanted."""
    tools = f.list("tools")
    for i, tool in enumerate(tools or []):
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise RequestError(
                f'tools[{i}] is not of the form {{"type": "function", "function": {{...}}}}',
                "tools",
                "invalid_value",
            )
    if tools:
        tools = [_declaration(tool) for tool in f.objects("tools")]
    choice = f.take("tool_choice")
    if choice == "any":  # Mistral's and Anthropic's word
        choice = "required"
    if isinstance(choice, dict):
        choice, tools = _choice(f, tools)
    try:
        declared = prepared_tools(tools)
    except ArgumentError as e:
        raise RequestError(str(e), "tools", "invalid_value") from None
    if choice == "auto" and not tools:
        f.refuse("tool_choice", "it needs tools")
    try:
        required_functions(choice, declared)
    except ArgumentError as e:
        raise RequestError(str(e), "tool_choice", "invalid_value") from None
    options = {} if choice is None else {"tool_choice": choice}
    one_call = f.boolean("parallel_tool_calls") is False
    return (tools or None) if choice != "none" else None, options, one_call


def _declaration(tool: Fields) -> dict[str, Any]:
    """Converts a declaration, also one in the form of OpenAI's Responses, to the templates'
    form."""
    tool.take("type")
    function = tool.object("function")
    flat = function is None
    if function is None:
        function = tool
    kept = {
        "name": function.text("name"),
        "description": function.text("description"),
        "parameters": function.schema("parameters"),
        "response": function.schema("response"),
        "strict": function.boolean("strict"),
    }
    function.finish(_OF_OTHERS)
    if not flat:
        tool.finish(_OF_OTHERS)
    return {"type": "function", "function": {k: v for k, v in kept.items() if v is not None}}


def _choice(f: Fields, tools: list[Any] | None) -> tuple[Any, list[Any] | None]:
    """Reads a tool choice given as an object, and the tools that it leaves."""
    choice = f.object("tool_choice")
    assert choice is not None
    kind = choice.text("type")
    if kind in ("auto", "none", "required", "any"):
        choice.finish()
        return "required" if kind == "any" else kind, tools
    if kind != "allowed_tools":
        function = choice.object("function")
        name = choice.text("name") if function is None else None  # Responses' and Anthropic's form
        if function is not None:
            function.take("name")
            function.finish()
        choice.finish()
        if name is not None and kind in ("function", "tool"):
            return {"type": "function", "function": {"name": name}}, tools
        return choice.data, tools
    allowed = choice.object("allowed_tools")
    choice.finish()
    if allowed is None:
        choice.refuse("allowed_tools", 'it must be {"mode": "auto", "tools": [...]}')
    mode = allowed.text("mode")
    if mode not in ("auto", "required"):
        allowed.refuse("mode", 'it must be "auto" or "required"')
    names = []
    for tool in allowed.objects("tools"):
        tool.only("type", ["function"], 'it must be "function"')
        function = tool.object("function")
        name = function.text("name") if function is not None else tool.text("name")
        if function is not None:
            function.finish()
        tool.finish()
        names.append(name)
    allowed.finish()
    declared = {tool["function"].get("name"): tool for tool in tools or []}
    missing = next((name for name in names if name not in declared), None)
    if not names or missing is not None:
        allowed.refuse("tools", "it must name some of the request's tools")
    return mode, [declared[name] for name in dict.fromkeys(names)]


# ---------------------------------------------------------------- the answer


def response_format(f: Fields) -> dict[str, Any] | None:
    """Returns the format for `grammar.schema_of`; None: any text."""
    value = f.object("response_format")
    if value is None:
        return None
    kind = value.take("type")
    if kind not in ("text", "json_object", "json_schema"):
        value.refuse("type", 'it must be "text", "json_object" or "json_schema"')
    schema = None
    if kind != "text":
        schema = value.schema("schema")
        named = value.object("json_schema") if kind == "json_schema" else None
        if named is not None:
            for name in ("name", "description"):
                named.text(name)
            named.boolean("strict")
            if schema is not None:
                value.refuse("schema", "it is given by json_schema already; leave one out")
            schema = named.schema("schema")
            named.finish()
        elif kind == "json_schema":  # all members in one object
            for name in ("name", "description"):
                value.text(name)
            value.boolean("strict")
    value.finish()
    if kind == "text":
        return None
    if schema is not None:
        return {"type": "json_schema", "json_schema": {"schema": schema}}
    if kind == "json_object":
        return {"type": "json_object"}
    raise RequestError(
        "response_format.json_schema.schema is missing; it must be a JSON schema",
        "response_format.json_schema",
        "invalid_value",
    )


# ---------------------------------------------------------------- thoughts


def thinking_of(f: Fields) -> bool:
    """Returns the first setting that is given."""
    said = [_switch(f), f.boolean("enable_thinking"), _template(f), _reasoning(f, "reasoning")]
    said += [_effort(f), _budget(f)]
    return next((thinking for thinking in said if thinking is not None), False)


def _switch(f: Fields) -> bool | None:
    """Reads true or false, or the form of Anthropic's protocol."""
    if not isinstance(f.take("thinking"), dict):
        return f.boolean("thinking")
    value = f.object("thinking")
    assert value is not None
    kind = value.one_of("type", ("enabled", "disabled", "adaptive"))
    value.finish(("budget_tokens", "display"))
    return None if kind is None else kind != "disabled"


def _template(f: Fields) -> bool | None:
    value = f.object("chat_template_kwargs")
    if value is None:
        return None
    said = [value.boolean(name) for name in ("enable_thinking", "thinking")]
    said.append(_level(value.one_of("reasoning_effort", (*_EFFORTS, *_NO_EFFORT))))
    value.finish(("preserve_thinking", "clear_thinking"))
    return next((thinking for thinking in said if thinking is not None), None)


def _effort(f: Fields) -> bool | None:
    if isinstance(f.take("reasoning_effort"), dict):
        return _reasoning(f, "reasoning_effort")
    return _level(f.one_of("reasoning_effort", (*_EFFORTS, *_NO_EFFORT)))


def _budget(f: Fields) -> bool | None:
    """Reads how many tokens thoughts may have: without limit, unless it is 0."""
    budgets = {name: f.integer(name, -1, 1 << 53) for name in _BUDGETS}
    for name, budget in budgets.items():
        if budget not in (None, 0, -1):
            f.note(name, "thoughts have no limit of their own")
    return False if 0 in budgets.values() else None


def _reasoning(f: Fields, name: str) -> bool | None:
    value = f.object(name)
    if value is None:
        return None
    enabled = value.boolean("enabled")
    effort = _level(value.one_of("effort", (*_EFFORTS, *_NO_EFFORT)))
    value.only("exclude", [False], "thoughts are answered; leave it out")
    value.finish(("summary", "generate_summary", "max_tokens"))
    return effort if enabled is None else enabled


def _level(effort: str | None) -> bool | None:
    return None if effort in (None, *_NO_EFFORT) else effort not in ("none", "minimal")
