"""A caller's function that changes logits: what it sees, what it may do, and that drafting changes
nothing about the text."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gemtp_native as gemtp
from gemtp_native import _core

PROMPT = "def mean(values):\n    total = 0\n"


@pytest.fixture(scope="module")
def model():
    target, drafter = gemtp.demo_models()
    with gemtp.Model(target, drafter=drafter, threads=2, context=512) as model:
        yield model


def even_only(tokens, logits):
    logits[1::2] = -np.inf


def depends_on_the_past(tokens, logits):
    return (
        logits
        + np.roll(logits, tokens[-1] % 7) * 0.3
        - 2.0 * np.isin(np.arange(len(logits)), tokens[-4:])
    )


@pytest.mark.parametrize("draft", ["auto", 0, 1, 7])
def test_what_it_sees(model, draft):
    prompt = model.tokenize(PROMPT)
    seen: list[list[int]] = []
    rows: list[np.ndarray] = []

    def look(tokens, logits):
        assert logits.dtype == np.float32
        seen.append(list(tokens))
        rows.append(logits)

    out = model.generate(prompt, max_tokens=24, draft=draft, ignore_eos=True, logits_processor=look)
    assert out.tokens == model.generate(prompt, max_tokens=24, ignore_eos=True).tokens
    assert seen == [prompt + out.tokens[:i] for i in range(24)]
    np.testing.assert_array_equal(rows, model.logits(prompt + out.tokens)[len(prompt) - 1 : -1])


@pytest.mark.parametrize("processor", [even_only, depends_on_the_past])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.9, "seed": 5}])
def test_drafting_changes_nothing(model, processor, options):
    def run(draft):
        return model.generate(
            PROMPT,
            max_tokens=40,
            draft=draft,
            ignore_eos=True,
            logits_processor=processor,
            **options,
        )

    plain = run(0)
    assert plain.tokens != model.generate(PROMPT, max_tokens=40, ignore_eos=True, **options).tokens
    for draft in ("auto", 2, 8):
        assert run(draft).tokens == plain.tokens
    if processor is even_only:
        assert all(t % 2 == 0 for t in plain.tokens)


def test_it_comes_before_bias_and_penalties(model):
    banned = dict.fromkeys(range(0, model.vocab_size, 2), -np.inf)
    with pytest.raises(gemtp.ArgumentError, match="every token is banned"):
        model.generate(PROMPT, logit_bias=banned, logits_processor=even_only)


def test_logprobs_are_those_of_the_model(model):
    prompt = model.tokenize(PROMPT)
    out = model.generate(prompt, max_tokens=20, logprobs=0, logits_processor=even_only)
    assert out.logprobs == list(model.score(prompt + out.tokens, len(prompt)))


def test_many_at_once(model):
    def run(i: int):
        def processor(tokens, logits):
            logits[i::8] += 4.0

        return model.generate(
            PROMPT, max_tokens=24, temperature=0.7, seed=i, logits_processor=processor
        ).tokens

    alone = [run(i) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(8))) == alone


class Broken(Exception):
    pass


def test_its_exceptions_are_the_callers(model):
    def processor(tokens, logits):
        if len(tokens) > 30:
            raise Broken("here")

    with pytest.raises(Broken, match="here"):
        model.generate(PROMPT, max_tokens=64, ignore_eos=True, logits_processor=processor)
    assert model.generate(PROMPT, max_tokens=4).tokens  # the model is as it was


def test_others_are_not_hurt_by_a_broken_one(model):
    expected = model.generate(PROMPT, max_tokens=60, ignore_eos=True).text

    def broken(_):
        def processor(tokens, logits):
            if len(tokens) > 30:
                raise Broken

        with pytest.raises(Broken):
            model.generate(PROMPT, max_tokens=60, ignore_eos=True, logits_processor=processor)

    def sound(_):
        return model.generate(PROMPT, max_tokens=60, ignore_eos=True).text

    with ThreadPoolExecutor(6) as pool:
        bad = [pool.submit(broken, i) for i in range(3)]
        good = [pool.submit(sound, i) for i in range(3)]
        assert [g.result() for g in good] == [expected] * 3
        for b in bad:
            b.result()


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (lambda x: x[:-1], "it must return None, or an array"),
        (lambda x: "text", "it must return None, or an array"),
        (lambda x: [x], "it must return None, or an array"),
        (lambda x: x * np.nan, "gave nan for token 0"),
        (lambda x: x + np.inf, "gave inf for token 0"),
        (lambda x: x - np.inf, "banned every token"),
    ],
)
def test_wrong_results(model, result, sentence):
    with pytest.raises(gemtp.ArgumentError, match=sentence):
        model.generate(PROMPT, logits_processor=lambda tokens, logits: result(logits))


def test_lists_and_doubles_are_taken(model):
    expected = model.generate(PROMPT, max_tokens=8).tokens
    for change in (list, lambda x: x.astype(np.float64)):
        out = model.generate(
            PROMPT, max_tokens=8, logits_processor=lambda _, x, change=change: change(x)
        )
        assert out.tokens == expected


def test_no_function(model):
    with pytest.raises(gemtp.ArgumentError, match="logits_processor is 5; it must be a function"):
        model.generate(PROMPT, logits_processor=5)


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model.generate("x", max_tokens=2),
        lambda model: model.logits([2, 3]),
        lambda model: model.score([2, 3, 4]),
    ],
)
def test_it_cannot_use_the_model_that_calls_it(model, use):
    def processor(tokens, logits):
        use(model)

    with pytest.raises(gemtp.ArgumentError, match="cannot use the model that is calling it"):
        model.generate(PROMPT, max_tokens=2, logits_processor=processor)


def test_an_exception_keeps_nothing_alive() -> None:
    """It knows frames that hold the generation, which has seen it."""
    model = gemtp.Model(*gemtp.demo_models()[:1], context=64, kv_budget=4_000_000)

    def bad(tokens: list[int], logits: object) -> None:
        raise ValueError("mine")

    for _ in range(100):
        with pytest.raises(ValueError, match="mine"):
            model.generate("def f(", max_tokens=4, logits_processor=bad)
    params = _core.GenerationParams()
    params.logits_processor = bad
    generation = _core.Generation(model._engine, [2, 5], params)
    with pytest.raises(ValueError, match="mine") as raised:
        generation.step()
    assert raised.value.__traceback__ is not None
    for _ in range(2):
        with pytest.raises(gemtp.ArgumentError, match="has ended the generation"):
            generation.step()
