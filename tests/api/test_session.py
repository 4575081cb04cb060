"""Sessions: however a text came about, what is generated behind it has the bytes that it has behind
the same tokens given at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

import checkpoints
import gemtp_native as gemtp

PROMPT = "def mean(values):\n    total = 0\n"
OPTIONS = {"max_tokens": 40, "temperature": 0.8, "seed": 7, "ignore_eos": True}


@pytest.fixture(scope="module")
def model():
    target, drafter = gemtp.demo_models()
    with gemtp.Model(target, drafter=drafter, threads=2, context=512) as model:
        yield model


def behind(model: gemtp.Model, tokens: list[int], **changed) -> list[int]:
    """What a generation of its own gives, on an empty cache."""
    model.clear_cache()
    return model.generate(tokens, **{**OPTIONS, **changed}).tokens


def test_a_text_goes_on(model):
    with model.session() as session:
        session.append(PROMPT)
        assert session.tokens == model.tokenize(PROMPT)
        first = session.generate(**OPTIONS)
        assert first.tokens == behind(model, model.tokenize(PROMPT))
        assert first.text == model.detokenize(first.tokens)
        session.append("\n\ndef f(x):")
        assert session.tokens == (
            model.tokenize(PROMPT) + first.tokens + model.tokenize("\n\ndef f(x):", add_bos=False)
        )
        tokens = session.tokens
        second = session.generate("\n    return", **OPTIONS)
        assert second.stats.cached_tokens >= len(tokens) - 20
        assert second.tokens == behind(
            model, tokens + model.tokenize("\n    return", add_bos=False)
        )
        assert len(session) == second.stats.prompt_tokens + 40


@pytest.mark.parametrize("draft", [0, 3, 15, "auto"])
def test_cut_back_in_the_middle_of_a_round(model, draft):
    session = model.session()
    stream = session.stream(PROMPT, draft=draft, **OPTIONS)
    steps = stream.steps()
    while len(session) < 40:
        next(steps)
    session.rewind(37)
    assert stream.next_step() is None  # it has ended
    tokens = session.tokens
    assert len(tokens) == 37
    assert session.generate(draft=draft, **OPTIONS).tokens == behind(model, tokens)
    session.rewind(0)
    assert session.generate(PROMPT, **OPTIONS).tokens == behind(model, model.tokenize(PROMPT))


def test_fork_while_a_stream_is_read(model):
    session = model.session()
    whole = behind(model, model.tokenize(PROMPT))
    with session.stream(PROMPT, **OPTIONS) as stream:
        steps = stream.steps()
        while len(session) < 40:
            next(steps)
        other = session.fork()
        tokens = other.tokens
        rest = sum(steps, [])
    assert session.tokens == model.tokenize(PROMPT) + whole
    assert tokens + [t.id for t in rest] == session.tokens
    assert other.tokens == tokens
    assert other.generate(seed=8, **{k: v for k, v in OPTIONS.items() if k != "seed"}).tokens == (
        behind(model, tokens, seed=8)
    )
    assert other.cached >= len(tokens)


def test_forks_go_their_own_ways_at_once(model):
    session = model.session()
    session.append(PROMPT)
    session.generate(max_tokens=8, **{k: v for k, v in OPTIONS.items() if k != "max_tokens"})
    forks = [session.fork() for _ in range(8)]
    tokens = session.tokens
    with ThreadPoolExecutor(8) as pool:
        made = list(
            pool.map(lambda i: forks[i].generate(**{**OPTIONS, "seed": i}).tokens, range(8))
        )
    assert made == [behind(model, tokens, seed=i) for i in range(8)]
    assert len({tuple(m) for m in made}) > 1


def test_saved_and_restored(model, tmp_path):
    session = model.session()
    stream = session.stream(PROMPT, **OPTIONS)
    next(stream.steps())
    while len(session) < 40:
        next(stream.steps())
    path = tmp_path / "a session"
    session.save(path)
    tokens = session.tokens
    stream.close()
    model.clear_cache()
    restored = model.restore(path)
    assert restored.tokens == tokens
    assert restored.cached >= len(tokens) - 1
    out = restored.generate(**OPTIONS)
    assert out.stats.cached_tokens >= len(tokens) - 1
    assert out.tokens == behind(model, tokens)
    assert [p.name for p in tmp_path.iterdir()] == ["a session"]


def test_an_empty_session_is_kept_too(model, tmp_path):
    session = model.session()
    session.save(tmp_path / "empty")
    restored = model.restore(str(tmp_path / "empty"))
    assert restored.tokens == []
    assert restored.generate(PROMPT, **OPTIONS).tokens == behind(model, model.tokenize(PROMPT))


def test_damaged_and_foreign_files(model, pair, tmp_path):
    session = model.session()
    session.generate(PROMPT, **OPTIONS)
    path = tmp_path / "session"
    session.save(path)
    data = path.read_bytes()
    bad = tmp_path / "bad"
    for length in [0, 1, 7, 8, 40, len(data) // 2, len(data) - 1]:
        bad.write_bytes(data[:length])
        with pytest.raises(gemtp.FileError):
            model.restore(bad)
    for at in [0, 9, len(data) // 3, len(data) - 1]:
        bad.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises((gemtp.FileError, gemtp.ModelError)):
            model.restore(bad)
    bad.write_bytes(data + b"x")
    with pytest.raises(gemtp.FileError):
        model.restore(bad)
    with pytest.raises(gemtp.FileError):
        model.restore(tmp_path / "missing")
    with pytest.raises(gemtp.FileError):
        model.restore(tmp_path)
    with pytest.raises(gemtp.ModelError):
        foreign(pair).restore(path)
    target, drafter = gemtp.demo_models()
    with pytest.raises(gemtp.ModelError):
        gemtp.Model(target, drafter=drafter, kv_type="f32", context=512).restore(path)
    with pytest.raises(gemtp.ContextError):
        gemtp.Model(target, drafter=drafter, context=32).restore(path)


def foreign(pair: checkpoints.Pair) -> gemtp.Model:
    return gemtp.Model(pair.target, threads=1, context=512)


def test_saving_where_nothing_can_be_written(model, tmp_path):
    session = model.session()
    session.append(PROMPT)
    with pytest.raises(gemtp.FileError):
        session.save(tmp_path / "no" / "folder")
    with pytest.raises(gemtp.FileError):
        session.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(gemtp.FileError, match="is not a file"):
        session.save(pipe)
    with pytest.raises(gemtp.FileError, match="is a pipe"):
        model.restore(pipe)
    assert [p.is_fifo() for p in tmp_path.iterdir()] == [True]


def test_wrong_use(model):
    session = model.session()
    with pytest.raises(gemtp.ArgumentError):
        session.generate()  # of nothing
    session.append(PROMPT)
    length = len(session)
    for at in (-1, length + 1):
        with pytest.raises(gemtp.ArgumentError, match=f"cannot rewind to {at} tokens"):
            session.rewind(at)
    with pytest.raises(gemtp.ArgumentError):
        session.append([model.vocab_size])
    with pytest.raises(gemtp.ContextError):
        session.append([5] * 512)
    with pytest.raises(gemtp.ArgumentError):
        session.generate("more", draft=99)
    assert len(session) == length
    session.close()
    session.close()
    for use in (session.generate, session.fork, lambda: session.append("x"), lambda: len(session)):
        with pytest.raises(gemtp.ArgumentError, match="the session is closed"):
            use()


def test_a_new_stream_ends_the_one_before(model):
    session = model.session()
    first = session.stream(PROMPT, **OPTIONS)
    next(first)
    tokens = session.tokens
    second = session.stream(**OPTIONS)
    assert list(first) == []
    assert "".join(second) == model.detokenize(session.tokens[len(tokens) :])
    assert session.tokens[len(tokens) :] == behind(model, tokens)
