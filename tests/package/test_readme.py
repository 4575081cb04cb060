"""README can be followed from top to bottom: its blocks run as printed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import c_library

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.M | re.S)

# The first line of each block that is not run here, and why.
NOT_RUN = {
    "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/gemtp demo": ".ci/run does it",
    "gemtp synth e2b --vocab VOCABULARY.gguf     # no weights at hand? these cost what real ones "
    "cost": "llama.cpp is compared, for minutes",
    "pip install '.[hub,serve]'": "Gemma 4 is downloaded",
    "gemtp convert gemma-4-E2B-it            e2b.gguf         --outtype q4_0": "of Gemma's weights",
}
SERVER = "gemtp serve demo --drafter auto    # until Ctrl-C\n"
C_BUILD = "cmake -S . -B build && cmake --build build && cmake --install build --prefix ~/.local\n"


def first_line(block: tuple[str, str]) -> str:
    return block[1].split("\n", 1)[0]


RUN = [b for b in BLOCKS if first_line(b) not in NOT_RUN]


@pytest.fixture
def checkout(tmp_path):
    """A folder as the checkout is for who reads README, with an environment that has gemtp."""
    for name in ("README.md", "pyproject.toml", "csrc", "python", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    python = shlex.quote(sys.executable)
    pip = shlex.quote(str(ROOT / "tests" / "support" / "fake_pip.py"))
    scripts = {"gemtp": f"{python} -m gemtp_native", "pip": f"{python} {pip}"}
    for name, command in scripts.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    (programs / "activate").write_text(f'export PATH="{programs}:$PATH"\n')
    return tmp_path


def environment(checkout: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{checkout / '.venv' / 'bin'}:{os.environ['PATH']}",
        "HOME": str(checkout),
        "GEMTP_CACHE_DIR": str(checkout / "cache"),
    }


def run_shell(text: str, checkout: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=checkout,
        env=environment(checkout),
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()[-4000:]
    return done.stdout.decode()


def test_every_reason_is_of_a_block() -> None:
    assert set(NOT_RUN) <= {first_line(b) for b in BLOCKS}
    assert {language for language, _ in BLOCKS} == {"sh", "python"}
    assert len(RUN) >= 5


@pytest.mark.parametrize("block", RUN, ids=first_line)
def test_block(block, checkout):
    language, text = block
    if language == "python":
        subprocess.run([sys.executable, "-c", text], cwd=checkout, check=True, timeout=300)
    elif SERVER in text:
        run_shell(text.replace(SERVER, ""), checkout)
        serve(checkout)
    elif C_BUILD in text:
        if c_library.BUILD is None:
            pytest.skip("GEMTP_C_BUILD names no build of the C library")
        c_library.install(checkout / ".local")
        assert run_shell(text.replace(C_BUILD, ""), checkout).startswith("\n    ")
    else:
        run_shell(text, checkout)


def serve(checkout: Path) -> None:
    """Starts the server as printed, on the port that it has by default if that is free."""
    with subprocess.Popen(
        shlex.split(SERVER, comments=True),
        cwd=checkout,
        env=environment(checkout),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said = ""
        while "http://" not in said and (line := process.stderr.readline()):
            said += line
        process.send_signal(signal.SIGINT)
        said += process.stderr.read()
    assert "listening" in said or "in use" in said, said
