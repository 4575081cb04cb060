"""gemtp serve: answers that follow a schema, a pattern or a grammar."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest

import gemtp_native as gemtp
from serving import Server, serving
from shipped import without_template

pytest.importorskip("llguidance")
pytest.importorskip("gemtp_native.grammar")

ASK = [{"role": "user", "content": "def f(x):"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "kind": {"enum": ["first", "second"]},
    },
    "required": ["count", "kind"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}


@pytest.fixture(scope="module")
def model():
    target, drafter = gemtp.demo_models()
    return gemtp.Model(target, drafter=drafter, threads=1, context=2048)


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_schema(demo_server: Server, model, temperature):
    options = {"max_tokens": 60, "temperature": temperature, "seed": 4}
    expected = model.generate("answer = ", json_schema=SCHEMA, **options)
    answer = demo_server.complete("answer = ", response_format=FORMAT, **options)
    assert answer["choices"][0]["text"] == expected.text
    jsonschema.validate(json.loads(expected.text), SCHEMA)
    plain = demo_server.complete("answer = ", response_format=FORMAT, draft=0, **options)
    assert plain["choices"][0]["text"] == expected.text

    chat = demo_server.chat(ASK, response_format=FORMAT, **options)["choices"][0]
    content = chat["message"]["content"]
    assert content == model.chat(ASK, response_format=FORMAT, **options).content
    jsonschema.validate(json.loads(content), SCHEMA)
    assert chat["finish_reason"] == "stop"
    chunks = demo_server.stream(
        "/v1/chat/completions",
        messages=ASK, response_format=FORMAT, return_tokens=True, **options,
    )  # fmt: skip
    deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"]]
    assert "".join(d.get("content", "") for d in deltas) == content
    tokens = [t for c in chunks for t in c.get("gemtp", {}).get("tokens", ())]
    forced = sum(t["source"] == "grammar" for t in tokens)
    assert 0 < forced <= chunks[-1]["gemtp_stats"]["grammar_forced"]


def test_json_patterns_and_grammars(demo_server: Server):
    options = {"max_tokens": 300, "temperature": 1, "seed": 1}
    text = demo_server.complete("x = ", response_format={"type": "text"}, **options)
    assert text["choices"][0]["text"]
    text = demo_server.complete("x = ", regex="[a-c]{3}-[0-9]{2}", **options)
    assert re.fullmatch("[a-c]{3}-[0-9]{2}", text["choices"][0]["text"])
    text = demo_server.complete("x = ", grammar='start: "yes" | "no"', **options)
    assert text["choices"][0]["text"] in ("yes", "no")
    found = demo_server.chat(ASK, response_format={"type": "json_object"}, **options)["choices"][0]
    if found["finish_reason"] == "stop":
        assert isinstance(json.loads(found["message"]["content"]), dict)


@pytest.mark.parametrize(
    "request_",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}},
        {"regex": "("},
        {"grammar": "start: nothing"},
        {"regex": "a", "grammar": 'start: "a"'},
    ],
    ids=["schema", "regex", "grammar", "both"],
)
def test_what_cannot_be_followed_is_refused(demo_server: Server, request_):
    before = demo_server.metric("gemtp_tokens_predicted_total")
    for path, prompt in (("/v1/completions", {"prompt": "x"}),
                         ("/v1/chat/completions", {"messages": ASK})):  # fmt: skip
        answer = demo_server.ask(path, {**prompt, **request_, "max_tokens": 5})
        assert answer.status == 400
        assert answer.error["type"] == "invalid_request_error"
    assert demo_server.metric("gemtp_tokens_predicted_total") == before


@pytest.fixture(scope="module")
def tool_server(tmp_path_factory, nobodys_machine):
    target, drafter = without_template()
    options = ["--drafter", drafter, "--context", 2048]
    with serving(tmp_path_factory.mktemp("serve"), target, *options) as server:
        yield server


@pytest.fixture(scope="module")
def tool_model():
    target, drafter = without_template()
    return gemtp.Model(target, drafter=drafter, threads=1, context=2048)


FUNCTION = {"name": "find", "description": "d", "parameters": SCHEMA, "strict": True}
OTHER = {"name": "other", "parameters": {"type": "object", "properties": {}}, "strict": False}
TOOLS = [{"type": "function", "function": f} for f in (FUNCTION, OTHER)]
NAMED = {"type": "function", "function": {"name": "find"}}


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_calls_follow_their_schema(tool_server: Server, tool_model, choice):
    options = {"max_tokens": 200, "temperature": 1, "tools": TOOLS, "tool_choice": choice}
    called = set()
    for seed in range(5):
        answer = tool_server.chat(ASK, seed=seed, **options)["choices"][0]
        assert answer["finish_reason"] == "tool_calls"
        calls = answer["message"]["tool_calls"]
        for call in calls:
            called.add(call["function"]["name"])
            arguments = json.loads(call["function"]["arguments"])
            declared = next(f for f in (FUNCTION, OTHER) if f["name"] == call["function"]["name"])
            jsonschema.validate(arguments, declared["parameters"])
        expected = tool_model.chat(ASK, seed=seed, **options).tool_calls
        assert [c["function"]["name"] for c in calls] == [c.name for c in expected]
        assert [json.loads(c["function"]["arguments"]) for c in calls] == [
            c.arguments for c in expected
        ]
        for draft in (0, 4):
            chunks = tool_server.stream(
                "/v1/chat/completions", messages=ASK, seed=seed, draft=draft, **options
            )
            deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"]]
            streamed = [call for d in deltas for call in d.get("tool_calls", ())]
            assert [c["function"] for c in streamed] == [c["function"] for c in calls]
        one = tool_server.chat(ASK, seed=seed, parallel_tool_calls=False, **options)["choices"][0]
        assert len(one["message"]["tool_calls"]) == 1
        first = one["message"]["tool_calls"][0]["function"]
        assert first == calls[0]["function"]
    assert called == {"find"} if choice is NAMED else "find" in called


def test_a_strict_function_that_cannot_be_followed_is_refused(tool_server: Server):
    parameters = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    for strict, status in ((True, 400), (False, 200)):
        function = {"name": "f", "parameters": parameters, "strict": strict}
        answer = tool_server.ask(
            "/v1/chat/completions",
            {
                "messages": ASK,
                "tools": [{"type": "function", "function": function}],
                "tool_choice": "required" if not strict else "auto",
                "max_tokens": 5,
            },
        )
        assert answer.status == status
        if strict:
            assert "uniqueItems" in answer.error["message"]
