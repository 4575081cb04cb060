"""`gemtp inspect`: shows the content of a GGUF, and whether a drafter fits its target."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from .. import _core
from ..base.counted import counted
from ..base.json_text import json_text
from ..errors import ArgumentError, Error
from ..measure.text import size_text
from .model_file import ModelFile
from .text import options_text

MODELS = ("file", "other", "drafter")  # arguments that may name a model by where it comes from

_SHOWN = 6  # elements shown of a long array
_OF_TABLES = ("I8", "I16", "I32", "I64", "F64")  # types that matrices never have


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.gguf")
    parser.add_argument(
        "other",
        nargs="?",
        metavar="OTHER.gguf",
        help="a second file: do target and drafter fit together? (exit code 1 if not)",
    )
    parser.add_argument(
        "--drafter", metavar="DRAFTER.gguf", help="the same; auto: the one that is found"
    )
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--metadata", action="store_true", help="list every key")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(args: argparse.Namespace) -> int:
    paths = [p for p in (args.file, args.other, args.drafter) if p is not None]
    if len(paths) > 2:
        raise ArgumentError("give the second file once, with --drafter or without.")
    files = [ModelFile(Path(path)) for path in paths]
    described = []
    for file in files:
        facts = describe(file)
        if args.metadata:
            facts["metadata"] = {key: _short(file.value(key)) for key in file.gguf.keys}
        if args.tensors:
            facts["tensor_list"] = [t._asdict() for t in file.tensors]
        described.append(facts)
    pair = _compare(files) if len(files) == 2 else None
    if args.json:
        print(json_text({"files": described, "pair": pair}))
    else:
        for facts in described:
            print("\n".join(_lines(facts)))
        if pair is not None:
            fits = "the drafter fits the target"
            print(fits if pair["compatible"] else f"no pair: {'; '.join(pair['reasons'])}")
    return 0 if pair is None or pair["compatible"] else 1


def describe(file: ModelFile) -> dict[str, Any]:
    """Returns the facts of a ModelFile, ready for JSON."""
    layers = file.layers
    facts: dict[str, Any] = {
        "path": str(file.path),
        "parts": file.gguf.parts,
        "bytes": file.gguf.size,
        "gguf_version": file.gguf.version,
        "kind": file.kind,
        "architecture": file.arch,
        "name": file.text("general.name"),
        "parameters": file.parameters,
        "context": file.integer("context_length"),
        "vocabulary": file.vocab,
        "hidden": file.hidden,
        "backbone": file.backbone if file.kind == "drafter" else None,
        "per_layer_input": file.integer("embedding_length_per_layer_input") or 0,
        "window": file.integer("attention.sliding_window"),
        "layers": None,
        "experts": None,
        "head": _head(file),
        "types": {name: _type_facts(name, n, size) for name, (n, size) in file.types().items()},
        "read_per_token_bytes": file.read_per_token(),
        "lookup_table_bytes": file.lookup_tables(),
        "memory": _memory(file),
        "tokenizer": _tokenizer(file),
        "chat_template_characters": len(file.text("tokenizer.chat_template") or "") or None,
        "sampling": _sampling(file),
    }
    if layers:
        facts["layers"] = {
            "count": len(layers),
            "pattern": _pattern(["sliding" if x.sliding else "full" for x in layers]),
            "shared_kv": 0 if file.kind == "drafter" else sum(not x.owns_kv for x in layers),
            "feed_forward": [x.feed_forward for x in layers],
            "heads": [x.heads for x in layers],
            "kv_heads": [x.kv_heads for x in layers],
            "head_dim": [x.head_dim for x in layers],
        }
    if file.integer("expert_count"):
        facts["experts"] = {
            "count": file.integer("expert_count"),
            "used": file.integer("expert_used_count"),
            "feed_forward": file.integer("expert_feed_forward_length"),
        }
    facts["problems"] = list(file.problems)
    return facts


def _type_facts(name: str, tensors: int, size: int) -> dict[str, Any]:
    form, bits, bits_in_file = _core.packed_form(name) or (None, None, None)
    return {
        "tensors": tensors,
        "bytes": size,
        "packed_as": form,
        "packed_bits": bits,
        "bits": bits_in_file,
    }


def _memory(file: ModelFile) -> dict[str, int] | None:
    """Returns the memory of a target that Model() opens with defaults."""
    if file.kind != "target" or file.problems:
        return None
    try:
        return _core.memory_estimate(file.path, None, 4096, 512, True)
    except Error as e:
        file.add_problem(str(e))
        return None


def _head(file: ModelFile) -> dict[str, Any] | None:
    if file.kind not in ("target", "drafter"):
        return None
    head = file.ordered_head
    if head is None:
        return {"type": "plain", "tied": "output.weight" not in file.named}
    candidates = head.top_k * (file.vocab or 0) // head.centroids
    return {"type": "ordered", **head._asdict(), "candidates": candidates}


def _tokenizer(file: ModelFile) -> dict[str, Any] | None:
    model = file.text("tokenizer.ggml.model")
    if model is None:
        return None
    names = ("bos", "eos", "eot", "unknown", "padding", "mask")
    ids = {name: file.value(f"tokenizer.ggml.{name}_token_id") for name in names}
    return {
        "model": model,
        "tokens": file.gguf.array_length("tokenizer.ggml.tokens"),
        "merges": file.gguf.array_length("tokenizer.ggml.merges"),
        "special": {name: id_ for name, id_ in ids.items() if id_ is not None},
        "end_tokens": file.examined.end_tokens or None,
    }


def _sampling(file: ModelFile) -> dict[str, float] | None:
    """Returns the options that the makers recommend, or None."""
    try:
        return file.gguf.sampling or None
    except Error:  # reported among its problems
        return None


def _compare(files: Sequence[ModelFile]) -> dict[str, Any]:
    kinds = [file.kind for file in files]
    if sorted(kinds) != ["drafter", "target"]:
        return {
            "compatible": False,
            "reasons": [f"a target and a drafter are needed, these are {' and '.join(kinds)}"],
        }
    target, drafter = files if kinds[0] == "target" else (files[1], files[0])
    reasons = [f"{f.path.name} would not open: {f.problems[0]}" for f in files if f.problems]
    reasons = reasons or target.examined.pair_problems(drafter.examined)
    return {"compatible": not reasons, "reasons": reasons}


# ---------------------------------------------------------------- as text


def _lines(facts: dict[str, Any]) -> Iterable[str]:
    name = f" {facts['name']!r}" if facts["name"] else ""
    what = f"{facts['architecture']} {facts['kind']}" if facts["architecture"] else facts["kind"]
    files = f" in {len(facts['parts'])} files" if len(facts["parts"]) > 1 else ""
    yield (
        f"{facts['path']}: {what}{name}, {size_text(facts['bytes'])}{files}, "
        f"GGUF version {facts['gguf_version']}"
    )
    for label, text in _rows(facts):
        yield f"  {label:<11} {text}"
    for problem in facts["problems"]:
        yield f"  {'problem':<11} {problem}"
    for key, value in facts.get("metadata", {}).items():
        yield f"  {key} = {value}"
    for t in facts.get("tensor_list", []):
        shape = " x ".join(str(n) for n in t["shape"])
        yield f"  {t['name']}  {t['type']}  {shape}  {t['bytes']:,} bytes"


def _rows(facts: dict[str, Any]) -> Iterable[tuple[str, str]]:
    types = facts["types"]
    if types:
        count = sum(x["tensors"] for x in types.values())
        yield "parameters", f"{facts['parameters']:,} in {counted(count, 'tensor')}"
    layers = facts["layers"]
    if layers:
        yield from _layer_rows(facts, layers)
    if facts["head"]:
        yield "head", _head_text(facts)
    if facts["context"]:
        yield "context", f"{facts['context']:,} tokens"
    for name, x in types.items():
        yield (
            name,
            f"{counted(x['tensors'], 'tensor')}, {size_text(x['bytes'])}{_packed_text(name, x)}",
        )
    if layers and types:
        tables = facts["lookup_table_bytes"]
        also = f"; one row of the tables of {size_text(tables)}" if tables else ""
        yield "decoding", f"reads {size_text(facts['read_per_token_bytes'])} a token{also}"
    memory = facts["memory"]
    if memory:
        yield (
            "memory",
            f"needs {size_text(memory['needed'])} at a context of {memory['context']:,}: weights "
            f"{size_text(memory['weights'])}, K/V {size_text(memory['kv'])}, scratch "
            f"{size_text(memory['scratch'])}",
        )
    yield "tokenizer", _tokenizer_text(facts["tokenizer"])
    template = facts["chat_template_characters"]
    yield "chat", f"template of {template:,} characters" if template else "no template"
    if facts["sampling"]:
        yield "sampling", f"{options_text(facts['sampling'])}; the default of chats and the server"


def _packed_text(name: str, facts: dict[str, Any]) -> str:
    """Describes types that take more memory than in the file, or that are not supported."""
    bits = facts["packed_bits"]
    if bits is None:
        return "" if name in _OF_TABLES else "; matrices of this type cannot be computed with"
    if bits < 1.1 * facts["bits"]:
        return ""
    return f"; matrices become {facts['packed_as']} of {bits:.3g} bits, with the same values"


def _layer_rows(facts: dict[str, Any], layers: dict[str, Any]) -> Iterable[tuple[str, str]]:
    shared = layers["shared_kv"]
    text = f"{layers['count']}: {layers['pattern']}; window {facts['window']}"
    if facts["kind"] == "drafter":
        text += "; all read the target's K/V"
    elif shared:
        text += f"; the last {shared} share K/V of earlier ones"
    yield "layers", text
    width = f"hidden {facts['hidden']}, feed-forward {_runs(layers['feed_forward'])}"
    if facts["per_layer_input"]:
        width += f", per-layer input {facts['per_layer_input']}"
    if facts["backbone"]:
        width += f", target's hidden {facts['backbone']}"
    yield "widths", width
    heads = f"{_distinct(layers['heads'])} of {_distinct(layers['head_dim'])}"
    if facts["kind"] == "target":
        heads += f", {_distinct(layers['kv_heads'])} for K/V"
    yield "heads", heads
    experts = facts["experts"]
    if experts:
        yield (
            "experts",
            f"{experts['count']} of {experts['feed_forward']}, {experts['used']} a token",
        )


def _head_text(facts: dict[str, Any]) -> str:
    head, vocab = facts["head"], facts["vocabulary"]
    if head["type"] == "ordered":
        return (
            f"ordered: {head['centroids']} centroids, the best {head['top_k']} give "
            f"{head['candidates']:,} of {vocab or 0:,} tokens"
        )
    return f"plain{', tied' if head['tied'] else ''}, {vocab or 0:,} tokens"


def _tokenizer_text(tokenizer: dict[str, Any] | None) -> str:
    if tokenizer is None:
        return "none"
    special = ", ".join(f"{name} {id_}" for name, id_ in tokenizer["special"].items())
    ends = tokenizer["end_tokens"]
    return (
        f"{tokenizer['model']}, {tokenizer['tokens'] or 0:,} tokens, "
        f"{tokenizer['merges'] or 0:,} merges; {special}"
        + (f"; ends on {', '.join(map(str, ends))}" if ends else "")
    )


def _pattern(types: list[str]) -> str:
    """Returns the shortest description of the sequence: "4 sliding + 1 full, 7 times"."""
    period = next(
        n
        for n in range(1, len(types) + 1)
        if len(types) % n == 0 and types == types[:n] * (len(types) // n)
    )
    if period == 1 and len(types) > 1:
        return f"all {types[0]}"
    runs = [f"{len(list(group))} {name}" for name, group in groupby(types[:period])]
    times = len(types) // period
    return " + ".join(runs) + (f", {times} times" if times > 1 else "")


def _runs(values: list[int]) -> str:
    """Returns "6144 x 15, 12288 x 20", or the single value."""
    runs = [(value, len(list(group))) for value, group in groupby(values)]
    if len(runs) == 1:
        return str(values[0])
    return ", ".join(f"{value} x {count}" for value, count in runs)


def _distinct(values: list[int]) -> str:
    return "/".join(str(v) for v in dict.fromkeys(values))


def _short(value: Any) -> Any:
    """Shortens arrays and texts for reading."""
    if isinstance(value, list) and len(value) > _SHOWN:
        return [*value[:_SHOWN], f"... {len(value)} values"]
    if isinstance(value, str) and len(value) > 200:
        return f"{value[:200]}... {len(value)} characters"
    return value
