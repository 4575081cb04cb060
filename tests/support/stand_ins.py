"""The libraries that stand in for the drivers of GPUs (tests/cpp/gpu/fake_*.cc), which the C++
tests build: a GPU's device runs on them without a GPU, and the kernels on the emulated one."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import gemtp_native as gemtp

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Kind:
    device: str  # as a user names it
    name: str  # as the model then says
    variable: str  # of the environment: by it the device finds another library than the system's

    @property
    def fake(self) -> str:
        return f"fake_{self.device}"

    def library(self) -> Path:
        """Returns its path; skips the test where it is not built."""
        build = os.environ.get("GEMTP_C_BUILD")
        if not build:
            pytest.skip("GEMTP_C_BUILD names no build of the C++ tests, which have the stand-in")
        path = ROOT / build / "tests" / "cpp" / f"libgemtp_{self.fake}.so"
        if not path.exists():
            pytest.skip("that build has no such stand-in")
        if self.device == "cuda" and not gemtp.system_info()["cuda_kernels"]:
            pytest.skip("this build has no kernels for CUDA")
        return path

    def environment(self, **settings: int) -> dict[str, str]:
        """Returns the variables with which another process finds the stand-in."""
        text = ",".join(f"{name}={value}" for name, value in settings.items())
        return {self.variable: str(self.library()), f"GEMTP_{self.fake.upper()}": text}

    def run(self, *args: object, **settings: int | str) -> subprocess.CompletedProcess[str]:
        """Runs `gemtp args...`. Settings that are texts are variables of the environment."""
        texts = {k: v for k, v in settings.items() if isinstance(v, str)}
        numbers = {k: v for k, v in settings.items() if isinstance(v, int)}
        return subprocess.run(
            [sys.executable, "-m", "gemtp_native", *map(str, args)],
            env=os.environ | self.environment(**numbers) | texts,
            capture_output=True,
            text=True,
        )


CUDA = Kind("cuda", "cuda:0", "GEMTP_CUDA_DRIVER")
METAL = Kind("metal", "metal", "GEMTP_METAL_RUNTIME")


class StandIn:
    """The library in this process; fake_*.h says what can be set."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        path = kind.library()
        os.environ[kind.variable] = str(path)  # before the first model on a GPU
        library = ctypes.CDLL(str(path))
        self._set, self._get, self._complaint = (
            getattr(library, f"{kind.fake}_{control}") for control in ("set", "get", "complaint")
        )
        self._get.restype = ctypes.c_int64
        self._complaint.restype = ctypes.c_char_p

    def set(self, **settings: int) -> None:
        for name, value in settings.items():
            assert self._set(name.encode(), ctypes.c_int64(value)), name

    def get(self, name: str) -> int:
        return self._get(name.encode())

    @contextlib.contextmanager
    def setting(self, name: str, value: int, otherwise: int = 0) -> Iterator[None]:
        self.set(**{name: value})
        try:
            yield
        finally:
            self.set(**{name: otherwise})

    def check(self) -> None:
        """No call was wrong, and nothing is left on the GPU."""
        assert self._complaint().decode() == ""
        assert self.get("live") == 0
