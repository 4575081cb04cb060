"""The C library as others get it: installed, found, linked; and the same text as Python's."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from typing import ClassVar

import pytest

import c_library
import gemtp_native as gemtp
from gguf_bytes import F32, I32
from tiny_files import sound_target

pytestmark = c_library.needs_build

PROMPTS = ["def read_lines(path):\n    ", "class Ünïcode:\n", "import json\n\n\ndef main():"]
TOKENS = 60


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    return c_library.install(tmp_path_factory.mktemp("installed") / "prefix")


@pytest.fixture(scope="module")
def library(prefix):
    found = [p for p in prefix.rglob("libgemtp.so.*.*.*") if p.is_file()]
    if not found:
        pytest.skip("the build is not of a shared library for Linux")
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def by_cmake(prefix, tmp_path_factory):
    return c_library.build_examples(prefix, tmp_path_factory.mktemp("examples")) / "complete"


@pytest.fixture(scope="module")
def by_pkg_config(prefix, tmp_path_factory):
    if not shutil.which("pkg-config"):
        pytest.skip("pkg-config is not installed")
    # As with a tree that was moved after its installation.
    moved = tmp_path_factory.mktemp("moved") / "elsewhere"
    shutil.copytree(prefix, moved, symlinks=True)
    (folder,) = {p.parent for p in moved.rglob("gemtp.pc")}
    flags = c_library.run(
        "pkg-config", "--cflags", "--libs", "gemtp", env={"PKG_CONFIG_PATH": str(folder)}
    ).split()
    assert f"-L{moved}/lib" in [re.sub(r"/[^/]+/(pkgconfig/)?\.\./\.\.", "", f) for f in flags]
    libraries = next(moved.rglob("libgemtp.so")).parent
    program = tmp_path_factory.mktemp("by_hand") / "complete"
    source = c_library.EXAMPLES / "complete.c"
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    c_library.run("cc", *strict, source, *flags, f"-Wl,-rpath,{libraries}", "-o", program)
    return program


def complete(program, prompt: str, drafter: bool) -> str:
    target, assistant = gemtp.demo_models()
    return c_library.run(program, target, assistant if drafter else "", prompt, TOKENS)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_same_text_as_python(by_cmake, by_pkg_config, prompt):
    target, drafter = gemtp.demo_models()
    model = gemtp.Model(target, drafter=drafter)
    expected = model.generate(prompt, max_tokens=TOKENS).text
    assert expected
    for program in (by_cmake, by_pkg_config):
        for with_drafter in (False, True):
            assert complete(program, prompt, with_drafter) == expected


def test_mistakes_of_the_user_are_one_sentence(by_cmake):
    done = subprocess.run([by_cmake, "no.gguf", "", "x"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"complete: 'no\.gguf' .*\n", done.stderr)


def test_the_example_is_short():
    assert len((c_library.EXAMPLES / "complete.c").read_text().splitlines()) <= 40


def test_nothing_but_the_abi_is_visible(library):
    header = (c_library.ROOT / "csrc" / "include" / "gemtp.h").read_text()
    declared = set(re.findall(r"\b(gemtp_\w+)\(", re.sub(r"/\*.*?\*/", "", header, flags=re.S)))
    lines = c_library.run("nm", "-D", "--defined-only", library).splitlines()
    symbols = {line.split()[-1] for line in lines}
    version = {"GEMTP_0"}  # the name of the symbols' version
    assert symbols == {f"{name}@@GEMTP_0" for name in declared} | version


class Options(ctypes.Structure):
    """The beginning of gemtp_generate_options, as an older header might have had it."""

    _fields_: ClassVar = [
        ("size", ctypes.c_size_t), ("max_tokens", ctypes.c_int64), ("seed", ctypes.c_uint64),
        ("temperature", ctypes.c_float), ("top_k", ctypes.c_int32), ("top_p", ctypes.c_float),
        ("min_p", ctypes.c_float),
    ]  # fmt: skip


def test_the_sampling_that_a_file_recommends(library, tmp_path):
    c, size_t = ctypes.CDLL(str(library)), ctypes.c_size_t
    for keys, expected in (
        ({}, (0.0, 0, 1.0, 0.25)),
        ({"temp": (F32, 1.0), "top_k": (I32, 64), "top_p": (F32, 0.95)}, (1.0, 64, 0.95, 0.25)),
    ):
        g = sound_target()
        for name, (kind, value) in keys.items():
            g.put(f"general.sampling.{name}", kind, value)
        path = tmp_path / f"{len(keys)}.gguf"
        path.write_bytes(g.encode())
        model = ctypes.c_void_p()
        error = ctypes.create_string_buffer(256)
        assert (
            c.gemtp_model_open(os.fsencode(path), None, ctypes.byref(model), error, size_t(256))
            == 0
        )
        options = Options()
        size = size_t(ctypes.sizeof(Options))
        assert c.gemtp_generate_options_init(ctypes.byref(options), size) == 0
        options.max_tokens, options.min_p = 7, 0.25
        assert c.gemtp_model_sampling(model, ctypes.byref(options), error, size_t(256)) == 0
        found = (options.temperature, options.top_k, options.top_p, options.min_p)
        assert found == pytest.approx(expected)
        assert (options.size, options.max_tokens, options.seed) == (size.value, 7, 0)
        assert c.gemtp_model_sampling(model, None, error, size_t(256)) == 3
        assert error.value == b"options is NULL"
        c.gemtp_model_close(model)


def test_the_library_is_versioned(library, prefix):
    dynamic = c_library.run("readelf", "-d", library)
    assert "[libgemtp.so.0]" in dynamic
    links = {p.name for p in library.parent.glob("libgemtp.so*")}
    assert links == {"libgemtp.so", "libgemtp.so.0", library.name}
    assert library.name == f"libgemtp.so.{gemtp.__version__}"
    assert [p.name for p in (prefix / "include").iterdir()] == ["gemtp.h"]


def test_no_other_version_is_found(prefix, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(x C)\nfind_package(gemtp 1.0 REQUIRED)\n"
    )
    done = subprocess.run(
        ["cmake", "-S", tmp_path, "-B", tmp_path / "b", f"-DCMAKE_PREFIX_PATH={prefix}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "gemtp" in done.stderr
