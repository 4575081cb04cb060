"""What an installation consists of."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import gemtp_native as gemtp
from gemtp_native import _core

PACKAGE = Path(gemtp.__file__).parent
ROOT = Path(__file__).parent.parent.parent


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
    classes = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
    shared = {name for name, node in classes.items() if node.decorator_list}  # @type_check_only
    assert names(stub.body) - shared == {n for n in vars(_core) if not n.startswith("_")}
    for name, node in classes.items():
        if not name.startswith("_") and name not in shared:
            has = {n for n in vars(getattr(_core, name)) if not n.startswith("_")}
            bases = [classes[base.id] for base in node.bases if isinstance(base, ast.Name)]
            assert names([m for part in (node, *bases) for m in part.body]) == has, name


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


def test_a_text_takes_few_modules():
    """numpy alone doubles the time to the first token."""
    code = (
        "import sys, gemtp_native as gemtp\n"
        "gemtp.Model(*gemtp.demo_models()).generate('def f(', max_tokens=2)\n"
        "print(*sorted({'numpy', 'asyncio', 'jinja2', 'tqdm', 'urllib.request'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_sdist_holds_the_checkout_and_nothing_else(tmp_path):
    backend = f"import scikit_build_core.build as b; b.build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", backend], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    assert sdist.stat().st_size < 12e6
    top = sdist.name.removesuffix(".tar.gz")
    with tarfile.open(sdist) as archive:
        found = {member.name.removeprefix(f"{top}/") for member in archive.getmembers()}
    listing = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listing += ["--cached", "--others", "--exclude-standard"]
    out = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    ours = {name for name in out.split("\0") if name and (ROOT / name).is_file()}
    only_here = {name for name in ours if name.startswith(".")}
    assert found == ours - only_here | {"PKG-INFO"}
    assert "LICENSE" in found
