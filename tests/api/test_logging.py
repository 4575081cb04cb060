"""What the library says through logging, and the command line with --verbose."""

from __future__ import annotations

import logging
import subprocess
import sys

import gemtp_native as gemtp


def test_models_and_generations(caplog):
    target, drafter = gemtp.demo_models()
    caplog.set_level(logging.DEBUG, "gemtp_native")
    model = gemtp.Model(target, drafter=drafter, threads=1, context=128)
    model.generate("def f(x):", max_tokens=5, ignore_eos=True)
    opened, generated = [r for r in caplog.records if r.name == "gemtp_native.model"]
    assert opened.levelno == logging.INFO
    assert str(target) in opened.message
    assert str(drafter) in opened.message
    assert "1 thread, context 128, K/V in f16" in opened.message
    assert generated.levelno == logging.DEBUG
    assert "; 5 tokens in " in generated.message
    assert generated.message.endswith("; length")


def test_nothing_is_printed_unless_asked_for():
    program = """
import gemtp_native as gemtp
print(gemtp.Model(gemtp.demo_models()[0], context=64).generate("def f", max_tokens=3).text)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stderr == ""


def test_the_command_line(gemtp_main):
    target = gemtp.demo_models()[0]
    command = ("generate", target, "def f", "--max-tokens", 3)
    code, quiet, err = gemtp_main(*command)
    assert (code, err) == (0, "")
    code, text, err = gemtp_main(*command, "--verbose")
    assert (code, text) == (0, quiet)
    assert f"gemtp: opened {target}" in err
    assert "gemtp: prompt: " in err
    assert gemtp_main(*command) == (0, quiet, "")
