"""A GPU proves that it is exact before a model opens on it, and is left if it is not: on the
emulated one, which a test can give a faulty kernel."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gemtp_native as gemtp
from serving import serving
from stand_ins import METAL

pytestmark = pytest.mark.skipif(
    "emulated" not in gemtp.system_info()["backends"], reason="this build has no emulated GPU"
)

TARGET, DRAFTER = gemtp.demo_models()
PROMPT = list(range(2, 12))
REFUSAL = (
    "emulated (with a fault in norm) does not compute what the CPU computes, so its texts would be "
    "others (the self-test of the kernels for "
)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The folder of the proofs, which is empty."""
    monkeypatch.setenv("GEMTP_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "self-test"


@pytest.fixture(scope="module")
def proof(tmp_path_factory) -> tuple[bytes, float]:
    """What the first opening writes, and how long it takes."""
    folder = tmp_path_factory.mktemp("proof")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMTP_CACHE_DIR", str(folder))
        seconds = open_for("emulated")
    return (folder / "self-test" / "emulated.txt").read_bytes(), seconds


def open_for(device: str) -> float:
    start = time.monotonic()
    with gemtp.Model(TARGET, context=64, device=device) as model:
        assert model.device == device
    return time.monotonic() - start


def test_it_runs_once(proof, cache) -> None:
    written, seconds = proof
    cache.mkdir(parents=True)
    (cache / "emulated.txt").write_bytes(written)
    assert open_for("emulated") < seconds / 2
    assert (cache / "emulated.txt").read_bytes() == written
    # Kernels that have not been proved are added to those that have.
    gemtp.Model(TARGET, context=64, device="emulated", kv_type="f32").close()
    lines = (cache / "emulated.txt").read_text().splitlines()
    assert set(written.decode().splitlines()[:-1]) < set(lines)
    assert "exact q4_0 f32" in lines


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"gpu emulated", b"gpu emulated 2"),
        (b"build ", b"build 1"),
        (b"exact q4_0 f16", b"exact q4_1 f16"),
        (b"exact q4_0 f16\n", b""),
        (b"end ", b"end"),
        (None, b"\x00\xff" * 9000),
        (None, b"x" * (1 << 17)),
    ],
)
def test_a_file_of_something_else_or_damaged(proof, cache, old: bytes | None, new: bytes) -> None:
    written, _ = proof
    cache.mkdir(parents=True)
    bad = new if old is None else written.replace(old, new)
    assert bad != written
    (cache / "emulated.txt").write_bytes(bad)
    open_for("emulated")
    assert (cache / "emulated.txt").read_bytes() == written


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GEMTP_CACHE_DIR", str(tmp_path / "file"))
    open_for("emulated")


def test_a_gpu_that_fails_is_refused(cache, monkeypatch) -> None:
    monkeypatch.setenv("GEMTP_EMULATED_FAULT", "norm")
    for _ in range(2):
        with pytest.raises(gemtp.DeviceError) as error:
            open_for("emulated")
        assert str(error.value).startswith(REFUSAL)
        assert str(error.value).endswith("; update its driver, or use the device cpu")
    assert not cache.exists()
    # A kernel that goes astray is not exact either.
    monkeypatch.setenv("GEMTP_EMULATED_FAULT", "route")
    with pytest.raises(gemtp.DeviceError) as error:
        open_for("emulated")
    assert "(with a fault in route) does not compute" in str(error.value)


def test_auto(cache, monkeypatch, caplog) -> None:
    """Takes a GPU that is exact, and leaves one that is not, or on which the model does not fit."""
    options = {"max_tokens": 6, "ignore_eos": True}

    def opened() -> tuple[str, list[int]]:
        caplog.clear()
        with gemtp.Model(TARGET, DRAFTER, context=64, device="auto") as model:
            output = model.generate(PROMPT, **options)
            assert (output.stats.device, output.stats.exact) == (model.device, True)
            return model.device, output.tokens

    monkeypatch.delenv("GEMTP_DEVICE", raising=False)
    device, expected = opened()
    assert device == "cpu"
    assert not cache.exists()
    monkeypatch.setenv("GEMTP_EMULATED_AUTO", "1")
    assert gemtp.system_info()["device"] == "auto"
    with caplog.at_level(logging.WARNING):
        assert opened() == ("emulated", expected)
        assert not caplog.records
        monkeypatch.setenv("GEMTP_EMULATED_FAULT", "norm")
        assert opened() == ("cpu", expected)
        (record,) = caplog.records
        assert record.getMessage().startswith("the device is the CPU, for " + REFUSAL)
        monkeypatch.delenv("GEMTP_EMULATED_FAULT")
        monkeypatch.setenv("GEMTP_EMULATED_MEMORY", "1000000")
        assert opened() == ("cpu", expected)
        (record,) = caplog.records
        assert "free on emulated" in record.getMessage()


def test_auto_takes_another_gpu(cache, monkeypatch) -> None:
    """The warning about the one that it leaves names the one that it takes."""
    monkeypatch.delenv("GEMTP_DEVICE", raising=False)
    monkeypatch.setenv("GEMTP_EMULATED_AUTO", "1")
    monkeypatch.setenv("GEMTP_EMULATED_FAULT", "norm")
    out = METAL.run("generate", TARGET, "a", "--max-tokens", 1, gpus=1)
    assert out.stderr.startswith("gemtp: note: the device is metal, for " + REFUSAL)
    assert out.stderr.count("\n") == 1


@pytest.mark.parametrize("at", [1, 2, 9])
def test_cancelling(cache, at: int) -> None:
    """The callback is called before each pass; the device, which it has cut off, is no worse."""
    calls = []

    def progress(fraction: float) -> bool:
        calls.append(fraction)
        return len(calls) < at

    with pytest.raises(gemtp.CancelledError):
        gemtp.Model(TARGET, context=64, device="emulated", progress=progress)
    assert calls == [0] * at
    assert not cache.exists()


def test_interrupting(cache) -> None:
    """Each self-test of all kernels takes a minute."""
    args = [sys.executable, "-m", "gemtp_native", "info", "--self-test", "emulated"]
    with subprocess.Popen(
        args,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A job in the background ignores SIGINT, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as process:
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        assert process.wait(60) == 130
        assert time.monotonic() - start < 10


def test_info(cache) -> None:
    def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gemtp_native", "info", "--self-test", *args],
            env=os.environ | {"GEMTP_CUDA_DRIVER": "/no/driver.so"} | env,
            capture_output=True,
            text=True,
        )

    assert "self-test there is no GPU to test\n" in run().stdout
    bad = run("emulated", GEMTP_EMULATED_FAULT="norm")
    assert bad.returncode == 1
    assert f"self-test {REFUSAL}" in bad.stdout
    bad = run("emulated", "--json", GEMTP_EMULATED_FAULT="norm")
    assert bad.returncode == 1
    (result,) = json.loads(bad.stdout)["self_test"]
    assert (result["device"], result["exact"]) == ("emulated", False)
    assert result["problem"].startswith(REFUSAL)
    for name, problem in {
        "nothing": "the device 'nothing' is unknown",
        "cpu": "the device 'cpu' has no self-test",
    }.items():
        (result,) = json.loads(run(name, "--json").stdout)["self_test"]
        assert result["problem"].startswith(problem)
    assert run("\udcff").stderr.startswith("gemtp: error: device is '\\udcff'; it must be a name")
    assert not cache.exists()


def test_the_server_says_what_computed(tmp_path) -> None:
    with serving(tmp_path, TARGET, "--device", "emulated", "--context", "64") as server:
        props = server.ask("/props").json
        assert (props["device"], props["exact"]) == ("emulated", True)
        stats = server.complete(PROMPT, max_tokens=2)["gemtp_stats"]
        assert (stats["device"], stats["exact"]) == ("emulated", True)
