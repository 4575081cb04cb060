"""The page's modules that need no browser, and what must hold of all of its files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent.parent / "python" / "gemtp_native" / "page"


def test_pure_modules():
    """Markdown, events, traces, conversations: tests/page/*.test.mjs."""
    node = shutil.which("node")
    if not node:
        pytest.skip("node is not installed")
    files = sorted(str(f) for f in (Path(__file__).parent.parent / "page").glob("*.test.mjs"))
    done = subprocess.run([node, "--test", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]


def test_nothing_comes_from_elsewhere():
    """No address of others in the page's files, nothing inline, no text that becomes HTML."""
    for file in PAGE.iterdir():
        text = file.read_text(encoding="utf-8").replace('"http://www.w3.org/2000/svg"', "")
        unwanted = (
            "innerHTML",
            "document.write",
            "eval(",
            " style=",
            "onclick=",
            "url(",
            "@import",
        )
        assert not [word for word in unwanted if word in text], file
        if file.suffix in (".html", ".css"):
            assert "//" not in text, file
