"""Folders include, and wings import, only what stands below them; and the tool that says so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import structure  # noqa: E402

PACKAGE = "python/gemtp_native"


def test_every_arrow_points_downwards(capsys):
    assert structure.check() == 0, capsys.readouterr().out


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """write(path, text): a file of an otherwise empty tree that the tool then looks at."""
    monkeypatch.setattr(structure, "ROOT", tmp_path)

    def write(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    return write


@pytest.mark.parametrize(
    ("path", "text", "named"),
    [
        ("csrc/base/a.h", '\n#include "engine/e.h"\n', "csrc/base/a.h:2: base includes engine"),
        ("csrc/text/a.cc", '#include "elsewhere/a.h"\n', "text includes elsewhere"),
        ("csrc/elsewhere/a.cc", '#include "base/error.h"\n', "elsewhere includes base"),
        (f"{PACKAGE}/chat/a.py", "from ..cli.text import b\n", "chat imports cli"),
        (f"{PACKAGE}/gguf/a.py", "def f():\n    from .. import serve\n", "gguf imports serve"),
        (f"{PACKAGE}/base/a.py", "from gemtp_native.model import Model\n", "base imports api"),
    ],
)  # fmt: skip
def test_what_points_upwards_is_named(tree, capsys, path, text, named):
    tree(path, text)
    assert structure.check() == 1
    assert named in capsys.readouterr().out


def test_what_points_downwards_is_not(tree, capsys):
    tree("csrc/engine/a.h", '#include "base/error.h"\n#include "engine/b.h"\n#include <vector>\n')
    tree("python/gemtp_native/serve/a.py", "from ..model import Model\nfrom .b import c\n")
    tree("python/gemtp_native/model.py", "from .chat.prompt import Chats\n")
    assert structure.check() == 0, capsys.readouterr().out


def test_functions_are_found(tree):
    tree(
        "csrc/base/a.cc",
        "A::A(int a, std::map<int, int> b) : a_(a), b_{b} {\n}\n"
        "// void no(int a) {\n"
        "int f(int a) const {\n  if (a) {\n    return g(a, 1);\n  }\n  return 0;\n}\n"
        "void declared(int);\n",
    )
    tree("python/gemtp_native/a.py", "class A:\n    def f(self, a, *, b=1):\n        return a\n")
    cpp, python = structure.read_cpp()[0], structure.read_python()[0]
    found = [(f.name, f.lines, f.parameters) for f in (*cpp.functions, *python.functions)]
    assert found == [("A::A", 2, 2), ("f", 6, 1), ("f", 2, 2)]
