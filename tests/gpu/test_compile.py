"""The GPU kernels as compilers see them: what NVIDIA's makes of them, and clang for the form that
Apple's GPUs get. Neither needs a GPU."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "csrc" / "backend" / "gpu" / "kernels"


sys.path.insert(0, str(ROOT / "tools"))
import cuda_kernels  # noqa: E402
import gpu_code  # noqa: E402


@pytest.fixture(scope="module")
def nvidia(tmp_path_factory):
    """The folder of what is compiled."""
    try:
        for name in ("nvcc", "nvdisasm"):
            cuda_kernels.tool(name)
    except cuda_kernels.MissingTool as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("compiled") / "cuda"
    cuda_kernels.prepare(folder)
    return folder


@pytest.mark.parametrize("arch", gpu_code.ARCHITECTURES)
def test_cuda(nvidia, arch):
    kernels, warned = gpu_code.compile_for(arch, gpu_code.FORMATS, nvidia)
    assert gpu_code.faults(kernels, arch, warned) == []
    figures = gpu_code.figures(kernels, arch)
    quantized = [f for f in gpu_code.FORMATS if f not in ("f32", "f16")]
    assert len(figures) == 6 * len(quantized)
    # Few rows leave time for the bytes of the weights to arrive, on either kind of device.
    for rows in (1, 2, 4, 8):
        assert figures[f"q4_0_{rows}"] <= min(gpu_code.AT_FULL_BANDWIDTH.values())


def test_cuda_with_all_formats(nvidia):
    kernels, warned = gpu_code.compile_for("sm_90", None, nvidia)
    assert gpu_code.faults(kernels, "sm_90", warned) == []
    listed = (KERNELS / "list.h").read_text()
    assert len(kernels) == sum(
        {"QUANTIZED": 17, "FLOATS": 9, "KERNEL": 1}[kind]
        for kind in re.findall(r"^GPU_(QUANTIZED|FLOATS|KERNEL)\(", listed, re.MULTILINE)
    )


@pytest.mark.parametrize("packaged", [False, True])
def test_an_nvcc_that_is_too_old(tmp_path, monkeypatch, packaged: bool) -> None:
    """One from PyPI is taken, or a build does without."""

    def install(folder: Path, code: str) -> str:
        folder.mkdir(parents=True)
        for name in ("nvcc", "fatbinary"):
            (folder / name).write_text(f"#!/bin/sh\n{code}\n")
            (folder / name).chmod(0o755)
        return str(folder / "nvcc")

    old = install(tmp_path / "old", "echo \"nvcc fatal : 'sm_120' is not defined\" >&2; exit 1")
    new = install(tmp_path / "nvidia" / "cu13" / "bin", "exit 0") if packaged else ""
    monkeypatch.setenv("PATH", f"{tmp_path / 'old'}:/usr/bin:/bin")
    monkeypatch.setattr(cuda_kernels.sysconfig, "get_paths", lambda: {"purelib": str(tmp_path)})
    cuda_kernels.nvcc.cache_clear()
    try:
        if packaged:
            assert cuda_kernels.tool("nvcc") == new
            assert cuda_kernels.tool("fatbinary") == str(Path(new).with_name("fatbinary"))
        else:
            with pytest.raises(cuda_kernels.MissingTool) as error:
                cuda_kernels.tool("fatbinary")
            said = f"{old} cannot be used (nvcc fatal : 'sm_120' is not defined); pip install"
            assert str(error.value).startswith(said)
    finally:
        cuda_kernels.nvcc.cache_clear()


def test_the_checks_notice():
    """Faults are found in what a compiler could have made."""
    kernel = gpu_code.Kernel("k", ptx=".entry k add.f32 %f1, %f2; mul.rn.f32 %f3; fma.rn.f32 %f4;")
    kernel.blocks = [["LDG.E", "FFMA.FTZ", "EXIT"]]
    found = gpu_code.arithmetic_faults(kernel)
    assert any("add.f32 in the PTX" in f for f in found)
    assert any("FFMA.FTZ" in f for f in found)
    kernel = gpu_code.Kernel("k", blocks=[["IMMA.16832", "LDL", "BRA"]])
    assert gpu_code.faults({"k": kernel}, "sm_90", "") == [
        "sm_90: k spills registers in a loop that counts"
    ]


# ---- Metal ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clang():
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "clang", "-cc1"]
    if found := shutil.which("clang"):
        return [found, "-cc1"]
    pytest.skip("neither clang nor ziglang is installed; pip install '.[gpu]' brings the latter")


def check_as_metal(clang, csrc: Path, source: Path | None = None) -> str:
    """What clang says of the kernels in their Metal form, as C++ for OpenCL."""
    source = source or csrc / "backend/gpu/metal/kernels.metal"
    done = subprocess.run(
        [*clang, "-triple", "spir64", "-x", "clcpp", "-cl-std=clc++2021", "-Wall", "-Wextra",
         "-Werror", "-Wno-unknown-attributes", "-Wno-unknown-pragmas", "-fsyntax-only",
         f"-I{Path(__file__).parent}/metal", f"-I{csrc}",
         str(source)],
        capture_output=True,
        text=True,
    )  # fmt: skip
    return done.stderr if done.returncode else ""


def test_metal(clang):
    assert check_as_metal(clang, ROOT / "csrc") == ""


def test_metal_as_it_is_embedded(clang, tmp_path):
    """The text that is in the library includes nothing but Metal's own header."""
    if not (cmake := shutil.which("cmake")):
        pytest.skip("cmake is not on the path")
    script = ROOT / "cmake" / "metal_source.cmake"
    arguments = [f"-DCSRC={ROOT / 'csrc'}", f"-DOUT={tmp_path}", "-P", script]
    subprocess.run([cmake, *arguments], check=True)
    source = tmp_path / "kernels.metal"
    assert re.findall(r"#include (.*)", source.read_text()) == ["<metal_stdlib>"]
    assert check_as_metal(clang, tmp_path, source) == ""
    data = (tmp_path / "kernel_text.cc").read_text()
    assert f'R"gemtp({source.read_text()})gemtp"' in data


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        # A block's memory as the kernel's arguments; a row of x as shared; a word that is missing.
        ("rows.h", "GPU_SHARED Memory& memory, Place at) {\n    const int64_t row", "GPU_CONSTANT "
         "Memory& memory, Place at) {\n    const int64_t row", "error"),
        ("rows.h", "GPU_CONSTANT NormOutput& out", "GPU_SHARED NormOutput& out", "error"),
        ("math.h", "GPU_INLINE float gelu(float x) {", "GPU_INLINE float gelus(float x) {", "gelu"),
    ],
)  # fmt: skip
def test_metal_notices(clang, tmp_path, file, old, new, said):
    shutil.copytree(ROOT / "csrc" / "backend" / "gpu", tmp_path / "backend" / "gpu")
    path = tmp_path / "backend" / "gpu" / "kernels" / file
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    assert said in check_as_metal(clang, tmp_path)


def unmarked_references(text: str) -> list[str]:
    """References that do not say which memory they point to, which Metal demands."""
    code = re.sub(r"//.*|#.*", "", text).replace("(&", " &")
    while (simpler := re.sub(r"<[^<>();{}]*>", "", code)) != code:
        code = simpler  # no commas but those between parameters
    found = []
    for m in re.finditer(r"\w& ?\w+| &\w+\)|\w&[,)]", code):
        parameter = re.split(r"[,;(){}]", code[max(0, m.start() - 80) : m.end() - 1])[-1]
        if "GPU_" not in parameter:
            found.append(parameter.strip() + code[m.end() - 1])
    return found


def test_references_say_where_they_point():
    for path in sorted(KERNELS.glob("*.h")):
        text = path.read_text()
        assert unmarked_references(text) == [], path.name
        assert not re.search(r"\[[&=]\]", text), "Metal has no lambdas"
        assert not re.search(r"\w\* ?\w+[,;)=]", re.sub(r"//.*", "", text)), "a pointer, not Global"
    assert unmarked_references("void f(int x, Sink& sink) {") == ["Sink& sink"]
    assert unmarked_references("void f(int x, GPU_LOCAL float (&acc)[4]) {") == []
