"""Streams under asyncio: the same text, other tasks go on, and cancelling a task stops the work."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import gemtp_native as gemtp

PROMPT = "def mean(values):\n    total = 0\n"
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
ASK = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def model():
    target, drafter = gemtp.demo_models()
    with gemtp.Model(target, drafter=drafter, threads=2, context=4096) as model:
        yield model


def test_pieces(model):
    async def read():
        async with model.stream(PROMPT, max_tokens=40) as stream:
            pieces = [piece async for piece in stream]
        return pieces, stream

    pieces, stream = asyncio.run(read())
    assert pieces == list(model.stream(PROMPT, max_tokens=40))
    assert stream.finish_reason == "length"
    assert stream.stats.tokens == 40


def test_steps(model):
    async def read():
        stream = model.stream(PROMPT, max_tokens=40, logprobs=1)
        return [token async for step in stream.asteps() for token in step]

    tokens = asyncio.run(read())
    out = model.generate(PROMPT, max_tokens=40, logprobs=1)
    assert [t.id for t in tokens] == out.tokens
    assert [t.logprob for t in tokens] == out.logprobs


def test_whole_answers(model):
    options = {"max_tokens": 30, "temperature": 0.7, "seed": 2}

    async def ask():
        return (
            await model.agenerate(PROMPT, **options),
            await model.achat(ASK, template=TEMPLATE, **options),
        )

    out, reply = asyncio.run(ask())
    assert out.tokens == model.generate(PROMPT, **options).tokens
    assert reply.tokens == model.chat(ASK, template=TEMPLATE, **options).tokens


def test_many_tasks_share_the_model(model):
    async def ask():
        return await asyncio.gather(
            *(
                model.agenerate(f"{PROMPT}# {i}\n", max_tokens=30, temperature=1.0, seed=i)
                for i in range(24)
            )
        )

    together = asyncio.run(ask())
    alone = [
        model.generate(f"{PROMPT}# {i}\n", max_tokens=30, temperature=1.0, seed=i).text
        for i in range(24)
    ]
    assert [out.text for out in together] == alone


def test_the_loop_stays_free(model):
    async def run():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        task = asyncio.create_task(tick())
        await model.agenerate(PROMPT, max_tokens=400, ignore_eos=True)
        task.cancel()
        return ticks

    assert asyncio.run(run()) > 10


@pytest.mark.parametrize("chat", [False, True])
def test_cancelling_the_task_stops_the_work(model, chat):
    async def run():
        if chat:
            stream = model.chat_stream(
                ASK, template=TEMPLATE, max_tokens=3900, ignore_eos=True, temperature=1.0
            )
        else:
            stream = model.stream(PROMPT, max_tokens=3900, ignore_eos=True)
        begun = asyncio.Event()

        async def read():
            async for _ in stream:
                begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        start = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - start < 1  # it takes milliseconds
        return stream

    stream = asyncio.run(run())
    assert stream.finish_reason in ("cancelled", "unfinished")
    count = len(stream.tokens)
    time.sleep(0.05)
    assert 0 < len(stream.tokens) == count < 3900
    assert not [t for t in threading.enumerate() if t.name.startswith("gemtp-stream")]


def test_cancelling_within_a_prompt(model):
    model.clear_cache()

    async def run():
        begun = asyncio.Event()
        stream = model.stream(PROMPT * 150, on_prompt=lambda done, total: begun.set())
        task = asyncio.create_task(anext(stream))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return stream

    assert asyncio.run(run()).tokens == []


def test_a_timeout(model):
    async def run():
        await asyncio.wait_for(
            model.agenerate(PROMPT, max_tokens=3900, ignore_eos=True), timeout=0.05
        )

    with pytest.raises((asyncio.TimeoutError, TimeoutError)):
        asyncio.run(run())
    assert model.generate(PROMPT, max_tokens=3).tokens


def test_cancel_from_another_task(model):
    async def run():
        stream = model.stream(PROMPT, max_tokens=3900, ignore_eos=True)

        async def read():
            async for _ in stream:
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.02)
        stream.cancel()
        with pytest.raises(gemtp.CancelledError):
            await task

    asyncio.run(run())


def test_errors_arrive(model):
    def processor(tokens, logits):
        raise KeyError("mine")

    async def run():
        await model.agenerate(PROMPT, logits_processor=processor)

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(run())


def test_a_session(model):
    async def run():
        session = model.session()
        async for _ in session.stream(PROMPT, max_tokens=20, ignore_eos=True):
            pass
        return session.tokens

    tokens = asyncio.run(run())
    expected = model.generate(PROMPT, max_tokens=20, ignore_eos=True).tokens
    assert tokens == model.tokenize(PROMPT) + expected
