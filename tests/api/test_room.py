"""More generations than the K/V budget has room for: whole ones wait for each other."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import gemtp_native as gemtp

PROMPT = "def mean(values):\n    total = 0\n"
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
ASK = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def narrow():
    """Room for two sequences."""
    target, drafter = gemtp.demo_models()
    one = gemtp.memory_estimate(target, drafter, context=256)["kv"]
    with gemtp.Model(target, drafter=drafter, context=256, kv_budget=2 * one) as model:
        yield model


def options(i: int):
    return {"max_tokens": 20, "temperature": 1.0, "seed": i}


@pytest.fixture(scope="module")
def expected(narrow):
    return [narrow.generate(PROMPT, **options(i)).text for i in range(12)]


def test_threads(narrow, expected):
    with ThreadPoolExecutor(12) as pool:
        outs = list(pool.map(lambda i: narrow.generate(PROMPT, **options(i)), range(12)))
    assert [out.text for out in outs] == expected


def test_tasks(narrow):
    def chat(i: int):
        return narrow.chat(ASK, template=TEMPLATE, **options(i)).tokens

    async def ask(i: int):
        return (await narrow.achat(ASK, template=TEMPLATE, **options(i))).tokens

    async def all_of_them():
        return await asyncio.gather(*(ask(i) for i in range(12)))

    assert asyncio.run(all_of_them()) == [chat(i) for i in range(12)]


def test_tasks_and_threads(narrow, expected):
    async def ask(i: int) -> str:
        if i % 2:
            return (await narrow.agenerate(PROMPT, **options(i))).text
        return (await asyncio.to_thread(narrow.generate, PROMPT, **options(i))).text

    async def all_of_them():
        return await asyncio.gather(*(ask(i) for i in range(12)))

    assert asyncio.run(all_of_them()) == expected


def test_streams_do_not_wait(narrow):
    """What a caller holds open may stay so for ever."""
    streams = [narrow.stream(PROMPT, max_tokens=4) for _ in range(2)]
    for stream in streams:
        next(stream)
    with pytest.raises(gemtp.OutOfMemoryError, match="close one"):
        narrow.generate(PROMPT)
    with pytest.raises(gemtp.OutOfMemoryError):
        asyncio.run(narrow.agenerate(PROMPT))
    streams[0].close()
    assert narrow.generate(PROMPT, max_tokens=2).tokens
    streams[1].close()


def test_streams_wait_where_they_are_told_to(narrow, expected):
    def read(i: int) -> str:
        with narrow.stream(PROMPT, wait=True, **options(i)) as stream:
            return "".join(stream)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(read, range(12))) == expected


def test_a_stream_is_waited_for_although_its_thread_has_ended(narrow):
    """The system may give a new thread the ended one's id."""
    streams = []

    def begin() -> None:
        streams.append(narrow.stream(PROMPT, wait=True, max_tokens=4))
        next(streams[-1])

    for _ in range(2):
        thread = threading.Thread(target=begin)
        thread.start()
        thread.join()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(narrow.generate, PROMPT, max_tokens=2)
        time.sleep(0.2)
        assert not waiting.done()
        streams[0].close()
        assert waiting.result().tokens
    streams[1].close()


def test_who_does_not_want_to_wait_is_told_at_once(narrow):
    with narrow.stream(PROMPT, wait=True) as first, narrow.stream(PROMPT, wait=True) as second:
        next(first)
        next(second)
        sizes = r"fill the budget of 0\.\d\d MB, 0\.\d\d MB each; close one"
        with pytest.raises(gemtp.OutOfMemoryError, match=sizes):
            narrow.generate(PROMPT, wait=False)
    with pytest.raises(gemtp.ArgumentError, match="wait"):
        narrow.generate(PROMPT, wait=1)


WAITING = """
import signal, threading, time
import gemtp_native as gemtp

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
target, _ = gemtp.demo_models()
one = gemtp.memory_estimate(target, context=256)["kv"]
model = gemtp.Model(target, context=256, kv_budget=one)
held = threading.Event()

def hold():
    with model.stream("a", wait=True) as stream:
        next(stream)
        held.set()
        time.sleep(60)

threading.Thread(target=hold, daemon=True).start()
held.wait()
threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
try:
    model.generate("b")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_waiting_can_be_interrupted():
    start = time.monotonic()
    out = subprocess.run(
        [sys.executable, "-c", WAITING], capture_output=True, text=True, timeout=50
    )
    assert out.stdout == "interrupted\n", out.stderr
    assert time.monotonic() - start < 30


FORKED = """
import os, threading
import gemtp_native as gemtp

target, _ = gemtp.demo_models()
one = gemtp.memory_estimate(target, context=256)["kv"]
model = gemtp.Model(target, context=256, kv_budget=one)
stream = None

def begin():
    global stream
    stream = model.stream("a", wait=True)
    next(stream)

thread = threading.Thread(target=begin)
thread.start()
thread.join()
pid = os.fork()
if pid == 0:
    try:
        model.generate("b")
    except gemtp.OutOfMemoryError:
        os._exit(7)
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork() on this system")
def test_a_child_does_not_wait_for_threads_of_its_parent():
    out = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=50)
    assert out.stdout == "7\n", out.stderr


def test_one_within_another_does_not_wait_for_it(narrow):
    def on_prompt(done, total):
        with narrow.stream(PROMPT) as other:
            next(other)
            narrow.generate(PROMPT)

    with pytest.raises(gemtp.OutOfMemoryError):
        narrow.generate(PROMPT, on_prompt=on_prompt)


def test_a_waiting_task_can_be_cancelled(narrow):
    async def run():
        long = {"max_tokens": 200, "ignore_eos": True}
        tasks = [asyncio.create_task(narrow.agenerate(PROMPT, **long)) for _ in range(5)]
        await asyncio.sleep(0.01)
        tasks[4].cancel()
        tasks[0].cancel()
        outs = await asyncio.gather(*tasks, return_exceptions=True)
        return [type(out) for out in outs]

    cancelled, made = asyncio.CancelledError, gemtp.Output
    assert asyncio.run(run()) == [cancelled, made, made, made, cancelled]
