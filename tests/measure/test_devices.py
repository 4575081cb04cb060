"""What is measured is of the device that runs the model: on the emulated GPU, of whose speed the
figures say nothing."""

from __future__ import annotations

import json

import pytest

import gemtp_native as gemtp
from gemtp_native import profile
from gemtp_native.measure import tune

pytestmark = pytest.mark.skipif(
    "emulated" not in gemtp.system_info()["backends"], reason="this build has no emulated GPU"
)

TARGET, DRAFTER = gemtp.demo_models()


def test_the_bandwidth_is_that_of_the_device(gemtp_main, tmp_path) -> None:
    table = tmp_path / "bench.csv"
    sections = ("--only", "bandwidth,decode", "--context", "0", "--runs", "1")
    for more, whole in ((), True), (("-ngl", "1"), False):
        options = ("bench", TARGET, "--device", "emulated", *sections, *more, "--csv", table)
        code, out, _ = gemtp_main(*options, "--json")
        assert code == 0
        report = json.loads(out)
        assert report["device"] == "emulated"
        assert report["identity"].startswith("emulated, ")
        bandwidth = report["bandwidth"]
        assert (bandwidth["plain"], bandwidth["prefetched"]) == (None, None)
        assert bandwidth["copied"] > 0
        # Of a split model there is no one bandwidth.
        (decode,) = report["decode"]
        share = decode["bytes_per_second"] / bandwidth["copied"] if whole else None
        assert decode["share"] == (pytest.approx(share) if whole else None)
        assert ",bandwidth,copied," in table.read_text()
    code, out, _ = gemtp_main("bench", TARGET, "--device", "emulated", *sections)
    assert code == 0
    assert " GB/s copied, from " in out


def test_profiles_are_of_a_device_and_its_layers(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("GEMTP_CACHE_DIR", str(tmp_path))
    settings = tune.TuneSettings(context=16, budget=0.1, threads=1, device="emulated")
    report = tune.run(TARGET, None, settings)
    assert report.identity == "emulated, 8 layers"
    assert str(tune.save(report)) == report.profile
    assert "no profile was saved" not in tune.text(report)

    def used(**options) -> bool:
        with gemtp.Model(TARGET, threads=1, context=64, profile=False, **options) as model:
            return profile.use(model._engine, TARGET, None, "f16")

    assert used(device="emulated")
    assert not used(device="emulated", gpu_layers=1)
    assert not used(device="cpu")
    # What is said of one under this name that is of another driver.
    path = profile.path_of(TARGET, None, 1, "f16", "emulated, 8 layers")
    data = json.loads(path.read_text())
    data["conditions"]["device"] = "emulated (an older driver), 8 layers"
    path.write_text(json.dumps(data))
    caplog.clear()
    assert not used(device="emulated")
    (record,) = caplog.records
    changed = "the device was emulated (an older driver), 8 layers and is emulated, 8 layers"
    assert changed in record.getMessage()
