"""Cancelling: from any thread, in every state, and with nothing lost for others."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import gemtp_native as gemtp

PROMPT = "def mean(values):\n    total = 0\n"
LONG = PROMPT * 150  # some thousand tokens


@pytest.fixture(scope="module")
def model():
    target, drafter = gemtp.demo_models()
    with gemtp.Model(target, drafter=drafter, threads=2, context=4096) as model:
        yield model


def test_before_the_first_step(model):
    stream = model.stream(PROMPT)
    stream.cancel()
    with pytest.raises(gemtp.CancelledError):
        next(stream)
    assert stream.finish_reason == "cancelled"
    assert list(stream) == []


def test_between_two_pieces(model):
    stream = model.stream(PROMPT, ignore_eos=True)
    text = next(stream)
    stream.cancel()
    stream.cancel()
    with pytest.raises(gemtp.CancelledError, match="the generation was cancelled"):
        list(stream)
    assert stream.finish_reason == "cancelled"
    whole = model.generate(PROMPT, ignore_eos=True).text
    assert whole.startswith(text)


def test_after_the_end(model):
    stream = model.stream(PROMPT, max_tokens=4)
    text = "".join(stream)
    stream.cancel()
    assert (stream.finish_reason, text) == ("length", model.generate(PROMPT, max_tokens=4).text)
    stream = model.stream(PROMPT, max_tokens=0)
    stream.cancel()
    assert (list(stream), stream.finish_reason) == ([], "length")


def test_within_a_prompt(model):
    """On another thread, as soon as the first part of the prompt has been read."""
    model.clear_cache()
    ids = model.tokenize(LONG)
    assert len(ids) > 1500
    begun = threading.Event()
    stream = model.stream(ids, on_prompt=lambda done, total: begun.set())
    cancelled_at = []

    def cancel():
        begun.wait()
        cancelled_at.append(time.monotonic())
        stream.cancel()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(cancel)
        with pytest.raises(gemtp.CancelledError):
            next(stream)
    assert time.monotonic() - cancelled_at[0] < 1  # it takes milliseconds
    assert stream.tokens == []
    assert model.generate(ids, max_tokens=8).text == fresh(model, ids)


def fresh(model, ids):
    model.clear_cache()
    return model.generate(ids, max_tokens=8).text


def test_what_was_read_of_a_prompt_is_not_read_again(model):
    model.clear_cache()
    ids = model.tokenize(LONG)
    stream = model.stream(ids, on_prompt=lambda done, total: stream.cancel())
    with pytest.raises(gemtp.CancelledError):
        next(stream)
    assert 0 < model.generate(ids, max_tokens=1).stats.cached_tokens < len(ids)


def test_closing_on_another_thread(model):
    stream = model.stream(PROMPT, max_tokens=2000, ignore_eos=True)
    begun = threading.Event()

    def close():
        begun.wait()
        stream.close()

    with ThreadPoolExecutor(1) as pool:
        closed = pool.submit(close)
        try:
            for _ in stream:
                begun.set()
        except gemtp.CancelledError:
            pass
        closed.result()
    assert list(stream) == []
    assert len(stream.tokens) < 2000


def test_eight_at_once_some_of_them_cancelled(model):
    """Each that is not cancelled gives its own bytes alone; each that is, a beginning of them."""

    def options(i):
        return {"max_tokens": 60, "temperature": 0.9, "seed": i, "ignore_eos": True}

    prompts = [PROMPT + f"# {i}\n" + (LONG if i % 3 == 0 else "") for i in range(8)]
    alone = [model.generate(p, **options(i)).text for i, p in enumerate(prompts)]
    for delay in (0.0, 0.003, 0.02, 0.08):
        streams = [model.stream(p, **options(i)) for i, p in enumerate(prompts)]

        def read(i, streams=streams):
            text = ""
            try:
                for piece in streams[i]:
                    text += piece
            except gemtp.CancelledError:
                assert streams[i].finish_reason == "cancelled"
            return text

        with ThreadPoolExecutor(8) as pool:
            texts = [pool.submit(read, i) for i in range(8)]
            for i in (0, 1, 5):
                time.sleep(delay)
                streams[i].cancel()
        for i, text in enumerate(texts):
            if i in (0, 1, 5):
                assert alone[i].startswith(text.result())
            else:
                assert text.result() == alone[i]
                assert streams[i].finish_reason == "length"


def test_two_threads_at_one_stream_are_refused_not_mixed(model):
    core = model.stream(PROMPT, max_tokens=300, ignore_eos=True)._generation
    errors = []

    def step():
        try:
            while not core.done:
                core.step()
        except gemtp.ArgumentError as e:
            errors.append(str(e))

    threads = [threading.Thread(target=step) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all("another thread is at work with this generation" in e for e in errors)
    assert errors


def test_a_session_that_another_thread_saves(model, tmp_path):
    session = model.session()
    session.generate("def f(", max_tokens=300, ignore_eos=True)
    said, stop = set(), False

    def save() -> None:
        while not stop:
            session.save(tmp_path / "session")

    thread = threading.Thread(target=save)
    thread.start()
    try:
        end = time.monotonic() + 20
        while not said and time.monotonic() < end:
            try:
                assert len(session.tokens) > 300
            except gemtp.ArgumentError as e:
                said.add(str(e))
    finally:
        stop = True
        thread.join()
    assert said == {"another thread is at work with this session; only cancel() is for any thread"}
    assert model.restore(tmp_path / "session").tokens == session.tokens


def test_cancelling_a_session_keeps_what_was_generated(model):
    session = model.session()
    stream = session.stream(PROMPT, max_tokens=100, ignore_eos=True)
    steps = stream.steps()
    next(steps)
    next(steps)
    tokens = session.tokens
    stream.cancel()
    with pytest.raises(gemtp.CancelledError):
        next(steps)
    assert session.tokens == tokens
    expected = model.generate(tokens, max_tokens=20, ignore_eos=True).tokens
    assert session.generate(max_tokens=20, ignore_eos=True).tokens == expected


def test_chats(model):
    ask = [{"role": "user", "content": "hello"}]
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    stream = model.chat_stream(ask, template=template, max_tokens=100, ignore_eos=True)
    next(stream)
    stream.cancel()
    with pytest.raises(gemtp.CancelledError):
        for _ in stream:
            pass
    assert stream.finish_reason == "cancelled"


# ---------------------------------------------------------------- the model's own end


def test_a_model_is_closed(tmp_path):
    target, drafter = gemtp.demo_models()
    with gemtp.Model(target, drafter=drafter, context=512) as model:
        text = model.generate(PROMPT, max_tokens=4).text
        stream = model.stream(PROMPT, max_tokens=100, ignore_eos=True)
        next(stream)
        session = model.session()
        session.append(PROMPT)
    assert text
    assert list(stream) == []
    uses = [
        lambda: model.generate(PROMPT),
        lambda: model.stream(PROMPT),
        lambda: model.chat([{"role": "user", "content": "x"}]),
        lambda: model.tokenize("x"),
        lambda: model.logits([1]),
        lambda: model.context,
        lambda: model.clear_cache(),
        lambda: model.session(),
        lambda: model.restore(tmp_path / "x"),
        lambda: model.draft([1, 2], 1),
    ]
    for use in uses:
        with pytest.raises(gemtp.ArgumentError, match="the model is closed; open it again"):
            use()
    with pytest.raises(gemtp.ArgumentError, match="the session is closed"):
        session.generate()
    model.close()


def test_closing_a_model_ends_what_other_threads_generate():
    target, drafter = gemtp.demo_models()
    model = gemtp.Model(target, drafter=drafter, context=4096)
    begun = threading.Event()

    def read():
        for _ in model.stream(PROMPT, max_tokens=4000, ignore_eos=True):
            begun.set()

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        begun.wait()
        model.close()
        with pytest.raises(gemtp.CancelledError):
            reading.result()


# ---------------------------------------------------------------- how far a prompt is


def test_on_prompt(model):
    model.clear_cache()
    ids = model.tokenize(LONG)
    seen = []
    model.generate(ids, max_tokens=2, on_prompt=lambda done, total: seen.append((done, total)))
    assert len(seen) > 1
    assert seen == sorted(set(seen))
    assert seen[-1] == (len(ids), len(ids))
    assert {total for _, total in seen} == {len(ids)}
    seen.clear()
    model.generate(ids, max_tokens=2, on_prompt=lambda done, total: seen.append((done, total)))
    assert seen == [(len(ids), len(ids))]  # all of it was cached


def test_an_on_prompt_that_fails(model):
    stream = model.stream(LONG, on_prompt=lambda done, total: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        next(stream)
    assert list(stream) == []
    with pytest.raises(gemtp.ArgumentError, match="on_prompt is 3; it must be a function"):
        model.stream(PROMPT, on_prompt=3)


# ---------------------------------------------------------------- opening


def test_progress():
    target, drafter = gemtp.demo_models()
    seen = []
    gemtp.Model(target, drafter=drafter, context=64, progress=seen.append)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 1.0)
    with pytest.raises(gemtp.CancelledError, match="cancelled"):
        gemtp.Model(target, drafter=drafter, context=64, progress=lambda done: done < 0.5)
    with pytest.raises(ZeroDivisionError):
        gemtp.Model(target, context=64, progress=lambda done: 1 // 0)
    with pytest.raises(gemtp.ArgumentError, match="progress is 1; it must be a function"):
        gemtp.Model(target, context=64, progress=1)
