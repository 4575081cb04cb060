"""Calls of functions that are strict, and calls that have to come: their arguments follow the
schema of the function's parameters, in Gemma 4's format."""

from __future__ import annotations

import json
import threading
from typing import Any

import jsonschema
import pytest

import gemtp_native as gemtp
from call_schemas import INTEGER, SCHEMAS, SHORT, objects, of
from forced_beginning import forced_beginning
from gemtp_native import _core
from gemtp_native.chat import tool_choice
from gemtp_native.grammar import CALLS, Calls, Source
from gemtp_native.grammar.calls import STRICT
from random_calls import ParametersMaker, random_tokens

pytest.importorskip("llguidance")

ASK = [{"role": "user", "content": "def f(x):"}]
TEMPLATE = "{{ messages[0].content }}{% for t in tools or [] %}{{ t.function.name }} {% endfor %}"
NAMED = {"type": "function", "function": {"name": "f"}}


@pytest.fixture(scope="module")
def model():
    target, drafter = gemtp.demo_models()
    with gemtp.Model(target, drafter=drafter, threads=1, context=4096) as model:
        if model._engine.tokenizer.find("<|tool_call>") < 0:
            pytest.skip("the model knows no tools")
        yield model


def tool(name: str, parameters: Any, strict: bool | None = None) -> dict[str, Any]:
    out = {"name": name, "description": "d", "parameters": parameters, "strict": strict}
    return {key: value for key, value in out.items() if value is not None}


def chat(model: gemtp.Model, tools: list[Any], **options: Any) -> Any:
    options = {"temperature": 1, "max_tokens": 1500, "template": TEMPLATE, **options}
    return model.chat(ASK, tools=tools, **options)


def check(arguments: Any, parameters: Any) -> None:
    if parameters is not None:
        jsonschema.Draft202012Validator(parameters).validate(arguments)
    assert isinstance(arguments, dict)


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "required"])
def test_arguments_follow_their_schema_and_are_the_same_with_drafts(model, name, strict):
    parameters = SCHEMAS[name]
    given = [tool("f", parameters, strict)]
    for seed in range(3):
        plain = chat(model, given, tool_choice="required", seed=seed, draft=0)
        assert plain.finish_reason == "tool_calls", plain.text
        assert plain.malformed_calls == []
        assert plain.content == ""
        for call in plain.tool_calls:
            assert call.name == "f"
            check(call.arguments, parameters)
        for draft in ("auto", 5):
            drafted = chat(model, given, tool_choice="required", seed=seed, draft=draft)
            assert (drafted.text, drafted.tokens) == (plain.text, plain.tokens)
        assert drafted.stats.grammar_accepted > 0


# ---------------------------------------------------------------- any parameters


def read_call(model: gemtp.Model, tokens: list[int]) -> Any:
    """Arguments of a call, given from behind its first mark."""
    tokenizer = model._engine.tokenizer
    parser = _core.ReplyParser(tokenizer, [], [], masked=True)
    events = [e for t in [tokenizer.find("<|tool_call>"), *tokens] for e in parser.push(t)]
    assert [event[0] for event in events] == ["tool_call"], events
    return events[0][3]


def matcher_of(model: gemtp.Model, parameters: Any, mode: str = STRICT) -> Any:
    find = model._engine.tokenizer.find
    calls = Calls(find('<|"|>'), find("<tool_call|>"), [("f", parameters, mode)])
    return model._grammars.matcher(model._engine, Source(CALLS, calls.text()))


def test_random_calls_of_random_functions(model):
    """Whatever follows the grammar satisfies the schema."""
    tokenizer = model._engine.tokenizer
    closing = [tokenizer.find(t) for t in ("}", "]", ",", '<|"|>', "<tool_call|>")]
    maker = ParametersMaker(5)
    checked = refused = 0
    for _ in range(150):
        parameters = maker.make()
        try:
            matcher = matcher_of(model, parameters)
        except gemtp.ArgumentError as e:
            if "the parameters of the function 'f'" not in str(e):
                raise
            refused += 1
            continue
        for seed in range(3):
            tokens = random_tokens(matcher.deep_copy(), seed, closing, 600)
            if len(tokens) < 600:
                check(read_call(model, tokens), parameters)
                checked += 1
    assert refused < 90
    assert checked > 180


@pytest.mark.parametrize(
    ("parameters", "texts", "wrong"),
    [
        (
            objects({"b": INTEGER, "a": INTEGER}),
            ["{b:1,a:2}", "{a:2,b:1}", "{b:1}", "{}"],
            ["{b: 1}", "{c:1}", "{b:1,}", "{a:1,a:1}", "{b:01}", '{b:<|"|>1<|"|>}'],
        ),
        (of("s", {"type": "string"}), ['{s:<|"|>}"\n\\<|"|>}'], ['{s:"x"}', "{s:x}", "{s:null}"]),
        (of("s", {"type": "object"}), ["{s:{a b:[1,{c:null}]}}"], ['{s:{"a":1}}', "{s:{a:b}}"]),
        (of("s", {"type": "string", "pattern": "b"}), ['{s:<|"|>abc<|"|>}'], ['{s:<|"|>ac<|"|>}']),
        (of("s", {"type": "string", "nullable": True}), ["{s:null}", '{s:<|"|><|"|>}'], ["{}"]),
        (of("s", {"type": "STRING"}), ['{s:<|"|><|"|>}'], ["{s:1}"]),
        (of("n", {**INTEGER, "required": False}) | {"required": False}, ["{n:1}", "{}"], ["{m:1}"]),
    ],
)
def test_what_a_call_may_be(model, parameters, texts, wrong):
    tokenizer = model._engine.tokenizer
    for text in [*texts, *wrong]:
        tokens = tokenizer.encode(f"call:f{text}<tool_call|>", False, True)
        matcher = matcher_of(model, parameters)
        assert (matcher.validate_tokens(tokens) == len(tokens)) == (text in texts), text


WITHOUT_END = of("a", {"$ref": "#"})
BOMB = {
    "$ref": "#/$defs/d0",
    "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)}
    | {"d30": {"type": "object"}},
}


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        (of("a", {"type": "array", "uniqueItems": True}), 'at /properties/a have "uniqueItems"'),
        (of("a", {"not": {"type": "null"}}), 'at /properties/a have "not"'),
        (of("a", {"oneOf": [{"minimum": 1}, {"maximum": 9}]}), "alternatives overlap"),
        (of("a", {"type": "string", "pattern": "(?=a)b"}), "looks ahead"),
        (of("a", {"type": "string", "pattern": "(a)\\1"}), "refers back"),
        (of("a", {"type": "string", "pattern": "(a"}), "brackets do not match"),
        (of("a", {"type": "string", "pattern": "a{2,1}"}), "cannot be compiled"),
        (of("a", {"type": "number", "multipleOf": 0}), "cannot be compiled"),
        (of("a", {"type": "x"}), "have the type 'x'"),
        (of("a", {"type": "integer", "minimum": "1"}), 'have a "minimum" that is no number'),
        (of("a", {"type": "string", "format": {}}), 'have a "format" that is no text'),
        (of("a", {"$ref": "#/anyOf/\u00b2"}) | {"anyOf": [{}]}, "refer to"),
        (of("a", {"$ref": f"#/anyOf/{'1' * 5000}"}) | {"anyOf": [{}]}, "refer to"),
        (of("a", {"$ref": "#/$defs/b"}), 'refer to "#/\\$defs/b"'),
        (of("a", {"$ref": "https://example.org/schema"}), "refer to"),
        (WITHOUT_END, "satisfied by no object"),
        (of("a", False), "satisfied by no object"),
        ({"type": "string"}, "satisfied by no object"),
        ({"$ref": "#"}, "refer to each other"),
        (BOMB, "too many schemas"),
    ],
)
def test_what_a_strict_call_cannot_be_held_to_is_refused(model, parameters, why, caplog):
    """In one sentence. A call that need not be strict has whatever can be followed, and a note."""
    with pytest.raises(gemtp.ArgumentError, match=why) as e:
        matcher_of(model, parameters)
    assert "'f'" in str(e.value)
    assert "\n" not in str(e.value)
    with caplog.at_level("WARNING", logger="gemtp_native"):
        tokens = random_tokens(matcher_of(model, parameters, "held"), 1, [], 40)
    assert tokens
    (note,) = [r.getMessage() for r in caplog.records if "not held" in r.getMessage()]
    assert note.startswith("calls of 'f' are not held to all of its parameters: ")


# ---------------------------------------------------------------- what a reply may be

STRICT_F = tool("f", of("n", INTEGER), True)
FREE_G = tool("g", of("n", INTEGER))


def begun(model: gemtp.Model, text: str, tools: list[Any], **options: Any) -> Any:
    """A reply with this beginning."""
    shown = {k: v for k, v in options.items() if k == "thinking"}
    prompt = model.chat_prompt(ASK, tools=tools, template=TEMPLATE, **shown)[1]
    replies = []
    for draft in (0, "auto", 4):
        processor, _ = forced_beginning(model, text, len(prompt))
        replies.append(chat(model, tools, logits_processor=processor, draft=draft, **options))
    assert len({reply.text for reply in replies}) == 1
    return replies[0]


def end_of(model: gemtp.Model) -> str:
    return model.detokenize([model._engine.tokenizer.end_tokens[-1]], special=True)


def test_a_strict_call_that_the_model_chooses(model):
    """The mask begins with the call; text, and calls of other functions, are as they would be."""
    for seed in range(3):
        reply = begun(model, "<|tool_call>call:f{", [STRICT_F, FREE_G], seed=seed, max_tokens=40)
        check(reply.tool_calls[0].arguments, STRICT_F["parameters"])
    free = "<|tool_call>call:g{x:!,y:["
    reply = begun(model, free, [STRICT_F, FREE_G], max_tokens=20)
    assert reply.text.startswith(free)
    for wrong in ("h{", "f {", "f{m:", "f{n:x"):
        with pytest.raises(gemtp.ArgumentError, match="the grammar lets come"):
            begun(model, f"<|tool_call>call:{wrong}", [STRICT_F, FREE_G], max_tokens=9)
    options = {"seed": 4, "max_tokens": 60}
    plain = chat(model, [{**STRICT_F, "strict": False}, FREE_G], **options)
    assert chat(model, [STRICT_F, FREE_G], **options).tokens == plain.tokens


def test_several_calls_and_text_between_them(model):
    calls = "<|tool_call>call:f{n:1}<tool_call|><|tool_call>call:f{n:2}<tool_call|>"
    for required in ("required", None):
        reply = begun(model, calls + end_of(model), [STRICT_F, FREE_G], tool_choice=required)
        assert [call.arguments for call in reply.tool_calls] == [{"n": 1}, {"n": 2}]
    text = "Well. <|tool_call>call:f{n:1}<tool_call|> And <|tool_call>call:f{n:"
    reply = begun(model, text, [STRICT_F], seed=2, max_tokens=60)
    assert reply.content.startswith("Well.  And ")
    assert len(reply.tool_calls) >= 2
    for call in reply.tool_calls:
        check(call.arguments, STRICT_F["parameters"])


@pytest.mark.parametrize("choice", [None, "required", NAMED])
def test_thoughts_before_a_call(model, choice):
    thought = '<|channel>thought\nwhat {n:<|"|>x' + ("<channel|>" if choice != NAMED else "")
    for seed in range(2):
        reply = begun(
            model,
            thought + "<|tool_call>call:f{",  # models forget to end a thought
            [STRICT_F],
            thinking=True,
            tool_choice=choice,
            seed=seed,
            max_tokens=60,
        )
        assert "what {n:" in reply.thinking
        check(reply.tool_calls[0].arguments, STRICT_F["parameters"])


def test_an_answer_under_a_schema_or_a_strict_call(model):
    answer = {"type": "json_schema", "json_schema": {"schema": of("x", SHORT)}}
    reply = chat(model, [STRICT_F], response_format=answer)
    if reply.content:
        jsonschema.validate(json.loads(reply.content), of("x", SHORT))
    reply = begun(model, "<|tool_call>call:f{", [STRICT_F], response_format=answer)
    for call in reply.tool_calls:
        check(call.arguments, STRICT_F["parameters"])
    assert reply.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [("{n:5}", True), ('{"n": 5}', True), ("{n:500}", False), ("{}", False)],
)
def test_a_call_without_its_mark_follows_the_schema_or_is_none(model, arguments, allowed):
    text = f"<|channel>thought\nhm<channel|>call:f{arguments}{end_of(model)}"
    reply = begun(model, text, [STRICT_F, FREE_G], thinking=True)
    assert [call.arguments for call in reply.tool_calls] == ([{"n": 5}] if allowed else [])
    assert reply.malformed_calls == ([] if allowed else [f"call:f{arguments}"])


def test_sequences_of_their_own_share_passes(model):
    names = ["string", "tree", "oneOf", "date", "optional", "map"]
    alone = {}
    together: dict[str, str] = {}

    def run(name: str, into: dict[str, str]) -> None:
        given = [tool("f", SCHEMAS[name], True)]
        into[name] = chat(model, given, tool_choice="required", seed=7).text

    for name in names:
        run(name, alone)
    threads = [threading.Thread(target=run, args=(name, together)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_templates_do_not_see_strict(model):
    template = "{{ messages[0].content }}{{ tools }}"
    plain = {key: value for key, value in STRICT_F.items() if key != "strict"}
    prompts = [model.chat_prompt(ASK, tools=[t], template=template) for t in (STRICT_F, plain)]
    assert prompts[0] == prompts[1]
    with pytest.raises(gemtp.ArgumentError, match="no boolean"):
        model.chat(ASK, tools=[{**STRICT_F, "strict": "yes"}])


def test_names_that_the_format_cannot_have(model):
    with pytest.raises(gemtp.ArgumentError, match="cannot be called"):
        chat(model, [tool("a{b", {}, True)])


def test_without_llguidance(model, monkeypatch, caplog):
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    monkeypatch.setattr(tool_choice, "_told", False)
    with pytest.raises(gemtp.ArgumentError, match=r"pip install 'gemtp-native\[grammar\]'"):
        chat(model, [tool("never compiled before", {}, True)])
    with caplog.at_level("WARNING", logger="gemtp_native"):
        for _ in range(2):
            reply = chat(model, [FREE_G], tool_choice="required", max_tokens=20)
    assert reply.text.startswith("<|tool_call>call:g{")
    assert [r.getMessage() for r in caplog.records] == [
        "required calls have any arguments, because llguidance is missing: "
        "pip install 'gemtp-native[grammar]'"
    ]
