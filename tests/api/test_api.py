"""The Python interface: what it returns, where it stops, and what it says to wrong arguments."""

from __future__ import annotations

import asyncio
import json
import math
import re
import threading
from dataclasses import asdict, fields

import numpy as np
import pytest

import checkpoints
import gemtp_native as gemtp
from gemtp_native.options import OPTIONS

PROMPT = "the in\nthe"
EOS = 1
# Without control and byte tokens every token of the small vocabulary is text of its own.
LETTERS_ONLY = dict.fromkeys(range(261), -math.inf)


@pytest.fixture(scope="module")
def model(pair):
    return gemtp.Model(pair.target, drafter=pair.drafter, threads=1, context=160)


def one_sentence(error: pytest.ExceptionInfo) -> str:
    """The message, after checking its form."""
    message = str(error.value)
    assert message
    assert "\n" not in message
    assert len(message) < 400
    return message


# ---------------------------------------------------------------- results


def test_output(model):
    out = model.generate(PROMPT, max_tokens=24)
    assert isinstance(out, gemtp.Output)
    assert isinstance(out.text, str)
    assert all(type(i) is int for i in out.tokens)
    assert out.text == model.detokenize(out.tokens)
    assert out.finish_reason == "length"
    assert len(out.tokens) == 24


def test_stats(model):
    keys = {field.name for field in fields(gemtp.Stats)}
    assert keys >= {
        "rounds", "drafted", "accepted", "prompt_tokens", "prompt_seconds", "tokens",
        "decode_seconds", "tokens_per_second", "depth_histogram",
    }  # fmt: skip
    stats = model.generate(PROMPT, max_tokens=60, draft=3).stats
    assert stats.prompt_tokens == len(model.tokenize(PROMPT))
    assert stats.tokens == 60
    assert stats.tokens == 1 + stats.rounds + stats.accepted  # the first token comes from prefill
    assert sum(stats.depth_histogram) == stats.rounds
    assert sum(k * n for k, n in enumerate(stats.depth_histogram)) == stats.drafted
    assert sum(stats.drafted_at) == stats.drafted
    assert sum(stats.accepted_at) == stats.accepted
    assert len(stats.drafted_at) == len(stats.accepted_at) == 3
    assert 0 < stats.accepted < stats.drafted
    assert stats.prompt_seconds > 0
    assert stats.tokens_per_second == pytest.approx(59 / stats.decode_seconds)


def test_stats_without_drafting(model):
    stats = model.generate(PROMPT, max_tokens=10, draft=0).stats
    assert (stats.rounds, stats.drafted, stats.accepted) == (9, 0, 0)
    assert stats.depth_histogram == [9]
    assert stats.drafted_at == []


def test_prompt_as_text_bytes_and_ids(model):
    ids = model.tokenize(PROMPT)
    assert ids[0] == checkpoints.BOS
    assert ids.count(checkpoints.BOS) == 1
    expected = model.generate(PROMPT, max_tokens=8).tokens
    for prompt in (PROMPT.encode(), ids, tuple(ids), np.array(ids), iter(ids)):
        assert model.generate(prompt, max_tokens=8).tokens == expected


def test_control_tokens_that_a_prompt_spells(pair, caplog):
    """They are text, and that is said once; with the switch they are tokens, BOS never twice."""
    model = gemtp.Model(pair.target, threads=1, context=160)
    for text in ("in<eos>the", b"in<eos>the", "<bos>the<eos>", "<bos>"):
        caplog.clear()
        ids = model.tokenize(text, special=True)
        assert ids.count(checkpoints.BOS) == 1
        expected = model.generate(ids, max_tokens=8)
        assert expected.tokens == model.generate(text, special=True, max_tokens=8).tokens
        assert (
            expected.tokens == asyncio.run(model.agenerate(text, special=True, max_tokens=8)).tokens
        )
        assert expected.text == "".join(model.stream(text, special=True, max_tokens=8))
        with model.session() as session:
            session.append(text, special=True)
            assert session.tokens == ids
            session.append("<bos>", special=True)
            assert session.tokens == [*ids, checkpoints.BOS], "in the middle, it was meant"
        with model.session() as session:
            assert session.generate(text, special=True, max_tokens=8).tokens == expected.tokens
        assert caplog.messages == []
    for text in ("in the", "<eos", "in the"):
        model.generate(text, max_tokens=1)
    assert caplog.messages == []
    for _ in range(2):
        out = model.generate("in<eos>the", max_tokens=8)
        assert out.tokens == model.generate(model.tokenize("in<eos>the"), max_tokens=8).tokens
    (message,) = caplog.messages
    assert "spells the control token <eos>, which counts as text" in message
    assert "special" in message
    with pytest.raises(gemtp.ArgumentError, match="special is 1; it must be True or False"):
        model.generate("x", special=1)


def test_tokenize_and_detokenize(model, pair):
    text = " the  in\n\n\tÀ🎉</s><eos>"
    ids = model.tokenize(text, add_bos=False)
    assert model.detokenize(ids) == text
    assert EOS not in ids
    assert model.tokenize("<eos>", add_bos=False, special=True) == [EOS]
    assert model.detokenize([EOS]) == ""
    assert model.detokenize([EOS], special=True) == "<eos>"
    tokenizer = gemtp.Tokenizer(pair.target)
    assert tokenizer.encode(text) == ids
    assert tokenizer.encode(text, add_bos=True) == [tokenizer.bos, *ids]
    assert tokenizer.decode(ids) == text
    assert tokenizer.vocab_size == model.vocab_size
    assert tokenizer.end_tokens == [EOS]


def test_logits(model):
    ids = model.tokenize(PROMPT)
    logits = model.logits(ids)
    assert logits.dtype == np.float32
    assert logits.shape == (len(ids), model.vocab_size)
    assert model.generate(ids, max_tokens=1).tokens == [int(logits[-1].argmax())]


def test_draft(model):
    ids = model.tokenize(PROMPT)
    drafts = model.draft(ids, 5)
    assert len(drafts) == 5
    assert drafts[:2] == model.draft(ids, 2)


def test_system_info():
    info = gemtp.system_info()
    assert info["isa"] in info["isas"]
    assert "scalar" in info["isas"]
    assert info["threads"] >= 1
    assert info["backends"][0] == "cpu"
    assert info["version"] == gemtp.__version__


# ---------------------------------------------------------------- where it ends


@pytest.mark.parametrize("draft", [0, 1, 3, 15])
def test_max_tokens(model, draft):
    """Rejected drafts do not count, and no round goes past the limit."""
    whole = model.generate(PROMPT, max_tokens=20, draft=0).tokens
    for limit in (0, 1, 2, 3, 7, 20):
        out = model.generate(PROMPT, max_tokens=limit, draft=draft)
        assert out.tokens == whole[:limit]
        assert out.stats.tokens == limit
        assert out.finish_reason == "length"
    assert model.generate(PROMPT, max_tokens=0).text == ""


@pytest.mark.parametrize("draft", [0, 3, 15])
def test_end_token(model, draft):
    """Generation ends on an end token, also on one inside accepted drafts, and leaves it out."""
    likely = {**LETTERS_ONLY, EOS: 6.0}
    lengths = set()
    for seed in range(12):
        options = {"temperature": 1.0, "seed": seed, "logit_bias": likely, "max_tokens": 40}
        through = model.generate(PROMPT, ignore_eos=True, draft=0, **options).tokens
        out = model.generate(PROMPT, draft=draft, **options)
        assert len(through) == 40
        assert EOS in through
        assert out.finish_reason == "stop"
        assert out.tokens == through[: through.index(EOS)]
        assert out.text == model.detokenize(out.tokens)
        assert out.stats.tokens == len(out.tokens)
        lengths.add(len(out.tokens))
    assert len(lengths) > 3


@pytest.mark.parametrize("draft", [0, 3])
def test_stop_strings_across_tokens(model, draft):
    options = {"max_tokens": 30, "logit_bias": LETTERS_ONLY, "temperature": 1.0, "seed": 5}
    with model.stream(PROMPT, draft=0, **options) as stream:
        pieces = [token.text for step in stream.steps() for token in step]
    text = "".join(pieces)
    assert len(pieces) == 30
    assert all(pieces)
    for i in range(1, len(pieces) - 2):
        stop = pieces[i][-1:] + pieces[i + 1] + pieces[i + 2][:1]  # touches three tokens
        shown: list[str] = []
        with model.stream(PROMPT, draft=draft, stop=[stop], **options) as stream:
            shown += stream
        assert "".join(shown) == text[: text.index(stop)]
        assert stream.finish_reason == "stop"
        assert stream.tokens == model.generate(PROMPT, stop=stop, **options).tokens


def test_a_drafter_with_nothing_to_propose(model):
    """Where all tokens that an ordered head scores are banned, the target still has a choice."""
    for only in (5, 100, 287):
        ban = {i: -math.inf for i in range(model.vocab_size) if i != only}
        options = {"max_tokens": 12, "logit_bias": ban, "temperature": 0.7}
        outputs = [model.generate(PROMPT, draft=k, **options) for k in (0, 1, 3, 15)]
        assert all(out.tokens == [only] * 12 for out in outputs)


def test_earliest_stop_string_wins(model):
    options = {"max_tokens": 30, "logit_bias": LETTERS_ONLY, "temperature": 1.0, "seed": 5}
    text = model.generate(PROMPT, **options).text
    late, early = text[12:14], text[6:8]
    out = model.generate(PROMPT, stop=[late, early, "nowhere"], **options)
    assert out.text == text[: min(text.index(late), text.index(early))]


def test_beginning_of_a_stop_string_is_shown_in_the_end(model):
    options = {"max_tokens": 12, "logit_bias": LETTERS_ONLY}
    whole = model.generate(PROMPT, **options)
    out = model.generate(PROMPT, stop=whole.text[-3:] + "\x00", **options)
    assert (out.text, out.tokens) == (whole.text, whole.tokens)
    assert out.finish_reason == "length"


def test_context_fills_up(pair):
    model = gemtp.Model(pair.target, drafter=pair.drafter, threads=1, context=40)
    expected = model.generate(PROMPT, max_tokens=1000, draft=0, ignore_eos=True)
    prompt = len(model.tokenize(PROMPT))
    assert expected.finish_reason == "context"
    assert len(expected.tokens) == 40 - prompt
    for draft in (1, 3, 15):
        out = model.generate(PROMPT, max_tokens=1000, draft=draft, ignore_eos=True)
        assert out.tokens == expected.tokens
    assert model.generate([2] * 39, max_tokens=5).finish_reason == "context"
    for length in (40, 41, 500):
        with pytest.raises(gemtp.ContextError, match=f"{length} tokens and the context holds 40"):
            model.generate([2] * length)
    with pytest.raises(gemtp.ContextError, match="41 tokens"):
        model.logits([2] * 41)
    assert model.logits([2] * 40).shape[0] == 40


# ---------------------------------------------------------------- streams


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 1.0, "seed": 3}, {"logit_bias": LETTERS_ONLY, "stop": "\u03b1"}],
    ids=["greedy", "sampled", "stop"],
)
def test_pieces_are_the_text(model, options):
    out = model.generate(PROMPT, max_tokens=50, **options)
    with model.stream(PROMPT, max_tokens=50, **options) as stream:
        pieces = list(stream)
    assert "".join(pieces) == out.text
    assert all(piece.encode("utf-8") for piece in pieces)
    assert stream.tokens == out.tokens
    assert stream.finish_reason == out.finish_reason
    with model.stream(PROMPT, max_tokens=50, **options) as stream:
        tokens = [token for step in stream.steps() for token in step]
    assert "".join(token.text for token in tokens) == out.text
    assert [token.id for token in tokens if token.id >= 0] == out.tokens
    assert sum(token.drafted for token in tokens) == stream.stats.accepted


def test_incomplete_characters_are_held_back(model):
    """The bytes of a character come as one piece, with the last of them."""
    ids = model.tokenize("🎉", add_bos=False)
    assert len(ids) == 4
    # Only these four bytes, and each only after the three others: they go round and round.
    options = {
        "logit_bias": {i: -math.inf for i in range(model.vocab_size) if i not in ids},
        "presence_penalty": 1000.0,
        "penalty_last_n": 3,
    }
    with model.stream([2, *ids], max_tokens=18, **options) as stream:
        steps = [token for step in stream.steps() for token in step]
    assert [token.id for token in steps] == (ids * 5)[:18]
    held = ["", "", "", "🎉"] * 4
    assert [token.text for token in steps] == [*held, "", "\ufffd"]  # the last one stays unfinished
    with model.stream([2, *ids], max_tokens=18, **options) as stream:
        assert list(stream) == ["🎉"] * 4 + ["\ufffd"]


def test_closing_early(model):
    expected = model.generate(PROMPT, max_tokens=60)
    with model.stream(PROMPT, max_tokens=60) as stream:
        begin = next(stream)
    assert expected.text.startswith(begin)
    assert list(stream) == []
    assert len(stream.tokens) < 60
    stream.close()
    again = model.generate(PROMPT, max_tokens=60)
    assert (again.text, again.tokens) == (expected.text, expected.tokens)
    assert again.stats.cached_tokens > 0


def test_interleaved_streams(model):
    """Two sequences on one model do not touch each other."""
    prompts = ("the in", "er the\n\nthe")
    options = {"max_tokens": 40, "temperature": 0.7, "seed": 9}
    alone = [model.generate(p, **options) for p in prompts]
    streams = [model.stream(p, **options) for p in prompts]
    texts = ["", ""]
    running = {0, 1}
    while running:
        for i in sorted(running):
            piece = next(streams[i], None)
            if piece is None:
                running.discard(i)
            else:
                texts[i] += piece
    assert texts == [out.text for out in alone]
    assert [s.tokens for s in streams] == [out.tokens for out in alone]


def test_generations_in_two_threads(model):
    prompts = ["the in", "er the\n\nthe"]
    alone = [model.generate(p, max_tokens=40).tokens for p in prompts]
    found: dict[int, list[int]] = {}

    def work(i: int) -> None:
        found[i] = model.generate(prompts[i], max_tokens=40).tokens

    workers = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [found[0], found[1]] == alone


def test_stream_outlives_its_model(pair):
    model = gemtp.Model(pair.target, threads=1, context=64)
    expected = model.generate(PROMPT, max_tokens=9).text
    stream = model.stream(PROMPT, max_tokens=9)
    del model
    assert "".join(stream) == expected


# ---------------------------------------------------------------- wrong arguments


def short(value: object) -> str:
    return "huge" if isinstance(value, int) and abs(value) > 2**80 else str(value)


WRONG_OPTIONS = [
    ("max_tokens", -2), ("max_tokens", 1.5), ("max_tokens", True), ("max_tokens", 10**30),
    ("temperature", -0.1), ("temperature", math.nan), ("temperature", math.inf),
    ("temperature", "hot"), ("temperature", True), ("temperature", 10**5000),
    ("temperature", "0.5"), ("temperature", 1e39), ("temperature", np.True_),
    ("top_k", -2), ("top_k", 2.5), ("top_k", 2**40), ("top_k", False), ("top_k", np.True_),
    ("top_p", -1e-30), ("top_p", 1.1), ("top_p", math.nan), ("top_p", True),
    ("min_p", -0.1), ("min_p", 1), ("min_p", math.nan),
    ("repetition_penalty", 0), ("repetition_penalty", -1), ("repetition_penalty", math.nan),
    ("repetition_penalty", 5e-324), ("presence_penalty", False), ("presence_penalty", -1e300),
    ("presence_penalty", math.nan), ("presence_penalty", math.inf),
    ("frequency_penalty", math.nan), ("frequency_penalty", -math.inf),
    ("penalty_last_n", -2), ("seed", 1.5), ("seed", "s"), ("seed", True),
    ("logit_bias", {-1: 1.0}), ("logit_bias", {10**6: 1.0}), ("logit_bias", {5: math.nan}),
    ("logit_bias", {5: math.inf}), ("logit_bias", {"a": 1}), ("logit_bias", {5: "x"}),
    ("logit_bias", [5]), ("logit_bias", 5),
    ("logit_bias", {5: 1e39}), ("logit_bias", {5: True}), ("logit_bias", {True: 1}),
    ("stop", [5]), ("stop", 5), ("stop", [None]),
    ("draft", -1), ("draft", 16), ("draft", "much"), ("draft", 1.5), ("draft", True),
    ("logprobs", True), ("logprobs", 21), ("logprobs", -2), ("ignore_eos", 1), ("ignore_eos", "no"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG_OPTIONS, ids=short)
def test_wrong_option(model, name, value):
    options = {"max_tokens": 2, "temperature": 0.7, name: value}
    with pytest.raises(gemtp.ArgumentError) as error:
        model.generate(PROMPT, **options)
    assert name.replace("stop", "stop string")[:4] in one_sentence(error)
    assert isinstance(error.value, ValueError)


FLAGS = {
    "Model": ("mmap", "profile"),
    "generate": ("special", "ignore_eos", "wait"),
    "chat": ("thinking", "continue_final_message", "add_generation_prompt", "ignore_eos", "wait"),
    "tokenize": ("add_bos", "special"),
    "detokenize": ("special",),
}


ASK = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("temprature", "did you mean temperature?"),
        ("max_token", "did you mean max_tokens?"),
        ("max_new_tokens", "did you mean max_tokens?"),
        ("n_predict", "did you mean max_tokens?"),
        ("repeat_penalty", "did you mean repetition_penalty?"),
        ("xyz", "the options are max_tokens, temperature, "),
    ],
)
def test_an_unknown_option_and_what_was_meant(model, name, meant):
    for call in (lambda o: model.generate("a", **o), lambda o: next(model.stream("a", **o))):
        with pytest.raises(TypeError, match=re.escape(f"unexpected option {name!r}; {meant}")):
            call({name: 1})


@pytest.mark.parametrize("value", [0, 1, "yes", "off", [], np.int64(1)], ids=repr)
def test_flags_are_true_or_false(model, pair, value):
    calls = {
        "Model": lambda **flags: gemtp.Model(pair.target, **flags),
        "generate": lambda **flags: model.generate(PROMPT, max_tokens=1, **flags),
        "chat": lambda **flags: model.chat(ASK, template="{{ messages[0].content }}", **flags),
        "tokenize": lambda **flags: model.tokenize("x", **flags),
        "detokenize": lambda **flags: model.detokenize([1], **flags),
    }
    for function, names in FLAGS.items():
        for name in names:
            with pytest.raises(gemtp.ArgumentError) as error:
                calls[function](**{name: value})
            assert one_sentence(error) == f"{name} is {value!r}; it must be True or False"
    assert model.tokenize("x", add_bos=np.bool_(True)) == model.tokenize("x")


def test_a_wrong_number_is_shown_as_it_was_given(model):
    for name, value, shown in (
        ("temperature", 1e39, "1e+39, beyond single precision,"),
        ("repetition_penalty", 5e-324, "5e-324, beyond single precision,"),
        ("top_p", 1.0000001, "1.0000001"),
        ("top_p", -0.1, "-0.1"),
        ("min_p", 1.1, "1.1"),
        ("temperature", -1, "-1"),
        ("top_p", 20, "20"),
        ("top_p", 1e5, "100000"),
        ("min_p", 100.5, "100.5"),
        ("temperature", -(2**60), "-1.152921504606847e+18"),
        ("top_k", -7, "-7"),
        ("top_k", 2**31, "2147483648"),
        ("penalty_last_n", -(10**30), f"{-(10**30)}"),
        ("max_tokens", 2**63 + 1, f"{2**63 + 1}"),
        ("max_tokens", -2, "-2"),
        ("draft", 20, "20"),
        ("draft", -1, "-1"),
        ("draft", "1", "'1'"),
        ("logprobs", 21, "21"),
        ("seed", 2**64, f"{2**64}"),
        ("seed", -(2**63) - 1, f"{-(2**63) - 1}"),
    ):
        with pytest.raises(gemtp.ArgumentError) as error:
            model.generate(PROMPT, **{name: value})
        assert one_sentence(error) == f"{name} is {shown} but must be {OPTIONS[name].domain}"


def test_numbers_at_the_ends_of_their_domains_are_taken(model):
    expected = model.generate(PROMPT, max_tokens=2).tokens
    for options in (
        {"top_k": 2**31 - 1, "penalty_last_n": 2**31 - 1, "top_p": 0, "min_p": 0.999},
        {"seed": 2**64 - 1},
        {"seed": -(2**63)},
        {"draft": 0, "logprobs": 20},
    ):
        assert model.generate(PROMPT, **{"max_tokens": 2, **options}).tokens == expected
    rest = model.generate(PROMPT, max_tokens=-1).tokens
    assert model.generate(PROMPT, max_tokens=2**62).tokens == rest


# What other engines write for "none", beside how it is written here.
NEUTRAL = [
    ("stop", None, ()), ("stop", "", ()), ("stop", b"", ()), ("stop", [], ()), ("stop", [""], ()),
    ("stop", ["", "zz"], ["zz"]),
    ("top_k", -1, 0), ("top_k", None, 0), ("top_p", None, 1.0), ("min_p", None, 0.0),
    ("temperature", None, 0.0),
    ("repetition_penalty", None, 1.0), ("presence_penalty", None, 0.0),
    ("frequency_penalty", None, 0.0), ("penalty_last_n", None, -1), ("logit_bias", None, {}),
    ("suppress_tokens", None, ()), ("draft", None, "auto"), ("ignore_eos", None, False),
    ("logprobs", False, None), ("logprobs", -1, None),
    ("json_schema", None, None), ("logits_processor", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "same"), NEUTRAL, ids=short)
def test_words_of_other_engines_for_none(model, name, value, same):
    options = {"max_tokens": 30, "temperature": 0.9, "seed": 3, "repetition_penalty": 1.2}
    given = model.generate(PROMPT, **{**options, name: value})
    expected = model.generate(PROMPT, **{**options, name: same})
    assert given.tokens == expected.tokens
    assert given.logprobs == expected.logprobs


@pytest.mark.parametrize("none", [None, -1])
def test_no_limit_is_the_context(model, none):
    out = model.generate(PROMPT, max_tokens=none, ignore_eos=True)
    assert out.finish_reason == "context"
    assert out.stats.prompt_tokens + out.stats.tokens == model.context
    with model.session() as session:
        assert session.generate(PROMPT, max_tokens=none, ignore_eos=True).tokens == out.tokens


@pytest.mark.parametrize("new", [None, -1, 2**64 - 1])
def test_a_new_seed_is_told(model, new):
    options = {"temperature": 1.0, "max_tokens": 20, "ignore_eos": True}
    outs = [model.generate(PROMPT, seed=new, **options) for _ in range(4)]
    assert len({out.stats.seed for out in outs}) > 1
    assert len({out.text for out in outs}) > 1
    for out in outs:
        assert 0 <= out.stats.seed < 2**32
        assert model.generate(PROMPT, seed=out.stats.seed, **options).tokens == out.tokens
    assert model.generate(PROMPT, seed=5, **options).stats.seed == 5
    assert model.generate(PROMPT, seed=-3, **options).stats.seed == 2**64 - 3
    assert model.generate(PROMPT, **options).stats.seed == 0


def test_the_likeliest_alone(model):
    greedy = model.generate(PROMPT, max_tokens=20).tokens
    for top_p in (0, 5e-324):
        for temperature in (0.01, 1, 30, 1e30):
            out = model.generate(
                PROMPT, max_tokens=20, temperature=temperature, top_p=top_p, seed=None
            )
            assert out.tokens == greedy


@pytest.mark.parametrize(
    "prompt",
    [[], [2, -1], [2, 288], [2, 2**31], [2, 2**70], [2, "a"], [2.0], [None], 5, None, "\ud800",
     "a\udcff", b"\xff", b"\xc3", [[2]], [True], {2: 5}, {2, 5}, bytearray(b"a"),
     memoryview(b"a")],
)  # fmt: skip
def test_wrong_prompt(model, prompt):
    with pytest.raises(gemtp.ArgumentError) as error:
        model.generate(prompt, max_tokens=2)
    one_sentence(error)


def test_every_id_ban_leaves_no_token(model):
    with pytest.raises(gemtp.Error) as error:
        model.generate(PROMPT, max_tokens=2, logit_bias=dict.fromkeys(range(288), -math.inf))
    one_sentence(error)


@pytest.mark.parametrize("stop", ["\ud800", b"\xff"])
def test_stop_string_that_is_no_text(model, stop):
    with pytest.raises(gemtp.ArgumentError) as error:
        model.generate(PROMPT, max_tokens=2, stop=[stop])
    one_sentence(error)


def test_wrong_ids_elsewhere(model):
    for call in (
        lambda: model.logits([]),
        lambda: model.logits("the"),
        lambda: model.logits([2, 288]),
        lambda: model.detokenize([288]),
        lambda: model.detokenize([-1]),
        lambda: model.detokenize("the"),
        lambda: model.draft([2], 1),
        lambda: model.draft([2, 288], 1),
        lambda: model.draft([2, 5], 0),
        lambda: model.draft([2, 5], 16),
        lambda: model.draft([2, 5], 1.5),
        lambda: model.tokenize(5),
        lambda: model.tokenize("\udfff"),
        lambda: model.tokenize(b"a\x80"),
    ):
        with pytest.raises(gemtp.ArgumentError) as error:
            call()
        one_sentence(error)


@pytest.mark.parametrize(
    "options",
    [{"threads": n} for n in (0, -1, 10**6, 10**12, 1.5, "2")]
    + [{"context": n} for n in (0, 1, -1, 10**9, 10**15, None, "4096")]
    + [{"kv_type": t} for t in ("f8", None, 16)]
    + [{"prefill_chunk": n} for n in (0, -1, 10**9, None)]
    + [{"drafter": d} for d in ("", 5)],
    ids=str,
)
def test_wrong_model_option(pair, options):
    with pytest.raises(gemtp.ArgumentError) as error:
        gemtp.Model(pair.target, **options)
    assert next(iter(options)) in one_sentence(error)


def test_suppressed_tokens_have_no_order(model):
    as_list, as_set = (
        model.generate(PROMPT, max_tokens=4, suppress_tokens=ids) for ids in ([5, 6], {5, 6})
    )
    assert as_list.tokens == as_set.tokens


def test_a_budget_is_bytes_of_any_number(pair):
    with gemtp.Model(pair.target, context=64, kv_budget=2**40) as model:
        assert model.generate(PROMPT, max_tokens=2).tokens


@pytest.mark.parametrize("path", ["", 5, None, "\ud800"])
def test_wrong_path(path):
    for open_file in (gemtp.Model, gemtp.Tokenizer):
        with pytest.raises(gemtp.Error) as error:
            open_file(path)
        one_sentence(error)


def test_files_that_are_not_models(pair, tmp_path):
    (tmp_path / "empty.gguf").write_bytes(b"")
    (tmp_path / "text.gguf").write_text("once upon a time")
    (tmp_path / "cut.gguf").write_bytes(pair.target.read_bytes()[:100_000])
    for name in ("missing.gguf", ".", "empty.gguf", "text.gguf", "cut.gguf", "no\x00path"):
        for options in ({}, {"mmap": False}):
            with pytest.raises(gemtp.FileError) as error:
                gemtp.Model(f"{tmp_path}/{name}", **options)
            one_sentence(error)
        with pytest.raises(gemtp.FileError) as error:
            gemtp.Model(pair.target, drafter=f"{tmp_path}/{name}")
        one_sentence(error)
        with pytest.raises(gemtp.FileError) as error:
            gemtp.Tokenizer(f"{tmp_path}/{name}")
        one_sentence(error)


def test_files_in_the_wrong_place(pair, other_pair):
    with pytest.raises(gemtp.ModelError, match="holds a drafter"):
        gemtp.Model(pair.drafter)
    with pytest.raises(gemtp.ModelError, match="holds a target"):
        gemtp.Model(pair.target, drafter=pair.target)
    with pytest.raises(gemtp.ModelError, match="does not fit the target"):
        gemtp.Model(pair.target, drafter=other_pair.drafter)
    with pytest.raises(gemtp.FileError, match="no tokenizer"):
        gemtp.Tokenizer(pair.drafter)


def test_no_drafter(pair):
    model = gemtp.Model(pair.target, threads=1, context=64)
    assert not model.has_drafter
    assert model.generate(PROMPT, max_tokens=3).stats.drafted == 0
    with pytest.raises(gemtp.ArgumentError, match="no drafter is loaded"):
        model.generate(PROMPT, draft=2)
    with pytest.raises(gemtp.ArgumentError, match="no drafter is loaded"):
        model.draft([2, 5], 1)


def test_unknown_instruction_set(pair, monkeypatch):
    monkeypatch.setenv("GEMTP_ISA", "mmx")
    with pytest.raises(gemtp.ArgumentError, match="mmx"):
        gemtp.Model(pair.target)
    with pytest.raises(gemtp.ArgumentError, match="mmx"):
        gemtp.system_info()


def test_model_without_tokenizer(tmp_path):
    folder = checkpoints.committed("12b", tmp_path)
    from gemtp_native.make.convert import convert

    convert(folder / "target", tmp_path / "t.gguf", "f32", tokenizer=False, progress=False)
    model = gemtp.Model(tmp_path / "t.gguf", threads=1, context=32)
    out = model.generate([2, 7, 8], max_tokens=4)
    assert len(out.tokens) == 4
    assert out.text == ""
    for call in (
        lambda: model.generate("the"),
        lambda: model.tokenize("the"),
        lambda: model.detokenize([2]),
        lambda: model.generate([2], stop="x"),
    ):
        with pytest.raises(gemtp.ModelError, match="no tokenizer"):
            call()


def test_errors_are_ours():
    for kind in (gemtp.ArgumentError, gemtp.ContextError, gemtp.FileError, gemtp.ModelError):
        assert issubclass(kind, gemtp.Error)


def test_stats_are_plain_values(model):
    for draft in (2, "auto"):
        values = asdict(model.generate(PROMPT, max_tokens=5, draft=draft).stats)
        assert json.loads(json.dumps(values)) == values
        assert (values["depth"] is None) == (draft == 2)


def test_depth_control_reports_what_it_learned(model):
    with model.stream(PROMPT, max_tokens=60, ignore_eos=True) as stream:
        list(stream)
    depth = stream.stats.depth  # also after the stream is closed
    assert len(depth.verify_seconds) == 16
    assert all(0 < seconds < 10 for seconds in depth.verify_seconds)
    assert all(0 < s < 10 for s in (depth.first_draft_seconds, depth.draft_seconds))
    assert 0 <= depth.drafter_acceptance <= 1
    assert 0 <= depth.lookup_acceptance <= 1
    assert depth.expected_tokens_per_second > 1


def test_measured_costs_are_checked(model):
    engine = gemtp.Model(*gemtp.demo_models())._engine
    engine.set_costs([(1, 0, 0.01), (16, 64, 0.02)], [(0, 64, 0.001), (1, 64, 0.0005)])
    for verify, draft in (
        ([(0, 0, 0.1)], []),
        ([(17, 0, 0.1)], []),
        ([(1, -1, 0.1)], []),
        ([(1, 0, 0.0)], []),
        ([(1, 0, float("nan"))], []),
        ([(1, 0, float("inf"))], []),
        ([], [(2, 0, 0.1)]),
        ([], [(0, 0, -1.0)]),
    ):
        with pytest.raises(gemtp.ArgumentError, match="measured"):
            engine.set_costs(verify, draft)


def test_source_of_tokens():
    """Where a text repeats itself, what follows is looked up, with and without a drafter."""
    target, drafter = gemtp.demo_models()
    text = "def area(width, height):\n    return width * height\n\n\n" * 3
    for model in (gemtp.Model(target), gemtp.Model(target, drafter)):
        stream = model.stream(text, max_tokens=200, ignore_eos=True)
        tokens = [token for step in stream.steps() for token in step]
        sources = [token.source for token in tokens]
        assert set(sources) <= {"target", "drafter", "lookup"}
        assert sources.count("lookup") == stream.stats.lookup_accepted > 0
        assert sum(token.drafted for token in tokens) == stream.stats.accepted
        if not model.has_drafter:
            assert "drafter" not in sources


# ---------------------------------------------------------------- at a prompt


def test_dir_is_the_interface():
    """What tab completion offers: every public name, and no helper of the package."""
    assert set(gemtp.__all__) <= set(dir(gemtp))
    assert all(name.startswith("__") for name in set(dir(gemtp)) - set(gemtp.__all__))
    assert all(hasattr(gemtp, name) for name in gemtp.__all__)


def test_reprs_are_one_short_line():
    ask = [{"role": "user", "content": "Hi"}]
    with gemtp.Model("demo", "demo", threads=1) as model, model.session() as session:
        session.append([5, 6])
        stream, replies = model.stream("a" * 900, max_tokens=64), model.chat_stream(ask)
        shown = {
            repr(model): "target.gguf: with a drafter, context 2048, cpu, 1 thread>",
            repr(session): "2 tokens",
            repr(stream): "0 tokens, unfinished",
            repr(replies): "0 tokens, unfinished",
            repr(model.generate("a", max_tokens=64)): "64 tokens, finish_reason='length'",
            repr(model.chat(ask, max_tokens=64)): "tokens, finish_reason=",
            repr(gemtp.Tokenizer("demo")): "tokens",
        }
    assert "closed" in repr(model)
    assert "closed" in repr(session)
    for text, part in shown.items():
        assert part in text
        assert len(text) < 200, text
        assert "\n" not in text


def test_demo_names_the_shipped_pair(tmp_path, monkeypatch, gemtp_main):
    (tmp_path / "demo").mkdir()  # is ./demo
    monkeypatch.chdir(tmp_path)
    target, drafter = gemtp.demo_models()
    assert gemtp.Tokenizer("demo").vocab_size == 4096
    assert gemtp.memory_estimate("demo", "demo") == gemtp.memory_estimate(target, drafter)
    with gemtp.Model("demo", drafter="auto", context=64) as model:
        assert model.has_drafter
        assert model.completes
        assert model.target == target
    for path in ("./demo", tmp_path / "demo"):
        with pytest.raises(gemtp.FileError, match="directory"):
            gemtp.Model(path)
    code, out, _ = gemtp_main("inspect", "demo", "--drafter", "demo", "--json")
    assert code == 0
    assert str(drafter) in out
