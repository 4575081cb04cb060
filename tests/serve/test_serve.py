"""gemtp serve: what it answers to sound requests, and that it is what the model itself says."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

import gemtp_native as gemtp
from scripted_model import ANSWER
from serving import Server, serving

PROMPT = "def read_lines(path):\n"
ASK = [{"role": "user", "content": "def read_lines(path):"}]
SAMPLED = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "seed": 11}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        },
    },
}


@pytest.fixture(scope="module")
def model():
    target, drafter = gemtp.demo_models()
    return gemtp.Model(target, drafter=drafter, threads=1, context=2048)


# ---------------------------------------------------------------- the same text everywhere


@pytest.mark.parametrize("options", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_a_completion_is_what_python_and_the_command_line_say(
    demo_server: Server, model, gemtp_main, options
):
    answer = demo_server.complete(PROMPT, max_tokens=60, **options)
    expected = model.generate(PROMPT, max_tokens=60, **options)
    text = answer["choices"][0]["text"]
    assert text == expected.text
    target, drafter = gemtp.demo_models()
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in options.items()]
    arguments = [target, PROMPT, "--drafter", drafter, "--max-tokens", 60, "--json", *flags]
    assert json.loads(gemtp_main("generate", *arguments)[1])["text"] == text
    chunks = demo_server.stream("/v1/completions", prompt=PROMPT, max_tokens=60, **options)
    assert "".join(c["choices"][0]["text"] for c in chunks) == text
    for draft in (0, 3):
        again = demo_server.complete(PROMPT, max_tokens=60, draft=draft, **options)
        assert again["choices"][0]["text"] == text


@pytest.mark.parametrize("options", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_a_chat_is_what_python_says(demo_server: Server, model, options):
    answer = demo_server.chat(ASK, max_tokens=40, **options)
    expected = model.chat(ASK, max_tokens=40, **options)
    choice = answer["choices"][0]
    assert choice["message"]["content"] == expected.content
    assert choice["finish_reason"] == expected.finish_reason
    chunks = demo_server.stream("/v1/chat/completions", messages=ASK, max_tokens=40, **options)
    deltas = [c["choices"][0]["delta"] for c in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(d.get("content", "") for d in deltas) == expected.content


def test_eight_at_once_each_get_what_they_get_alone(demo_server: Server, model):
    prompts = [f"def function_{i}(a, b):\n" for i in range(8)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(
                lambda at: demo_server.complete(prompts[at], max_tokens=80, temperature=1, seed=at),
                range(8),
            )
        )
    for at, answer in enumerate(answers):
        alone = model.generate(prompts[at], max_tokens=80, temperature=1, seed=at)
        assert answer["choices"][0]["text"] == alone.text
        assert answer["usage"]["completion_tokens"] == alone.stats.tokens


def test_n_and_several_prompts(demo_server: Server, model):
    prompts = ["import ", "class "]
    options = {"max_tokens": 20, "temperature": 1}
    answer = demo_server.complete(prompts, n=3, seed=5, **options)
    assert [c["index"] for c in answer["choices"]] == list(range(6))
    expected = [model.generate(p, seed=5 + i, **options).text for p in prompts for i in range(3)]
    assert [c["text"] for c in answer["choices"]] == expected
    usage = answer["usage"]
    assert usage["prompt_tokens"] == sum(len(model.tokenize(p)) for p in prompts)
    chunks = demo_server.stream("/v1/completions", prompt=prompts, n=3, seed=5, **options)
    texts = [""] * 6
    for c in chunks:
        for choice in c["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == expected
    assert answer["timings"]["prompt_n"] <= usage["prompt_tokens"] + 4
    chat = demo_server.chat(ASK, n=2, seed=1, **options)
    assert [c["message"]["content"] for c in chat["choices"]] == [
        model.chat(ASK, seed=1 + i, **options).content for i in range(2)
    ]


def test_prompts_of_ids(demo_server: Server, model):
    ids = model.tokenize(PROMPT)
    text = demo_server.complete(PROMPT)["choices"][0]["text"]
    assert demo_server.complete(ids)["choices"][0]["text"] == text
    assert demo_server.complete([ids])["choices"][0]["text"] == text
    assert model.generate(ids, max_tokens=16).text == text  # what OpenAI gives unasked


def test_stop(demo_server: Server, model):
    whole = model.generate(PROMPT, max_tokens=60).text
    stop = whole[20:24]
    answer = demo_server.complete(PROMPT, max_tokens=60, stop=stop)
    assert answer["choices"][0]["text"] == whole[: whole.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"
    chunks = demo_server.stream("/v1/completions", prompt=PROMPT, max_tokens=60, stop=["xyz", stop])
    assert "".join(c["choices"][0]["text"] for c in chunks) == whole[: whole.index(stop)]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_logit_bias_and_penalties(demo_server: Server, model):
    first = model.generate(PROMPT, max_tokens=1).tokens[0]
    options = {"max_tokens": 30, "presence_penalty": 0.7, "frequency_penalty": 0.2, "min_p": 0.05}
    options |= {"temperature": 0.5, "repetition_penalty": 1.1, "seed": -3}
    answer = demo_server.complete(PROMPT, logit_bias={str(first): -100}, **options)
    expected = model.generate(PROMPT, logit_bias={first: -100}, **options)
    assert answer["choices"][0]["text"] == expected.text
    assert first not in expected.tokens


def test_a_full_context_ends_an_answer(demo_server: Server):
    answer = demo_server.complete([2] * 2040, max_tokens=100, ignore_eos=True)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 2048


# ---------------------------------------------------------------- shapes


def test_the_shape_of_answers(demo_server: Server):
    answer = demo_server.complete(PROMPT, max_tokens=5, model="whatever", user="me")
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["model"] == "target"
    assert answer["choices"][0] == {
        "index": 0, "text": answer["choices"][0]["text"], "logprobs": None,
        "finish_reason": "length",
    }  # fmt: skip
    again = demo_server.complete(PROMPT, max_tokens=5)
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    chat = demo_server.chat(ASK, max_tokens=5)
    assert chat["object"] == "chat.completion"
    assert chat["choices"][0]["message"]["role"] == "assistant"


def test_usage_and_timings_of_a_stream(demo_server: Server):
    request = {"prompt": PROMPT, "max_tokens": 30}
    chunks = demo_server.stream("/v1/completions", **request)
    assert all("usage" not in c for c in chunks)
    assert [("timings" in c) for c in chunks] == [False] * (len(chunks) - 1) + [True]
    chunks = demo_server.stream(
        "/v1/completions", stream_options={"include_usage": True}, **request
    )
    assert all(c["usage"] is None for c in chunks[:-1])
    assert chunks[-1]["choices"] == []
    whole = demo_server.complete(**request)
    assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == 30
    for timings in (chunks[-1]["timings"], whole["timings"]):
        assert timings["prompt_n"] + timings["cache_n"] == whole["usage"]["prompt_tokens"]
        assert timings["predicted_n"] == 30
        assert 0 < timings["draft_n_accepted"] <= timings["draft_n"]
        assert timings["predicted_per_second"] > 0
    stats = whole["gemtp_stats"]
    assert sum(stats["depth_histogram"]) == stats["rounds"]


def test_logprobs(demo_server: Server, model):
    expected = model.generate(PROMPT, max_tokens=12, logprobs=3)
    answer = demo_server.complete(PROMPT, max_tokens=12, logprobs=3)
    got = answer["choices"][0]["logprobs"]
    assert got["token_logprobs"] == pytest.approx(expected.logprobs)
    assert "".join(got["tokens"]) == expected.text
    assert [expected.text[o:].startswith(t) for o, t in zip(got["text_offset"], got["tokens"])]  # noqa: B905
    assert [len(top) for top in got["top_logprobs"]] == [3] * 12
    chunks = demo_server.stream("/v1/completions", prompt=PROMPT, max_tokens=12, logprobs=3)
    streamed = [c["choices"][0]["logprobs"] for c in chunks if c["choices"][0]["logprobs"]]
    for name in got:
        assert [x for part in streamed for x in part[name]] == got[name]
    none = demo_server.complete(PROMPT, max_tokens=2, logprobs=0)["choices"][0]["logprobs"]
    assert none["top_logprobs"] == [None, None]

    answer = demo_server.chat(ASK, max_tokens=8, logprobs=True, top_logprobs=2)
    content = answer["choices"][0]["logprobs"]["content"]
    assert "".join(t["token"] for t in content) == answer["choices"][0]["message"]["content"]
    assert all(bytes(t["bytes"]).decode() == t["token"] for t in content)
    assert [len(t["top_logprobs"]) for t in content] == [2] * 8
    assert content[0]["logprob"] == content[0]["top_logprobs"][0]["logprob"]


def test_tokens_of_a_stream(demo_server: Server):
    request = {"prompt": PROMPT + "    with open(path)", "max_tokens": 40, "return_tokens": True}
    chunks = demo_server.stream("/v1/completions", draft=4, **request)
    prompt = [c["gemtp"]["prompt"] for c in chunks if "prompt" in c.get("gemtp", {})]
    assert prompt[-1]["done"] == prompt[-1]["total"]
    rounds = [c for c in chunks if "tokens" in c.get("gemtp", {})]
    assert [c["gemtp"]["round"] for c in rounds] == list(range(1, len(rounds) + 1))
    times = [c["gemtp"]["t"] for c in rounds]
    assert times == sorted(times)
    tokens = [t for c in rounds for t in c["gemtp"]["tokens"]]
    assert len(tokens) == 40
    for c in rounds:
        assert "".join(t["text"] for t in c["gemtp"]["tokens"]) == c["choices"][0]["text"]
        sources = [t["source"] for t in c["gemtp"]["tokens"]]
        steps = [t["step"] for t in c["gemtp"]["tokens"]]
        assert steps == [i if s != "target" else 0 for i, s in enumerate(sources, 1)]
    accepted = sum(t["source"] == "drafter" for t in tokens)
    # The round that reaches max_tokens may have more.
    assert 0 < accepted <= chunks[-1]["timings"]["draft_n_accepted"]
    drafted = sum(c["gemtp"]["drafted"] for c in rounds)
    assert drafted == chunks[-1]["timings"]["draft_n"]
    whole = demo_server.complete(**request)
    assert whole["choices"][0]["gemtp"]["tokens"][3]["id"] == tokens[3]["id"]


def test_seeds_that_nobody_names_differ(demo_server: Server):
    answers = [demo_server.complete(PROMPT, temperature=1, max_tokens=30) for _ in range(2)]
    seeds = [a["gemtp_stats"]["seed"] for a in answers]
    assert seeds[0] != seeds[1]
    again = demo_server.complete(PROMPT, temperature=1, max_tokens=30, seed=seeds[0])
    assert again["choices"][0]["text"] == answers[0]["choices"][0]["text"]


def test_a_final_message_goes_on(demo_server: Server):
    begun = [*ASK, {"role": "assistant", "content": "    return"}]
    request = {"max_tokens": 8, "temperature": 0, "seed": 1}

    def said(messages: list[dict], **more: object) -> tuple[str, int]:
        answer = demo_server.chat(messages=messages, **request, **more)
        return answer["choices"][0]["message"]["content"], answer["usage"]["prompt_tokens"]

    goes_on, length = said(begun)
    assert said(begun, continue_final_message=True, add_generation_prompt=False)[0] == goes_on
    assert said(ASK)[1] < length < said(begun, continue_final_message=False)[1]
    answer = demo_server.ask(
        "/v1/chat/completions",
        {"messages": begun, "continue_final_message": True, "add_generation_prompt": True},
    )
    assert answer.status == 400
    assert "excludes add_generation_prompt" in answer.error["message"]


# ---------------------------------------------------------------- thoughts and tools


def test_thoughts_and_calls(scripted_server: Server):
    request = {"messages": ASK, "tools": [ADD], "max_tokens": 40}
    choice = scripted_server.chat(thinking=True, **request)["choices"][0]
    message = choice["message"]
    assert message["reasoning_content"] == "add them first"
    assert message["content"] is None
    (call,) = message["tool_calls"]
    assert call["function"]["name"] == "add"
    assert json.loads(call["function"]["arguments"]) == {"a": 2, "b": 3}
    assert choice["finish_reason"] == "tool_calls"
    for switch in (
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"reasoning_effort": "high"},
    ):
        more = scripted_server.chat(**switch, **request)["choices"][0]["message"]
        assert more["reasoning_content"] == "add them first"
    plain = scripted_server.chat(**request)["choices"][0]["message"]
    assert "reasoning_content" not in plain
    assert plain["tool_calls"]

    chunks = scripted_server.stream(
        "/v1/chat/completions", thinking=True, return_tokens=True, **request
    )
    deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"]]
    assert "".join(d.get("reasoning_content", "") for d in deltas) == "add them first"
    (called,) = [d["tool_calls"] for d in deltas if "tool_calls" in d]
    assert called[0]["index"] == 0
    assert called[0]["function"] == call["function"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    tokens = [t for c in chunks for t in c.get("gemtp", {}).get("tokens", ())]
    kinds = [t["kind"] for t in tokens]
    assert re.sub(r"(.)\1*", r"\1", "".join(k[0] for k in kinds)) == "crct"
    shown = "".join(t["text"] for t in tokens if t["kind"] == "reasoning")
    assert shown == "add them first"


def test_the_answer_after_a_tool(scripted_server: Server):
    messages = [
        *ASK,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "5"},
    ]
    choice = scripted_server.chat(messages, tools=[ADD], thinking=True)["choices"][0]
    assert choice["message"]["content"] == ANSWER
    assert choice["finish_reason"] == "stop"


def test_tool_choice(scripted_server: Server):
    none = scripted_server.chat(ASK, tools=[ADD], tool_choice="none", max_tokens=9)
    auto = scripted_server.chat(ASK, tools=[ADD], tool_choice="auto", max_tokens=9)
    assert none["usage"]["prompt_tokens"] < auto["usage"]["prompt_tokens"]
    one = scripted_server.chat(ASK, tools=[ADD], parallel_tool_calls=False, max_tokens=9)
    assert one["choices"][0]["finish_reason"] == "tool_calls"
    for choice in ("required", {"type": "function", "function": {"name": "add"}}):
        asked = {"messages": ASK, "tools": [ADD], "tool_choice": choice, "max_tokens": 9}
        (answer,) = scripted_server.ask("/v1/chat/completions", asked).json["choices"]
        assert answer["finish_reason"] == "tool_calls"
        (call,) = answer["message"]["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == {"a": 2, "b": 3}
    for choice, tools in (
        ("required", None),
        ("always", [ADD]),
        ({"type": "function", "function": {"name": "subtract"}}, [ADD]),
    ):
        asked = {"messages": ASK, "tools": tools, "tool_choice": choice}
        answer = scripted_server.ask("/v1/chat/completions", asked)
        assert answer.status == 400
        assert answer.error["param"] == "tool_choice"


# ---------------------------------------------------------------- the other paths


def test_models(demo_server: Server):
    (listed,) = demo_server.ask("/v1/models").json["data"]
    assert listed["id"] == "target"
    assert demo_server.ask("/v1/models/target").json == listed
    missing = demo_server.ask("/v1/models/other")
    assert (missing.status, missing.error["code"]) == (404, "model_not_found")


def test_health_and_props(demo_server: Server):
    assert demo_server.ask("/health").json == {"status": "ok"}
    props = demo_server.ask("/props").json
    assert props["model"] == "target"
    assert props["context"] == 2048
    assert props["drafter"] is True
    assert props["chat"] is True
    assert props["mode"] == "completion"  # what the page offers first
    assert props["auth"] is False
    assert props["version"] == gemtp.__version__
    assert props["default_generation_settings"]["temperature"] == 0


def test_tokenize_and_detokenize(demo_server: Server, model):
    text = "def f(x): # é <|turn>\n"
    answer = demo_server.ask("/tokenize", {"content": text}).json
    assert answer == {"tokens": model.tokenize(text, add_bos=False), "count": len(answer["tokens"])}
    assert demo_server.ask("/detokenize", {"tokens": answer["tokens"]}).json == {"content": text}
    both = demo_server.ask(
        "/tokenize", {"content": text, "add_special": True, "parse_special": True}
    ).json
    assert both["tokens"] == model.tokenize(text, special=True)
    pieces = demo_server.ask("/tokenize", {"content": "def f", "with_pieces": True}).json["tokens"]
    assert "".join(p["piece"] for p in pieces) == "def f"


def test_control_tokens_in_a_prompt(demo_server: Server, model):
    text = "<bos><|turn>user\ndef f(x):"
    ids = model.tokenize(text, special=True)
    assert ids[0] == model.tokenize("")[0] != ids[1]
    plain = len(model.tokenize(text))
    for prompt, special, length in (
        (text, True, len(ids)),
        (text, None, plain),
        (ids, None, len(ids)),
    ):
        answer = demo_server.complete(prompt, special=special, max_tokens=12, n=2)
        assert answer["usage"]["prompt_tokens"] == length
        expected = model.generate(prompt, special=bool(special), max_tokens=12)
        assert [c["text"] for c in answer["choices"]] == [expected.text] * 2
    said = "note: the prompt spells the control token <bos>, which counts as text"
    assert demo_server.log.read_text().count(said) == 1


def test_metrics(demo_server: Server):
    before = demo_server.metric("gemtp_tokens_predicted_total")
    demo_server.complete(PROMPT, max_tokens=9)
    assert demo_server.metric("gemtp_tokens_predicted_total") == before + 9
    demo_server.wait_for("gemtp_requests_processing", 0)
    answer = demo_server.ask("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.body.decode().splitlines()
    described = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert described == {line.split()[2] for line in lines if line.startswith("# HELP")}
    for line in lines:
        if not line.startswith("#"):
            found = re.fullmatch(r'([a-z0-9_]+)(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? \S+', line)
            assert found, line
            assert re.sub(r"_(bucket|sum|count)$", "", found[1]) in described | {found[1]}
    assert 'gemtp_request_success_total{finished_reason="length"}' in answer.body.decode()


def test_the_page(demo_server: Server):
    page = demo_server.ask("/")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    again = demo_server.ask("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    head = demo_server.ask("/", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(page.body))
    for link in re.findall(rb'(?:src|href)="([^":#]+)"', page.body):
        found = demo_server.ask("/" + link.decode().lstrip("/"))
        assert found.status == 200, link
    for path in ("/../settings.py", "/%2e%2e/settings.py", "/nothing", "/index.html/.."):
        assert demo_server.ask(path).status == 404


def test_defaults_of_the_server(tmp_path, model):
    target, drafter = gemtp.demo_models()
    options = ["--drafter", drafter, "--temperature", 1, "--seed", 4, "--max-tokens", 10]
    with serving(tmp_path, target, *options, "--alias", "my/model", "--lenient") as server:
        answer = server.complete(PROMPT, max_tokens=50, unheard_of=1)
        assert answer["model"] == "my/model"
        expected = model.generate(PROMPT, max_tokens=10, temperature=1, seed=4)
        assert answer["choices"][0]["text"] == expected.text
        assert server.ask("/v1/models/my/model").status == 200
        greedy = server.complete(PROMPT, temperature=0, max_tokens=10)["choices"][0]["text"]
        assert greedy == model.generate(PROMPT, max_tokens=10).text
