"""`gemtp pull`: downloads a model from the hub, and the drafter that belongs to it."""

from __future__ import annotations

import argparse
from typing import Any

from ..base.json_text import json_text
from ..measure.text import size_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Fetches a model into huggingface_hub's cache, all files of it, and prints where it is. "
        "Commands take the same names, and fetch what is missing by themselves."
    )
    parser.add_argument(
        "model",
        metavar="hf:OWNER/NAME[:TYPE]",
        help="TYPE: a quantization like Q4_0, or the name of a file",
    )
    parser.add_argument(
        "--drafter",
        metavar="hf:OWNER/NAME[:TYPE]",
        help="its drafter too; auto looks for it",
    )
    parser.add_argument("--list", action="store_true", help="only show what there is to fetch")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")


def run(args: argparse.Namespace) -> int:
    from ..find import beside, hub

    name = hub.parse(args.model.removeprefix("hf:"))
    if args.list:
        _list(hub.files(name), args.json)
        return 0
    target = hub.pull(name, progress=not args.quiet)
    report: dict[str, Any] = {"model": _facts(target), "drafter": None}
    if args.drafter == "auto":
        path = hub.drafter_of(name, target.path, not args.quiet)
        report["drafter"] = _facts(hub.Pulled(path, (path,), path.stat().st_size))
    elif args.drafter is not None:
        of = hub.parse(args.drafter.removeprefix("hf:"))
        drafter = hub.pull(of, "drafter", not args.quiet)
        beside.check(target.path, drafter.path)
        report["drafter"] = _facts(drafter)
    if args.json:
        print(json_text(report))
        return 0
    for facts in filter(None, report.values()):
        print(facts["path"])
    return 0


def _facts(pulled: Any) -> dict[str, Any]:
    return {
        "path": str(pulled.path),
        "files": [str(p) for p in pulled.files],
        "bytes": pulled.bytes,
    }


def _list(found: list[Any], as_json: bool) -> None:
    if as_json:
        print(json_text([{"name": c.name, "files": c.files, "bytes": c.bytes, "type": c.label,
                           "role": c.role} for c in found]))  # fmt: skip
        return
    for c in found:
        size = "?" if c.bytes is None else size_text(c.bytes)
        files = f", {len(c.files)} files" if len(c.files) > 1 else ""
        print(f"{c.label or '-':<12} {size:>10}  {c.name}{files}")
