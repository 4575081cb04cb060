"""Log-probabilities of generated tokens: those of the target's own logits, whatever is drafted,
chosen, masked or run beside them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gemtp_native as gemtp

PROMPT = "def mean(values):\n    total = 0\n"
SAMPLINGS = {
    "greedy": {},
    "sampled": {"temperature": 1.0, "seed": 3},
    "changed": {
        "temperature": 0.8,
        "seed": 4,
        "top_k": 20,
        "repetition_penalty": 1.3,
        "logit_bias": {10: 3.0},
    },
}


@pytest.fixture(scope="module")
def model():
    target, drafter = gemtp.demo_models()
    with gemtp.Model(target, drafter=drafter, threads=2, context=512) as model:
        yield model


def log_softmax(logits: np.ndarray) -> np.ndarray:
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def expected(model: gemtp.Model, prompt: list[int], tokens: list[int]) -> np.ndarray:
    """[tokens, vocab]"""
    return log_softmax(model.logits(prompt + tokens))[len(prompt) - 1 : -1]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("draft", ["auto", 0, 5])
def test_they_are_the_log_softmax_of_the_logits(model, sampling, draft):
    prompt = model.tokenize(PROMPT)
    options = {"max_tokens": 40, "ignore_eos": True, "draft": draft, **SAMPLINGS[sampling]}
    out = model.generate(prompt, logprobs=5, **options)
    assert out.tokens == model.generate(prompt, **options).tokens
    reference = expected(model, prompt, out.tokens)
    chosen = reference[np.arange(len(out.tokens)), out.tokens]
    np.testing.assert_allclose(out.logprobs, chosen, rtol=0, atol=1e-12)
    for row, top in zip(reference, out.top_logprobs, strict=True):
        order = sorted(range(len(row)), key=lambda i: (-row[i], i))[:5]
        assert [id for id, _ in top] == order
        np.testing.assert_allclose([x for _, x in top], row[order], rtol=0, atol=1e-12)


def test_they_agree_with_score(model):
    prompt = model.tokenize(PROMPT)
    out = model.generate(prompt, max_tokens=30, logprobs=0)
    assert out.logprobs == list(model.score(prompt + out.tokens, len(prompt)))


def test_same_bits_with_and_without_drafting_and_in_company(model):
    def run(seed: int, draft: gemtp.arguments.Draft):
        return model.generate(
            f"{PROMPT}# {seed}\n",
            max_tokens=48,
            logprobs=3,
            draft=draft,
            temperature=0.9,
            seed=seed,
            ignore_eos=True,
        )

    alone = [run(seed, 0) for seed in range(8)]
    for draft in ("auto", 3):
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda seed, d=draft: run(seed, d), range(8)))
        for a, b in zip(alone, together, strict=True):
            assert (a.text, a.logprobs, a.top_logprobs) == (b.text, b.logprobs, b.top_logprobs)


def test_tokens_of_a_stream_carry_them(model):
    with model.stream(PROMPT, max_tokens=12, logprobs=2) as stream:
        tokens = [token for step in stream.steps() for token in step]
        assert all(t.logprob <= 0 and len(t.top_logprobs) == 2 for t in tokens)
        assert all(t.logprob == t.top_logprobs[0][1] for t in tokens)  # greedy
    with model.stream(PROMPT, max_tokens=4) as stream:
        tokens = [token for step in stream.steps() for token in step]
        assert all(t.logprob is None and t.top_logprobs == [] for t in tokens)


def test_none_are_given_unless_asked_for(model):
    out = model.generate(PROMPT, max_tokens=4)
    assert (out.logprobs, out.top_logprobs) == ([], [])
    out = model.generate(PROMPT, max_tokens=4, logprobs=0)
    assert len(out.logprobs) == 4
    assert out.top_logprobs == [[]] * 4


@pytest.mark.parametrize("count", [-2, 21, 1.5, "3"])
def test_wrong_counts(model, count):
    with pytest.raises(gemtp.ArgumentError, match="logprobs is"):
        model.stream(PROMPT, logprobs=count)
