"""gemtp serve: answers that follow a schema, a pattern or a grammar."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest

import gemtp_native as gemtp
from serving import Server

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
