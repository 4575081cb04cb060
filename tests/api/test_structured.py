"""JSON schemas, regular expressions and grammars: what is generated follows them, and is the same
with and without drafting."""

from __future__ import annotations

import json
import re
import threading
import time

import jsonschema
import pytest

import gemtp_native as gemtp
from forced_beginning import forced_beginning
from gemtp_native import _core
from gemtp_native.grammar import Grammars, source_of, trial, vocabulary
from grammar_bombs import bombs

pytest.importorskip("llguidance")

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {
            "type": "array",
            "items": {"enum": ["red", "green", "blue"]},
            "minItems": 1,
            "maxItems": 3,
        },
        "mail": {"type": "string", "pattern": r"^[a-z]{1,8}@[a-z]{1,5}\.com$"},
    },
    "required": ["name", "age", "tags", "mail"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"anyOf": [{"type": "boolean"}, {"type": "null"}, {"const": "leaf"}]},
                "children": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"x": {"type": "number", "minimum": 0, "maximum": 9}},
                        "required": ["x"],
                        "additionalProperties": False,
                    },
                    "maxItems": 2,
                },
            },
            "required": ["value", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
SAMPLING = [
    {},
    {"temperature": 0.8, "seed": 1},
    {"temperature": 1.2, "seed": 2, "top_p": 0.9, "top_k": 50},
    {
        "temperature": 0.7,
        "seed": 3,
        "min_p": 0.05,
        "repetition_penalty": 1.3,
        "logit_bias": {40: 2},
    },
]
ASK = [{"role": "user", "content": "def f(x):"}]


@pytest.fixture(scope="module")
def model():
    target, drafter = gemtp.demo_models()
    return gemtp.Model(target, drafter=drafter, threads=1, context=1024)


def check(text: str, schema: dict) -> None:
    jsonschema.validate(json.loads(text), schema)


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("schema", [PERSON, TREE])
def test_the_text_follows_the_schema_and_is_the_same_at_every_depth(model, schema, sampling):
    plain = model.generate("data = ", json_schema=schema, draft=0, max_tokens=300, **sampling)
    check(plain.text, schema)
    assert plain.finish_reason == "stop"
    assert plain.stats.drafted == 0
    for draft in ("auto", 1, 4, 15):
        model.clear_cache()
        out = model.generate("data = ", json_schema=schema, draft=draft, max_tokens=300, **sampling)
        assert (out.text, out.tokens, out.finish_reason) == (plain.text, plain.tokens, "stop")
        stats = out.stats
        assert 0 < stats.grammar_accepted <= stats.grammar_drafted <= stats.drafted
        assert stats.rounds < plain.stats.rounds


def test_forced_tokens_say_so_and_need_no_drafter(model):
    with gemtp.Model(gemtp.demo_models()[0], threads=1) as alone:
        plain = alone.generate("data = ", json_schema=PERSON, draft=0, max_tokens=300)
        stream = alone.stream("data = ", json_schema=PERSON, max_tokens=300)
        tokens = [token for step in stream.steps() for token in step]
    assert "".join(t.text for t in tokens) == plain.text
    assert stream.stats.grammar_accepted == sum(t.source == "grammar" for t in tokens) > 5
    assert all(t.drafted for t in tokens if t.source == "grammar")
    assert stream.stats.rounds < plain.stats.rounds


def test_regex_and_grammar(model):
    out = model.generate("x = ", regex=r"[0-9]{3}-[a-f]{2,4}", temperature=1, seed=5)
    assert re.fullmatch(r"[0-9]{3}-[a-f]{2,4}", out.text)
    assert out.finish_reason == "stop"
    grammar = 'start: "[" item (", " item)~2 "]"\nitem: "up" | "down"'
    out = model.generate("x = ", grammar=grammar, temperature=1, seed=5)
    assert re.fullmatch(r"\[(up|down), (up|down), (up|down)\]", out.text)


def test_an_end_may_come_where_the_grammar_may_stop(model):
    end = model._engine.tokenizer.end_tokens[0]
    out = model.generate("x = ", regex="a+", logit_bias={end: 100.0})
    assert (out.text, out.finish_reason) == ("a", "stop") or set(out.text) == {"a"}
    assert len(out.tokens) == 1
    out = model.generate("x = ", regex="a+", logit_bias={end: -float("inf")}, max_tokens=9)
    assert set(out.text) == {"a"}
    assert (len(out.tokens), out.finish_reason) == (9, "length")


def test_max_tokens_and_stop_strings_end_it_in_the_middle(model):
    whole = model.generate("data = ", json_schema=PERSON, max_tokens=300)
    for draft in (0, "auto", 5):
        cut = model.generate("data = ", json_schema=PERSON, max_tokens=7, draft=draft)
        assert (cut.tokens, cut.finish_reason) == (whole.tokens[:7], "length")
        cut = model.generate(
            "data = ", json_schema=PERSON, max_tokens=300, stop='"tags"', draft=draft
        )
        assert cut.text == whole.text[: whole.text.index('"tags"')]
        assert cut.finish_reason == "stop"
    # Complete with the very last token that is allowed.
    exact = model.generate("data = ", json_schema=PERSON, max_tokens=len(whole.tokens))
    assert (exact.text, exact.finish_reason) == (whole.text, "stop")


def test_unconstrained_text_is_what_it_was(model):
    before = model.generate("def f(", max_tokens=40)
    model.generate("def f(", json_schema=PERSON)
    assert model.generate("def f(", max_tokens=40).text == before.text


def test_sequences_with_grammars_of_their_own_share_passes(model):
    jobs = [
        {"json_schema": PERSON, "draft": 3},
        {"json_schema": TREE},
        {"regex": "[a-z]{20}", "temperature": 1.0, "seed": 4},
        {},
        {"json_schema": PERSON, "temperature": 0.9, "seed": 8, "draft": 0},
    ]
    alone = [model.generate("data = ", max_tokens=120, **job).tokens for job in jobs]
    together: list[list[int]] = [[] for _ in jobs]

    def run(i: int) -> None:
        together[i] = model.generate("data = ", max_tokens=120, **jobs[i]).tokens

    for _ in range(3):
        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(jobs))]
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
            assert not t.is_alive()
        assert together == alone


def test_processor_and_log_probabilities_work_beside_it(model):
    seen = []

    def no_a(tokens, logits):
        seen.append(len(tokens))
        logits[model.tokenize("a", add_bos=False)[0]] = -float("inf")

    out = model.generate("x = ", regex="[ab]{4}", logits_processor=no_a, logprobs=2)
    assert re.fullmatch("[ab]{4}", out.text)
    assert len(out.logprobs) == len(out.tokens) == len(seen)
    free = model.generate("x = ", max_tokens=1, logprobs=2)
    assert free.top_logprobs[0] == out.top_logprobs[0]  # the model's own, whatever is masked


def test_sessions(model):
    with_session = model.session()
    with_session.append("data = ")
    out = with_session.generate(json_schema=PERSON, max_tokens=300)
    assert out.text == model.generate("data = ", json_schema=PERSON, max_tokens=300).text
    with_session.append("\nmore = ")
    check(with_session.generate(json_schema=TREE, max_tokens=300).text, TREE)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"json_schema": "{"}, "json_schema is not JSON"),
        ({"json_schema": []}, "json_schema is a list; it must be an object"),
        ({"json_schema": "true"}, "json_schema is true; it must be an object"),
        ({"json_schema": 5}, "json_schema is 5; it must be an object"),
        ({"json_schema": {"type": "objct"}}, "json_schema cannot be compiled: Invalid type: objct"),
        ({"json_schema": {"a": {1, 2}}}, "json_schema cannot be written as JSON"),
        ({"json_schema": {"a": float("nan")}}, "json_schema cannot be written as JSON"),
        ({"json_schema": {"$ref": "#/nowhere"}}, "'/nowhere' does not exist"),
        ({"json_schema": {"$ref": "https://example.org/x"}}, "json_schema cannot be compiled"),
        (
            {"json_schema": {"type": "object", "properties": {"a": {"not": {}}}}},
            "json_schema cannot be compiled at /properties/a: Unimplemented keys",
        ),
        (
            {
                "json_schema": {
                    "$defs": {"b/c": {"items": {"type": "string", "pattern": "a(b"}}},
                    "$ref": "#/$defs/b~1c",
                }
            },
            "compiled at /$defs/b~1c/items: regex parse error: unclosed group",
        ),
        (
            {"json_schema": {"type": "integer", "minimum": 5, "maximum": 3}},
            "minimum (5) is greater than maximum (3)",
        ),
        ({"regex": "a(b"}, "regex cannot be compiled: "),
        ({"regex": "(?<=a)b"}, "look-behind, is not supported"),
        ({"regex": ""}, "regex is empty"),
        ({"regex": 5}, "regex is a int; it must be text"),
        ({"regex": "a\0b"}, "NUL"),
        ({"regex": "a\ud800"}, "lone surrogate"),
        ({"regex": "(" * 5000 + ")" * 5000}, "nested deeper than 100 brackets"),
        ({"grammar": "start: foo"}, 'grammar cannot be compiled: at 1(8): unknown name: "foo"'),
        ({"grammar": "no grammar"}, "grammar cannot be compiled"),
        ({"regex": "a", "json_schema": {}}, "json_schema and regex exclude each other"),
    ],
)
def test_what_cannot_be_compiled_is_refused(model, options, words):
    with pytest.raises(gemtp.ArgumentError) as caught:
        model.generate("x", max_tokens=3, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_deep_schemas_are_refused(model):
    schema: dict = {"type": "integer"}
    for _ in range(5000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(gemtp.ArgumentError, match="nested deeper than 100"):
        model.generate("x", json_schema=schema)
    with pytest.raises(gemtp.ArgumentError, match="json_schema"):
        model.generate("x", json_schema='{"items":' * 100000)


SELVES = [bomb for bomb in bombs() if bomb[0].startswith("self-")]


@pytest.mark.parametrize("bomb", SELVES, ids=lambda bomb: bomb[0])
def test_schemas_without_a_finite_text(model, bomb):
    with pytest.raises(gemtp.ArgumentError, match="a text without end: it refers to itself"):
        model.generate("x", json_schema=bomb[2])


def test_schemas_that_refer_to_themselves_and_end(model):
    node = {"anyOf": [{"type": "null"}, {"$ref": "#"}]}
    linked = {"type": "object", "properties": {"next": node}, "required": ["next"]}
    assert model.generate("x = ", json_schema=linked, max_tokens=9).text.startswith('{"next": ')
    lists = {"type": "array", "items": {"$ref": "#"}, "maxItems": 2}
    assert model.generate("x = ", json_schema=lists, max_tokens=9).text.startswith("[")


@pytest.mark.parametrize("text", ['root ::= "a" | "b"', '# a\nx-y ::= "a"\nroot ::= x-y+'])
def test_a_grammar_in_the_form_of_llama_cpp_is_named(model, text):
    with pytest.raises(gemtp.ArgumentError, match="GBNF"):
        model.generate("a", grammar=text)
    assert model.generate("a", grammar='start: "::=" "a"').text == "::=a"


def test_grammars_that_take_too_much(model):
    """A part of `python tests/support/grammar_bombs.py`, which has them all."""
    grammars = Grammars()
    grammars.constraint(model._engine, source_of(regex="a"))
    before = trial.memory()
    refusals = []
    for name, kind, text in list(bombs())[::6]:
        begin = time.monotonic()
        try:
            grammars.constraint(model._engine, source_of(**{kind: text}))
        except gemtp.ArgumentError as e:
            refusals.append(str(e))
        assert time.monotonic() - begin < 60, name
        assert trial.memory() - before < 400 << 20, name
        assert sum(kept.bytes for kept in grammars._kept.values()) <= vocabulary.KEPT
    assert len(refusals) > 3
    assert all("\n" not in refusal and len(refusal) < 300 for refusal in refusals)


def test_what_crashes_or_hangs_a_compiler_is_refused(model):
    wanted = {"chain-2000": "too deeply", "both-40": "takes", "ambiguous-2000": "takes"}
    for name, kind, text in bombs():
        if name in wanted:
            for _ in range(2):  # the second time it is remembered
                begin = time.monotonic()
                with pytest.raises(gemtp.ArgumentError, match=wanted[name]):
                    model.generate("x", **{kind: text})
            assert time.monotonic() - begin < 0.5
    assert model.generate("x = ", regex="[0-9]{5}").text.isdigit()


def test_what_is_kept_is_bounded_by_its_size(model, monkeypatch):
    monkeypatch.setattr(vocabulary, "KEPT", 1 << 20)
    grammars = Grammars()
    for i in range(20):
        grammars.constraint(model._engine, source_of(regex=f"a{{{i + 1}}}"))
    assert 0 < sum(kept.bytes for kept in grammars._kept.values()) <= 1 << 20
    assert len(grammars._kept) <= 4


def test_formats_that_nobody_knows_are_annotations(model):
    schema = {
        "type": "object",
        "properties": {
            "format": {"type": "string", "format": "color", "maxLength": 3},
            "day": {"type": "string", "format": "date"},
            "n": {"type": "integer", "format": "int32", "maximum": 5, "minimum": 0},
            "same": {"const": {"format": "color"}},
        },
        "required": ["format", "day", "n", "same"],
        "additionalProperties": False,
    }
    found = json.loads(model.generate("x = ", json_schema=schema, max_tokens=200).text)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["day"])
    assert found["same"] == {"format": "color"}


def test_a_mask_that_leaves_nothing_is_an_error_with_and_without_drafting(model):
    bytes_of_tokens, _ = _core.grammar_vocabulary(model._engine.tokenizer)
    digits = [i for i, b in enumerate(bytes_of_tokens) if re.fullmatch(b"[0-9]", b)]
    for draft in (0, "auto", 3):
        with pytest.raises(gemtp.ArgumentError, match="every token that the grammar lets come"):
            model.generate("x = ", regex="[0-9]", suppress_tokens=digits, draft=draft)
    # The engine is none the worse for it.
    assert model.generate("x = ", regex="[0-9]{5}").text.isdigit()


def test_without_llguidance(model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(gemtp.ArgumentError, match=r"pip install 'gemtp-native\[grammar\]'"):
        model.generate("x", regex="never compiled before")


# ---------------------------------------------------------------- chats

FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}


def test_an_answer_follows_its_format(model):
    texts = set()
    for draft in (0, "auto", 4):
        reply = model.chat(ASK, response_format=FORMAT, max_tokens=300, draft=draft)
        check(reply.content, PERSON)
        assert reply.finish_reason == "stop"
        texts.add(reply.content)
    assert len(texts) == 1
    assert model.chat(ASK, json_schema=PERSON, max_tokens=300).content in texts
    reply = model.chat(ASK, response_format={"type": "text"}, max_tokens=9)
    assert reply.content == model.chat(ASK, max_tokens=9).content
    for same in (
        {"type": "json_object", "schema": PERSON},
        {"type": "json_schema", "schema": PERSON, "name": "person", "strict": True},
    ):
        assert model.chat(ASK, response_format=same, max_tokens=300).content in texts
    reply = model.chat(ASK, response_format={"type": "json_object"}, max_tokens=40)
    assert reply.content.startswith("{")


def test_thoughts_are_free(model):
    if model._engine.tokenizer.find("<|channel>") < 0:
        pytest.skip("the model knows no thoughts")
    thought = "<|channel>thought\nnot JSON at all { <channel|>"
    prompt = model.chat_prompt(ASK, thinking=True)[1]
    texts = set()
    for draft in (0, "auto", 4):
        processor, script = forced_beginning(model, thought, len(prompt))
        reply = model.chat(
            ASK,
            thinking=True,
            response_format=FORMAT,
            max_tokens=400,
            logits_processor=processor,
            draft=draft,
        )
        assert reply.tokens[: len(script)] == script
        assert "not JSON at all" in reply.thinking
        check(reply.content, PERSON)
        texts.add(reply.text)
    assert len(texts) == 1
    # Not where nobody asked for them.
    processor, _ = forced_beginning(model, thought, len(model.chat_prompt(ASK)[1]))
    with pytest.raises(gemtp.ArgumentError, match="the grammar lets come"):
        model.chat(ASK, response_format=FORMAT, logits_processor=processor)


def test_calls_of_tools_are_free(model):
    if model._engine.tokenizer.find("<|tool_call>") < 0:
        pytest.skip("the model knows no tools")
    tools = [{"name": "f", "description": "f", "parameters": {"type": "object", "properties": {}}}]
    template = "{{ messages[0].content }}{{ tools }}"
    prompt = model.chat_prompt(ASK, tools=tools, template=template)[1]
    end = model.detokenize([model._engine.tokenizer.end_tokens[-1]], special=True)
    for draft in (0, "auto"):
        processor, _ = forced_beginning(
            model, "<|tool_call>call:f{n:1}<tool_call|>" + end, len(prompt)
        )
        reply = model.chat(
            ASK,
            tools=tools,
            template=template,
            response_format=FORMAT,
            max_tokens=400,
            logits_processor=processor,
            draft=draft,
        )
        assert [c.as_dict()["function"] for c in reply.tool_calls] == [
            {"name": "f", "arguments": {"n": 1}}
        ]
        assert reply.content == ""
        assert reply.finish_reason == "tool_calls"
    # Or an answer instead.
    reply = model.chat(ASK, tools=tools, template=template, response_format=FORMAT, max_tokens=300)
    check(reply.content, PERSON)


TOOLS = [
    {"name": name, "description": name, "parameters": {"type": "object", "properties": members}}
    for name, members in [
        ("get_weather", {}),
        ("get_time", {}),
        ("f", {"n": {"type": "integer"}}),
        ("größe", {}),
    ]
]
NAMED = {"type": "function", "function": {"name": "get_time"}}


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["any", "one"])
@pytest.mark.parametrize("temperature", [0, 1])
def test_a_call_that_has_to_come(model, choice, temperature):
    """Whatever the model would rather do: the text begins a call of one of the functions."""
    if model._engine.tokenizer.find("<|tool_call>") < 0:
        pytest.skip("the model knows no tools")
    options = {"tools": TOOLS, "tool_choice": choice, "template": "{{ messages[0].content }}"}
    options["template"] += "{{ tools }}"
    allowed = ["get_time"] if choice is NAMED else [t["name"] for t in TOOLS]
    called = set()
    for seed in range(6 if temperature else 1):
        options |= {"max_tokens": 24, "temperature": temperature, "seed": seed}
        texts = {model.chat(ASK, draft=draft, **options).text for draft in (0, "auto", 4)}
        # And a format of the answer, which will not come, is no reason to refuse.
        texts.add(model.chat(ASK, response_format=FORMAT, **options).text)
        (text,) = texts
        assert text.startswith(tuple(f"<|tool_call>call:{name}{{" for name in allowed))
        called.add(text.partition("{")[0])
    assert len(called) > 1 or choice is NAMED or not temperature


def test_a_required_call_ends_and_others_may_follow(model):
    if model._engine.tokenizer.find("<|tool_call>") < 0:
        pytest.skip("the model knows no tools")
    template = "{{ messages[0].content }}{{ tools }}"
    after = len(model.chat_prompt(ASK, tools=TOOLS, template=template)[1])
    end = model.detokenize([model._engine.tokenizer.end_tokens[-1]], special=True)
    calls = "<|tool_call>call:f{n:1}<tool_call|><|tool_call>call:get_time{}<tool_call|>"
    options = {"tools": TOOLS, "template": template, "max_tokens": 60, "tool_choice": "required"}
    processor, _ = forced_beginning(model, calls + end, after)
    reply = model.chat(ASK, logits_processor=processor, **options)
    assert [(c.name, c.arguments) for c in reply.tool_calls] == [("f", {"n": 1}), ("get_time", {})]
    assert reply.finish_reason == "tool_calls"
    # An answer and a function that nobody declared are no calls.
    for text in ("Hello", "<|tool_call>call:get_money{}<tool_call|>"):
        processor, _ = forced_beginning(model, text, after)
        with pytest.raises(gemtp.ArgumentError, match="the grammar lets come"):
            model.chat(ASK, logits_processor=processor, **options)


def test_thoughts_before_a_required_call(model):
    if model._engine.tokenizer.find("<|tool_call>") < 0:
        pytest.skip("the model knows no tools")
    options = {"tools": TOOLS, "template": "{{ messages[0].content }}{{ tools }}"}
    after = len(model.chat_prompt(ASK, thinking=True, **options)[1])
    processor, _ = forced_beginning(model, "<|channel>thought\nthe time?<channel|>", after)
    reply = model.chat(
        ASK, tool_choice=NAMED, thinking=True, logits_processor=processor, max_tokens=40, **options
    )
    assert reply.thinking == "the time?"
    assert "<channel|><|tool_call>call:get_time{" in reply.text


def test_no_tools_are_shown_to_a_model_that_may_call_none(model):
    none = model.chat(ASK, tools=TOOLS, tool_choice="none", max_tokens=9)
    assert none.text == model.chat(ASK, max_tokens=9).text


@pytest.mark.parametrize(
    ("choice", "tools", "why"),
    [
        ("required", None, "no tools"),
        ("required", [], "no tools"),
        (NAMED, None, "no tools"),
        (NAMED, TOOLS[:1], "names 'get_time', but the tools are 'get_weather'"),
        ("always", TOOLS, "must be"),
        (1, TOOLS, "must be"),
        ({"type": "function"}, TOOLS, "must be"),
        ({"function": {"name": "f"}}, TOOLS, "must be"),
        ({"type": "function", "function": {"name": 3}}, TOOLS, "must be"),
    ],
)
def test_wrong_tool_choices_are_refused(model, choice, tools, why):
    with pytest.raises(gemtp.ArgumentError, match=why):
        model.chat(ASK, tools=tools, tool_choice=choice)


@pytest.mark.parametrize(
    "wrong",
    [
        5,
        "json",
        [],
        {},
        {"type": "xml"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "json_schema", "json_schema": {"schema": []}},
        {"type": "json_schema", "json_schema": {"schema": {}, "shema": {}}},
        {"type": "json_schema", "json_schema": {"schema": {}}, "schema": {}},
        {"type": "json_object", "shema": {}},
    ],
)
def test_wrong_response_formats_are_refused(model, wrong):
    with pytest.raises(gemtp.ArgumentError, match="response_format"):
        model.chat(ASK, response_format=wrong)
    with pytest.raises(gemtp.ArgumentError, match="exclude each other"):
        model.chat(ASK, response_format=FORMAT, json_schema={})


# ---------------------------------------------------------------- the command line


def test_the_command_line(gemtp_main, tmp_path):
    target, drafter = gemtp.demo_models()
    common = ["generate", target, "data = ", "--drafter", drafter, "--threads", 1]
    file = tmp_path / "person.json"
    file.write_text(json.dumps(PERSON))
    code, out, err = gemtp_main(*common, "--json-schema", file, "--max-tokens", 300, "--stats")
    assert code == 0
    check(out, PERSON)
    assert "grammar  forced" in err
    assert gemtp_main(*common, "--json-schema", json.dumps(PERSON), "--max-tokens", 300)[1] == out
    code, out, _ = gemtp_main(*common, "--regex", "[0-9]{4}")
    assert code == 0
    assert re.fullmatch("[0-9]{4}\n", out)
    lark = tmp_path / "answer.lark"
    lark.write_text('start: "yes" | "no"')
    code, out, _ = gemtp_main(*common, "--grammar", lark)
    assert (code, out.strip() in ("yes", "no")) == (0, True)
    for options, words in [
        (["--json-schema", tmp_path / "missing"], "missing cannot be read: No such file"),
        (["--json-schema", lark], "json_schema is not JSON"),
        (["--regex", "a(b"], "regex cannot be compiled"),
        (["--regex", "a", "--grammar", lark], "not allowed with argument"),
    ]:
        code, out, err = gemtp_main(*common, *options)
        assert code != 0
        assert out == ""
        assert words in err
