"""`gemtp convert` and tools/convert.py."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from ..base.counted import counted
from ..base.json_text import json_text
from ..errors import ArgumentError, OutOfMemoryError
from ..gguf.types import FILE_TYPES
from ..make.convert.pipeline import ConvertResult, convert

WRONG_USAGE = ArgumentError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model_dir", type=Path, metavar="MODEL_DIR", help="folder of a Hugging Face checkpoint"
    )
    parser.add_argument(
        "out",
        type=Path,
        nargs="?",
        metavar="OUT.gguf",
        help="file to write or replace (default: FOLDER-OUTTYPE.gguf, here)",
    )
    parser.add_argument(
        "--outfile",
        type=Path,
        metavar="OUT.gguf",
        help="the same, as llama.cpp's converter has it; {ftype} in it stands for TYPE",
    )
    parser.add_argument(
        "--outtype",
        type=_type_name,
        choices=tuple(FILE_TYPES),
        default="q8_0",
        metavar="TYPE",
        help=f"type of the matrices, or a mix: {', '.join(FILE_TYPES)}; auto is bf16, the type of "
        "Gemma's checkpoints (default: q8_0)",
    )
    parser.add_argument(
        "--target-dir",
        type=Path,
        metavar="DIR_OR_GGUF",
        help="for a drafter: the target that lends its tokenizer",
    )
    parser.add_argument(
        "--no-tokenizer", action="store_true", help="write no tokenizer (for experiments)"
    )
    parser.add_argument(
        "--completes",
        action="store_true",
        help="note in the file that the target goes on with texts and was not made to chat, "
        "although it has a chat template",
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.add_argument("--verbose", action="store_true", help="name every tensor that is left out")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def _type_name(text: str) -> str:
    return {"auto": "bf16", "fp16": "f16", "fp32": "f32"}.get(text.lower(), text.lower())


def run(args: argparse.Namespace) -> int:
    if args.out is not None and args.outfile is not None:
        raise ArgumentError("OUT.gguf and --outfile name two files to write; give one")
    out = args.out or args.outfile
    if args.outfile is not None:
        out = Path(re.sub(r"\{(ftype|outtype)\}", args.outtype, str(out), flags=re.IGNORECASE))
    if out is None:
        out = Path(f"{args.model_dir.resolve().name or 'model'}-{args.outtype}.gguf")
    try:
        result = convert(
            args.model_dir,
            out,
            args.outtype,
            target=args.target_dir,
            tokenizer=not args.no_tokenizer,
            completes=args.completes,
            progress=not args.quiet,
        )
    except MemoryError:
        raise OutOfMemoryError("not enough memory for the conversion.") from None
    except KeyboardInterrupt:
        print("interrupted: nothing was written.", file=sys.stderr)
        raise
    if args.json:
        print(_as_json(result, args.verbose))
    elif not args.quiet:
        print(_summary(result, args.verbose))
    return 0


def _as_json(r: ConvertResult, verbose: bool) -> str:
    values = dict(vars(r), path=str(r.path), seconds=round(r.seconds, 3))
    if not verbose:
        values["left_out"] = {reason: len(names) for reason, names in r.left_out.items()}
    return json_text(values)


def _summary(r: ConvertResult, verbose: bool) -> str:
    lines = [f"note: {note}" for note in r.notes]
    if r.left_out:
        parts = [f"{len(names)} {reason}" for reason, names in r.left_out.items()]
        lines.append(f"left out: {', '.join(parts)} tensors")
        if verbose:
            lines += [f"  {name}" for names in r.left_out.values() for name in names]
    lines.append(
        f"{r.path}: {r.architecture} ({r.class_name}), {counted(r.layers, 'layer')}, "
        f"{counted(r.tensors, 'tensor')}, {r.outtype}, {r.bytes:,} bytes, {r.seconds:.1f} s"
    )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    from . import main as gemtp

    return gemtp(["convert", *(sys.argv[1:] if argv is None else argv)])
