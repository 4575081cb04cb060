#!/usr/bin/env python3
"""Counts what the structure of the tree consists of, and checks which way its arrows point.

    python tools/structure.py            # the figures
    python tools/structure.py --json     # for programs
    python tools/structure.py --check    # the arrows that point upwards; exit 1 if there are any

A folder of csrc includes, and a wing of the Python package imports, only what stands below it in
the lists here. Imports inside functions and for type checking count like any other.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# From the bottom up.
CPP_FOLDERS = (
    "base",
    "gguf",
    "quantize",
    "text",
    "backend",  # the interface; implementations include it
    "backend/cpu",
    "backend/gpu/kernels",
    "backend/gpu",
    "backend/gpu/emulated",
    "backend/gpu/cuda",
    "backend/gpu/metal",
    "model",
    "choose",
    "draft",
    "engine",
    "measure",
    "generate",
    "include",
    "api/c",
    "api/python",
)
PYTHON_WINGS = (
    "base",  # together with the modules of _BASE
    "gguf",
    "find",
    "profile",
    "grammar",
    "chat",
    "api",  # the other modules at the top of the package
    "make",
    "measure",
    "export",
    "serve",
    "cli",
)
# Modules at the top of the package that every wing may use, like those of base/.
_BASE = ("_core", "arguments", "errors", "options", "results", "stream")


@dataclass(frozen=True)
class Function:
    where: str  # file:line
    name: str
    lines: int
    parameters: int


@dataclass
class Language:
    files: int = 0
    lines: int = 0
    folders: int = 0
    functions: list[Function] = field(default_factory=list)
    largest_files: list[tuple[int, str]] = field(default_factory=list)
    two_meanings: dict[str, list[str]] = field(default_factory=dict)  # type name -> files


@dataclass(frozen=True)
class Arrow:
    where: str  # file:line
    source: str
    target: str


def sources(root: Path, *patterns: str) -> list[Path]:
    return sorted(p for pattern in patterns for p in root.glob(pattern) if p.is_file())


# C++


_TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""",
    re.S,
)
_TYPE = re.compile(r"^(?:class|struct|enum class) (\w+)(?: final)?(?: :[^;{]*)? \{", re.M)
_INCLUDE = re.compile(r'^#include "([^"]+)"', re.M)
_CONTROL = ("if", "for", "while", "switch", "catch", "return", "sizeof", "constexpr", "alignas")


def _blanked(code: str) -> str:
    """Blanks out comments and literals; every other character keeps its place."""
    return _TOKEN.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), code)


def _matching(code: str, at: int, opening: str, closing: str) -> int:
    """Returns the index of the bracket that closes the one at ``at``, or -1."""
    depth = 0
    for i in range(at, len(code)):
        if code[i] == opening:
            depth += 1
        elif code[i] == closing:
            depth -= 1
            if depth == 0:
                return i
    return -1


def _parameters(text: str) -> int:
    depth, commas = 0, 0
    for c in text:
        depth += (c in "(<[{") - (c in ")>]}")
        commas += c == "," and depth == 0
    return commas + 1 if text.strip() not in ("", "void") else 0


_SIGNATURE = re.compile(r"([~\w:]+|operator\S+)\s*\(")
_BETWEEN = re.compile(
    r"\s*(const|noexcept|override|final|->\s*[\w:<>*&, ]+|:[^;{}]*(\b\{[^{};]*\}[^;{}]*)*|\s)*\B\{",
    re.S,
)


def cpp_functions(path: str, code: str) -> Iterator[Function]:
    text = _blanked(code)
    at = 0
    while found := _SIGNATURE.search(text, at):
        at = found.end()
        name = found.group(1)
        if name in _CONTROL or (found.start() and text[found.start() - 1] in ".>"):
            continue
        close = _matching(text, found.end() - 1, "(", ")")
        if close < 0 or not (body := _BETWEEN.match(text[close + 1 : close + 2000])):
            continue
        begin = close + body.end()
        end = _matching(text, begin, "{", "}")
        if end < 0:
            continue
        first = text.count("\n", 0, found.start()) + 1
        lines = text.count("\n", found.start(), end) + 1
        yield Function(f"{path}:{first}", name, lines, _parameters(text[found.end() : close]))
        at = end


def cpp_folder(path: Path) -> str:
    return path.parent.relative_to(ROOT / "csrc").as_posix()


def read_cpp() -> tuple[Language, list[Arrow]]:
    language, arrows = Language(), []
    types: dict[str, set[str]] = defaultdict(set)
    paths = sources(ROOT / "csrc", "**/*.cc", "**/*.h")
    for path in paths:
        name, code = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        count(language, name, code)
        language.functions += cpp_functions(name, code)
        for kind in _TYPE.finditer(_blanked(code)):
            types[kind.group(1)].add(name)
        for include in _INCLUDE.finditer(code):
            target = Path(include.group(1)).parent.as_posix()
            target = {".": "include"}.get(target, target)
            line = code.count("\n", 0, include.start()) + 1
            arrows.append(Arrow(f"{name}:{line}", cpp_folder(path), target))
    finish(language, paths, types)
    return language, arrows


# Python


def python_wing(module: str) -> str:
    """Returns the wing of a module, given its name within the package: "chat.reply"."""
    first = module.split(".")[0]
    if first in PYTHON_WINGS:
        return first
    return "base" if first in _BASE else "api"


def _imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yields line and name, within the package, of a module's imports from the package."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    package = [part for part in package if part]
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level == 0:
            parts = (node.module or "").split(".")
            if parts[0] != "gemtp_native":
                continue
            base = parts[1:]
        else:
            base = package[: len(package) - node.level + 1]
            base = base + (node.module.split(".") if node.module else [])
        if base:
            yield node.lineno, ".".join(base)
        else:  # from .. import bench, __version__
            yield from ((node.lineno, a.name) for a in node.names if not a.name.startswith("__"))


def read_python() -> tuple[Language, list[Arrow]]:
    language, arrows = Language(), []
    types: dict[str, set[str]] = defaultdict(set)
    package = ROOT / "python" / "gemtp_native"
    paths = sources(package, "**/*.py")
    for path in paths:
        name, code = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        tree = ast.parse(code)
        count(language, name, code)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                language.functions.append(_python_function(name, node))
            elif isinstance(node, ast.ClassDef):
                types[node.name].add(name)
        inside = path.relative_to(package).with_suffix("")
        is_package = inside.name == "__init__"
        module = ".".join(inside.parts[:-1] if is_package else inside.parts)
        if module in ("", "__main__"):
            continue  # the package's __init__ may import everything
        for line, target in _imports(tree, module, is_package):
            arrows.append(Arrow(f"{name}:{line}", python_wing(module), python_wing(target)))
    finish(language, paths, types)
    return language, arrows


def _python_function(path: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Function:
    a = node.args
    names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    parameters = len([n for n in names if n not in ("self", "cls")])
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    return Function(f"{path}:{node.lineno}", node.name, lines, parameters)


# Both


def count(language: Language, name: str, code: str) -> None:
    language.files += 1
    language.lines += code.count("\n")
    language.largest_files.append((code.count("\n"), name))


def finish(language: Language, paths: Iterable[Path], types: dict[str, set[str]]) -> None:
    language.folders = len({p.parent for p in paths})
    language.largest_files = sorted(language.largest_files, reverse=True)[:10]
    language.two_meanings = {
        name: sorted(files) for name, files in sorted(types.items()) if len(files) > 1
    }


def upward(arrows: Iterable[Arrow], order: tuple[str, ...]) -> list[Arrow]:
    """Returns arrows that point neither to their own folder nor to one below it. Folders that are
    not in the list are above all others."""
    height = {folder: i for i, folder in enumerate(order)}
    unknown = len(order)
    return [
        a
        for a in arrows
        if a.source not in height
        or (a.source != a.target and height.get(a.target, unknown) >= height[a.source])
    ]


def circles(arrows: Iterable[Arrow]) -> list[tuple[str, ...]]:
    """Returns sets of folders of which each reaches every other."""
    targets: dict[str, set[str]] = defaultdict(set)
    for a in arrows:
        if a.source != a.target:
            targets[a.source].add(a.target)

    def reached(start: str) -> set[str]:
        seen, todo = set(), [start]
        while todo:
            for target in targets[todo.pop()] - seen:
                seen.add(target)
                todo.append(target)
        return seen

    reach = {folder: reached(folder) for folder in list(targets)}
    found = {
        tuple(sorted(f for f in reach if f in reach[start] and start in reach[f]))
        for start in reach
        if start in reach[start]
    }
    return sorted(found)


def files_that_name(word: str) -> list[str]:
    patterns = ("csrc/**/*.cc", "csrc/**/*.h", "python/gemtp_native/**/*.py*")
    found = re.compile(rf"\b{word}\b")
    return [
        p.relative_to(ROOT).as_posix()
        for p in sources(ROOT, *patterns)
        if p.suffix != ".pyc" and found.search(p.read_text(encoding="utf-8"))
    ]


def report() -> dict[str, object]:
    out: dict[str, object] = {}
    for title, (language, arrows), order in (
        ("csrc", read_cpp(), CPP_FOLDERS),
        ("python", read_python(), PYTHON_WINGS),
    ):
        sizes = [f.lines for f in language.functions]
        out[title] = {
            "lines": language.lines,
            "files": language.files,
            "folders": language.folders,
            "functions": len(sizes),
            "median_function": statistics.median(sizes),
            "mean_function": round(statistics.mean(sizes), 1),
            "over_60_lines": [asdict(f) for f in language.functions if f.lines > 60],
            "over_6_parameters": [asdict(f) for f in language.functions if f.parameters > 6],
            "largest_files": language.largest_files,
            "two_meanings": language.two_meanings,
            "upward": [asdict(a) for a in upward(arrows, order)],
            "circles": circles(arrows),
        }
    out["min_p"] = files_that_name("min_p")
    out["lookup_accepted"] = files_that_name("lookup_accepted")  # an example of a figure
    return out


def show(figures: dict[str, object]) -> None:
    for title in ("csrc", "python"):
        part = figures[title]
        assert isinstance(part, dict)
        print(f"{title}: {part['lines']} lines, {part['files']} files, {part['folders']} folders")
        print(
            f"  {part['functions']} functions, median {part['median_function']:g} lines, mean "
            f"{part['mean_function']}"
        )
        for key, title in (
            ("over_60_lines", "functions over 60 lines"),
            ("over_6_parameters", "functions with more than 6 parameters"),
        ):
            print(f"  {len(part[key])} {title}")
            for f in part[key]:
                print(f"    {f['where']} {f['name']}: {f['lines']} lines, {f['parameters']}")
        print("  largest files: " + ", ".join(f"{name} {n}" for n, name in part["largest_files"]))
        print(f"  {len(part['two_meanings'])} types of one name in several files")
        for name, files in part["two_meanings"].items():
            print(f"    {name}: {', '.join(files)}")
        print(f"  {len(part['upward'])} upward arrows, {len(part['circles'])} circles of folders")
        for circle in part["circles"]:
            print(f"    {', '.join(circle)}")
    for word in ("min_p", "lookup_accepted"):
        files = figures[word]
        assert isinstance(files, list)
        print(f"{word}: {len(files)} files")


def check() -> int:
    """Prints the arrows that point upwards. Returns 1 if there are any."""
    wrong = 0
    for kind, (_, arrows), order in (
        ("includes", read_cpp(), CPP_FOLDERS),
        ("imports", read_python(), PYTHON_WINGS),
    ):
        for a in upward(arrows, order):
            wrong = 1
            print(
                f"{a.where}: {a.source} {kind} {a.target}, which does not stand below it "
                "(tools/structure.py has the order); move what is needed down, or the user of it up"
            )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only name arrows that point upwards")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.check:
        return check()
    figures = report()
    if args.json:
        print(json.dumps(figures, indent=1))
    else:
        show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
