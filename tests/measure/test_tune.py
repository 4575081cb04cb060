"""gemtp tune: figures that fit together, a profile that models find, refusals in one sentence."""

from __future__ import annotations

import importlib.util
import json
from functools import partial
from pathlib import Path

import pytest

import gemtp_native as gemtp
from gemtp_native import _core, profile
from gemtp_native.measure import tune
from gemtp_native.measure.tune.measure import later_steps
from gemtp_native.measure.tune.report import ACCEPTANCES

TARGET, DRAFTER = gemtp.demo_models()
QUICK = ("--threads", 1, "--budget", 0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GEMTP_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def call(gemtp_main):
    return partial(gemtp_main, "tune")


@pytest.fixture(scope="module")
def report() -> tune.TuneReport:
    return tune.run(TARGET, DRAFTER, tune.TuneSettings(context=300, budget=1.0, threads=1))


@pytest.fixture(scope="module")
def alone() -> tune.TuneReport:
    """Without a drafter."""
    return tune.run(TARGET, None, tune.TuneSettings(context=0, budget=0, threads=1))


# ---------------------------------------------------------------- figures


def test_all_is_measured(report):
    assert report.contexts == [64, 300]
    assert [(v.context, v.rows) for v in report.verify] == [
        (context, rows) for context in (64, 300) for rows in range(1, 17)
    ]
    assert [(d.context, d.step) for d in report.draft] == [(64, 0), (64, 1), (300, 0), (300, 1)]
    assert report.rounds >= 1
    assert 0 < report.seconds < 60
    assert 1e8 < report.bandwidth.best < 1e13
    assert report.draft_bytes < report.token_bytes
    assert (report.threads, report.kv_type) == (1, "f16")
    for timing in [*report.verify, *report.draft]:
        assert 0 < timing.best_ms <= timing.ms <= timing.worst_ms


def test_ratios_are_to_one_row_behind_the_same_context(report):
    one = {v.context: v.ms for v in report.verify if v.rows == 1}
    for timing in [*report.verify, *report.draft]:
        assert timing.ratio == pytest.approx(timing.ms / one[timing.context])


def test_choices_follow_from_the_costs(report):
    assert [(c.context, c.acceptance) for c in report.choices] == [
        (context, a) for context in (64, 300) for a in ACCEPTANCES
    ]
    ms = {(v.context, v.rows): v.ms for v in report.verify}
    step = {(d.context, d.step): d.ms for d in report.draft}
    for c in report.choices:
        speeds = []
        for depth in range(16):
            cost = ms[c.context, depth + 1]
            if depth:
                cost += step[c.context, 0] + (depth - 1) * step[c.context, 1]
            speeds.append(sum(c.acceptance**k for k in range(depth + 1)) / cost * 1000)
        assert c.tokens_per_second == pytest.approx(max(speeds))
        assert speeds[c.depth] == pytest.approx(max(speeds))
        assert c.speedup == pytest.approx(max(speeds) / speeds[0])
        assert c.speedup >= 1


def test_without_a_drafter(alone):
    assert alone.contexts == [64]
    assert alone.draft == []
    assert (alone.drafter, alone.draft_bytes) == (None, None)
    assert alone.rounds == 1  # the budget is none
    assert profile.round_seconds(alone.costs, 4) == pytest.approx(alone.verify[4].ms / 1000)
    text = tune.text(alone)
    assert "No drafter was given: drafts that are looked up in the text cost nothing" in text
    assert "One draft step" not in text


def test_steps_after_the_first():
    assert later_steps(1.0, [4.0, 7.0]) == [1.0, 2.0]
    assert later_steps(5.0, [4.0]) == [1.0]  # never nothing or less


def test_progress():
    seen: list[tuple[float, str]] = []
    tune.run(
        TARGET,
        None,
        tune.TuneSettings(context=0, budget=0, threads=1),
        lambda share, what: seen.append((share, what)),
    )
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1
    assert list(dict.fromkeys(what for _, what in seen)) == ["loading", "warming up", "round 1"]


# ---------------------------------------------------------------- the profile


def test_a_saved_report_is_what_a_model_finds(report, cache):
    path = tune.save(report)
    try:
        found, why = profile.load(TARGET, DRAFTER, 1, "f16", report.isa)
        assert why is None
        assert path.parent == cache / "profiles"
        assert profile.best_depth(found, 0.8, 300) == next(
            c.depth for c in report.choices if (c.context, c.acceptance) == (300, 0.8)
        )
        assert [tuple(c) for c in found.costs.verify] == report.costs.verify
        assert [tuple(c) for c in found.costs.draft] == report.costs.draft
        assert found.bandwidth == report.bandwidth.best
        assert f"profile saved in\n{path}" in tune.text(report)
    finally:
        report.profile = None


def test_the_command_saves_and_models_use(call, cache, caplog, monkeypatch):
    code, out, err = call(TARGET, "--drafter", DRAFTER, "--context", 0, *QUICK)
    assert (code, err) == (0, "")
    (path,) = (cache / "profiles").iterdir()
    assert out.endswith(f'draft="auto" starts from the profile saved in\n{path}\n')
    used = []
    real = _core.Engine.set_costs
    monkeypatch.setattr(_core.Engine, "set_costs", lambda *args: used.append(args) or real(*args))
    model = gemtp.Model(TARGET, drafter=DRAFTER, threads=1, context=128)
    assert len(used) == 1
    assert model.generate("def f(", max_tokens=8).tokens
    assert caplog.records == []


def test_tuning_again_mends_a_damaged_profile(call, cache):
    assert call(TARGET, "--context", 0, *QUICK)[0] == 0
    (path,) = (cache / "profiles").iterdir()
    path.write_bytes(b"garbage")
    code, _, err = call(TARGET, "--context", 0, *QUICK)
    assert (code, err) == (0, "")  # no word about the old one
    assert json.loads(path.read_bytes())["format"] == 2


def test_no_save(call, cache):
    code, out, err = call(TARGET, "--context", 0, *QUICK, "--no-save")
    assert (code, err) == (0, "")
    assert out.endswith("no profile was saved\n")
    assert not cache.exists()


def test_a_folder_that_cannot_be_written(call, cache, monkeypatch):
    cache.write_text("in the way")
    code, out, err = call(TARGET, *QUICK)  # said before measuring
    assert (code, out) == (1, "")
    assert err.startswith(f"gemtp: error: the profile cannot be saved in {cache / 'profiles'}: ")
    assert err.count("\n") == 1
    assert call(TARGET, "--context", 0, *QUICK, "--no-save")[0] == 0

    monkeypatch.setattr(profile, "check_folder", lambda: None)  # it was writable then
    code, out, err = call(TARGET, "--context", 0, *QUICK)
    assert code == 1
    assert "to plain" in out  # the figures are not lost
    assert err.startswith("gemtp: error: the profile cannot be saved in")


# ---------------------------------------------------------------- output


def test_tables(report, alone):
    for r in (report, alone):
        lines = tune.text(r).splitlines()
        assert max(map(len, lines)) <= 100
        assert not any(line.endswith(" ") for line in lines)
        cells = [line.split() for line in lines]
        rows = [c[0] for c in cells if len(c) == 1 + 2 * len(r.contexts) and c[0].isdigit()]
        assert rows == [str(n) for n in range(1, 17)]
        for a in ACCEPTANCES:
            assert [f"{100 * a:.0f}%"] in [c[:1] for c in cells]
    for word in ("machine", "GB/s", "first", "later", "ms behind 300", "drafts behind 64"):
        assert word in tune.text(report)


def test_json(call):
    code, out, err = call(TARGET, "--drafter", DRAFTER, "--context", 0, *QUICK, "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert len(figures["verify"]) == 16
    assert [d["step"] for d in figures["draft"]] == [0, 1]
    assert len(figures["choices"]) == len(ACCEPTANCES)
    assert figures["bandwidth"]["plain"] > 0
    assert figures["version"] == gemtp.__version__
    assert Path(figures["profile"]).is_file()


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_plot(report, call, tmp_path):
    path = tmp_path / "figures.png"
    tune.plot(report, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    path = tmp_path / "figures.svg"
    assert call(TARGET, "--context", 0, *QUICK, "--no-save", "--plot", path)[0] == 0
    assert b"<svg" in path.read_bytes()


# ---------------------------------------------------------------- lengths and refusals


def test_the_longest_that_fits_by_default():
    """The shipped target holds 2048 tokens."""
    assert tune.measure._contexts(None, 2048) == [64, 2032]
    assert tune.measure._contexts(None, 131072) == [64, 4096]
    assert tune.measure._contexts(None, 0) == [64, 4096]
    assert tune.measure._contexts(None, 64) == [48]
    assert tune.measure._contexts(0, 2048) == [64]
    assert tune.measure._contexts(16, 2048) == [16, 64]
    assert tune.measure._contexts(64, 2048) == [64]
    for asked, limit in ((2033, 2048), (None, 16), (0, 16)):
        with pytest.raises(gemtp.ContextError):
            tune.measure._contexts(asked, limit)


@pytest.mark.parametrize(
    "settings",
    [
        {"context": 1.5},
        {"context": True},
        {"context": 1 << 40},
        {"budget": "5"},
        {"budget": True},
        {"threads": 0},
        {"kv_type": "f8"},
        {"device": "gpu"},
    ],
    ids=str,
)
def test_settings(settings):
    with pytest.raises(gemtp.ArgumentError):
        tune.TuneSettings(**settings)
