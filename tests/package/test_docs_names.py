"""The names that the documents for contributors mention exist."""

from __future__ import annotations

import fnmatch
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = (".h", ".cc", ".c", ".py", ".pyi", ".txt", ".cmake", ".toml", ".mjs", ".js")
FOLDERS = ("", "csrc", "python/gemtp_native", "python/gemtp_native/measure", "tests")


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a checkout")
    return listed.stdout.splitlines()


def spans(document: str) -> set[str]:
    """The code in a document's lines, without placeholders and commands."""
    text = re.sub(r"^```.*?^```", "", (ROOT / document).read_text("utf-8"), flags=re.M | re.S)
    found = re.findall(r"`([^`\n]+)`", text)
    return {s for s in found if not re.search(r"[<…$]|^(python|pip|pytest|cmake|gemtp) ", s)}


@pytest.mark.parametrize("document", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_names_exist(document: str) -> None:
    files = tracked()
    known = {f"{parent}/" for f in files for parent in Path(f).parents} | set(files)
    names = {Path(f).name for f in files}
    words: set[str] = set()
    for file in files:
        if file.endswith(SOURCES) and (ROOT / file).exists():
            words.update(re.findall(r"\w+", (ROOT / file).read_text("utf-8", "replace")))
    missing = set()
    for span in spans(document):
        if "/" in span and re.fullmatch(r"[\w./*-]+", span):
            inside = [f"{folder}/{span}".lstrip("/") for folder in FOLDERS]
            if not span.startswith(("..", "/")) and not any(
                fnmatch.filter(known, p) for p in inside
            ):
                missing.add(span)
            continue
        for word in re.findall(r"\w+", span):
            special = "_" in word.strip("_") or re.search(r"[a-z][A-Z]", word)
            if special and word not in words and not any(word in name for name in names):
                missing.add(f"{word} in {span}")
    assert not missing
