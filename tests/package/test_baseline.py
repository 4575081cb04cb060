"""Nothing of the machine that builds goes into a library: tools/check_baseline.py, and a run on a
processor without AVX."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gemtp_native as gemtp
from gemtp_native import _core

TOOL = Path(__file__).parent.parent.parent / "tools" / "check_baseline.py"
EXTENSION = Path(_core.__file__)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="reads ELF of x86-64"
)
needs_binutils = pytest.mark.skipif(
    not (shutil.which("objdump") and shutil.which("readelf")), reason="binutils is not installed"
)
needs_compiler = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
needs_qemu = pytest.mark.skipif(
    not shutil.which("qemu-x86_64-static"), reason="qemu-user-static is not installed"
)


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("check_baseline", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_baseline"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def library(folder: Path, sources: dict[str, tuple[str, str]]) -> Path:
    """A shared library of files: name -> (compiler flag, C++ source)."""
    objects = []
    for name, (flag, text) in sources.items():
        (folder / name).write_text(text, encoding="utf-8")
        objects.append(folder / f"{name}.o")
        subprocess.run(
            ["gcc", "-O1", "-fPIC", flag, "-c", folder / name, "-o", objects[-1]], check=True
        )
    out = folder / "lib.so"
    subprocess.run(["gcc", "-shared", *objects, "-o", out], check=True)
    return out


TABLE = "static int f(int a, int b) { return a & ~b; } int (*table)(int, int) = f;"
SUM = "float sum(const float* a) { float s = 0; for (int i = 0; i < 9; ++i) s += a[i]; return s; }"


@needs_binutils
def test_the_extension_is_baseline(tool, capsys):
    assert tool.main([str(EXTENSION)]) == 0
    out = capsys.readouterr().out
    assert "only baseline x86-64" in out
    assert " 0 functions in kernel tables" not in out


@needs_binutils
@pytest.mark.skipif("GEMTP_C_BUILD" not in os.environ, reason="GEMTP_C_BUILD names no build")
def test_the_c_library_is_baseline(tool):
    assert tool.main([str(Path(os.environ["GEMTP_C_BUILD"]) / "libgemtp.so")]) == 0


@needs_binutils
@needs_compiler
@pytest.mark.parametrize(
    ("flag", "source"),
    [
        ("-mavx", SUM),
        ("-mavx512f", SUM),
        ("-mbmi", "int clear(int a, int b) { return a & ~b; }"),
        ("-mpopcnt", "int ones(unsigned a) { return __builtin_popcount(a); }"),
        ("-msse4.1", "int low(const float* a) { return (int)__builtin_floorf(*a); }"),
        ("-mmovbe", "unsigned swap(const unsigned* a) { return __builtin_bswap32(*a); }"),
    ],
    ids=lambda value: value if value.startswith("-") else "",
)
def test_newer_instructions_are_found(tool, capsys, tmp_path, flag, source):
    code = f'extern "C" {source}'
    sources = {"avx2.cc": ("-mbmi", TABLE), "plain.cc": (flag, code)}
    assert tool.main([str(library(tmp_path, sources))]) == 1
    name = source[: source.index("(")].split()[-1]
    assert f"  {name}: " in capsys.readouterr().out


@needs_binutils
@needs_compiler
@pytest.mark.parametrize("visibility", ["default", "hidden"])
def test_only_what_is_local_to_a_table_may_be_newer(tool, capsys, tmp_path, visibility):
    plain = ("-msse2", f'extern "C" {SUM}')
    table = f"#pragma GCC visibility push({visibility})\n{TABLE}\n"
    good = library(tmp_path, {"avx2.cc": ("-mbmi", table), "plain.cc": plain})
    assert tool.main([str(good)]) == 0
    # An inline function of a table's file may be the one that everybody else calls.
    leak = table + "inline int g(int a, int b) { return a & ~b; } int (*other)(int, int) = g;"
    bad = library(tmp_path, {"avx2.cc": ("-mbmi", leak), "plain.cc": plain})
    capsys.readouterr()
    assert tool.main([str(bad)]) == 1
    assert "_Z1gii: andn" in capsys.readouterr().out


@needs_binutils
def test_files_that_cannot_be_checked(tool, capsys, tmp_path):
    stripped = tmp_path / "stripped.so"
    subprocess.run(["strip", EXTENSION, "-o", stripped], check=True)
    for path, words in [
        (stripped, "it is stripped"),
        (tmp_path / "none.so", "none.so"),
        (Path(__file__), "test_baseline.py"),
    ]:
        assert tool.main([str(path)]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert words in err
        assert err.count("\n") == 1


@needs_qemu
def test_it_runs_on_a_processor_without_avx():
    code = (
        "import json, sys, gemtp_native as gemtp\n"
        "model = gemtp.Model(*gemtp.demo_models(), threads=1)\n"
        "out = model.generate('def f(', max_tokens=6)\n"
        "json.dump([model.isa, out.tokens], sys.stdout)\n"
    )
    # Nehalem: SSE4.2, which numpy asks for.
    command = ["qemu-x86_64-static", "-cpu", "Nehalem", sys.executable, "-c", code]
    env = {name: value for name, value in os.environ.items() if name != "GEMTP_ISA"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    isa, tokens = json.loads(done.stdout)
    assert isa == "scalar"
    model = gemtp.Model(*gemtp.demo_models(), threads=1)
    assert tokens == model.generate("def f(", max_tokens=6).tokens
