"""The stand-in for NVIDIA's driver that the C++ tests build (tests/cpp/gpu/fake_cuda.cc): CUDA's
device runs on it without a GPU, and the kernels on the emulated one."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import gemtp_native as gemtp

ROOT = Path(__file__).resolve().parents[2]


def library() -> Path:
    """Returns its path; skips the test where it is not built."""
    build = os.environ.get("GEMTP_C_BUILD")
    if not build:
        pytest.skip("GEMTP_C_BUILD names no build of the C++ tests, which have the stand-in")
    path = ROOT / build / "tests" / "cpp" / "libgemtp_fake_cuda.so"
    if not path.exists():
        pytest.skip("that build has no stand-in for NVIDIA's driver")
    if not gemtp.system_info()["cuda_kernels"]:
        pytest.skip("this build has no kernels for CUDA")
    return path


def environment(**settings: int) -> dict[str, str]:
    """Returns the variables with which another process finds the stand-in."""
    text = ",".join(f"{name}={value}" for name, value in settings.items())
    return {"GEMTP_CUDA_DRIVER": str(library()), "GEMTP_FAKE_CUDA": text}


class StandIn:
    """The library in this process; fake_cuda.h says what can be set."""

    def __init__(self) -> None:
        path = library()
        os.environ["GEMTP_CUDA_DRIVER"] = str(path)  # before the first model on a GPU
        self._library = ctypes.CDLL(str(path))
        self._library.fake_cuda_get.restype = ctypes.c_int64
        self._library.fake_cuda_complaint.restype = ctypes.c_char_p

    def set(self, **settings: int) -> None:
        for name, value in settings.items():
            assert self._library.fake_cuda_set(name.encode(), ctypes.c_int64(value)), name

    def get(self, name: str) -> int:
        return self._library.fake_cuda_get(name.encode())

    @contextlib.contextmanager
    def setting(self, name: str, value: int, otherwise: int = 0) -> Iterator[None]:
        self.set(**{name: value})
        try:
            yield
        finally:
            self.set(**{name: otherwise})

    def check(self) -> None:
        """No call was wrong, and nothing is left on the GPU."""
        assert self._library.fake_cuda_complaint().decode() == ""
        assert self.get("live") == 0
