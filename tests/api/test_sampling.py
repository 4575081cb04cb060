"""What is sampled follows the distribution that the parameters describe.

The expected distribution is computed here with NumPy, by sorting everything; the choices are the
core's. `python -m pytest tests/api/test_sampling.py`
"""

from __future__ import annotations

import numpy as np
import pytest

import gemtp_native as gemtp

core = pytest.importorskip("gemtp_native._core")
stats = pytest.importorskip("scipy.stats")

DRAWS = 100_000
REJECT = 1e-6


def sampling_params(**values):
    params = core.GenerationParams()
    for name, value in values.items():
        if hasattr(params, name):
            setattr(params, name, value)
        else:
            params.set(name, value)
    return params


def choose_many(logits, positions, history=(), **values):
    params = sampling_params(**values)
    return np.asarray(core.choose_many(logits, list(positions), list(history), params))


def normal_logits(size: int, spread: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, size).astype(np.float32)


def expected(
    logits,
    history=(),
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    min_p=0.0,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    penalty_last_n=-1,
    logit_bias=(),
    seed=0,
):
    """The probabilities, in double; the parameters are rounded to float as the core's are."""
    x = logits.astype(np.float64)
    if penalty_last_n >= 0:
        history = history[max(len(history) - penalty_last_n, 0) :]
    for token in set(history):
        factor = np.float64(np.float32(repetition_penalty))
        x[token] = x[token] / factor if x[token] > 0 else x[token] * factor
        x[token] -= presence_penalty + frequency_penalty * list(history).count(token)
    for token, bias in logit_bias:
        x[token] += bias
    order = np.argsort(-x, kind="stable")
    p = np.exp((x[order] - x[order[0]]) / temperature)
    if top_k:
        p[top_k:] = 0
    p /= p.sum()
    if top_p < 1:
        p[np.searchsorted(np.cumsum(p), np.float32(top_p)) + 1 :] = 0
    p[p < np.float32(min_p) * p[0]] = 0
    out = np.empty_like(p)
    out[order] = p / p.sum()
    return out


def p_value(chosen: np.ndarray, probabilities: np.ndarray) -> float:
    """Of Pearson's chi-square; 0 if something impossible was chosen."""
    counts = np.bincount(chosen, minlength=len(probabilities))
    if counts[probabilities == 0].any():
        return 0.0
    mean = probabilities * len(chosen)
    large = mean >= 5
    observed, wanted = list(counts[large]), list(mean[large])
    if mean[~large].sum() >= 5:  # the small cells together are one
        observed.append(counts[~large].sum())
        wanted.append(mean[~large].sum())
    wanted = np.array(wanted) * (np.sum(observed) / np.sum(wanted))
    return stats.chisquare(observed, wanted).pvalue


HISTORY = [7, 7, 7, 30, 30, 99, 5, 250, 251, 7, 12, 12, 13, 14, 299]

CASES = {
    "temperature 1": {},
    "temperature 0.7": {"temperature": 0.7},
    "temperature 1.5": {"temperature": 1.5},
    "top-k": {"top_k": 40},
    "top-p": {"top_p": 0.85},
    "min-p": {"min_p": 0.03},
    "top-k, top-p and min-p": {"temperature": 1.2, "top_k": 60, "top_p": 0.9, "min_p": 0.01},
    "repetition penalty": {"repetition_penalty": 1.4},
    "presence and frequency": {"presence_penalty": 0.7, "frequency_penalty": 0.4},
    "penalty window": {"frequency_penalty": -0.9, "penalty_last_n": 6},
    "bias": {"logit_bias": [(3, 2.5), (77, -float("inf")), (200, -1.0)]},
    "everything": {
        "temperature": 0.9,
        "top_k": 100,
        "top_p": 0.97,
        "min_p": 0.002,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.05,
        "logit_bias": [(3, 2.5)],
    },
}


@pytest.mark.parametrize("name", CASES)
def test_choices_follow_the_distribution(name):
    logits = normal_logits(300, 2.0)
    values = {"temperature": 1.0} | CASES[name]
    chosen = choose_many(logits, range(DRAWS), HISTORY, seed=11, **values)
    assert p_value(chosen, expected(logits, HISTORY, **values)) > REJECT


def test_seeds_are_as_random_as_positions():
    logits = normal_logits(50, 1.0)
    chosen = [choose_many(logits, [123], temperature=1.0, seed=seed)[0] for seed in range(20_000)]
    assert p_value(np.array(chosen), expected(logits)) > REJECT


@pytest.mark.parametrize(
    "wrong", [{"temperature": 1.05}, {"top_k": 250}, {"top_p": 0.98}, {"logit_bias": [(4, 1.0)]}]
)
def test_a_wrong_distribution_is_noticed(wrong):
    logits = normal_logits(300, 2.0)
    chosen = choose_many(logits, range(DRAWS), temperature=1.0)
    assert p_value(chosen, expected(logits, **({"temperature": 1.0} | wrong))) < REJECT


ROUNDS = 3000
PROMPT = "class Queue:\n    def __init__(self, items):\n"


@pytest.fixture(scope="module")
def demo():
    return gemtp.Model(*gemtp.demo_models(), threads=1, context=128)


@pytest.mark.parametrize("draft", [1, 3, "auto"])
def test_tokens_of_whole_rounds_follow_the_distribution(demo, draft):
    """Drafted, verified, accepted or not: behind the likeliest beginnings, the next token is
    distributed as the target says, over many seeds. The text goes round in a circle before that,
    so that "auto" has something to look up as well."""
    prompt = demo.tokenize(PROMPT * 2)
    answers = [
        demo.generate(
            prompt, max_tokens=4, temperature=1.0, seed=seed, draft=draft, ignore_eos=True
        )
        for seed in range(ROUNDS)
    ]
    tokens = np.array([answer.tokens for answer in answers])
    assert sum(answer.stats.accepted for answer in answers) > ROUNDS // 4
    begun = tokens
    for at in range(1, 4):
        first = np.bincount(begun[:, at - 1]).argmax()
        begun = begun[begun[:, at - 1] == first]
        if len(begun) < 300:
            break
        logits = demo.logits([*prompt, *begun[0, :at]])[-1]
        assert p_value(begun[:, at], expected(logits)) > REJECT
        assert p_value(begun[:, at], expected(logits, temperature=1.6)) < 1e-3  # it can tell
    assert at > 1


@pytest.mark.parametrize("values", [{}, {"top_p": 0.9}, {"top_k": 64, "top_p": 0.95}])
def test_a_vocabulary_of_full_size(values):
    logits = normal_logits(262_144, 2.0)
    logits[[5, 70_000, 262_143]] = [14.0, 15.0, 14.5]
    chosen = choose_many(logits, range(1000), temperature=1.0, **values)
    assert p_value(chosen, expected(logits, **values)) > REJECT


def test_a_choice_depends_on_seed_and_position_alone():
    logits = normal_logits(1000, 1.0)
    positions = np.arange(200)
    chosen = choose_many(logits, positions, temperature=1.0, seed=5)
    backwards = choose_many(logits, positions[::-1], temperature=1.0, seed=5)[::-1]
    alone = [choose_many(logits, [p], temperature=1.0, seed=5)[0] for p in positions]
    assert (chosen == backwards).all()
    assert (chosen == alone).all()
    other_seed = choose_many(logits, positions, temperature=1.0, seed=6)
    assert (chosen != other_seed).sum() > 150


def test_noise_of_a_token_does_not_depend_on_the_logits():
    """Raising the winner's logit, or lowering a loser's, leaves the winner: what makes a drafter
    that is nearly right choose the same token."""
    logits = normal_logits(1000, 1.0)
    for position in range(100):
        winner = choose_many(logits, [position], temperature=1.0)[0]
        changed = logits - np.abs(normal_logits(1000, 0.5, seed=position))
        changed[winner] = logits[winner]
        assert choose_many(changed, [position], temperature=1.0)[0] == winner


def test_temperature_zero_is_the_argmax():
    logits = normal_logits(5000, 1.0)
    assert set(choose_many(logits, range(10))) == {logits.argmax()}
    logits[[100, 40, 4000]] = 50
    assert set(choose_many(logits, range(10))) == {40}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -2),
        ("top_p", -0.1),
        ("top_p", 1.5),
        ("min_p", 1.0),
        ("min_p", -0.1),
        ("repetition_penalty", 0.0),
        ("presence_penalty", float("nan")),
        ("frequency_penalty", float("inf")),
        ("penalty_last_n", -2),
        ("logit_bias", [(10, 1.0)]),
        ("logit_bias", [(-1, 1.0)]),
        ("logit_bias", [(0, float("nan"))]),
    ],
)
def test_parameters_outside_their_domain_are_refused_by_name(name, value):
    with pytest.raises(gemtp.ArgumentError, match=f"^{name} "):
        choose_many(normal_logits(10, 1.0), [0], **{name: value})


def test_banning_every_token_is_refused():
    ban = [(token, -float("inf")) for token in range(3)]
    with pytest.raises(gemtp.ArgumentError, match="banned"):
        choose_many(np.zeros(3, np.float32), [0], logit_bias=ban)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_damaged_logits_are_an_error(bad, temperature):
    logits = normal_logits(1000, 1.0)
    logits[700] = bad
    with pytest.raises(gemtp.ModelError, match="token 700 at position 9 "):
        choose_many(logits, [9], temperature=temperature)
    with pytest.raises(gemtp.ModelError, match="no logit at position 9 is finite"):
        choose_many(np.full(5, -np.inf, np.float32), [9], temperature=temperature)
