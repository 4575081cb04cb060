"""The promise, as equality of bytes: what is generated depends on weights, prompt, sampling
parameters and seed, and on nothing else.

Two kinds of pairs: random ones, whose drafters are practically never right, and "agreeing" ones,
whose rounds accept none, some or all of their drafts.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import checkpoints
import gemtp_native as gemtp

TYPES = ("f32", "q8_0", "q4_0")
DEPTHS = (0, 1, 2, 3, 5, 8, 15, "auto")
THREADS = (1, 2)
CHUNKS = (1, 7, 64, 512)
SAMPLINGS = {
    "greedy": {},
    "temperature 1": {"temperature": 1.0, "seed": 11},
    "filtered": {
        "temperature": 0.7,
        "seed": 12,
        "top_k": 40,
        "top_p": 0.95,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.1,
    },
}
CONTEXT = 256
PROMPT = 70  # longer than every window and than one chunk of 64
NEW = 64  # several windows more


class Pairs:
    """Converts each pair once; opens models on them."""

    def __init__(self, root):
        self._root = root
        self._files: dict[tuple[str, str, str], checkpoints.Pair] = {}

    def files(self, arch: str, outtype: str, kind: str = "agreeing") -> checkpoints.Pair:
        key = (arch, outtype, kind)
        if key not in self._files:
            folder = self._root / f"{arch}-{kind}"
            if not folder.exists():
                make = checkpoints.agreeing if kind == "agreeing" else checkpoints.committed
                make(arch, folder)
            self._files[key] = checkpoints.to_gguf(folder, folder / "gguf", outtype)
        return self._files[key]

    def model(self, arch: str, outtype: str, kind: str = "agreeing", **options) -> gemtp.Model:
        files = self.files(arch, outtype, kind)
        options = {"threads": 1, "context": CONTEXT} | options
        return gemtp.Model(files.target, drafter=files.drafter, **options)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    return Pairs(tmp_path_factory.mktemp("pairs"))


def generate(model: gemtp.Model, prompt: list[int], draft, max_tokens: int = NEW, **sampling):
    """An Output whose figures are sane."""
    out = model.generate(prompt, max_tokens=max_tokens, draft=draft, ignore_eos=True, **sampling)
    stats = out.stats
    assert len(out.tokens) == max_tokens
    assert stats.tokens == max_tokens
    assert stats.prompt_tokens == len(prompt)
    assert 0 <= stats.accepted <= stats.drafted
    # The first token comes from the prompt's last row, every round brings one of its own, and
    # accepted drafts are the rest: rejected ones count nowhere.
    assert stats.tokens == 1 + stats.rounds + stats.accepted
    if draft != "auto":  # which may find that drafting does not pay
        assert (stats.drafted == 0) == (draft == 0)
    return out


@pytest.fixture(scope="module", params=list(itertools.product(checkpoints.ARCHITECTURES, TYPES)))
def grid(request, pairs):
    """(plain model, {(threads, chunk): model}, prompts) of one architecture and type."""
    arch, outtype = request.param
    models = {
        (threads, chunk): pairs.model(arch, outtype, threads=threads, prefill_chunk=chunk)
        for threads, chunk in itertools.product(THREADS, CHUNKS)
    }
    prompts = [checkpoints.random_prompt(arch, PROMPT, seed) for seed in (1, 2)]
    return pairs.model(arch, outtype), models, prompts


VARIANTS = list(itertools.product(THREADS, CHUNKS, DEPTHS))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_tokens_do_not_depend_on_depth_threads_or_chunks(grid, sampling):
    plain, models, prompts = grid
    options = SAMPLINGS[sampling]
    expected = [generate(plain, prompt, 0, **options).tokens for prompt in prompts]
    assert expected[0] != expected[1]
    for (threads, chunk, depth), i in zip(VARIANTS, itertools.cycle((0, 1)), strict=False):
        model = models[threads, chunk]
        model.clear_cache()
        out = generate(model, prompts[i], depth, **options)
        assert out.tokens == expected[i], f"threads {threads}, chunk {chunk}, depth {depth}"
        assert out.stats.cached_tokens == 0  # the prompt was run in chunks


@pytest.mark.parametrize("arch", checkpoints.ARCHITECTURES)
def test_tokens_do_not_depend_on_a_drafter_that_is_wrong(pairs, arch):
    prompt = checkpoints.random_prompt(arch, PROMPT, 3)
    for sampling in SAMPLINGS.values():
        files = pairs.files(arch, "q8_0", "committed")
        alone = gemtp.Model(files.target, threads=1, context=CONTEXT)
        expected = generate(alone, prompt, 0, **sampling).tokens
        model = pairs.model(arch, "q8_0", "committed")
        for depth in ("auto", 1, 4, 15):
            out = generate(model, prompt, depth, **sampling)
            assert out.tokens == expected
            if depth != "auto":
                assert out.stats.accepted < out.stats.drafted / 2


@pytest.mark.parametrize("arch", checkpoints.ARCHITECTURES)
def test_tokens_do_not_depend_on_what_is_looked_up(pairs, arch):
    """With and without a drafter, in prompts that repeat themselves."""
    files = pairs.files(arch, "q8_0")
    both = pairs.model(arch, "q8_0", context=512)
    alone = gemtp.Model(files.target, threads=1, context=512)
    lookups = accepted = 0
    for seed, (name, sampling) in enumerate(SAMPLINGS.items()):
        text = checkpoints.random_prompt(arch, 40, 20 + seed)
        continued = text + generate(alone, text, 0, **sampling).tokens
        # What follows the repetition is what followed it before: often, when greedy.
        prompt = continued + continued[:41]
        expected = generate(alone, prompt, 0, 150, **sampling).tokens
        for model in (alone, both):
            for _ in range(2):  # the second time with what the first has learned
                out = generate(model, prompt, "auto", 150, **sampling)
                assert out.tokens == expected, name
                stats = out.stats
                assert 0 <= stats.lookup_accepted <= stats.lookup_drafted <= stats.drafted
                if model is alone:
                    assert stats.lookup_drafted == stats.drafted
                    lookups += stats.lookup_drafted
                    accepted += stats.lookup_accepted
    assert lookups > 0
    assert accepted > 0


def test_auto_at_the_edges(pairs):
    """A prompt of one token, a context that fills up within a round, a limit of one token."""
    for kind in ("agreeing", "committed"):
        model = pairs.model("e2b", "q8_0", kind, context=64)
        for prompt in ([2], [2, 5] * 20, [7] * 62, [7] * 63):
            room = model.context - len(prompt)
            expected = model.generate(prompt, max_tokens=100, draft=0, ignore_eos=True)
            assert expected.finish_reason == "context"
            assert len(expected.tokens) == room
            for limit in (1, 2, 100):
                out = model.generate(prompt, max_tokens=limit, draft="auto", ignore_eos=True)
                assert out.tokens == expected.tokens[:limit]
                assert out.stats.tokens == min(limit, room)


@pytest.mark.parametrize("outtype", TYPES)
@pytest.mark.parametrize("arch", checkpoints.ARCHITECTURES)
@pytest.mark.parametrize("kv_type", ["f16", "f32"])
def test_logits_have_the_same_bits(pairs, arch, outtype, kv_type, monkeypatch):
    ids = checkpoints.random_prompt(arch, 2 * PROMPT, 4)
    expected = None
    for isa in gemtp.system_info()["isas"]:
        monkeypatch.setenv("GEMTP_ISA", isa)
        for threads, chunk in itertools.product(THREADS, CHUNKS):
            model = pairs.model(
                arch, outtype, kv_type=kv_type, threads=threads, prefill_chunk=chunk
            )
            assert model.isa == isa
            logits = model.logits(ids)
            if expected is None:
                expected = logits
                assert np.isfinite(logits).all()
                assert (logits.std(axis=1) > 0.5).all()
            where = f"{isa}, threads {threads}, chunk {chunk}"
            assert logits.tobytes() == expected.tobytes(), where


@pytest.mark.parametrize("outtype", TYPES)
@pytest.mark.parametrize("arch", checkpoints.ARCHITECTURES)
def test_drafts_have_the_same_bits(pairs, arch, outtype, monkeypatch):
    ids = checkpoints.random_prompt(arch, PROMPT, 5)
    expected = None
    for isa in gemtp.system_info()["isas"]:
        monkeypatch.setenv("GEMTP_ISA", isa)
        for threads in THREADS:
            model = pairs.model(arch, outtype, threads=threads)
            tokens, logits, hidden = model.draft_trace(ids, 6)
            got = (tokens, logits.tobytes(), hidden.tobytes())
            expected = expected or got
            assert got == expected, f"{isa}, threads {threads}"


@pytest.mark.parametrize("outtype", TYPES)
@pytest.mark.parametrize("arch", checkpoints.ARCHITECTURES)
def test_tokens_do_not_depend_on_the_instruction_set(pairs, arch, outtype, monkeypatch):
    prompt = checkpoints.random_prompt(arch, PROMPT, 6)
    for name, sampling in SAMPLINGS.items():
        results = []
        for isa in gemtp.system_info()["isas"]:
            monkeypatch.setenv("GEMTP_ISA", isa)
            results.append(generate(pairs.model(arch, outtype), prompt, 3, **sampling).tokens)
        assert all(tokens == results[0] for tokens in results), name


@pytest.mark.parametrize("kv_type", ["f16", "f32"])
@pytest.mark.parametrize("arch", checkpoints.ARCHITECTURES)
def test_tokens_do_not_depend_on_what_is_cached(pairs, arch, kv_type):
    """Prompts that share all, much, little or nothing with what the model ran before."""

    def fresh() -> gemtp.Model:
        return pairs.model(arch, "q8_0", kv_type=kv_type, prefill_chunk=16)

    first = checkpoints.random_prompt(arch, PROMPT, 7)
    other = checkpoints.random_prompt(arch, PROMPT, 8)
    for sampling in SAMPLINGS.values():
        used = fresh()
        answer = generate(used, first, 3, max_tokens=24, **sampling).tokens
        conversation = first + answer + other[1:12]
        edited = first[:-3] + other[1:20]  # back over less than the shortest window
        for prompt in (
            first,  # the same again
            conversation,  # goes on where it stopped
            conversation[:-1],
            edited,
            first[: PROMPT // 2] + other[1:30],  # back over more than any window
            other,
            first[:1],
            first,
        ):
            got = generate(used, prompt, 3, max_tokens=24, **sampling).tokens
            expected = generate(fresh(), prompt, 0, max_tokens=24, **sampling).tokens
            assert got == expected
        # Half a generation, abandoned: what it left in the cache must be as good as new.
        stream = used.stream(first, max_tokens=24, draft=5, ignore_eos=True, **sampling)
        for _, _ in zip(range(3), stream.steps(), strict=False):
            pass
        stream.close()
        got = generate(used, conversation, 5, max_tokens=24, **sampling).tokens
        assert got == generate(fresh(), conversation, 0, max_tokens=24, **sampling).tokens
    assert used.logits(first).tobytes() == fresh().logits(first).tobytes()


def test_the_cache_is_used(pairs):
    model = pairs.model("e2b", "q8_0")
    prompt = checkpoints.random_prompt("e2b", PROMPT, 7)
    assert generate(model, prompt, 3).stats.cached_tokens == 0
    again = generate(model, prompt + checkpoints.random_prompt("e2b", 5, 8)[1:], 3)
    assert 0 < again.stats.cached_tokens < again.stats.prompt_tokens


@pytest.mark.parametrize("arch", checkpoints.ARCHITECTURES)
def test_rounds_are_what_drafts_and_tokens_say(pairs, arch):
    """Replays a greedy generation round by round from `draft` and the plain tokens alone."""
    model, oracle = pairs.model(arch, "f32"), pairs.model(arch, "f32")
    prompt = checkpoints.random_prompt(arch, PROMPT, 9)
    tokens = generate(model, prompt, 0).tokens
    kinds = set()
    for depth in (1, 3, 8):
        stats = generate(model, prompt, depth).stats
        at, rounds, drafted, accepted = 1, 0, 0, 0
        while at < NEW:
            steps = min(depth, NEW - at - 1)  # drafts that can still become tokens
            agreed = 0
            if steps:
                drafts = oracle.draft(prompt + tokens[:at], steps)
                while agreed < steps and drafts[agreed] == tokens[at + agreed]:
                    agreed += 1
                kinds.add("none" if agreed == 0 else "all" if agreed == steps else "some")
            rounds += 1
            drafted += steps
            accepted += agreed
            at += agreed + 1
        assert (stats.rounds, stats.drafted, stats.accepted) == (rounds, drafted, accepted)
        assert sum(stats.depth_histogram) == rounds
        assert sum(stats.drafted_at) == drafted
        assert sum(stats.accepted_at) == accepted
    assert kinds == {"none", "some", "all"}


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 7])
def test_rejected_drafts_do_not_count(pairs, max_tokens):
    prompt = checkpoints.random_prompt("e4b", PROMPT, 10)
    for kind in ("agreeing", "committed"):
        model = pairs.model("e4b", "f32", kind)
        longer = generate(model, prompt, 0, max_tokens=20).tokens
        for depth in (1, 4, 15):
            out = model.generate(prompt, max_tokens=max_tokens, draft=depth, ignore_eos=True)
            assert out.tokens == longer[:max_tokens]
            assert out.finish_reason == "length"
            assert out.stats.drafted <= sum(range(max_tokens))


@pytest.mark.parametrize("arch", checkpoints.ARCHITECTURES)
def test_drafter_and_target_share_the_noise(pairs, arch):
    """At a high temperature noise decides: drafts agree only if both choose with the same."""
    model = pairs.model(arch, "f32", context=512)
    prompt = checkpoints.random_prompt(arch, 20, 1)
    stats = generate(model, prompt, 1, max_tokens=400, temperature=2.0, seed=12).stats
    assert stats.accepted > 0.1 * stats.drafted  # of other noise 2 to 7 in a hundred agree
