"""gemtp bench: figures that fit together, output that parses, refusals in one sentence."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import signal
import subprocess
import sys
from functools import partial

import pytest

import gemtp_native as gemtp
from gemtp_native import _core
from gemtp_native.measure import bench
from gemtp_native.measure.bench.measure import interleave, repeated
from gemtp_native.measure.bench.render import CSV_COLUMNS

TARGET, DRAFTER = gemtp.demo_models()
PAIR = (TARGET, "--drafter", DRAFTER)
SMALL = ("--runs", 2, "--prompt", "8,32", "--context", "0,200", "--rows", "1,3-4", "--tokens", 8)


@pytest.fixture
def call(gemtp_main):
    return partial(gemtp_main, "bench")


@pytest.fixture(scope="module")
def report() -> bench.BenchReport:
    return bench.run(
        TARGET,
        DRAFTER,
        bench.BenchSettings(
            prompts=[32, 8, 8],
            contexts=[0, 200],
            rows=[2, 16],
            depths=[3, "auto"],
            tokens=12,
            runs=3,
            threads=2,
        ),
    )


# ---------------------------------------------------------------- figures


def test_sections_are_complete_and_in_order(report):
    assert [p.tokens for p in report.prefill] == [8, 32]
    assert [d.context for d in report.decode] == [0, 200]
    assert [r.rows for r in report.rows] == [1, 2, 16]  # one row is what they are compared with
    assert [s.head for s in report.draft] == ["ordered", "plain"]
    assert [g.depth for g in report.generate] == [0, 3, "auto"]
    assert report.skipped == {}
    assert report.rounds == dict.fromkeys(bench.SECTIONS, 3)
    assert report.identical is True
    assert report.threads == 2


def test_times_are_ordered_and_agree_with_rates(report):
    timings = [*report.prefill, *report.decode, *report.rows, *report.draft]
    for t in timings:
        assert 0 < t.best_ms <= t.ms <= t.worst_ms
    for p in report.prefill:
        assert p.tokens_per_second * p.ms == pytest.approx(1000 * p.tokens)
    for d in report.decode:
        assert d.tokens_per_second * d.ms == pytest.approx(1000)
    for g in report.generate:
        assert 0 < g.worst <= g.tokens_per_second <= g.best


def test_ratios(report):
    one = report.rows[0]
    assert (one.ratio, one.best_ratio) == (1, 1)
    for r in [*report.rows, *report.draft]:
        assert r.ratio == pytest.approx(r.ms / one.ms)
        assert r.best_ratio == pytest.approx(r.best_ms / one.best_ms)
    plain = report.generate[0]
    assert plain.speedup == 1
    for g in report.generate:
        assert g.speedup == pytest.approx(g.tokens_per_second / plain.tokens_per_second)


def test_bytes_and_bandwidth(report):
    best = max(report.bandwidth.plain, report.bandwidth.prefetched)
    assert 1e8 < best < 1e13
    assert report.bandwidth.buffer_bytes >= 16 << 20
    for d in report.decode:
        assert d.bytes_per_second == pytest.approx(1000 * d.read_bytes / d.ms)
        assert d.share == pytest.approx(d.bytes_per_second / best)
    near, far = report.decode
    assert report.weights.token_bytes < near.read_bytes < far.read_bytes  # keys and values
    ordered, plain = report.draft
    assert ordered.read_bytes == report.weights.draft_bytes < plain.read_bytes
    assert plain.read_bytes == report.weights.plain_head_draft_bytes


def test_bytes_of_keys_and_values():
    """Layer by layer, from the file's metadata."""
    file = _core.GgufFile(TARGET)

    def key(name: str):
        return file.value(f"gemma4.{name}")

    sliding = key("attention.sliding_window_pattern")
    window, heads = key("attention.sliding_window"), key("attention.head_count_kv")
    heads = heads if isinstance(heads, list) else [heads] * len(sliding)
    context = 300
    expected = sum(
        2 * 2 * n * (min(context + 1, window) * key("attention.key_length_swa") if s
                     else (context + 1) * key("attention.key_length"))
        for s, n in zip(sliding, heads, strict=True)
    )  # fmt: skip
    engine = gemtp.Model(TARGET, context=512)._engine
    assert _core.Bench(engine, False).kv_bytes(context) == expected


def test_acceptance_is_that_of_generate(report):
    model = gemtp.Model(TARGET, drafter=DRAFTER, context=256)
    prompt = model.tokenize(bench.measure.TEXT)
    assert report.prompt_tokens == len(prompt)
    stats = model.generate(prompt, max_tokens=12, draft=3, ignore_eos=True).stats
    figures = report.generate[1]
    assert (figures.drafted, figures.accepted) == (stats.drafted, stats.accepted)
    assert figures.acceptance == stats.accepted / stats.drafted
    assert figures.tokens_per_round == (stats.tokens - 1) / stats.rounds
    assert report.generate[0].acceptance is None


def test_header(report):
    assert report.version == gemtp.__version__
    assert report.compiler.split()[0] in ("GCC", "Clang", "MSVC")
    assert report.target["bytes"] == TARGET.stat().st_size
    assert report.target["architecture"] == "gemma4"
    assert sum(report.target["types"].values()) < report.target["bytes"]
    assert report.load.seconds > 0
    assert report.memory.context == 201
    if sys.platform == "linux":
        assert 0 < report.memory.resident_bytes <= report.memory.peak_bytes
        assert report.load.from_storage_bytes is not None


def test_noise_does_not_reach_a_generation():
    """Timings share engine and scratch with generations, never their K/V."""
    model = gemtp.Model(TARGET, drafter=DRAFTER, context=256)
    before = model.generate("def f(", max_tokens=16, draft=3).tokens
    pieces = _core.Bench(model._engine, True)
    assert pieces.both_heads
    pieces.verify(100, 16)
    pieces.draft(100, 4, True)
    pieces.prefill(64)
    assert model.generate("def f(", max_tokens=16, draft=3).tokens == before
    assert model.generate("def g(", max_tokens=16, draft=0).tokens == (
        gemtp.Model(TARGET, context=256).generate("def g(", max_tokens=16).tokens
    )


def test_pieces_refuse_what_does_not_fit():
    model = gemtp.Model(TARGET, context=64)
    pieces = _core.Bench(model._engine, True)
    pieces.verify(48, 16)
    for wrong in (
        lambda: pieces.verify(49, 16),
        lambda: pieces.verify(-1, 1),
        lambda: pieces.verify(0, 17),
        lambda: pieces.verify(0, 0),
        lambda: pieces.prefill(65),
        lambda: pieces.prefill(0),
        lambda: pieces.draft(10, 1, False),  # no drafter
    ):
        with pytest.raises(gemtp.ArgumentError):
            wrong()
    with_drafter = _core.Bench(gemtp.Model(TARGET, drafter=DRAFTER, context=64)._engine, False)
    for wrong in (
        lambda: with_drafter.draft(0, 1, False),
        lambda: with_drafter.draft(10, 0, False),
        lambda: with_drafter.draft(10, 16, False),
        lambda: with_drafter.draft(10, 1, True),  # its plain head was not asked for
    ):
        with pytest.raises(gemtp.ArgumentError):
            wrong()
    with pytest.raises(gemtp.ArgumentError):
        _core.ReadBandwidth(1, 1000)


# ---------------------------------------------------------------- rounds


def test_interleave_goes_back_and_forth():
    order = []
    samples = interleave({k: lambda k=k: order.append(k) or len(order) for k in "abc"}, 3)
    assert "".join(order) == "abccbaabc"
    assert samples == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}


def test_interleave_keeps_to_its_budget():
    assert interleave({"a": lambda: 1.0}, 5, budget=0) == {"a": [1.0]}


def test_short_things_are_repeated():
    calls = []
    assert repeated(lambda: calls.append(0) or 0.001) == pytest.approx(0.001)
    assert len(calls) in (5, 6)
    assert repeated(lambda: 2.0) == 2.0


# ---------------------------------------------------------------- output


def test_table(report, call):
    text = bench.text(report)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert not any(line.endswith(" ") for line in lines)
    for word in ("machine", "GB/s", "Prefill", "Plain decoding", "draft step", "the same"):
        assert word in text

    code, out, err = call(TARGET, "--only", "rows", "--rows", "1-2", "--runs", 1)
    assert (code, err) == (0, "")
    assert "1 interleaved round\n" in out
    assert "Prefill" not in out


def test_json(call):
    code, out, err = call(*PAIR, *SMALL, "--depths", "0,2", "--skip", "bandwidth", "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert figures["machine"]["usable_cores"] >= 1
    assert figures["bandwidth"] is None
    assert [d["share"] for d in figures["decode"]] == [None, None]
    assert [r["rows"] for r in figures["rows"]] == [1, 3, 4]
    assert [g["depth"] for g in figures["generate"]] == [0, 2]
    assert figures["rounds"]["decode"] == 2


def test_csv(call, tmp_path):
    path = tmp_path / "figures.csv"
    code, out, err = call(*PAIR, *SMALL, "--only", "rows,draft,generate", "--csv", path)
    assert (code, err) == (0, "")
    assert out.startswith("machine")  # the table as well
    rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    assert list(rows[0]) == list(CSV_COLUMNS)
    assert all(row["version"] == gemtp.__version__ for row in rows)
    assert [r["parameter"] for r in rows if r["section"] == "rows"] == ["1", "3", "4"]
    assert [r["parameter"] for r in rows if r["section"] == "generate"][-1] == "auto"
    for r in rows:
        if r["section"] in ("rows", "draft"):
            assert 0 < float(r["best_ms"]) <= float(r["ms"])
            assert float(r["ratio"]) > 0
        if r["section"] == "generate":
            assert float(r["tokens_per_second"]) > 0

    code, out, _ = call(TARGET, *SMALL, "--only", "prefill", "--csv", "-")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(r["section"], r["parameter"]) for r in rows] == [
        ("load", ""), ("prefill", "8"), ("prefill", "32"),
    ]  # fmt: skip


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_plot(report, call, tmp_path):
    path = tmp_path / "figures.png"
    bench.plot(report, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    path = tmp_path / "rows.svg"
    assert call(TARGET, "--only", "rows", "--rows", "1-2", "--runs", 1, "--plot", path)[0] == 0
    assert b"<svg" in path.read_bytes()


def test_plot_refusals(report, monkeypatch, tmp_path, call):
    if importlib.util.find_spec("matplotlib") is not None:
        for name in ("figures", "figures.txt"):
            with pytest.raises(gemtp.ArgumentError, match="must end in .png"):
                bench.check_plot(tmp_path / name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    code, out, err = call(TARGET, "--plot", tmp_path / "a.png")  # before it measures
    assert (code, out) == (1, "")
    assert err == (
        "gemtp: error: a plot needs matplotlib; install it with: pip install 'gemtp-native[plot]'\n"
    )


def test_no_drafter(call):
    code, out, err = call(TARGET, *SMALL, "--only", "draft,generate", "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert figures["skipped"] == {
        "draft": "no drafter was given",
        "generate": "only depth 0: no drafter was given",
    }
    assert [g["depth"] for g in figures["generate"]] == [0]


def test_plain_head_only(other_pair):
    """A drafter without an ordered head; a file without a tokenizer's worth of prompt."""
    settings = bench.BenchSettings(
        sections=["draft", "generate"], tokens=4, runs=1, at=8, depths=[0, 1]
    )
    report = bench.run(other_pair.target, other_pair.drafter, settings)
    assert [s.head for s in report.draft] == ["plain"]
    assert report.weights.plain_head_draft_bytes is None
    assert report.rows == []
    assert len(report.generate) == 2


# ---------------------------------------------------------------- refusals


def test_default_lengths_that_do_not_fit_are_left_out(call):
    code, out, _ = call(TARGET, "--only", "decode", "--runs", 1, "--json")
    assert code == 0
    figures = json.loads(out)
    assert [d["context"] for d in figures["decode"]] == [0]
    assert "4096, 16384" in figures["skipped"]["decode"]
    assert "2048" in figures["skipped"]["decode"]


def test_files(call, tmp_path):
    missing = tmp_path / "missing.gguf"
    for args in (
        [missing],
        [TARGET, "--drafter", missing],
        [DRAFTER],
        [TARGET, "--drafter", TARGET],
    ):
        code, out, err = call(*args, *SMALL)
        assert (code, out) == (1, "")
        assert err.startswith("gemtp: error: ")
        assert err.count("\n") == 1
    for option in ("--csv", "--plot"):
        code, out, err = call(TARGET, "--runs", 1000, option, tmp_path / "no" / "a.png")
        assert (code, out) == (1, "")
        assert "its folder does not exist" in err


@pytest.mark.parametrize(
    "settings",
    [
        {"prompts": 5},
        {"prompts": []},
        {"prompts": ["5"]},
        {"contexts": "0"},
        {"rows": [True]},
        {"depths": "auto"},
        {"depths": ["all"]},
        {"depths": [16]},
        {"sections": []},
        {"sections": ["speed"]},
        {"tokens": 2.5},
    ],
    ids=str,
)
def test_settings(settings):
    with pytest.raises(gemtp.ArgumentError):
        bench.BenchSettings(**settings)


def test_interrupted():
    """Ctrl-C ends it without a traceback."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gemtp_native",
            "bench",
            TARGET,
            "--runs",
            "1000",
            "--budget",
            "1e9",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A background job's children ignore SIGINT, unless somebody restores it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    with process:
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode in (130, -2)
    assert (out, err) == (b"", b"")
