"""gemtp serve: every object that a request may hold, and every kind of member of each."""

from __future__ import annotations

import copy
import logging
import math
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
    (
        ["messages", 2],
        ["refusal", "annotations", "parsed", "thinking_blocks", "index", "usage", "prefix"],
    ),
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


# What clients send to every server, without being told to.
CLIENTS: dict[str, dict[str, Any]] = {
    "llama.cpp's page": {
        "stream": True, "reasoning_format": "auto", "timings_per_token": True, "cache_prompt": True,
        "return_progress": True, "samplers": ["top_k", "temperature"], "dynatemp_range": 0,
        "dynatemp_exponent": 1, "xtc_probability": 0, "xtc_threshold": 0.1, "typ_p": 1,
        "repeat_last_n": 64, "repeat_penalty": 1, "dry_multiplier": 0, "dry_base": 1.75,
        "dry_allowed_length": 2, "dry_penalty_last_n": -1, "max_tokens": -1, "min_p": 0.05,
        "backend_sampling": False,
    },
    "llama.cpp's programs": {
        "n_predict": 10, "n_keep": 0, "n_probs": 0, "id_slot": -1, "lora": [], "mirostat": 0,
        "mirostat_tau": 5.0, "mirostat_eta": 0.1, "top_n_sigma": -1.0, "typical_p": 1.0,
        "logit_bias": [[5, 1.5], [6, False]], "image_data": [], "t_max_predict_ms": 0,
        "n_discard": 0, "speculative.n_max": 3, "speculative.p_min": 0.75, "json_schema": None,
        "adaptive_target": -1, "adaptive_decay": 0.9, "thinking_budget_tokens": -1,
    },
    "vLLM's": {
        "skip_special_tokens": True, "spaces_between_special_tokens": True, "min_tokens": 0,
        "include_stop_str_in_output": False, "length_penalty": 1.0, "use_beam_search": False,
        "stop_token_ids": [], "repetition_penalty": 1.0, "priority": 0, "prompt_logprobs": None,
        "kv_transfer_params": None, "chat_template": None, "return_token_ids": False,
    },
    "SillyTavern": {
        "max_new_tokens": 100, "max_tokens": 100, "typical_p": 1, "typical": 1, "tfs": 1,
        "top_a": 0, "epsilon_cutoff": 0, "eta_cutoff": 0, "guidance_scale": 1, "nsigma": 0,
        "negative_prompt": "", "smoothing_factor": 0, "smoothing_curve": 1, "seed": -1,
        "add_bos_token": True, "ban_eos_token": False, "sampler_order": [6, 0], "do_sample": True,
        "custom_token_bans": "", "truncation_length": 4096, "mirostat_mode": 0, "stop": ["\\n"],
        "stopping_strings": ["\\n"], "rep_pen": 1, "rep_pen_range": 0, "rep_pen_slope": 1,
        "repetition_penalty_range": 0, "repeat_penalty": 1, "repeat_last_n": 0, "n_predict": 100,
        "num_predict": 100, "num_ctx": 4096, "max_tokens_second": 0, "banned_strings": [],
        "temperature_last": True, "api_type": "generic", "api_server": "http://x", "grammar": "",
        "adaptive_target": -0.01, "adaptive_decay": 0.9, "xtc_threshold": 0.1, "min_keep": 0,
        "include_reasoning": True, "no_repeat_ngram_size": 0, "early_stopping": False,
    },
    "OpenRouter's": {
        "transforms": [], "models": ["a", "b"], "route": "fallback", "provider": {"sort": "price"},
        "plugins": [], "usage": {"include": True}, "reasoning": {"effort": "low"},
    },
    "agents": {
        "stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "thread_id": "x", "store": False,
        "thinking": {"type": "enabled", "budget_tokens": 1000}, "prompt_cache_key": "k",
        "parallel_tool_calls": True, "enable_thinking": True, "service_tier": "auto",
        "reasoning_effort": "", "function_call": "none",
        "chat_template_kwargs": {"enable_thinking": True, "preserve_thinking": True},
    },
}  # fmt: skip


@pytest.mark.parametrize("client", CLIENTS)
def test_what_clients_send_to_every_server_is_taken(client):
    assert read({"messages": WHOLE["messages"], **CLIENTS[client]}) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [("mirostat", 2), ("dry_multiplier", 0.8), ("min_tokens", 5), ("stop_token_ids", [1]),
     ("typical_p", 0.9), ("typical_p", True), ("ban_eos_token", True), ("ban_eos_token", 0),
     ("n_predict", "x"), ("repeat_penalty", 0), ("repeat_last_n", 1.5)],
)  # fmt: skip
def test_what_would_change_the_answer_is_not_ignored(name, value):
    with pytest.raises(RequestError, match=name):
        read({"messages": WHOLE["messages"], name: value})


def options(**members: Any) -> dict[str, Any]:
    work = read({"messages": WHOLE["messages"], **members})
    return work.jobs[0].prompt.options  # type: ignore[attr-defined,no-any-return]


def test_constraints_by_names_of_other_servers():
    assert options(json_schema=SCHEMA) == options(guided_json=SCHEMA)
    assert options(json_schema=SCHEMA)["json_schema"] == SCHEMA
    assert options(guided_regex="a+")["regex"] == "a+"
    assert options(grammar_string="start: /a/") == options(grammar="start: /a/")
    assert options(grammar="", grammar_string="", regex="") == options()
    prompt = (
        completion_work({"prompt": "x", "json_schema": SCHEMA}, ServerSettings()).jobs[0].prompt
    )
    assert prompt.options["json_schema"] == SCHEMA  # type: ignore[attr-defined]
    with pytest.raises(RequestError, match="json_schema and response_format exclude each other"):
        read({**WHOLE, "json_schema": SCHEMA})


def test_biases_as_pairs():
    assert options(logit_bias=[[5, 1.5], [6, False]])["logit_bias"] == {5: 1.5, 6: -math.inf}
    assert options(logit_bias={"6": False})["logit_bias"] == {6: -math.inf}
    for wrong in ([5], [[5]], [["a", 1]], [[5, True]], [[5, 200]], [[-5, 1]]):
        with pytest.raises(RequestError, match="logit_bias"):
            options(logit_bias=wrong)


def test_limits_of_other_servers():
    for name in ("n_predict", "num_predict"):
        assert options(**{name: -2})["max_tokens"] == options(**{name: -1})["max_tokens"] == -1
        assert options(**{name: 7})["max_tokens"] == 7
    with pytest.raises(RequestError, match="max_tokens is -2"):
        options(max_tokens=-2)
    for name in ("repetition_penalty_range", "rep_pen_range"):
        assert options(**{name: 0})["penalty_last_n"] == -1
        assert options(**{name: 64})["penalty_last_n"] == 64
        assert options(**{name: 64, "repeat_last_n": 5})["penalty_last_n"] == 5
    assert options(rep_pen=1.2)["repetition_penalty"] == 1.2


@pytest.mark.parametrize(
    ("choice", "same"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "required"}, "required"),
        ({"type": "any"}, "required"),
        ("any", "required"),
        ({"type": "function", "name": "f"}, WHOLE["tool_choice"]),
        ({"type": "tool", "name": "f"}, WHOLE["tool_choice"]),
    ],
    ids=str,
)
def test_tool_choices_in_other_forms(choice, same):
    found, expected = read({**WHOLE, "tool_choice": choice}), read({**WHOLE, "tool_choice": same})
    assert found.jobs[0].prompt == expected.jobs[0].prompt
    with pytest.raises(RequestError, match="tool_choice"):
        read({**WHOLE, "tool_choice": {"type": "any", "unheard_of": 1}})
    with pytest.raises(RequestError, match="tool_choice names 'g'"):
        read({**WHOLE, "tool_choice": {"type": "tool", "name": "g"}})


def test_members_of_messages_that_hold_nothing(caplog, monkeypatch):
    monkeypatch.setattr(fields, "_noted", set())
    for member in ("files", "images", "attachments"):
        for nothing in ([], {}, ""):
            assert read(with_member(["messages", 1], member, nothing))
        with pytest.raises(RequestError, match=member):
            read(with_member(["messages", 1], member, ["x"]))
    assert caplog.messages == []


def test_names_of_other_servers():
    llama = options(repeat_penalty=1.5, repeat_last_n=32, n_predict=7)
    same = options(repetition_penalty=1.5, penalty_last_n=32, max_tokens=7)
    assert llama == same
    both = options(repeat_penalty=1.5, repetition_penalty=1.1, n_predict=7, max_tokens=9)
    assert (both["repetition_penalty"], both["max_tokens"]) == (1.1, 9)


def test_members_that_are_null_are_absent():
    assert read({"messages": WHOLE["messages"], "unheard_of": None, "tools": None}) is not None


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
        ({"chat_template_kwargs": {"reasoning_effort": "high"}}, True),
        ({"reasoning_effort": "auto"}, False),
        ({"reasoning_effort": ""}, False),
        ({"reasoning_effort": "high", "thinking_budget": -1}, True),
        ({"thinking_budget_tokens": 0}, False),
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


def test_an_answer_behind_no_call_does_not_end_the_server(scripted_server):
    messages = [{"role": "user", "content": "hi"}, {"role": "tool", "content": [True]}]
    answer = scripted_server.ask("/v1/chat/completions", {"messages": messages})
    assert answer.status == 400
    assert "behind no call" in answer.error["message"]
    assert scripted_server.ask("/health").status == 200
