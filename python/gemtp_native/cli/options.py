"""Options that several commands share."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from ..base.input_file import read_text_input
from ..base.json_text import json_text
from ..base.whole_number import whole_number
from ..gguf.parts import files_of
from ..options import MAX_DRAFT, NUMBERS, OPTIONS, Option

if TYPE_CHECKING:
    from ..model import Model

CONTEXT = 4096  # default

_SAMPLING = tuple(OPTIONS[name] for name in (*NUMBERS, "seed"))


def add_number_option(
    group: argparse._ActionsContainer, option: Option, said: str = "", **more: Any
) -> None:
    """Adds a flag for a row of the table. said: the default in words, if it
    is not that of the table."""
    group.add_argument(
        f"--{option.name.replace('_', '-')}",
        type=int if option.whole else float,
        metavar="N" if option.whole else "X",
        help=f"{option.help} (default: {said or f'{option.default:g}'})",
        **more,
    )


def add_sampling_options(
    parser: argparse.ArgumentParser, recommended: bool = False, seed: str = ""
) -> None:
    """Adds sampling options. recommended: the command's defaults are those of the model. seed: the
    default seed, unless it is that of the table."""
    note = "Defaults are what the model's file recommends (gemtp inspect shows it), else these."
    group = parser.add_argument_group("sampling", note if recommended else None)
    for option in _SAMPLING:
        add_number_option(group, option, seed if option.name == "seed" else "")
    group.add_argument(
        "--logit-bias",
        type=_bias,
        action="append",
        default=[],
        metavar="ID=X",
        help="add X to the logit of token ID, -inf bans it; may repeat",
    )
    group.add_argument(
        "--suppress",
        type=int,
        action="append",
        default=[],
        metavar="ID",
        help="never choose token ID, besides those that the file names; may repeat",
    )


def sampling_options(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the given options as keywords of Model.generate."""
    given = {option.name: getattr(args, option.name) for option in _SAMPLING}
    options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    options["logit_bias"] = dict(args.logit_bias)
    options["suppress_tokens"] = args.suppress
    return options


def add_structure_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("structure (needs the grammar extra: llguidance)")
    one = group.add_mutually_exclusive_group()
    one.add_argument(
        "--json-schema",
        metavar="FILE|TEXT",
        help="answer in JSON that follows this schema, a file or, from its { on, itself",
    )
    one.add_argument("--regex", metavar="TEXT", help="answer in what this expression matches")
    one.add_argument(
        "--grammar",
        metavar="FILE|TEXT",
        help="follow this grammar, in Lark's notation, a file or, from its start: on, itself",
    )


def structure_options(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the options as keywords of Model.generate."""
    schema = args.json_schema
    if schema is not None and not schema.lstrip().startswith("{"):
        schema = read_text_input(schema)
    return {
        "json_schema": schema,
        "regex": args.regex,
        "grammar": None if args.grammar is None else _grammar(args.grammar),
    }


def _grammar(given: str) -> str:
    """Returns a grammar that is given itself or as a file. Also GBNF's rules are no file's name."""
    itself = re.match(r"\s*(%\w|\??[\w-]+(\.-?[0-9]+)?\s*:)", given) and not os.path.exists(given)
    return given if itself else read_text_input(given)


def add_special_option(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--special",
        action="store_true",
        help=f"control tokens spelled out in the {what} count as such; not for text of others",
    )


def add_pair_options(parser: argparse.ArgumentParser) -> None:
    """Adds the drafter and the number of drafts."""
    parser.add_argument(
        "--drafter",
        metavar="DRAFTER.gguf",
        help="the model's drafter, named likewise; auto: the one that is found with the model",
    )
    add_draft_option(parser, f"{OPTIONS['draft'].help} (default: auto)", "auto")


def add_draft_option(
    group: argparse._ActionsContainer, text: str, default: str | None = None
) -> None:
    group.add_argument(
        "--draft", type=draft_depth, default=default, metavar=f"auto|0..{MAX_DRAFT}", help=text
    )


def add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        metavar="TARGET.gguf",
        help="the model: a file or folder, or by name: demo, hf:owner/name[:TYPE], ollama:name, "
        "lmstudio:owner/name (docs/models.md)",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--context",
        type=int,
        default=CONTEXT,
        metavar="N",
        help=f"tokens of prompt and answer together (default: {CONTEXT})",
    )
    add_engine_options(group)


def open_model(args: argparse.Namespace) -> Model:
    """Opens the named pair; prints a note if its context is shorter than requested."""
    from ..model import Model

    model = Model(args.target, drafter=args.drafter, context=args.context, **engine_options(args))
    if model.context < args.context != CONTEXT:
        logging.getLogger("gemtp_native").warning(
            "the context is %s tokens, the most that the model was made for, not %s",
            model.context,
            args.context,
        )
    return model


def add_machine_options(group: argparse._ActionsContainer) -> None:
    """Adds the options of every command that opens a model."""
    group.add_argument(
        "--threads", type=int, metavar="N", help="(default: as many as pay; see gemtp info)"
    )
    group.add_argument(
        "--device",
        metavar="NAME",
        help="what computes, of those that gemtp info lists; never changes the text "
        "(default: GEMTP_DEVICE, else a GPU on which the model fits, else the CPU)",
    )
    group.add_argument(
        "--gpu-layers",
        type=_gpu_layers,
        metavar="auto|N",
        help="how many layers, the last ones, lie on a GPU; never changes the text "
        "(default: GEMTP_GPU_LAYERS, else as many as fit)",
    )


def machine_options(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of add_machine_options() as keywords of Model."""
    return {"threads": args.threads, "device": args.device, "gpu_layers": args.gpu_layers}


def add_engine_options(group: argparse._ActionsContainer) -> None:
    """Adds those and the other options of commands whose results depend on the K/V cache."""
    add_machine_options(group)
    group.add_argument(
        "--kv-type", choices=("f16", "f32"), default="f16", help="of the K/V cache (default: f16)"
    )
    group.add_argument(
        "--verbose",
        action="store_true",
        help="on standard error: what is opened, and figures of each generation",
    )


def engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of add_engine_options() as keywords of Model."""
    return {**machine_options(args), "kv_type": args.kv_type}


def add_report_options(
    parser: argparse.ArgumentParser, csv: bool = False
) -> argparse._ArgumentGroup:
    """Adds the output options of commands that measure."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print the figures as JSON")
    if csv:
        group.add_argument("--csv", metavar="FILE", help="write them as CSV; - prints them instead")
    group.add_argument(
        "--plot", metavar="FILE.png", help="draw them (needs the plot extra: matplotlib)"
    )
    group.add_argument("--quiet", action="store_true", help="no progress on standard error")
    return group


def give_report(
    args: argparse.Namespace, report: Any, measured: Any, columns: Sequence[str]
) -> None:
    """Outputs a report as requested by add_report_options(). measured: the package that made it."""
    import csv
    import io

    from ..base.whole_file import write_whole

    table = io.StringIO(newline="")
    if args.csv:
        writer = csv.DictWriter(table, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(measured.csv_rows(report))
    if args.csv and args.csv != "-":
        write_whole(args.csv, table.getvalue().encode("utf-8", "surrogateescape"))
    if args.plot:
        measured.plot(report, args.plot)
    if args.json:
        print(json_text(report.as_dict()))
    elif args.csv == "-":
        sys.stdout.write(table.getvalue())
    else:
        print(measured.text(report))


def check_outputs(*files: str | None, sources: Sequence[Any] = ()) -> None:
    """Checks, before hours of measuring, that the files can be written and are not among the models
    and texts `sources`. None and "-" are not files."""
    from ..base.whole_file import check_output

    models = [file for source in sources if source is not None for file in files_of(source)]
    for file in files:
        if file is not None and file != "-":
            check_output(file, *models)


def draft_depth(text: str) -> int | Literal["auto"]:
    """Parses the value of --draft."""
    if text == "auto":
        return "auto"
    depth = whole_number(text)
    if depth is not None and depth <= MAX_DRAFT:
        return depth
    raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a number from 0 to {MAX_DRAFT}")


def _gpu_layers(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    layers = whole_number(text)
    if layers is None:
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a number of layers")
    return layers


def _bias(text: str) -> tuple[int, float]:
    token, _, value = text.partition("=")
    try:
        return int(token), float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form ID=X, a token id and a number"
        ) from None
