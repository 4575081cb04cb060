"""Models on CUDA's device, on a stand-in for NVIDIA's driver. Nothing here has anything to do with
a real GPU."""

from __future__ import annotations

import ctypes
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

import checkpoints
import gemtp_native as gemtp
from device_tests import DeviceTests, tokens
from devices import open_on
from stand_ins import CUDA


class TestCuda(DeviceTests):
    KIND = CUDA
    LOST = {"lose_with": 214}
    LOST_SENTENCE = "CUDA_ERROR_ECC_UNCORRECTABLE"

    def test_passes_are_recorded(self, pairs, clean) -> None:
        """As soon as a shape of passes has been seen twice."""
        graphs = clean.get("graph_launches")
        with self.open(pairs("e2b")) as gpu:
            tokens(gpu, checkpoints.random_prompt("e2b", 24, 1), 12, 3)
        assert clean.get("graph_launches") > graphs

    def test_auto_says_why_it_leaves_a_gpu(self, pairs, clean, caplog) -> None:
        prompt = checkpoints.random_prompt("e2b", 24, 7)
        expected = tokens(open_on("cpu", pairs("e2b")), prompt)
        with clean.setting("capability", 61, 89), open_on("auto", pairs("e2b")) as model:
            assert model.device == "cpu"
            assert tokens(model, prompt) == expected
        (record,) = caplog.records
        assert "the device is the CPU, for cuda:0 (Stand-in) has compute cap" in record.getMessage()

    def test_the_status_of_the_c_library(self, stand_in, monkeypatch) -> None:
        path = CUDA.library().parents[2] / "libgemtp.so"
        if not path.exists():
            pytest.skip("the build has no C library")
        c = ctypes.CDLL(str(path))
        target, _ = gemtp.demo_models()
        model, error = ctypes.c_void_p(), ctypes.create_string_buffer(256)
        monkeypatch.setenv("GEMTP_DEVICE", "cuda")
        with stand_in.setting("capability", 61, 89):
            status = c.gemtp_model_open(
                os.fsencode(target), None, ctypes.byref(model), error, ctypes.c_size_t(256)
            )
        assert status == 9  # GEMTP_ERROR_DEVICE
        assert error.value.startswith(b"cuda:0 (Stand-in) has compute capability 6.1, and 7.5 is")


@pytest.mark.parametrize(
    ("device", "settings", "sentence"),
    [
        ("cuda", {"GEMTP_CUDA_DRIVER": "/no/driver.so"}, "no driver for CUDA is here ('/no/driver"),
        ("cuda", {"gpus": 0}, "NVIDIA's driver finds no GPU that CUDA can use (CUDA_VISIBLE_DEV"),
        ("cuda", {"init": 803}, "NVIDIA's driver does not work: cuInit gives CUDA_ERROR_SYSTEM_D"),
        ("cuda", {"version": 11040}, "NVIDIA's driver is too old: it supports CUDA 11.4, and 12.4"),
        ("cuda:7", {}, "the device 'cuda:7' is not here; NVIDIA's driver finds 1 GPU, from cuda:0"),
        ("cuda:3", {"gpus": 2}, "the device 'cuda:3' is not here; NVIDIA's driver finds 2 GPUs, "),
        ("cuda", {"memory": 1000}, "cuda:0 (Stand-in) has too little memory for cuDevicePrimaryC"),
        ("cuda", {"memory": 2000000}, "GB of memory and there are 0.002 GB free on cuda:0: weig"),
        ("cuda", {"capability": 61}, "cuda:0 (Stand-in) has compute capability 6.1, and 7.5 is t"),
        ("cuda", {"taken": 1}, "cuda:0 (Stand-in) is taken by another process, which has it alon"),
    ],
)  # fmt: skip
def test_one_sentence(device: str, settings: dict[str, int | str], sentence: str) -> None:
    target, _ = gemtp.demo_models()
    out = CUDA.run("generate", target, "a", "--device", device, **settings)
    assert out.returncode == 1
    assert out.stdout == ""
    assert out.stderr.startswith("gemtp: error: ")
    assert sentence in out.stderr
    assert out.stderr.count("\n") == 1


def test_another_release_of_the_driver_is_tested_anew(tmp_path, monkeypatch) -> None:
    """Also if it supports the same CUDA: the file behind the library's name tells."""
    target, _ = gemtp.demo_models()
    monkeypatch.setenv("GEMTP_CACHE_DIR", str(tmp_path / "cache"))
    proofs = []
    for release in ("570.86.15", "570.124.06"):
        file, link = tmp_path / f"libcuda.so.{release}", tmp_path / "libcuda.so.1"
        shutil.copy(CUDA.library(), file)
        link.unlink(missing_ok=True)
        link.symlink_to(file.name)
        out = CUDA.run(
            *("generate", target, "a", "--max-tokens", 1, "--device", "cuda"),
            GEMTP_CUDA_DRIVER=str(link),
        )
        assert out.returncode == 0, out.stderr
        proofs.append((tmp_path / "cache" / "self-test" / "cuda-0.txt").read_text())
        assert f", driver for CUDA 12.8, {file.name}\n" in proofs[-1]
    assert proofs[0] != proofs[1]


def test_the_second_gpu_and_another_process() -> None:
    """Two processes have a context each."""
    target, _ = gemtp.demo_models()
    args = ("generate", target, "def f(x):", "--max-tokens", 3, "--device")
    expected = CUDA.run(*args, "cpu").stdout
    with ThreadPoolExecutor(2) as pool:
        outs = list(pool.map(lambda d: CUDA.run(*args, d, gpus=2), ("cuda:1", "cuda:0")))
    assert [o.stdout for o in outs] == [expected] * 2


def test_info_looks_for_gpus_only_when_asked() -> None:
    broken = {"GEMTP_CUDA_DRIVER": "/no/driver.so"}
    plain = CUDA.run("info", **broken)
    assert "kernels are there; gemtp info --devices looks for GPUs" in plain.stdout
    assert "/no/driver.so" not in plain.stdout
    assert (
        "no driver for CUDA is here ('/no/driver.so"
        in CUDA.run("info", "--devices", **broken).stdout
    )
    found = CUDA.run("info", "--devices", gpus=2, memory=8 * 10**9, capability=75).stdout
    assert "cuda:1 (Stand-in, 8.0 GB, compute capability 7.5)" in found
    assert (
        CUDA.run("info", "--devices", "--json", gpus=1, capability=50).stdout.count("too old") == 1
    )
