"""Files in other types, and gemtp sweep: figures that fit together, output that parses, refusals in
one sentence, nothing left behind."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import checkpoints
import gemtp_native as gemtp
import shipped
import tiny_files
from gemtp_native import _core
from gemtp_native.gguf.encode import LARGEST, decode, encode
from gemtp_native.gguf.types import FILE_TYPES, FLOATS, TensorType
from gemtp_native.make.convert import convert
from gemtp_native.make.quantize import has_type, quantize
from gemtp_native.measure import perplexity as evaluate
from gemtp_native.measure import sweep
from gemtp_native.measure.sweep import measure
from gemtp_native.measure.sweep.render import csv_columns
from gemtp_native.measure.sweep.report import acceptance
from one_error import assert_one_error

TARGET, DRAFTER = shipped.in_q8_0()
SMALL = ("--prompts", 3, "--prompt-tokens", 24, "--tokens", 12, "--runs", 1, "--context", 64)
SMALL = (*SMALL, "--chunks", 2, "--depth", 3)

requantize = partial(quantize, allow_requantize=True)


# ---------------------------------------------------------------- types


@pytest.mark.parametrize("kind", sorted({t.kind for t in FILE_TYPES.values()}))
def test_decode_undoes_encode(kind):
    values = np.random.default_rng(1).standard_normal(1 << 14).astype(np.float32)
    data = encode(values, kind)
    once = decode(data, kind)
    assert once.dtype == np.float32
    largest = np.abs(values.reshape(-1, 32)).max(axis=1, keepdims=True)  # of each block
    error = np.abs(once - values).reshape(-1, 32) / largest
    # Half a step (a whole one for Q4_0's largest value, if positive), and the scale's rounding.
    most = {"F32": 0, "F16": 2**-11, "BF16": 2**-8, "Q8_0": 1 / 254, "Q4_0": 1 / 8}
    most |= {"Q4_1": 1 / 15, "Q5_0": 1 / 16, "Q5_1": 1 / 31}
    # Of those that minimize the sum, no value is off by more than this.
    most |= {"Q6_K": 0.03, "Q5_K": 0.1, "Q4_K": 0.2, "Q3_K": 0.4, "Q2_K": 0.7, "MXFP4": 0.25}
    most |= {"IQ4_NL": 0.2, "IQ4_XS": 0.2}
    assert error.max() <= most[kind.name] + (0 if kind in FLOATS else 2**-10)
    if kind in (TensorType.F32, TensorType.F16, TensorType.BF16):
        assert encode(once, kind).tobytes() == data.tobytes()
    assert LARGEST[kind] >= np.abs(once).max()


@pytest.mark.parametrize("kind", [TensorType.Q8_0, TensorType.Q4_0])
def test_decode_is_what_the_core_computes_with(kind, tmp_path):
    """One-hot embeddings would do; here gguf's own reader is the judge."""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    data = np.random.default_rng(2).integers(0, 256, 34 * 18 * 32, dtype=np.uint8)
    size = {TensorType.Q8_0: 34, TensorType.Q4_0: 18}[kind]
    data.reshape(-1, size)[:, 1] &= 0x3B  # finite scales
    expected = dequantize(data.reshape(1, -1), GGMLQuantizationType(int(kind)))
    assert decode(data, kind).tobytes() == expected.astype(np.float32).tobytes()


@pytest.mark.parametrize("outtype", ["f16", "bf16", "q8_0", "q4_0"])
def test_requantized_is_what_the_converter_writes(pair, tmp_path, outtype):
    """Byte for byte: from the same float32 values, with the same metadata."""
    for source in (pair.target, pair.drafter):
        folder = source.parent / source.name.removesuffix("-f32.gguf")
        convert(folder, tmp_path / "converted.gguf", outtype, progress=False)
        made = requantize(source, tmp_path / "made.gguf", outtype, progress=False)
        data = made.path.read_bytes()
        assert data == (tmp_path / "converted.gguf").read_bytes()
        assert len(data) == made.bytes


def test_experts_are_quantized_and_routers_are_not(tmp_path):
    folder = checkpoints.committed("26b-a4b", tmp_path / "moe")
    source = checkpoints.to_gguf(folder, folder, "f32").target
    made = requantize(source, tmp_path / "q8.gguf", "q8_0", progress=False).path
    kinds = {name: kind for name, kind, *_ in _core.GgufFile(made).tensors}
    assert kinds["blk.0.ffn_gate_inp.weight"] == "F32"
    assert kinds["blk.0.ffn_down_exps.weight"] == "Q8_0"
    assert kinds["blk.0.ffn_down_exps.scale"] == "F32"
    gemtp.Model(made, context=32).generate([2, 5], max_tokens=2)


def test_a_file_of_mixed_types(tmp_path):
    """Q8_0, Q4_0 and F32 matrices: what has the type stays, bit by bit."""
    source = tmp_path / "mixed.gguf"
    g = tiny_files.sound_target()
    g.put("general.alignment", 4, 64)
    g.alignment = 64
    source.write_bytes(g.encode())
    made = requantize(source, tmp_path / "q4.gguf", "q4_0", progress=False).path
    before, after = _tensor_bytes(source), _tensor_bytes(made)
    kinds = {name: kind for name, kind, *_ in _core.GgufFile(source).tensors}
    assert set(before) == set(after)
    copied = [n for n in before if before[n] == after[n]]
    changed = [n for n in before if before[n] != after[n]]
    assert all(kinds[n] == "Q4_0" or not n.endswith("proj.weight") for n in copied)
    assert {kinds[n] for n in changed} == {"F32", "Q8_0"}
    assert "blk.0.ffn_down.weight" in copied
    assert "blk.0.attn_norm.weight" in copied
    gemtp.Model(made, context=32).generate([2, 5], max_tokens=2)
    with pytest.raises(gemtp.ModelError, match="is Q4_0, and Q8_0 would not bring back"):
        requantize(source, tmp_path / "q8.gguf", "q8_0", progress=False)
    assert sorted(os.listdir(tmp_path)) == ["mixed.gguf", "q4.gguf"]


def _tensor_bytes(path: Path) -> dict[str, bytes]:
    from gguf import GGUFReader

    return {t.name: t.data.tobytes() for t in GGUFReader(path).tensors}


def test_has_type():
    assert has_type(TARGET, "q8_0")
    assert not has_type(TARGET, "q4_0")
    with pytest.raises(gemtp.ModelError, match=r"is Q8_0, and F16 .* ask for q8_0 or less"):
        has_type(TARGET, "f16")


def test_refused_requantizing(tmp_path):
    out = tmp_path / "out.gguf"

    def refused(kind: type[Exception], match: str, source: Path, outtype: str = "q4_0"):
        with pytest.raises(kind, match=match):
            requantize(source, out, outtype, progress=False)
        assert not out.exists()

    def tiny(change) -> Path:
        g = tiny_files.sound_target()
        change(g)
        path = tmp_path / "tiny.gguf"
        path.write_bytes(g.encode())
        return path

    refused(gemtp.ArgumentError, "'q9_k'", TARGET, "q9_k")
    refused(gemtp.FileError, "none.gguf cannot be read", tmp_path / "none.gguf")
    refused(gemtp.FileError, "not a well-formed GGUF", Path(__file__))
    refused(gemtp.FileError, "part of a model", tiny(lambda g: g.put("split.count", 2, 3)))
    refused(gemtp.ModelError, "holds no tensors", tiny(lambda g: g.tensors.clear()))

    def other_type(g):
        g.tensors[0].kind = 34

    refused(gemtp.ModelError, "has type 34, which cannot be quantized", tiny(other_type))

    def not_finite(g):
        (matrix,) = [t for t in g.tensors if t.name == "per_layer_model_proj.weight"]
        matrix.data = np.full(len(matrix.data) // 4, np.nan, np.float32).tobytes()

    refused(gemtp.FileError, "per_layer_model_proj.weight holds .* NaN", tiny(not_finite))
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(TARGET.read_bytes()[:-4096])
    refused(gemtp.FileError, "ends inside", cut)
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(TARGET.read_bytes())
    with pytest.raises(gemtp.ArgumentError, match="is one of the files to read"):
        requantize(copy, copy, "q4_0", progress=False)
    assert copy.read_bytes() == TARGET.read_bytes()


# ---------------------------------------------------------------- figures


@pytest.fixture(scope="module")
def report(pair, tmp_path_factory) -> sweep.SweepReport:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "d").mkdir()
    return sweep.run(
        sweep.quantized(pair.target, ["f32", "q4_0"], folder, progress=False),
        sweep.quantized(pair.drafter, ["q8_0", "f32"], folder / "d", progress=False),
        text=("the heron in the thin inner reed the " * 40).encode(),
        text_name="herons",
        settings=sweep.SweepSettings(
            depth=4, prompts=5, prompt_tokens=30, tokens=40, runs=2, context=100, chunks=3
        ),
    )


def test_every_target_meets_every_drafter(report, pair):
    assert [t.name for t in report.targets] == ["f32", "q4_0"]
    assert [(c.target, c.drafter) for c in report.cells] == [
        ("f32", "q8_0"),
        ("f32", "f32"),
        ("q4_0", "q8_0"),
        ("q4_0", "f32"),
    ]
    assert report.targets[0].path == str(pair.target)  # no copy of what has the type
    assert report.targets[1].bytes < report.targets[0].bytes
    assert report.reference == "f32"
    assert report.identical is True
    assert report.skipped == {}


def test_acceptance_is_that_of_the_generations(report, pair):
    """Counted again, generation by generation."""
    model = gemtp.Model(pair.target, drafter=pair.drafter, context=71)
    text = model.tokenize("the heron in the thin inner reed the " * 40)
    body = text[1:]
    rounds, tokens, drafted, accepted = 0, 0, [0] * 4, [0] * 4
    for i in range(5):
        at = i * len(body) // 5
        prompt = [text[0], *body[at : at + 30]]
        stats = model.generate(prompt, max_tokens=40, draft=4, ignore_eos=True).stats
        rounds += stats.rounds
        tokens += stats.tokens - 1
        for k in range(4):
            drafted[k] += stats.drafted_at[k]
            accepted[k] += stats.accepted_at[k]
    cell = report.cells[1]
    assert (cell.rounds, cell.drafted_at, cell.accepted_at) == (rounds, drafted, accepted)
    assert cell.tokens_per_round == tokens / rounds
    assert 1 < cell.tokens_per_round < 5
    assert cell.cumulative == [a / d for a, d in zip(accepted, drafted, strict=True)]
    assert 0.3 < cell.cumulative[0] < 1


def test_conditional_acceptance(report):
    for cell in report.cells:
        product = 1.0
        for conditional, cumulative in zip(cell.conditional, cell.cumulative, strict=True):
            assert conditional is not None
            product *= conditional
            assert product == pytest.approx(cumulative)
        assert sorted(cell.cumulative, reverse=True) == cell.cumulative


def test_acceptance_of_counts():
    assert acceptance([8, 8, 4, 4], [6, 4, 0, 0]) == (
        [0.75, 0.5, 0.0, 0.0],
        [0.75, 0.5 / 0.75, 0.0, None],
    )
    assert acceptance([], []) == ([], [])


def test_quality(report, pair):
    text = ("the heron in the thin inner reed the " * 40).encode()
    reference, coarse = (t.quality for t in report.targets)
    alone = evaluate.perplexity(pair.target, text, context=100, chunks=3)
    assert reference.perplexity == alone.perplexity
    assert reference.perplexity_uncertainty == alone.uncertainty
    assert (reference.divergence, reference.divergence_uncertainty) == (0, 0)
    assert reference.same_best == 1
    assert report.scored == alone.tokens
    assert coarse.perplexity != reference.perplexity
    assert 1e-6 < coarse.divergence < 1
    assert 0 < coarse.divergence_uncertainty < coarse.divergence
    assert 0.5 < coarse.same_best <= 1


def test_divergence_is_the_mean_over_scored_tokens(report, pair):
    text = "the heron in the thin inner reed the " * 40
    fine = gemtp.Model(pair.target, context=100)
    coarse = gemtp.Model(report.targets[1].path, context=100)
    chunks = evaluate.split(fine, fine.tokenize(text), 100, 3)
    compared = [coarse.compare(fine, c, 51) for c in chunks]
    values = np.concatenate([c.divergence for c in compared])
    assert len(values) == report.scored
    quality = report.targets[1].quality
    assert quality.divergence == pytest.approx(values.mean(), rel=1e-12)
    assert quality.divergence_uncertainty == pytest.approx(
        values.std() / (len(values) - 1) ** 0.5, rel=1e-9
    )
    assert quality.same_best == np.concatenate([c.same_best for c in compared]).mean()


def test_speed(report):
    plain = {t.name: t.tokens_per_second for t in report.targets}
    for cell in report.cells:
        assert 0 < cell.worst <= cell.tokens_per_second <= cell.best
        assert cell.speedup == pytest.approx(cell.tokens_per_second / plain[cell.target])


def test_different_texts_are_noticed(monkeypatch, tmp_path):
    """A core that broke its promise: exit code 1, and the report says so."""
    generate = gemtp.Model.generate

    def broken(self, prompt, **options):
        return generate(self, prompt[:-1] if options["draft"] else prompt, **options)

    monkeypatch.setattr(gemtp.Model, "generate", broken)
    settings = sweep.SweepSettings(
        depth=2, prompts=2, prompt_tokens=16, tokens=8, runs=1, context=32, chunks=1
    )
    report = sweep.run(sweep.named([TARGET]), sweep.named([DRAFTER]), settings=settings)
    assert report.identical is False
    assert "THE TEXTS DIFFER" in sweep.text(report)


def test_targets_that_do_not_fit_together_are_measured_without_divergence(monkeypatch, tmp_path):
    coarse = requantize(TARGET, tmp_path / "q4.gguf", "q4_0", progress=False).path
    opened = measure._Run._open

    def one_at_a_time(self, target, drafter, context):
        if target.path == coarse and context == 32:
            raise gemtp.OutOfMemoryError("it needs more memory")
        return opened(self, target, drafter, context)

    monkeypatch.setattr(measure._Run, "_open", one_at_a_time)
    settings = sweep.SweepSettings(
        depth=2, prompts=2, prompt_tokens=16, tokens=8, runs=1, context=32, chunks=1
    )
    report = sweep.run(sweep.named([TARGET, coarse]), sweep.named([DRAFTER]), settings=settings)
    assert [t.quality is None for t in report.targets] == [False, True]
    assert "it needs more memory" in sweep.text(report)
    assert len(list(sweep.csv_rows(report))) == 2


def test_names(tmp_path):
    names = [v.name for v in sweep.named(["a/x.gguf", "b/x.gguf", "b/y.q4.gguf"])]
    assert names == ["a/x", "b/x", "b/y.q4"]
    assert [v.name for v in sweep.named(["a/x.gguf", "a/x.bin"])] == ["a/x.gguf", "a/x.bin"]
    with pytest.raises(gemtp.ArgumentError, match="given twice"):
        sweep.named(["a.gguf", "./a.gguf"])


def test_the_built_in_text_is_enough_for_the_defaults():
    """With a vocabulary made for something else, too."""
    ids = gemtp.Tokenizer(TARGET).encode(sweep.default_text(), add_bos=True)
    s = sweep.SweepSettings()
    assert len(ids) >= 2 * s.context
    assert len(ids) > s.prompts * s.prompt_tokens
    assert len(sweep.default_text()) / 6 > 2 * s.context  # Gemma 4: some 4 bytes a token


# ---------------------------------------------------------------- the command


@pytest.fixture
def call(gemtp_main):
    return partial(gemtp_main, "sweep")


def test_a_pair_is_quantized_and_nothing_is_left(call, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    types = ("--target-types", "q8_0,q4_0", "--drafter-types", "q4_0", "--scratch", scratch)
    code, out, err = call(TARGET, DRAFTER, *types, *SMALL)
    assert (code, err) == (0, "")
    assert list(scratch.iterdir()) == []
    assert "against q8_0" in out
    rows = [line.split() for line in out.splitlines()]
    assert sum(row[:2] == ["q8_0", "q4_0"] for row in rows) == 3
    assert sum(row[:2] == ["q4_0", "q4_0"] for row in rows) == 3
    assert "each target's text is the same" in out
    assert max(map(len, out.splitlines())) <= 110


def test_json(call):
    code, out, err = call("--targets", TARGET, "--drafters", DRAFTER, *SMALL, "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert [t["name"] for t in figures["targets"]] == ["target"]
    assert figures["cells"][0]["drafter"] == "drafter"
    assert len(figures["cells"][0]["cumulative"]) == 3
    assert figures["targets"][0]["quality"]["divergence"] == 0
    assert (figures["prompts"], figures["prompt_tokens"]) == (3, 24)
    assert figures["text"] == "built-in text"


def test_csv(call, tmp_path):
    args = ("--targets", TARGET, "--drafters", DRAFTER, *SMALL)
    code, out, err = call(*args, "--csv", "-")
    assert (code, err) == (0, "")
    (row,) = csv.DictReader(io.StringIO(out))
    assert float(row["conditional_1"]) == float(row["cumulative_1"])
    assert float(row["speedup"]) == pytest.approx(
        float(row["tokens_per_second"]) / float(row["plain"])
    )
    assert None not in row
    code, out, err = call(*args, "--csv", tmp_path / "a.csv")
    assert code == 0
    assert "tokens/round" in out
    (again,) = csv.DictReader((tmp_path / "a.csv").open())
    assert list(again) == list(row)
    assert again["perplexity"] == row["perplexity"]


def test_csv_columns(report):
    assert set(csv_columns(report)) >= set().union(*sweep.csv_rows(report))


def test_plot(report, tmp_path):
    pytest.importorskip("matplotlib")
    sweep.plot(report, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.png").stat().st_size > 10000


def test_generations_too_short_to_draft(call, tmp_path):
    """Two tokens: the first is the prompt's, and with one left there is nothing to gain."""
    pytest.importorskip("matplotlib")
    args = ("--targets", TARGET, "--drafters", DRAFTER, *SMALL, "--tokens", 2)
    code, out, err = call(*args, "--plot", tmp_path / "a.png")
    assert (code, err) == (0, "")
    assert ["target", "drafter", "-", "-", "-"] in [line.split() for line in out.splitlines()]


def test_reference(call, tmp_path):
    coarse = requantize(TARGET, tmp_path / "q4.gguf", "q4_0", progress=False).path
    args = ("--targets", coarse, "--drafters", DRAFTER, "--reference", TARGET, *SMALL, "--json")
    code, out, _ = call(*args)
    assert code == 0
    figures = json.loads(out)
    assert figures["reference"] == "target"
    quality = figures["targets"][0]["quality"]
    assert quality["divergence"] > 1e-4
    assert 0.5 < quality["same_best"] < 1
    assert len(figures["targets"]) == 1


def test_refused_files(call, pair, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    into = ("--scratch", scratch, *SMALL)
    missing = tmp_path / "none.gguf"
    assert_one_error(call(missing, DRAFTER, *into), "none.gguf cannot be read")
    assert_one_error(call(TARGET, DRAFTER, *into), "is Q8_0, and F16 would not bring back")
    types = ("--target-types", "q8_0", "--drafter-types")
    assert_one_error(call(TARGET, DRAFTER, *types, "q8_0,q8_0", *into), "q8_0 is given twice")
    assert_one_error(call(TARGET, DRAFTER, *types, "q9_0", *into), "the type is 'q9_0'")
    assert_one_error(call(TARGET, TARGET, *types, "q8_0", *into))
    assert_one_error(call("--targets", missing, "--drafters", DRAFTER), "none.gguf")
    assert_one_error(call("--targets", TARGET, "--drafters", pair.drafter, *SMALL))
    other = ("--targets", TARGET, pair.target, "--drafters", DRAFTER, *SMALL)
    assert_one_error(call(*other, "--reference", TARGET), "different tokens")
    no_folder = ("--scratch", tmp_path / "no", *types, "q8_0")
    assert_one_error(call(TARGET, DRAFTER, *no_folder), "is not a folder")
    assert list(scratch.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_interrupted(tmp_path):
    """Ctrl-C in the middle of measuring: no traceback, and the temporary files are gone."""
    types = ("--target-types", "q8_0,q4_0", "--drafter-types", "q4_0", "--scratch", tmp_path)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "gemtp_native", "sweep", TARGET, DRAFTER),
            *map(str, (*types, "--runs", 1000)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A background job's children ignore SIGINT, unless somebody restores it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    with process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("*/drafter/*.gguf")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 130
    assert (out, err) == (b"", b"")
    assert list(tmp_path.iterdir()) == []
