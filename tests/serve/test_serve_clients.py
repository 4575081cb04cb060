"""gemtp serve as other programs use it, unchanged: the official openai client, curl, an agent."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_serve import ADD, ASK, PROMPT

import gemtp_native as gemtp
from scripted_model import ANSWER
from serving import Server, events

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def client(demo_server: Server):
    with openai.OpenAI(base_url=f"{demo_server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def model():
    target, drafter = gemtp.demo_models()
    return gemtp.Model(target, drafter=drafter, threads=1, context=2048)


# ---------------------------------------------------------------- openai


def test_openai_completions(client, model):
    request = {"model": "target", "prompt": PROMPT, "max_tokens": 50, "seed": 3}
    whole = client.completions.create(temperature=0.7, **request)
    expected = model.generate(PROMPT, max_tokens=50, temperature=0.7, seed=3)
    assert whole.choices[0].text == expected.text
    assert whole.usage.completion_tokens == 50
    stream = client.completions.create(temperature=0.7, stream=True, logprobs=2, **request)
    chunks = list(stream)
    assert "".join(c.choices[0].text for c in chunks) == expected.text
    assert chunks[-1].choices[0].finish_reason == "length"
    assert chunks[1].choices[0].logprobs.tokens


def test_openai_chats(client, model):
    request = {"model": "target", "messages": ASK, "max_completion_tokens": 40, "temperature": 0}
    expected = model.chat(ASK, max_tokens=40).content
    whole = client.chat.completions.create(logprobs=True, top_logprobs=3, **request)
    assert whole.choices[0].message.content == expected
    assert whole.choices[0].finish_reason == "length"
    first = whole.choices[0].logprobs.content[0]
    assert (len(first.top_logprobs), first.logprob) == (3, first.top_logprobs[0].logprob)
    stream = client.chat.completions.create(
        stream=True, stream_options={"include_usage": True}, n=2, **request
    )
    texts = ["", ""]
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [expected] * 2
    assert chunk.usage.completion_tokens == 80
    assert chunk.usage.prompt_tokens_details.cached_tokens >= 0
    stop = expected[20:24]
    with client.chat.completions.stream(stop=stop, **request) as helper:  # accumulates by itself
        for _ in helper:
            pass
        message = helper.get_final_completion().choices[0].message
        assert message.content == expected[: expected.index(stop)]


def test_openai_at_once(demo_server: Server, model):
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{demo_server.url}/v1", api_key="x") as client:

            async def one(i: int) -> str:
                stream = await client.completions.create(
                    model="", prompt=f"x{i} = ", max_tokens=30, stream=True, temperature=1, seed=i
                )
                return "".join([c.choices[0].text async for c in stream])

            return list(await asyncio.gather(*(one(i) for i in range(8))))

    expected = [
        model.generate(f"x{i} = ", max_tokens=30, temperature=1, seed=i).text for i in range(8)
    ]
    assert asyncio.run(ask()) == expected


def test_openai_errors_and_models(client):
    assert [m.id for m in client.models.list()] == ["target"]
    assert client.models.retrieve("target").owned_by == "gemtp"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")
    with pytest.raises(openai.BadRequestError, match="temperature is -1") as e:
        client.chat.completions.create(model="x", messages=ASK, temperature=-1)
    assert (e.value.param, e.value.code) == ("temperature", "invalid_value")
    with pytest.raises(openai.BadRequestError) as e:
        client.completions.create(model="x", prompt="ab " * 4000)
    assert e.value.code == "context_length_exceeded"


def test_a_stream_that_is_left(client, demo_server: Server):
    stream = client.completions.create(
        model="x", prompt="def f(x):\n", max_tokens=2000, stream=True,
        extra_body={"ignore_eos": True, "draft": 0},
    )  # fmt: skip
    next(iter(stream))
    stream.close()
    assert demo_server.wait_for("gemtp_requests_processing", 0) < 1


# ---------------------------------------------------------------- an agent


def agent(client, question: str, tools: dict) -> list[dict]:
    """Asks, runs what is called, and asks again, until there is an answer: the usual loop."""
    messages: list = [{"role": "user", "content": question}]
    for _ in range(5):
        reply = client.chat.completions.create(
            model="any", messages=messages, tools=[ADD], reasoning_effort="low"
        )
        message = reply.choices[0].message
        messages.append(message)
        if reply.choices[0].finish_reason != "tool_calls":
            return messages
        for call in message.tool_calls:
            result = tools[call.function.name](**json.loads(call.function.arguments))
            messages.append(
                {"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)}
            )
    raise AssertionError("it never answers")


def test_an_agent(scripted_server: Server):
    seen = []

    def add(a: int, b: int) -> int:
        seen.append((a, b))
        return a + b

    url = f"{scripted_server.url}/v1"
    with openai.OpenAI(base_url=url, api_key="x", max_retries=0) as client:
        messages = agent(client, "what is two and three", {"add": add})
    assert seen == [(2, 3)]
    assert messages[-1].content == ANSWER
    assert [m["role"] if isinstance(m, dict) else m.role for m in messages] == [
        "user", "assistant", "tool", "assistant",
    ]  # fmt: skip


def test_calls_of_a_stream_add_up(scripted_server: Server):
    with (
        openai.OpenAI(base_url=f"{scripted_server.url}/v1", api_key="x") as client,
        client.chat.completions.stream(model="any", messages=ASK, tools=[ADD]) as stream,
    ):
        for _ in stream:
            pass
        message = stream.get_final_completion().choices[0].message
    (call,) = message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("add", {"a": 2, "b": 3})


# ---------------------------------------------------------------- curl


def curl(*arguments: str, data: str | None = None) -> str:
    if shutil.which("curl") is None:
        pytest.skip("curl is not here")
    command = ["curl", "--silent", "--show-error", "--max-time", "30", *arguments]
    if data is not None:
        command += ["--header", "Content-Type: application/json", "--data", data]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def test_curl(demo_server: Server, model):
    request = {"prompt": PROMPT, "max_tokens": 30}
    expected = model.generate(PROMPT, max_tokens=30).text
    url = f"{demo_server.url}/v1/completions"
    assert json.loads(curl(url, data=json.dumps(request)))["choices"][0]["text"] == expected
    streamed = curl("--no-buffer", url, data=json.dumps({**request, "stream": True}))
    pieces = [json.loads(line) for line in events(streamed.encode())[:-1]]
    assert "".join(p["choices"][0]["text"] for p in pieces) == expected
    status = ["--output", "/dev/null", "--write-out", "%{http_code}"]
    assert curl(*status, url, data="{") == "400"
    large = json.dumps({"prompt": "x" * 2_000_000})  # curl asks whether to go on first
    assert curl(*status, "--data-binary", large[:100_000], url) == "400"
    assert json.loads(curl(f"{demo_server.url}/health")) == {"status": "ok"}


# ---------------------------------------------------------------- the manual


def test_examples_of_the_manual(demo_server: Server, capsys):
    text = (Path(__file__).parent.parent.parent / "docs" / "serve.md").read_text("utf-8")
    examples = re.findall(r"^```(sh|python)\n(.*?)^```", text, re.M | re.S)
    ran = 0
    for language, code in examples:
        here = code.replace("http://localhost:8080", demo_server.url)
        if here == code:
            continue
        ran += 1
        if language == "python":
            exec(here, {})  # our own text
            assert capsys.readouterr().out
        elif shutil.which("curl"):
            done = subprocess.run(here, shell=True, capture_output=True, text=True, check=True)
            assert '"choices"' in done.stdout
    assert ran == 3
