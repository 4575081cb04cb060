"""What an installation consists of."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import gemtp_native as gemtp
from gemtp_native import _core

PACKAGE = Path(gemtp.__file__).parent
ROOT = Path(__file__).parent.parent


def test_public_names():
    for name in gemtp.__all__:
        assert getattr(gemtp, name) is not None


def test_one_version():
    pattern = re.escape(gemtp.__version__)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert re.search(rf'^version = "{pattern}"$', project, re.MULTILINE)
    assert re.search(rf"^project\(gemtp VERSION {pattern} ", cmake, re.MULTILINE)


def test_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "_core.pyi").is_file()


def test_stub_names_what_the_core_has():
    stub = ast.parse((PACKAGE / "_core.pyi").read_text(encoding="utf-8"))
    assert names(stub.body) == {n for n in vars(_core) if not n.startswith("_")}
    for node in stub.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            has = {n for n in vars(getattr(_core, node.name)) if not n.startswith("_")}
            assert names(node.body) == has, node.name


def names(body: list[ast.stmt]) -> set[str]:
    found = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            found.add(node.target.id)
    return {name for name in found if not name.startswith("_")}


def test_importing_the_package_is_cheap():
    code = "import sys, gemtp_native; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
