"""gemtp serve: every object that a request may hold, and every kind of member of each."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest

from gemtp_native.serve import ServerSettings, fields
from gemtp_native.serve.errors import RequestError
from gemtp_native.serve.requests import Work, chat_work, completion_work

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "x-own": 1}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA, "strict": False}
WHOLE: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "name": "me", "content": [{"type": "text", "text": "t"}]},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "r",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "5"},
    ],
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "n", "description": "d", "strict": True, "schema": SCHEMA},
    },
    "stream": True,
    "stream_options": {"include_usage": True},
    "logit_bias": {"5": 1},
    "thinking": {"type": "enabled"},
    "chat_template_kwargs": {"enable_thinking": True},
    "reasoning": {"effort": "high", "enabled": True, "exclude": False},
    "reasoning_effort": {"effort": "high"},
}
PLACES: list[list[Any]] = [
    [],
    ["messages", 0],
    ["messages", 1, "content", 0],
    ["messages", 2],
    ["messages", 2, "tool_calls", 0],
    ["messages", 2, "tool_calls", 0, "function"],
    ["messages", 3],
    ["tools", 0],
    ["tools", 0, "function"],
    ["tool_choice"],
    ["tool_choice", "function"],
    ["response_format"],
    ["response_format", "json_schema"],
    ["stream_options"],
    ["thinking"],
    ["chat_template_kwargs"],
    ["reasoning"],
    ["reasoning_effort"],
]
IGNORED = [
    ([], ["user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"]),
    (["messages", 1], ["cache_control", "id", "timestamp"]),
    (["messages", 1, "content", 0], ["cache_control"]),
    (["messages", 2], ["refusal", "annotations", "parsed", "thinking_blocks"]),
    (["messages", 2, "tool_calls", 0], ["index", "extra_content", "provider_specific_fields"]),
    (["messages", 2, "tool_calls", 0, "function"], ["parsed_arguments"]),
    (["messages", 3], ["status"]),
    (["tools", 0], ["cache_control"]),
    (["tools", 0, "function"], ["cache_control"]),
    (["stream_options"], ["include_obfuscation"]),
    (["thinking"], ["budget_tokens"]),
    (["reasoning"], ["summary", "max_tokens"]),
]


def with_member(place: list[Any], name: str, value: Any) -> dict[str, Any]:
    request = copy.deepcopy(WHOLE)
    part: Any = request
    for step in place:
        part = part[step]
    part[name] = value
    return request


def name_of(place: list[Any]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")


def read(request: dict[str, Any], **settings: Any) -> Work:
    return chat_work(request, ServerSettings(**settings))


def test_the_whole_is_in_order():
    assert read(WHOLE).include_usage


@pytest.mark.parametrize("place", PLACES, ids=name_of)
def test_unknown_members(place):
    request = with_member(place, "unheard_of", 1)
    with pytest.raises(RequestError, match="there is no .*unheard_of") as caught:
        read(request)
    where = name_of(place)
    assert caught.value.param == (f"{where}.unheard_of" if where else "unheard_of")
    assert caught.value.code == "unknown_parameter"
    assert read(request, lenient=True) is not None


def test_members_of_schemas_are_their_own():
    for place in (["tools", 0, "function", "parameters"],
                  ["response_format", "json_schema", "schema"]):  # fmt: skip
        assert read(with_member(place, "unheard_of", 1)) is not None


@pytest.mark.parametrize(("place", "names"), IGNORED, ids=lambda v: name_of(v)[:40])
def test_members_that_mean_nothing_are_noted_once(place, names, caplog, monkeypatch):
    monkeypatch.setattr(fields, "_noted", set())
    for name in names:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "gemtp_native.serve"):
            for _ in range(3):
                read(with_member(place, name, "x"))
                read(with_member(place, name, None))
        (note,) = caplog.messages
        assert f"{name}, which is ignored" in note


def test_notes_are_bounded(caplog, monkeypatch):
    monkeypatch.setattr(fields, "_noted", set())
    for i in range(300):
        read(with_member([], f"member\n{i}", 1), lenient=True)
    assert len(caplog.messages) == 100
    assert not any("\n" in m for m in caplog.messages)


WRONG = [
    (["messages", 1, "content", 0], "cache", 1),
    (["messages", 2], "function_call", {"name": "f"}),
    (["messages", 2], "audio", {"id": "x"}),
    (["messages", 3], "tool_call_id", 5),
    (["messages", 2, "tool_calls", 0], "type", "custom"),
    (["messages", 2, "tool_calls"], 0, 5),
    (["tools", 0, "function"], "parameters", [1]),
    (["tools", 0, "function"], "strict", "yes"),
    (["tools", 0, "function"], "description", 5),
    (["response_format"], "schema", SCHEMA),
    (["response_format", "json_schema"], "schema", []),
    (["response_format", "json_schema"], "strict", 1),
    (["tool_choice"], "type", "custom"),
    (["thinking"], "type", "perhaps"),
    (["reasoning"], "effort", "most"),
    (["reasoning"], "exclude", True),
    ([], "reasoning_effort", "most"),
    ([], "reasoning_effort", 5),
    ([], "thinking", "yes"),
    ([], "chat_template_kwargs", {"enable_thinking": "yes"}),
]


@pytest.mark.parametrize(
    ("place", "name", "value"), WRONG, ids=lambda v: str(v)[:30].replace(" ", "")
)
def test_values_that_are_wrong(place, name, value):
    with pytest.raises(RequestError) as caught:
        read(with_member(place, name, value))
    assert caught.value.status == 400
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("request_", "thinking"),
    [
        ({}, False),
        ({"thinking": True}, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 1000}}, True),
        ({"thinking": {"type": "disabled"}, "reasoning_effort": "high"}, False),
        ({"reasoning_effort": "max"}, True),
        ({"reasoning_effort": "xhigh"}, True),
        ({"reasoning_effort": "minimal"}, False),
        ({"reasoning_effort": "default"}, False),
        ({"reasoning_effort": {"effort": "low", "summary": "auto"}}, True),
        ({"reasoning": {"effort": "none"}}, False),
        ({"reasoning": {"enabled": True}}, True),
        ({"chat_template_kwargs": {"thinking": True}}, True),
    ],
    ids=str,
)
def test_ways_to_ask_for_thoughts(request_, thinking):
    work = read({"messages": WHOLE["messages"], **request_})
    assert work.jobs[0].prompt.conversation["thinking"] is thinking


@pytest.mark.parametrize("value", ["most", {"effort": "most"}, {"unheard_of": 1}])
def test_lenient_reaches_values_of_reasoning_effort(value):
    assert read({"messages": WHOLE["messages"], "reasoning_effort": value}, lenient=True)


@pytest.mark.parametrize(
    "value",
    [
        {"type": "json_object", "schema": SCHEMA},
        {"type": "json_schema", "schema": SCHEMA},
        {"type": "json_schema", "name": "n", "strict": True, "schema": SCHEMA},
        {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
    ],
    ids=str,
)
def test_ways_to_give_a_schema(value):
    work = read({"messages": WHOLE["messages"], "response_format": value})
    given = work.jobs[0].prompt.options["response_format"]
    assert given["json_schema"]["schema"] == SCHEMA
    work = completion_work({"prompt": "x", "response_format": value}, ServerSettings())
    assert work.jobs[0].prompt.options["json_schema"] == SCHEMA


def test_allowed_tools():
    tools = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]

    def work(**allowed: Any) -> Work:
        choice = {"type": "allowed_tools", "allowed_tools": allowed}
        return read({"messages": WHOLE["messages"], "tools": tools, "tool_choice": choice})

    prompt = work(mode="required", tools=[tools[1]]).jobs[0].prompt
    assert prompt.conversation["tools"] == [tools[1]]
    assert prompt.options["tool_choice"] == "required"
    unknown = {"type": "function", "function": {"name": "h"}}
    for wrong in (
        {"mode": "required", "tools": [unknown]},
        {"mode": "auto", "tools": []},
        {"mode": "always", "tools": tools},
        {"mode": "auto", "tools": [{**tools[0], "unheard_of": 1}]},
        {"mode": "auto", "tools": tools, "unheard_of": 1},
    ):
        with pytest.raises(RequestError, match="tool_choice.allowed_tools"):
            work(**wrong)


def test_strict_functions_reach_the_model(caplog, monkeypatch):
    monkeypatch.setattr(fields, "_noted", set())
    work = read(with_member(["tools", 0, "function"], "strict", True))
    (declared,) = work.jobs[0].prompt.conversation["tools"]  # type: ignore[attr-defined]
    assert declared["function"]["strict"] is True
    assert caplog.messages == []
