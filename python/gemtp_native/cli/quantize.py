"""`gemtp quantize`: writes a GGUF in another type."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..base.json_text import json_text
from ..errors import ArgumentError
from ..gguf.types import FILE_TYPES, TensorType, tensor_type

if TYPE_CHECKING:
    from ..make.quantize import Quantized

MODELS = ("source",)  # arguments that may name a model by where it comes from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes a target or drafter with its matrices in another type, from F32, F16 or BF16. A "
        "type is for all matrices; a mix (_S, _M, _L) gives some more bits, by llama.cpp's rules."
    )
    parser.add_argument("source", metavar="IN.gguf", help="the model, in a type of more precision")
    parser.add_argument("out", metavar="OUT.gguf", help="file to write or replace")
    parser.add_argument("type", metavar="TYPE", help=", ".join(FILE_TYPES))
    group = parser.add_argument_group("what each matrix gets")
    group.add_argument(
        "--tensor-type",
        type=_override,
        action="append",
        default=[],
        metavar="NAME=TYPE",
        help="type of the tensors whose name matches, e.g. attn_v=q8_0 or 'blk\\.0\\.=f16'; may "
        "repeat, the first that matches counts",
    )
    group.add_argument(
        "--keep-head", action="store_true", help="leave what makes the logits as it is"
    )
    group.add_argument(
        "--imatrix", metavar="FILE", help="importance matrix (gemtp imatrix, llama.cpp)"
    )
    group.add_argument(
        "--allow-requantize",
        action="store_true",
        help="from matrices that are quantized already, too, which loses more",
    )
    group = parser.add_argument_group("how")
    group.add_argument("--threads", type=int, metavar="N", help="(default: one per processor)")
    group.add_argument("--dry-run", action="store_true", help="say what would be written")
    group.add_argument("--json", action="store_true", help="report as JSON")
    group.add_argument("--verbose", action="store_true", help="name the type of every matrix")
    group.add_argument("--quiet", action="store_true", help="no progress, no report")


def run(args: argparse.Namespace) -> int:
    from ..make import quantize

    matrix = None if args.imatrix is None else quantize.read_imatrix(args.imatrix)
    options = {
        "overrides": args.tensor_type,
        "keep_head": args.keep_head,
        "imatrix": matrix,
        "allow_requantize": args.allow_requantize,
    }
    if args.dry_run:
        result = quantize.plan(args.source, args.type, **options)
    else:
        result = quantize.quantize(
            args.source,
            args.out,
            args.type,
            **options,
            threads=args.threads,
            progress=not args.quiet,
        )
    if args.json:
        files = {"path": None if args.dry_run else args.out, "source": args.source}
        print(json_text({**asdict(result), **files}))
    elif not args.quiet:
        print(_summary(result, args.out, args.dry_run, args.verbose))
    return 0


def _override(text: str) -> tuple[str, TensorType]:
    name, sign, kind = text.rpartition("=")
    if not sign or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=TYPE")
    try:
        return name, tensor_type(kind)
    except ArgumentError as e:
        raise argparse.ArgumentTypeError(str(e)) from None


def _summary(r: Quantized, out: str, dry_run: bool, verbose: bool) -> str:
    lines = [f"note: {note}" for note in r.notes]
    if verbose:
        width = max(len(name) for name in r.tensors)
        lines += [f"  {name:{width}}  {kind}" for name, kind in r.tensors.items()]
    if r.weighted:
        lines.append(f"{r.weighted} matrices weighed by the importance matrix")
    types = ", ".join(f"{count} {kind}" for kind, count in r.types.items())
    lines.append(
        f"{out}{' (not written)' if dry_run else ''}: {r.type}, {r.bytes:,} bytes of "
        f"{r.source_bytes:,}, {r.bits_per_weight:.2f} bits per weight; {types}"
        + ("" if dry_run else f"; {r.seconds:.1f} s")
    )
    return "\n".join(lines)
