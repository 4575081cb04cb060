"""The ARM build under emulation: its kernels against the scalar ones, its bits against ours here.

Needs qemu-user-static and a build made with cmake/aarch64-linux-gnu.cmake (see CONTRIBUTING.md),
whose folder GEMTP_ARM_BUILD names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import checkpoints
import gemtp_native as gemtp

# Emulated processors and the tables that run there, best first.
CPUS = {
    "cortex-a53": ["neon"],
    "cortex-a76": ["neon_dotprod", "neon"],
    "max": ["neon_i8mm", "neon_dotprod", "neon"],
}
KV_TYPES = {"f32": "f32", "f16": "f16", "bf16": "f32", "q8_0": "f16", "q4_0": "f16"}  # by outtype
DRAFTS = 4
QEMU = shutil.which("qemu-aarch64-static")
BUILD = os.environ.get("GEMTP_ARM_BUILD")

pytestmark = [
    pytest.mark.skipif(BUILD is None, reason="GEMTP_ARM_BUILD names no ARM build"),
    pytest.mark.skipif(QEMU is None, reason="qemu-aarch64-static is not installed"),
]


def emulate(cpu: str, program: str, *args: object) -> str:
    """Standard output of a program of the ARM build."""
    assert QEMU is not None
    assert BUILD is not None
    env = {k: v for k, v in os.environ.items() if k != "GEMTP_ISA"}
    command = [QEMU, "-cpu", cpu, Path(BUILD) / "tests" / "cpp" / program, *args]
    run = subprocess.run(
        list(map(str, command)), env=env, capture_output=True, text=True, timeout=900
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr
    return run.stdout


@pytest.fixture(scope="module", params=checkpoints.ARCHITECTURES)
def folder(request, tmp_path_factory):
    """(architecture, its committed checkpoints)."""
    out = tmp_path_factory.mktemp(request.param)
    return request.param, checkpoints.committed(request.param, out)


@pytest.fixture(scope="module", params=KV_TYPES)
def pair(request, folder, tmp_path_factory):
    """(architecture, the checkpoints as GGUF, type of K and V to run them with)."""
    arch, source = folder
    files = checkpoints.to_gguf(source, tmp_path_factory.mktemp("gguf"), request.param)
    return arch, files, KV_TYPES[request.param]


def bits(values: np.ndarray) -> list[str]:
    return [f"{v:08x}" for v in np.ascontiguousarray(values, np.float32).view(np.uint32).ravel()]


def computed_here(pair: checkpoints.Pair, kv_type: str, ids: list[int]) -> dict[str, list[str]]:
    """What tests/cpp/golden.cc prints, from the build that runs this test."""
    model = gemtp.Model(pair.target, drafter=pair.drafter, threads=1, context=256, kv_type=kv_type)
    tokens, draft_logits, draft_hidden = model.draft_trace(ids, DRAFTS)
    generated = model.generate(
        ids, max_tokens=24, temperature=1.0, top_p=0.9, seed=7, draft=DRAFTS, ignore_eos=True
    )
    return {
        "logits": bits(model.logits(ids)),
        "draft_tokens": list(map(str, tokens)),
        "draft_logits": bits(draft_logits),
        "draft_hidden": bits(draft_hidden),
        "generated": list(map(str, generated.tokens)),
    }


def test_golden_checkpoints_give_the_bits_of_this_machine(pair):
    arch, files, kv_type = pair
    oracle = load_file(checkpoints.GOLDEN / arch / "oracle.safetensors")
    ids = oracle["long.ids"].tolist()
    expected = computed_here(files, kv_type, ids)
    for cpu, tables in CPUS.items():
        output = emulate(cpu, "gemtp_golden", files.target, files.drafter, kv_type, *ids)
        lines = {line.split()[0]: line.split()[1:] for line in output.splitlines()}
        assert lines.pop("backend") == [f"cpu/{tables[0]}"]
        assert lines == expected, cpu


@pytest.mark.parametrize("cpu", CPUS)
def test_kernels_equal_the_scalar_ones(cpu):
    output = emulate(cpu, "gemtp_tests", "--source-file=*test_kernels*")
    names = ", ".join([*CPUS[cpu], "scalar"])
    assert f"runnable here: {names}\n" in output


@pytest.mark.parametrize("cpu", CPUS)
def test_c_abi(cpu, tmp_path):
    small = checkpoints.with_vocabulary_of(checkpoints.Pair(*gemtp.demo_models()), tmp_path)
    files = (small.target, small.drafter, tmp_path / "session")
    assert emulate(cpu, "gemtp_c_test", *files) == "C ABI: ok\n"
