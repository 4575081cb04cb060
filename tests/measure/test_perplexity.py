"""Scores of given tokens, against logits and numpy; perplexity, against llama.cpp's recipe written
out; and what gemtp perplexity prints and refuses."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import time
from functools import partial

import numpy as np
import pytest

import gemtp_native as gemtp
import shipped
import tiny_files
from gemtp_native.make.quantize import quantize
from gemtp_native.measure import perplexity as evaluate
from one_error import assert_one_error

TARGET, DRAFTER = shipped.in_q8_0()
TEXT = """\
def mean(values):
    \"\"\"The arithmetic mean of some numbers.\"\"\"
    values = list(values)
    if not values:
        raise ValueError("mean of nothing")
    return sum(values) / len(values)


class Reader:
    def __init__(self, stream, encoding="utf-8"):
        self.stream = stream
        self.encoding = encoding

    def lines(self):
        for line in self.stream:
            yield line.decode(self.encoding).rstrip("\\n")

"""


@pytest.fixture(scope="module")
def model() -> gemtp.Model:
    return gemtp.Model(TARGET, context=256, threads=2)


@pytest.fixture(scope="module")
def coarse(tmp_path_factory) -> gemtp.Model:
    """The target in Q4_0, with another division of prompts into passes."""
    path = tmp_path_factory.mktemp("coarse") / "q4.gguf"
    quantize(TARGET, path, "q4_0", allow_requantize=True, progress=False)
    return gemtp.Model(path, context=256, threads=1, prefill_chunk=48)


@pytest.fixture(scope="module")
def ids(model) -> list[int]:
    return model.tokenize(TEXT * 2)[:150]  # several blocks of logits


def log_softmax(logits: np.ndarray) -> np.ndarray:
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


# ---------------------------------------------------------------- scores


def test_score_is_the_log_softmax_of_the_logits(model, ids):
    assert len(ids) > 128
    expected = log_softmax(model.logits(ids))[np.arange(len(ids) - 1), ids[1:]]
    scores = model.score(ids)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, rtol=1e-13, atol=1e-14)
    assert np.std(scores) > 0.5  # not a constant that happens to fit


@pytest.mark.parametrize("first", [2, 33, 100, 149])
def test_what_is_scored_does_not_depend_on_where_scoring_begins(model, ids, first):
    assert model.score(ids, first).tobytes() == model.score(ids)[first - 1 :].tobytes()


@pytest.mark.parametrize(("threads", "chunk"), [(1, 512), (3, 1), (2, 7), (2, 40)])
def test_the_bits_depend_on_neither_threads_nor_passes(model, ids, threads, chunk):
    other = gemtp.Model(TARGET, context=200, threads=threads, prefill_chunk=chunk)
    assert other.score(ids, 5).tobytes() == model.score(ids, 5).tobytes()


def test_scores_of_a_text_leave_generations_alone(model, ids):
    before = model.generate(ids[:20], max_tokens=16).tokens
    model.score(ids)
    assert model.generate(ids[:20], max_tokens=16).tokens == before


def test_compare_with_itself(model, ids):
    c = model.compare(model, ids, 3)
    assert c.log_probs.tobytes() == c.reference_log_probs.tobytes() == model.score(ids, 3).tobytes()
    assert not c.divergence.any()
    assert c.same_best.all()
    assert c.same_best.dtype == bool


def test_compare_is_the_divergence_from_the_reference(model, coarse, ids):
    c = coarse.compare(model, ids, 3)
    p, q = (log_softmax(m.logits(ids)[2:-1]) for m in (model, coarse))
    np.testing.assert_allclose(c.divergence, (np.exp(p) * (p - q)).sum(axis=1), atol=1e-13)
    np.testing.assert_array_equal(c.same_best, p.argmax(axis=1) == q.argmax(axis=1))
    assert c.log_probs.tobytes() == coarse.score(ids, 3).tobytes()
    assert c.reference_log_probs.tobytes() == model.score(ids, 3).tobytes()
    assert c.divergence.min() > 1e-7
    assert 0 < c.same_best.mean() < 1
    # It is no distance: the other direction is another number.
    assert abs(model.compare(coarse, ids, 3).divergence.mean() / c.divergence.mean() - 1) > 1e-3


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="POSIX signals")
@pytest.mark.parametrize("comparing", [False, True])
def test_a_signal_ends_a_long_text(comparing):
    """Between two passes: Ctrl-C need not wait for the last."""
    model = gemtp.Model(TARGET, context=2048, threads=1, prefill_chunk=1)
    ids = [2, *range(300, 2300)]

    def ring(*_: object) -> None:
        raise InterruptedError("enough")

    def seconds() -> float:
        start = time.monotonic()
        try:
            if comparing:
                model.compare(model, ids, len(ids) - 1)
            else:
                model.score(ids, len(ids) - 1)
        except InterruptedError:
            rung.append(True)
        return time.monotonic() - start

    rung: list[bool] = []
    whole = seconds()
    before = signal.signal(signal.SIGALRM, ring)
    try:
        shortest = whole
        for _ in range(3):  # the machine may be busy
            signal.setitimer(signal.ITIMER_REAL, whole / 20)
            shortest = min(shortest, seconds())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(rung) == 3
    assert shortest < whole / 2  # a handler that only ran at the end would not save any time
    assert model.score(ids[:5]).shape == (4,)  # and the model is fit for use


def test_refused_scores(model, ids, tmp_path):
    for first in (0, -1, len(ids), 10**6):
        with pytest.raises(gemtp.ArgumentError, match=f"first is {first}"):
            model.score(ids, first)
    one = "there is one token, which follows nothing; give two at least, to score the second"
    for work in (model.score, lambda ids: model.compare(model, ids)):
        with pytest.raises(gemtp.ArgumentError, match=one):
            work([2])
    with pytest.raises(gemtp.ArgumentError, match="between 1, .* and 1, to leave a token"):
        model.score([2, 3], 2)
    with pytest.raises(gemtp.ArgumentError, match="empty"):
        model.score([])
    with pytest.raises(gemtp.ArgumentError, match="outside the vocabulary"):
        model.score([2, 10**6])
    with pytest.raises(gemtp.ContextError, match="the context holds 256"):
        model.score([2] * 257)
    with pytest.raises(gemtp.ArgumentError, match="must be a Model"):
        model.compare(TARGET, ids)
    tiny = tmp_path / "tiny.gguf"
    tiny.write_bytes(tiny_files.sound_target().encode())
    with pytest.raises(gemtp.ModelError, match="vocabulary of 4096 tokens and .* one of 304"):
        gemtp.Model(tiny).compare(model, [2, 5])


# ---------------------------------------------------------------- perplexity


def recipe(text: bytes, context: int, chunks: int | None = None) -> tuple[float, float, int, int]:
    """What llama-perplexity does: (perplexity, uncertainty, tokens scored, chunks)."""
    model = gemtp.Model(TARGET, context=context)
    tokens = model.tokenize(text)
    assert tokens[0] == 2
    count = len(tokens) // context
    if chunks is not None:
        count = min(count, chunks)
    first = context // 2
    nll = []
    for i in range(count):
        chunk = tokens[i * context : (i + 1) * context]
        rows = log_softmax(model.logits([2, *chunk[1:]]))
        for row in range(first, context - 1):
            nll.append(-rows[row, chunk[row + 1]])
    mean = np.mean(nll)
    uncertainty = math.sqrt((np.mean(np.square(nll)) - mean**2) / (len(nll) - 1))
    return math.exp(mean), uncertainty * math.exp(mean), len(nll), count


@pytest.mark.parametrize(("context", "chunks"), [(32, None), (33, 3), (3, 8)])
def test_perplexity_is_that_of_llama_cpp(context, chunks):
    text = (TEXT + TEXT[300:] + TEXT).encode()
    result = evaluate.perplexity(TARGET, text, context=context, chunks=chunks)
    expected = recipe(text, context, chunks)
    assert (result.tokens, result.chunks) == expected[2:]
    assert result.perplexity == pytest.approx(expected[0], rel=1e-12)
    assert result.uncertainty == pytest.approx(expected[1], rel=1e-9)
    assert len(result.running) == result.chunks
    assert result.running[-1] == result.perplexity
    alone = evaluate.perplexity(TARGET, text, context=context, chunks=1)
    assert result.running[0] == alone.perplexity != result.perplexity


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(tmp_path):
    g = tiny_files.sound_target()
    (embedding,) = [t for t in g.tensors if t.name == "token_embd.weight"]
    embedding.data = bytes(len(embedding.data))
    path = tmp_path / "zero.gguf"
    path.write_bytes(g.encode())
    result = evaluate.perplexity(path, "the hen and the other hen ran in " * 9, context=16)
    assert result.perplexity == pytest.approx(len(tiny_files.TOKENS), rel=1e-12)
    assert result.uncertainty < 1e-4


def test_estimates():
    tally = evaluate.Tally()
    first = tally.add(np.array([-1.0]))
    assert (first.perplexity, first.uncertainty) == (math.e, 0.0)
    second = tally.add(np.array([-3.0, -2.0]))
    assert (second.chunks, second.tokens, second.nll) == (2, 3, 2.0)
    assert second.nll_uncertainty == pytest.approx(math.sqrt((2 / 3) / 2))
    assert evaluate.Tally().add(np.array([-1000.0, -1001.0])).perplexity == math.inf


def test_text_files(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes("ä\r\nb\n\n".encode())
    assert evaluate.read_text(file) == "ä\r\nb\n".encode()  # one newline less, nothing else
    file.write_bytes(b"")
    assert evaluate.read_text(file) == b""


# ---------------------------------------------------------------- the command


@pytest.fixture
def call(gemtp_main):
    return partial(gemtp_main, "perplexity")


@pytest.fixture(scope="module")
def text_file(tmp_path_factory) -> os.PathLike[str]:
    path = tmp_path_factory.mktemp("text") / "text.py"
    path.write_text(TEXT * 2, encoding="utf-8")
    return path


def test_command(call, text_file):
    code, out, err = call(TARGET, text_file, "--context", 64, "--threads", 1)
    assert (code, err) == (0, "")
    found = re.fullmatch(
        r"PPL = (\d+\.\d{4}) \+/- (\d+\.\d{5})   \((\d+) tokens scored, (\d) chunks of 64, "
        r"\d+\.\d s\)\n",
        out,
    )
    assert found
    perplexity, uncertainty, tokens, chunks = recipe((TEXT * 2).encode()[:-1], 64)
    assert found[1] == f"{perplexity:.4f}"
    assert found[2] == f"{uncertainty:.5f}"
    assert (int(found[3]), int(found[4])) == (tokens, chunks)


def test_json(call, text_file):
    code, out, err = call(TARGET, text_file, "--context", 64, "--chunks", 2, "--json", "--quiet")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert (figures["chunks"], figures["tokens"], figures["context"]) == (2, 62, 64)
    assert figures["perplexity"] == pytest.approx(math.exp(figures["nll"]))
    assert figures["uncertainty"] == pytest.approx(
        figures["nll_uncertainty"] * figures["perplexity"]
    )
    assert figures["running"][-1] == figures["perplexity"]
    assert figures["text_tokens"] > 128
    assert (figures["target"], figures["text"]) == (str(TARGET), str(text_file))


def test_control_tokens_of_a_text(call, tmp_path):
    turns = tmp_path / "turns.txt"
    turns.write_text("<bos>" + "<|turn>user\nhi<turn|>\n<|turn>model\nyes<turn|>\n" * 40)
    few = ["--context", 16, "--chunks", 2, "--json"]
    code, out, err = call(TARGET, turns, *few)
    assert (code, "spells the control token <bos>, which counts as text" in err) == (0, True)
    code, same, err = call(TARGET, turns, *few, "--special")
    assert (code, err) == (0, "")
    model = gemtp.Model(TARGET, threads=1, context=64)
    ids = model.tokenize(turns.read_text()[:-1], special=True)
    assert ids[:2] == [2, model._engine.tokenizer.find("<|turn>")]
    assert json.loads(same)["text_tokens"] == len(ids) < json.loads(out)["text_tokens"]


def test_refused_files(call, text_file, tmp_path):
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"caf\xe9 " * 100)
    empty = tmp_path / "empty.txt"
    empty.write_bytes(b"")
    assert_one_error(call(TARGET, latin), "latin.txt is not UTF-8", "byte 3 is 0xE9")
    assert_one_error(call(TARGET, empty), "the text has 1 token")
    assert_one_error(call(TARGET, tmp_path / "none.txt"), "none.txt cannot be read", "No such file")
    assert_one_error(call(TARGET, tmp_path), "is not a file but a folder")
    assert_one_error(call(tmp_path / "none.gguf", text_file), "none.gguf")
    assert_one_error(call(text_file, text_file), "text.py")
    assert_one_error(call(DRAFTER, text_file), "drafter")
    g = tiny_files.sound_target()
    g.keys = [k for k in g.keys if not str(k.name).startswith("tokenizer.")]
    mute = tmp_path / "mute.gguf"
    mute.write_bytes(g.encode())
    assert_one_error(call(mute, text_file), "holds no tokenizer", "convert it again")
