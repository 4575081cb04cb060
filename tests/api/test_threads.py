"""Threads change when a thing is computed. Here: that they know when to stay out of the way."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time

import pytest

import gemtp_native as gemtp
from gemtp_native import _core

TARGET, DRAFTER = gemtp.demo_models()
PROMPT = "def area(self):\n"


def generate(model: gemtp.Model) -> list[int]:
    return model.generate(PROMPT, max_tokens=60, temperature=0.7, seed=3, ignore_eos=True).tokens


@pytest.fixture(scope="module")
def alone() -> list[int]:
    return generate(gemtp.Model(TARGET, drafter=DRAFTER, threads=1))


def test_default_is_within_what_the_process_may_use() -> None:
    assert 1 <= _core.default_threads() <= _core.available_cores()
    assert gemtp.system_info()["threads"] == _core.default_threads()


def test_an_idle_model_costs_nothing(alone: list[int]) -> None:
    model = gemtp.Model(TARGET, drafter=DRAFTER, threads=4)
    assert generate(model) == alone
    stream = model.stream(PROMPT, max_tokens=60)
    next(stream)
    time.sleep(0.01)
    before = time.process_time()
    time.sleep(0.3)  # in the middle of a generation, with four threads
    assert time.process_time() - before < 0.03


def test_engines_that_generate_at_once(alone: list[int]) -> None:
    models = [gemtp.Model(TARGET, drafter=DRAFTER, threads=n) for n in (2, 3, None)]
    results: list[list[int]] = []

    def work(model: gemtp.Model) -> None:
        for _ in range(3):
            results.append(generate(model))

    threads = [threading.Thread(target=work, args=(m,)) for m in models]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [alone] * 9


_inherited: gemtp.Model


def _generate_inherited(queue: multiprocessing.SimpleQueue[list[int]]) -> None:
    queue.put(generate(_inherited))


@pytest.mark.skipif(sys.platform != "linux", reason="fork")
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # of Python 3.12, about forks with threads
def test_a_forked_child_generates(alone: list[int]) -> None:
    global _inherited
    _inherited = gemtp.Model(TARGET, drafter=DRAFTER, threads=3)
    assert generate(_inherited) == alone
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_generate_inherited, args=(queue,))
    child.start()
    child.join(60)
    try:
        assert child.exitcode == 0
    finally:
        child.kill()
    assert queue.get() == alone == generate(_inherited)
