"""Models on Metal's device, on a stand-in for Metal. Nothing here has anything to do with a real
GPU."""

from __future__ import annotations

import pytest

import checkpoints
import gemtp_native as gemtp
from device_tests import DeviceTests, tokens
from devices import open_on
from stand_ins import METAL


class TestMetal(DeviceTests):
    KIND = METAL
    LOST_SENTENCE = "Caused GPU Hang Error"

    def test_a_pass_is_one_command_buffer(self, pairs, clean) -> None:
        """Of a draft or a verification, once it is recorded."""
        prompt = checkpoints.random_prompt("e2b", 24, 1)
        with self.open(pairs("e2b")) as gpu:
            tokens(gpu, prompt, 24, 3)  # records
            before = clean.get("command_buffers")
            stats = gpu.generate(prompt, max_tokens=24, ignore_eos=True, draft=3).stats
            made = clean.get("command_buffers") - before
        assert made <= stats.rounds + stats.drafted + 2  # and those of the prompt

    def test_macos_14(self, pairs, clean) -> None:
        pair = pairs("26b-a4b")
        prompt = checkpoints.random_prompt("26b-a4b", 24, 7)
        cpu = open_on("cpu", pair)
        with clean.setting("macos", 14, 15), self.open(pair) as gpu:
            assert tokens(gpu, prompt, 12, 3) == tokens(cpu, prompt, 12, 0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"GEMTP_METAL_RUNTIME": "/no/metal"}, "Metal is not here ('/no/metal"),
        ({"gpus": 0}, "Metal finds no GPU here; use the device cpu"),
        ({"macos": 13}, "this macOS is too old: gemtp needs Metal as macOS 14 has it"),
        ({"family": 6}, "metal (Stand-in) is no GPU that gemtp has kernels for: they are for App"),
        ({"memory": 2000000}, "GB of memory and there are 0.002 GB free on metal: weights "),
        ({"refuse_source": 1}, "metal (Stand-in) does not take the kernels of gemtp ("),
    ],
)
def test_one_sentence(settings: dict[str, int | str], sentence: str) -> None:
    target, _ = gemtp.demo_models()
    out = METAL.run("generate", target, "a", "--device", "metal", **settings)
    assert out.returncode == 1
    assert out.stdout == ""
    assert out.stderr.startswith("gemtp: error: ")
    assert sentence in out.stderr
    assert out.stderr.count("\n") == 1


@pytest.mark.parametrize("device", [(), ("auto",), ("metal",)])
def test_info_tests_gpus(device: tuple[str, ...]) -> None:
    """ "auto" is each, too."""
    out = METAL.run("info", "--self-test", *device, refuse_source=1)
    assert out.returncode == 1
    assert "self-test metal (Stand-in) does not take the kernels of gemtp (" in out.stdout


def test_info_looks_for_gpus_only_when_asked() -> None:
    broken = {"GEMTP_METAL_RUNTIME": "/no/metal"}
    assert "/no/metal" not in METAL.run("info", **broken).stdout
    assert "Metal is not here ('/no/metal" in METAL.run("info", "--devices", **broken).stdout
    found = METAL.run("info", "--devices", memory=8 * 10**9).stdout
    assert "metal (Stand-in, 8.0 GB)" in found
