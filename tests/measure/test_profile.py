"""Saved profiles: what follows from costs, where profiles live, and everything that may be wrong
with one. A model opens and says the same whatever lies in its profile's place."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import gemtp_native as gemtp
from gemtp_native import _core, profile
from gemtp_native.cli import main

TARGET, DRAFTER = gemtp.demo_models()
ISA = _core.selected_isa()
COSTS = profile.Costs(
    [(rows, context, (1 + 0.1 * rows) * (1 + context / 1e4) / 1000)
     for context in (64, 2000) for rows in range(1, 17)],
    [(step, context, 1e-4 / (1 + step)) for context in (64, 2000) for step in (0, 1)],
)  # fmt: skip


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GEMTP_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def saved(cache) -> Path:
    return profile.save(made_up())


def made_up(target: Path = TARGET, drafter: Path | None = DRAFTER) -> profile.Profile:
    at = profile.conditions(target, drafter, 1, "f16", ISA)
    return profile.Profile("2026-01-01T00:00:00+00:00", at, COSTS, 2e10)


def load(target: Path = TARGET, drafter: Path | None = DRAFTER):
    return profile.load(target, drafter, 1, "f16", ISA)


def text_of(**options) -> str:
    model = gemtp.Model(TARGET, drafter=DRAFTER, threads=1, context=128, **options)
    return model.generate("def f(", max_tokens=6).text


# ---------------------------------------------------------------- what follows from costs


def formula(acceptance: float, depth: int, verify: list[float], first: float, later: float):
    tokens = 1 + sum(acceptance**k for k in range(1, depth + 1))
    return tokens / (verify[depth] + (first + (depth - 1) * later if depth else 0))


@pytest.mark.parametrize("row", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize(("first", "later"), [(0.01, 0.01), (0.3, 0.05), (2.0, 2.0)])
def test_best_depth_is_the_maximum_of_the_formula(row, first, later):
    verify = [1 + row * n for n in range(16)]
    costs = profile.Costs(
        [(n + 1, 64, t) for n, t in enumerate(verify)], [(0, 64, first), (1, 64, later)]
    )
    depths = []
    for acceptance in (0, 0.1, 0.35, 0.5, 0.75, 0.9, 1):
        speeds = [formula(acceptance, k, verify, first, later) for k in range(16)]
        for depth, speed in enumerate(speeds):
            assert profile.expected_speed(costs, acceptance, depth) == pytest.approx(speed)
        depths.append(profile.best_depth(costs, acceptance))
        assert speeds[depths[-1]] == pytest.approx(max(speeds))
    assert depths[0] == 0  # nothing is right
    assert depths == sorted(depths)
    if row == 0 and first < 1:
        assert depths[-1] == 15  # all is right, and verified for nothing
    if row == 1:
        assert set(depths) == {0}  # a row costs what a pass of its own does


def test_drafts_that_cost_nothing():
    costs = profile.Costs([(n, 0, 1 + 0.1 * n) for n in range(1, 17)], [])
    assert profile.round_seconds(costs, 3) == pytest.approx(1.4)
    assert profile.best_depth(costs, 0.0) == 0
    assert profile.best_depth(costs, 0.2) > 0


def test_the_nearest_context_counts():
    seconds = {c: profile.round_seconds(COSTS, 2, c) for c in (None, 0, 64, 1000, 1100, 10**6)}
    assert seconds[None] == seconds[0] == seconds[64] == seconds[1000]
    assert seconds[1100] == seconds[10**6] > seconds[64]


def test_depths_that_were_not_measured_are_not_chosen():
    costs = profile.Costs([(1, 0, 1.0), (3, 0, 1.0)], [])
    assert profile.best_depth(costs, 1.0) == 2
    with pytest.raises(gemtp.ArgumentError, match="no pass over 2 rows"):
        profile.expected_speed(costs, 1.0, 1)


@pytest.mark.parametrize("acceptance", [-0.1, 1.1, float("nan")])
def test_acceptance_is_a_share(acceptance):
    with pytest.raises(gemtp.ArgumentError, match="acceptance"):
        profile.best_depth(COSTS, acceptance)


def test_depth_is_checked():
    for depth in (-1, 16):
        with pytest.raises(gemtp.ArgumentError, match="between 0 and 15"):
            profile.round_seconds(COSTS, depth)


# ---------------------------------------------------------------- where profiles live


def test_folders_of_systems(monkeypatch, tmp_path):
    monkeypatch.delenv("GEMTP_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert profile.folder() == tmp_path / "xdg" / "gemtp" / "profiles"
    for unusable in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert profile.folder() == tmp_path / ".cache" / "gemtp" / "profiles"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert profile.folder() == tmp_path / "Library" / "Caches" / "gemtp" / "profiles"
    monkeypatch.setattr(sys, "platform", "win32")
    assert profile.folder() == tmp_path / "local" / "gemtp" / "profiles"
    monkeypatch.setenv("GEMTP_CACHE_DIR", str(tmp_path / "own"))
    assert profile.folder() == tmp_path / "own" / "profiles"


def test_no_home(monkeypatch):
    monkeypatch.delenv("GEMTP_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(sys, "platform", "linux")
    assert load() == (None, None)
    with pytest.raises(gemtp.FileError, match="GEMTP_CACHE_DIR"):
        profile.save(made_up())
    assert text_of()


def test_a_profile_for_each_pair_threads_and_type(cache, tmp_path, monkeypatch):
    paths = {
        profile.path_of(target, drafter, threads, kv_type)
        for target in (TARGET, tmp_path / TARGET.name)
        for drafter in (None, DRAFTER, tmp_path / "x.gguf")
        for threads in (1, 2)
        for kv_type in ("f16", "f32")
    }
    assert len(paths) == 24
    assert {path.parent for path in paths} == {cache / "profiles"}
    path = profile.path_of(TARGET, DRAFTER, 1, "f16")
    assert path.name.startswith(f"{TARGET.stem}+{DRAFTER.stem}-1t-f16-")
    monkeypatch.chdir(TARGET.parent)
    assert profile.path_of(TARGET.name, os.fsencode(DRAFTER.name), 1, "f16") == path


def test_names_of_any_kind(cache, tmp_path):
    for name in ("ü ? \n*.gguf", "-" * 200 + ".gguf", os.fsdecode(b"\xff\xfe.gguf")):
        path = profile.path_of(tmp_path / name, None, 1, "f16")
        assert path.name.isascii()
        assert len(path.name) < 120
        target = tmp_path / name
        try:
            shutil.copy(TARGET, target)
        except (OSError, ValueError):  # not a name on this system
            continue
        assert profile.save(made_up(target, None)).is_file()
        found, why = load(target, None)
        assert why is None
        assert found.costs == COSTS


# ---------------------------------------------------------------- a sound profile


def test_what_is_saved_is_loaded(saved):
    found, why = load()
    assert why is None
    assert found == made_up()
    data = json.loads(saved.read_text(encoding="ascii"))
    assert data["format"] == profile.FORMAT == 2
    at = data["conditions"]
    assert at["version"] == gemtp.__version__
    assert at["target"]["bytes"] == TARGET.stat().st_size
    assert {"cpu", "usable_cores", "memory_bytes", "platform"} <= set(at["machine"])
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]  # nothing temporary is left


def test_another_one_takes_its_place(saved):
    other = replace(made_up(), bandwidth=1.0)
    assert profile.save(other) == saved
    assert load()[0] == other
    assert len(list(saved.parent.iterdir())) == 1


def test_a_model_starts_from_it(saved, monkeypatch, caplog):
    calls = []
    monkeypatch.setattr(_core.Engine, "set_costs", lambda _, *costs: calls.append(costs))
    gemtp.Model(TARGET, drafter=DRAFTER, threads=1, context=128)
    assert calls == [(COSTS.verify, COSTS.draft)]
    gemtp.Model(TARGET, drafter=DRAFTER, threads=1, context=128, profile=False)
    gemtp.Model(TARGET, drafter=DRAFTER, threads=2, context=128)
    gemtp.Model(TARGET, drafter=DRAFTER, threads=1, context=128, kv_type="f32")
    gemtp.Model(TARGET, threads=1, context=128)
    assert len(calls) == 1
    assert caplog.records == []


def test_the_text_is_the_same(saved, caplog):
    assert text_of() == text_of(profile=False)
    assert caplog.records == []


def test_the_first_rounds_draft_what_the_profile_makes_worthwhile(cache):
    """Before anything has been timed: rows that cost nothing against rows that cost a pass."""
    drafted = []
    for row, step in ((0.0, 1e-6), (1.5, 1e-3)):
        costs = profile.Costs(
            [(rows, 64, 3e-4 * (1 + row * (rows - 1))) for rows in range(1, 17)],
            [(0, 64, step), (1, 64, step)],
        )
        profile.save(replace(made_up(), costs=costs))
        count = 0
        for prompt in ("def f(", "import os\nimport sys\n", "class A:\n    def __init__(self"):
            model = gemtp.Model(TARGET, drafter=DRAFTER, threads=1, context=128)
            with model.stream(prompt, max_tokens=20, ignore_eos=True) as stream:
                steps = stream.steps()
                while stream.stats.rounds < 1:
                    next(steps)
                count += stream.stats.drafted
        drafted.append(count)
    assert drafted[0] > drafted[1]


def test_the_engine_takes_costs():
    engine = gemtp.Model(TARGET, drafter=DRAFTER, threads=1, context=128)._engine
    engine.set_costs(COSTS.verify, COSTS.draft)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(gemtp.ArgumentError):
            engine.set_costs([(1, 64, wrong)], [])
        with pytest.raises(gemtp.ArgumentError):
            engine.set_costs([(1, 64, 1.0)], [(0, 64, wrong)])
    for rows in (0, 17):
        with pytest.raises(gemtp.ArgumentError):
            engine.set_costs([(rows, 64, 1.0)], [])


def test_extreme_costs_do_not_change_the_text(cache):
    """Sound JSON, absurd figures: the control starts from nonsense and says the same."""
    expected = text_of(profile=False)
    for verify, draft in ((1e-300, 1e17), (1e17, 1e-300), (1e-9, 1e-9)):
        costs = profile.Costs([(rows, 64, verify) for rows in (1, 16)], [(0, 64, draft)])
        profile.save(replace(made_up(), costs=costs))
        assert load()[1] is None
        assert text_of() == expected


# ---------------------------------------------------------------- one that is of no use


def change(*keys: str | int, to: object):
    """Writes another value at a path of keys."""

    def attack(path: Path) -> None:
        data = json.loads(path.read_bytes())
        place = data
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to
        path.write_text(json.dumps(data), encoding="utf-8")

    return attack


def remove(*keys: str):
    def attack(path: Path) -> None:
        data = json.loads(path.read_bytes())
        place = data
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]
        path.write_text(json.dumps(data), encoding="utf-8")

    return attack


def contents(data: bytes):
    return lambda path: path.write_bytes(data)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def raw_seconds(literal: str):
    """A number that Python would not write."""

    def attack(path: Path) -> None:
        change("costs", "verify", 0, 2, to="HERE")(path)
        path.write_text(path.read_text(encoding="ascii").replace('"HERE"', literal))

    return attack


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def unreadable(path: Path) -> None:
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")


COST = ("costs", "verify", 0)
ATTACKS = {
    # damaged
    "empty": (contents(b""), "not JSON"),
    "garbage": (contents(random.Random(0).randbytes(5000)), "not JSON"),
    "not UTF-8": (contents(b'{"format": "\xff"}'), "not JSON"),
    "truncated": (truncated, "not JSON"),
    "zeros": (contents(bytes(4096)), "not JSON"),
    "deep": (contents(b"[" * 500_000), "damaged"),
    "a list": (contents(b"[]"), "not a JSON object"),
    "null": (contents(b"null"), "not a JSON object"),
    "huge": (contents(b" " * (2 << 20)), "no profile is that large"),
    "a directory": (directory, "not a file"),
    "unreadable": (unreadable, "Permission denied"),
    "no conditions": (remove("conditions"), "conditions is None"),
    "no costs": (remove("costs"), "costs is None"),
    "no target": (remove("conditions", "target"), "target is None"),
    "no date": (change("created", to=5), "created is 5"),
    "machine of another kind": (change("conditions", "machine", to=[]), "machine is []"),
    "threads of another kind": (change("conditions", "threads", to=True), "threads is True"),
    "name that is a number": (change("conditions", "isa", to=2), "isa is 2"),
    "size of another kind": (change("conditions", "target", "bytes", to="1"), "bytes is 1"),
    "NaN bandwidth": (change("bandwidth", to=float("nan")), "bandwidth holds nan"),
    # damaged costs
    "NaN": (change(*COST, 2, to=float("nan")), "verify holds nan"),
    "infinity": (change(*COST, 2, to=float("inf")), "verify holds inf"),
    "too large a number": (raw_seconds("1e999"), "verify holds inf"),
    "a whole number beyond doubles": (raw_seconds("1" + "0" * 400), "verify holds 1"),
    "thousands of digits": (raw_seconds("1" * 10_000), "not JSON"),
    "negative": (change(*COST, 2, to=-0.01), "verify holds -0.01"),
    "zero": (change(*COST, 2, to=0), "verify holds 0"),
    "negative draft": (change("costs", "draft", 1, 2, to=-1.0), "draft holds -1.0"),
    "text": (change(*COST, 2, to="0.01"), "verify holds 0.01"),
    "true": (change(*COST, 2, to=True), "verify holds True"),
    "no rows": (change(*COST, 0, to=0), "entry for 0"),
    "too many rows": (change(*COST, 0, to=17), "entry for 17"),
    "half rows": (change(*COST, 0, to=1.5), "entry for 1.5"),
    "a third step": (change("costs", "draft", 0, 0, to=2), "entry for 2"),
    "negative context": (change(*COST, 1, to=-1), "context -1"),
    "endless context": (change(*COST, 1, to=10**30), "context 1000"),
    "a pair": (change(*COST, to=[1, 2]), "an entry of verify is [1, 2]"),
    "a lone number": (change(*COST, to=1), "an entry of verify is 1"),
    "no passes": (change("costs", "verify", to=[]), "lacks the pass over one row"),
    "not a list": (change("costs", "verify", to={}), "verify is {}"),
    "endless": (change("costs", "verify", to=[[1, 64, 1.0]] * 5000), "5000 entries"),
    # sound, and for something else
    "next format": (change("format", to=3), "format is 3, this gemtp reads 2"),
    "no format": (remove("format"), "format is None"),
    "format of another kind": (change("format", to=True), "format is True"),
    "another version": (change("conditions", "version", to="0.0.9"), "gemtp was 0.0.9 and is"),
    "another compiler": (change("conditions", "compiler", to="cc 1"), "compiler was cc 1 and"),
    "another ISA": (change("conditions", "isa", to="sse9"), "instruction set was sse9 and is"),
    "other threads": (change("conditions", "threads", to=7), "threads was 7 and is 1"),
    "another type": (change("conditions", "kv_type", to="f32"), "K/V type was f32 and is f16"),
    "another device": (change("conditions", "device", to="cuda:0"), "device was cuda:0 and is cpu"),
    "another machine": (change("conditions", "machine", "cpu", to="Z80"), "cpu was Z80 and is"),
    "other cores": (change("conditions", "machine", "usable_cores", to=999), "usable_cores was"),
    "other memory": (change("conditions", "machine", "memory_bytes", to=65536), "memory_bytes was"),
    "endless memory": (
        change("conditions", "machine", "memory_bytes", to=10**400),
        "memory_bytes was",
    ),
    "no machine": (change("conditions", "machine", to={}), "cpu was None"),
    "lines in names": (change("conditions", "machine", "cpu", to="a\nb"), r"cpu was 'a\nb' and"),
    "another target": (change("conditions", "target", "sha256", to="0"), "target's file has"),
    "another size": (change("conditions", "target", "bytes", to=1), "target's file has changed"),
    "another time": (change("conditions", "target", "modified_ns", to=1), "target's file has"),
    "another drafter": (change("conditions", "drafter", "sha256", to="0"), "drafter's file has"),
    "no drafter": (change("conditions", "drafter", to=None), "drafter's file has changed"),
}
if hasattr(os, "mkfifo"):
    ATTACKS["a pipe"] = (pipe, "not a file")


@pytest.mark.parametrize("name", ATTACKS)
def test_bad_profiles(saved, name, caplog):
    attack, words = ATTACKS[name]
    attack(saved)
    found, why = load()
    assert found is None
    assert words in why
    assert why.startswith(f"the saved profile {saved} is ignored: ")
    assert why.endswith("; `gemtp tune` makes a new one")
    assert "\n" not in why
    assert len(why) < len(str(saved)) + 250

    expected = text_of(profile=False)
    assert caplog.records == []
    assert text_of() == expected
    assert [(r.name, r.levelno, r.getMessage()) for r in caplog.records] == [
        ("gemtp_native", logging.WARNING, why)
    ]


def test_memory_of_another_kernel_is_the_same_machine(saved):
    size = json.loads(saved.read_bytes())["conditions"]["machine"]["memory_bytes"]
    change("conditions", "machine", "memory_bytes", to=int(size * 1.01))(saved)
    assert load()[1] is None


def test_random_damage(saved):
    """Whatever bytes change: a profile with sound costs, or a reason."""
    rng, sound = random.Random(1), saved.read_bytes()
    for _ in range(300):
        data = bytearray(sound)
        for _ in range(rng.choice((1, 2, 20))):
            at = rng.randrange(len(data))
            what = rng.randrange(3)
            if what == 0:
                data[at] = rng.randrange(256)
            elif what == 1:
                data[at : at + rng.randrange(1, 40)] = rng.choice(
                    (b"", b"-", b"9" * 30, b"[", b"}")
                )
            else:
                data[at] ^= 1 << rng.randrange(8)
        saved.write_bytes(data)
        found, why = load()
        assert (found is None) == (why is not None)
        if found:
            for rows, context, seconds in found.costs.verify:
                assert 1 <= rows <= 16
                assert context >= 0
                assert 0 < seconds < float("inf")


def test_files_that_changed(cache, tmp_path):
    target = tmp_path / "t.gguf"
    shutil.copy(TARGET, target)
    profile.save(made_up(target, None))
    assert load(target, None)[0] is not None
    before = target.stat()

    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert "target's file has changed" in load(target, None)[1]
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load(target, None)[1] is None

    sound = target.read_bytes()
    for at in (0, 1000, len(sound) - 1):  # with the time and the size that it had
        changed = bytearray(sound)
        changed[at] ^= 1
        target.write_bytes(changed)
        os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert "target's file has changed" in load(target, None)[1]
    target.unlink()
    assert "No such file" in load(target, None)[1]


def test_nothing_saved(cache, caplog):
    assert load() == (None, None)
    assert text_of()
    assert caplog.records == []


@pytest.mark.parametrize("place", ["a file", "a loop", "closed"])
def test_cache_folders_of_no_use(cache, place, caplog):
    expected = text_of(profile=False)
    if place == "a file":
        cache.write_text("not a folder")
    elif place == "a loop":
        cache.symlink_to(cache)
    else:
        (cache / "profiles").mkdir(parents=True)
        cache.chmod(0)
        if os.access(cache / "profiles", os.R_OK):
            cache.chmod(0o700)
            pytest.skip("this user may enter everything")
    try:
        assert load() == (None, None)
        assert text_of() == expected
        assert caplog.records == []
        for wanted in (profile.check_folder, lambda: profile.save(made_up())):
            with pytest.raises(gemtp.FileError) as e:
                wanted()
            assert str(e.value).startswith(f"the profile cannot be saved in {cache / 'profiles'}: ")
            assert str(e.value).endswith("set GEMTP_CACHE_DIR to a folder that can be written")
    finally:
        if place == "closed":
            cache.chmod(0o700)


def test_a_disk_that_fails(saved, monkeypatch):
    """What was there stays, and nothing half-written is left."""
    sound = saved.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(gemtp.FileError, match="No space left on device; set GEMTP_CACHE_DIR"):
        profile.save(replace(made_up(), bandwidth=1.0))
    assert saved.read_bytes() == sound
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


# ---------------------------------------------------------------- the notice


def generate(*args: object) -> int:
    return main(["generate", *map(str, (TARGET, "--drafter", DRAFTER, "--threads", 1, *args))])


def test_generate_says_it_once(saved, capsys):
    change("conditions", "version", to="0.0.9")(saved)
    assert generate("def f(", "--max-tokens", 2) == 0
    err = capsys.readouterr().err
    assert err.startswith(f"gemtp: note: the saved profile {saved} is ignored: gemtp was 0.0.9")
    assert err.count("\n") == 1
    assert generate("def f(", "--max-tokens", 2, "--quiet") == 0
    assert capsys.readouterr().err == ""
    own = logging.getLogger("gemtp_native").handlers
    assert [type(handler) for handler in own] == [logging.NullHandler]  # the library's


def test_programs_can_silence_it(saved, caplog):
    change("format", to=3)(saved)
    caplog.set_level(logging.ERROR, logger="gemtp_native")
    text_of()
    assert caplog.records == []
