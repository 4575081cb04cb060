"""gemtp serve: requests that are wrong. Each gets one sentence in OpenAI's form, and it goes on."""

from __future__ import annotations

import json
import socket

import pytest

from gemtp_native.serve.errors import RequestError
from gemtp_native.serve.fields import Fields, parse_json
from serving import Server

COMPLETE = "/v1/completions"
CHAT = "/v1/chat/completions"
ASK = [{"role": "user", "content": "x"}]


@pytest.fixture(autouse=True)
def still_answers(demo_server: Server):
    yield
    assert demo_server.process.poll() is None
    assert demo_server.complete("x", max_tokens=1)["choices"]
    assert "Traceback" not in demo_server.log.read_text()


# ---------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b"3",
        b"null",
        b'{"prompt": "x"} more',
        b"\xff\xfe{}",
        b'\xef\xbb\xbf{"prompt": "x"}',
        b'{"prompt": "\xc3"}',
        b'{"prompt": "\\ud800"}',
        b'{"\\udfff": 1, "prompt": "x"}',
        b'{"prompt": "x", "temperature": NaN}',
        b'{"prompt": "x", "temperature": Infinity}',
        b'{"prompt": "x", "temperature": 1e999}',
        b'{"prompt": "x", "temperature": -1e999}',
        b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": "x", "metadata": ' + b"[" * 70 + b"]" * 70 + b"}",
        b'{"prompt": ' + b"[" * 500_000,
        b'{"prompt": "x", "metadata": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"prompt": "x\n"}',
        b"\x00" * 100,
        b'{"prompt": [' + b"[]," * 400_000 + b"1]}",
    ],
    ids=range(23),
)
def test_bodies_that_are_no_json(demo_server: Server, body):
    for path in (COMPLETE, CHAT, "/tokenize"):
        answer = demo_server.ask(path, body)
        assert answer.status == 400
        assert answer.error["code"] == "invalid_json"
        assert answer.error["type"] == "invalid_request_error"


def test_a_body_announced_to_be_huge_is_not_waited_for(demo_server: Server):
    head = f"POST {COMPLETE} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", demo_server.port), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 413 ")


def test_large_bodies(demo_server: Server):
    for size in (5 << 20, 10 << 20):
        answer = demo_server.ask(COMPLETE, b'{"prompt": "' + b"x" * size + b'"}')
        assert (answer.status, answer.error["code"]) == (413, "body_too_large")
    almost = json.dumps({"content": "ab " * ((4 << 20) // 3 - 20)}).encode()
    assert demo_server.ask("/tokenize", almost).status == 200
    commas = json.dumps({"content": '1,"2",' * 300_000}).encode()  # of a text, not of JSON
    assert demo_server.ask("/tokenize", commas).status == 200


# ---------------------------------------------------------------- members

HUGE = 10**400

WRONG = [("prompt", v) for v in (None, 3, True, {}, [], [1, "x"], [[]], [[1], 2], [1.5], [[True]])]
WRONG += [("max_tokens", v) for v in ("5", 1.0, -2, True, [], HUGE, 2**63 + 1025)]
WRONG += [("temperature", v) for v in ("1", -0.1, True, [], 1e39, HUGE)]
WRONG += [("top_p", v) for v in (-0.1, 1.1, "x")]
WRONG += [("min_p", v) for v in (-1, 1)]
WRONG += [("top_k", v) for v in (-2, 0.5, HUGE)]
WRONG += [("repetition_penalty", v) for v in (0, -1, "x")]
WRONG += [("presence_penalty", v) for v in (HUGE, "x", None or [])]
WRONG += [("penalty_last_n", v) for v in (-2, 0.5, True, HUGE)]
WRONG += [("seed", v) for v in (1.5, "1", 2**64, -(2**64), HUGE)]
WRONG += [("stop", v) for v in (3, [3], [None], ["x"] * 10_000, "x" * 5000, {})]
WRONG += [
    ("logit_bias", v) for v in ([1], {"x": 1}, {"-1": 1}, {"1": "x"}, {"1": 101}, {"1": HUGE})
]
WRONG += [("n", v) for v in (0, -1, 65, "2", HUGE)]
WRONG += [("stream", v) for v in (1, "yes")]
WRONG += [("stream_options", v) for v in ({}, 3)]
WRONG += [("logprobs", v) for v in (True, 21, -2, "2")]
WRONG += [("draft", v) for v in ("many", 16, -1, 1.5, True)]
WRONG += [("echo", 1), ("best_of", 2), ("suffix", "end"), ("model", 3), ("ignore_eos", 1)]
WRONG += [("special", v) for v in (1, "yes", [])]
WRONG += [("response_format", v) for v in ("json", {}, {"type": "xml"}, {"type": "json_schema"})]
WRONG += [("grammar", 3), ("regex", {}), ("return_tokens", "x"), ("logit_bias", {"99999": 1})]


def _name(case) -> str:
    return f"{case[0]}-{json.dumps(case[1])[:20]}"


@pytest.mark.parametrize("case", WRONG, ids=_name)
def test_wrong_members(demo_server: Server, case):
    name, value = case
    answer = demo_server.ask(COMPLETE, {"prompt": "x", "max_tokens": 1, name: value})
    assert answer.status == 400
    error = answer.error
    assert name in error["message"]
    if value != {"99999": 1}:  # only the model knows
        assert error["param"].split(".")[0] == name


WRONG_CHATS = [
    ("messages", v)
    for v in (None, [], "x", {}, [3], [{}], [{"role": "x"}], [{"role": "user", "content": 3}])
]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": ""}}]}
WRONG_CHATS += [("messages", [{"role": "user", "content": [IMAGE]}])]
WRONG_CHATS += [("messages", [CALL, {"role": "tool", "content": [IMAGE]}])]
WRONG_CHATS += [("continue_final_message", v) for v in (True, 1, "yes")]
WRONG_CHATS += [("tools", v) for v in (3, [3], [{}], [{"type": "function"}], [{"type": "web"}])]
WRONG_CHATS += [("tool_choice", v) for v in (3, "any", "auto")]
WRONG_CHATS += [("top_logprobs", v) for v in (3, 21, "x")]
WRONG_CHATS += [("logprobs", 1), ("thinking", "yes"), ("reasoning_effort", "most")]
WRONG_CHATS += [("max_completion_tokens", -2), ("functions", []), ("function_call", "auto")]
WRONG_CHATS += [("audio", {}), ("modalities", ["audio"]), ("chat_template_kwargs", {"x": 1})]
WRONG_CHATS += [("parallel_tool_calls", 1), ("web_search_options", {})]


@pytest.mark.parametrize("case", WRONG_CHATS, ids=_name)
def test_wrong_members_of_chats(demo_server: Server, case):
    name, value = case
    answer = demo_server.ask(CHAT, {"messages": ASK, "max_tokens": 1, name: value})
    assert answer.status == 400
    assert name.split("_")[0] in answer.error["message"]


def test_unknown_members_are_refused(demo_server: Server):
    error = demo_server.ask(COMPLETE, {"prompt": "x", "temprature": 1}).error
    assert error["code"] == "unknown_parameter"
    assert error["param"] == "temprature"
    assert "did you mean temperature?" in error["message"]
    error = demo_server.ask(CHAT, {"messages": ASK, "x" * 10_000: 1}).error
    assert "--lenient" in error["message"]
    for ignored in ("user", "metadata", "store", "service_tier", "cache_prompt"):
        assert demo_server.complete("x", max_tokens=1, **{ignored: "x"})


@pytest.mark.parametrize("name", ["\n", "\x00", "", "a\u2028b", "x" * 10_000, "\U0001f600"])
def test_names_of_any_kind_are_repeated_in_one_line(demo_server: Server, name):
    for body in ({name: 1}, {"messages": [{"role": name, "content": "x"}]}):
        answer = demo_server.ask(CHAT, {"messages": ASK, **body})
        assert answer.status == 400
        assert answer.error["message"].isprintable()


def test_null_is_absent(demo_server: Server):
    body = {"prompt": "x", "max_tokens": 1, "stop": None, "temperature": None, "n": None}
    body |= {"logit_bias": None, "stream": None, "seed": None, "suffix": None, "echo": None}
    assert demo_server.ask(COMPLETE, body).status == 200


# What other servers understand, beside how it is written here.
NEUTRAL = [(name, None) for name in (
    "max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
    "presence_penalty", "frequency_penalty", "penalty_last_n", "logit_bias", "stop", "n",
    "logprobs", "draft", "ignore_eos", "response_format", "grammar", "best_of",
    "echo", "stream_options",
)]  # fmt: skip
NEUTRAL += [("top_k", 0), ("top_k", -1), ("top_p", 1), ("min_p", 0), ("penalty_last_n", -1)]
NEUTRAL += [("repetition_penalty", 1), ("presence_penalty", 0), ("frequency_penalty", 0.0)]
NEUTRAL += [("logit_bias", {}), ("logit_bias", []), ("stop", ""), ("stop", []), ("stop", [""])]
NEUTRAL += [
    ("n", 1),
    ("best_of", 1),
    ("echo", False),
    ("suffix", ""),
    ("logprobs", False),
    ("logprobs", -1),
]


@pytest.mark.parametrize("case", NEUTRAL, ids=_name)
def test_words_of_other_servers_for_none(demo_server: Server, case):
    base = {"prompt": "def f(", "max_tokens": 12, "temperature": 0.8, "seed": 5}
    expected = demo_server.ask(COMPLETE, {k: v for k, v in base.items() if k != case[0]}).json
    answer = demo_server.ask(COMPLETE, {**base, case[0]: case[1]})
    assert answer.status == 200, answer.body
    assert answer.json["choices"] == expected["choices"]


@pytest.mark.parametrize("none", [None, -1, 2**64 - 1])
def test_a_new_seed_is_told(demo_server: Server, none):
    body = {"prompt": "def f(", "max_tokens": 12, "temperature": 1}
    answers = [demo_server.complete(**body, seed=none) for _ in range(3)]
    assert len({a["gemtp_stats"]["seed"] for a in answers}) == 3
    for answer in answers:
        again = demo_server.complete(**body, seed=answer["gemtp_stats"]["seed"])
        assert again["choices"] == answer["choices"]
    for seed in (-2, 2**64 - 2):  # what comes behind it is no new one either
        pairs = [demo_server.complete(**body, seed=seed, n=3)["choices"] for _ in range(2)]
        assert pairs[0] == pairs[1]


def test_no_limit_is_the_context(demo_server: Server):
    body = {"ignore_eos": True, "logit_bias": {}}
    for answer in (
        demo_server.complete([2] * 2040, max_tokens=-1, **body),
        demo_server.chat([{"role": "user", "content": "x " * 980}], max_tokens=-1, **body),
        demo_server.chat(
            [{"role": "user", "content": "x " * 980}], max_completion_tokens=-1, **body
        ),
    ):
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["total_tokens"] == demo_server.ask("/props").json["context"]
    limited = {"messages": ASK, "max_completion_tokens": 3, "max_tokens": 9, "ignore_eos": True}
    assert demo_server.ask(CHAT, limited).json["usage"]["completion_tokens"] == 3
    limited = {"messages": ASK, "max_completion_tokens": None, "max_tokens": 9, "ignore_eos": True}
    assert demo_server.ask(CHAT, limited).json["usage"]["completion_tokens"] == 9


def test_prompts_that_do_not_fit(demo_server: Server):
    for body in ({"prompt": [2] * 3000}, {"prompt": "ab " * 3000}):
        answer = demo_server.ask(COMPLETE, body)
        assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
        streamed = demo_server.ask(COMPLETE, {**body, "stream": True})
        assert streamed.status == 400  # said before the stream begins
    hopeless = "ab " * 1_200_000
    for path, body in (
        (COMPLETE, {"prompt": hopeless}),
        (CHAT, {"messages": [*ASK, {"role": "user", "content": hopeless}]}),
    ):
        answer = demo_server.ask(path, body)
        assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
        assert "characters" in answer.error["message"]
    answer = demo_server.ask(COMPLETE, {"prompt": [2, 10**6]})
    assert answer.status == 400
    answer = demo_server.ask(COMPLETE, {"prompt": [2, -5]})
    assert answer.status == 400


def test_wrong_paths_and_methods(demo_server: Server):
    answer = demo_server.ask("/v1/embeddings", {})
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    answer = demo_server.ask(COMPLETE)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert demo_server.ask("/health", {}, method="DELETE").status == 405
    for path, body in (
        ("/tokenize", {}),
        ("/tokenize", {"content": 3}),
        ("/tokenize", {"content": "x", "more": 1}),
        ("/detokenize", {"tokens": "x"}),
        ("/detokenize", {"tokens": [1.5]}),
        ("/detokenize", {"tokens": [10**9]}),
        ("/detokenize", {"tokens": [True]}),
    ):
        assert demo_server.ask(path, body).error["type"] == "invalid_request_error"


# ---------------------------------------------------------------- the reader itself


def test_a_path_names_the_member():
    inner = Fields({"a": {"b": "x"}}).object("a")
    assert inner
    with pytest.raises(RequestError, match=r"^a\.b is \"x\"; it must be a whole number$") as e:
        inner.integer("b", 0, 1)
    assert e.value.param == "a.b"


def test_what_json_may_hold():
    text = '{"a": [1, -2.5e3, true, null, "\\ud83d\\ude00é"], "b": {"c": {}}}'
    assert parse_json(text.encode()) == json.loads(text)
    assert parse_json(b'{"a": 1e-400}') == {"a": 0.0}
