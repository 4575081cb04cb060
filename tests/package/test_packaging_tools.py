"""tools/build_wheel.py and tools/measure_install.py: what they count and what they refuse. That
they build and install is seen in .ci/run."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TOOLS = ROOT / "tools"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module


def test_wheel_contents(load, tmp_path):
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("p/_core.cpython-311-x86_64-linux-gnu.so", b"12345")
        archive.writestr("p/data/target.gguf", b"123")
        archive.writestr("p/__init__.py", b"1")
        archive.writestr("p-1.dist-info/RECORD", b"1")
    assert load("build_wheel").contents(wheel) == {"native": 5, "models": 3, "python": 2}


@pytest.mark.parametrize("glibc", ["3.1", "2", "2.x", "latest"])
def test_no_release_of_glibc(load, capsys, tmp_path, glibc):
    with pytest.raises(SystemExit, match="2"):
        load("build_wheel").main(["--out", str(tmp_path), "--glibc", glibc])
    assert "is no release of glibc" in capsys.readouterr().err


def test_what_building_needs(load, capsys, monkeypatch, tmp_path):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: find_spec(name) if name != "ziglang" else None
    )
    monkeypatch.setattr(sys, "platform", "linux")
    tool = load("build_wheel")
    monkeypatch.setattr(tool, "NEEDED", ("ziglang",))
    assert tool.main(["--out", str(tmp_path / "dist")]) == 1
    assert "ziglang is missing; pip install '.[wheel]'" in capsys.readouterr().err
    assert not (tmp_path / "dist").exists()


def test_no_wheel_to_measure(load, capsys, tmp_path):
    assert load("measure_install").main([str(tmp_path / "none.whl")]) == 1
    err = capsys.readouterr().err
    assert "none.whl is no file" in err
    assert err.count("\n") == 1


def test_a_broken_wheel_is_not_measured(load, capfd, tmp_path):
    wheel = tmp_path / "gemtp_native-0.2.0-py3-none-any.whl"
    wheel.write_bytes(b"no archive")
    assert load("measure_install").main([str(wheel)]) == 1
    assert "measure_install: error:" in capfd.readouterr().err


def test_a_second_build_by_pip_compiles_nothing_again(tmp_path):
    """pip brings pybind11 to another folder each time, and scikit-build-core then removes CMake's
    cache and CMakeFiles of the top folder."""
    pybind11 = Path(pytest.importorskip("pybind11").__file__).parent
    for program in ("cmake", "ninja", "c++"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here")
    settings = (ROOT / "pyproject.toml").read_text("utf-8")
    found = re.search(r'^cmake.source-dir = "(.*)"$', settings, re.MULTILINE)
    assert found
    source, build = ROOT / found[1], tmp_path / "build"
    objects = [
        "gemtp/CMakeFiles/gemtp_core.dir/csrc/base/error.cc.o",
        "gemtp/CMakeFiles/_core.dir/csrc/api/python/gil.cc.o",
    ]

    def configure(brought: Path) -> None:
        shutil.copytree(pybind11, brought)
        subprocess.run(
            [
                "cmake", "-S", source, "-B", build, "-G", "Ninja", "-DGEMTP_BUILD_PYTHON=ON",
                "-DGEMTP_CUDA=OFF", f"-DPython_EXECUTABLE={sys.executable}",
                f"-Dpybind11_DIR={brought / 'share' / 'cmake' / 'pybind11'}",
            ],
            check=True, capture_output=True,
        )  # fmt: skip

    def ninja(*options: str) -> str:
        command = ["ninja", "-C", str(build), *options, *objects]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    configure(tmp_path / "first")
    assert "Building CXX object" in ninja()
    (build / "CMakeCache.txt").unlink()
    shutil.rmtree(build / "CMakeFiles")
    configure(tmp_path / "second")
    assert "no work to do" in ninja("-n")
