#!/usr/bin/env python3
"""Measures structured output: what it costs, and what drafting makes of it.

For each of a number of random JSON schemas (random_schemas.py) three texts of the same length, in
turn:

    plain       no schema, no drafting
    schema      the schema, no drafting
    drafted     the schema, draft="auto"

Every text under a schema is checked against it by jsonschema, and the two have to be the same.
Rates are tokens after the first over their time, over all texts together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import jsonschema

import gemtp_native as gemtp
from random_schemas import SchemaMaker

_KINDS = ("plain", "schema", "drafted")


@dataclass
class Sum:
    tokens: int = 0
    seconds: float = 0

    def add(self, stats: gemtp.Stats) -> None:
        self.tokens += max(stats.tokens - 1, 0)
        self.seconds += stats.decode_seconds

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    try:
        report = measure(args)
    except (gemtp.Error, OSError) as e:
        print(f"bench_structured: error: {e}", file=sys.stderr)
        return 1
    print(json.dumps(report, indent=1) if args.json else as_text(report))
    return 0 if report["invalid"] == report["different"] == report["unfinished"] == 0 else 1


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    target, drafter = gemtp.demo_models()
    parser.add_argument("--target", default=target, metavar="FILE.gguf")
    parser.add_argument("--drafter", default=drafter, metavar="FILE.gguf")
    parser.add_argument("--threads", type=int, metavar="N", help="(default: all)")
    parser.add_argument("--schemas", type=int, default=200, metavar="N", help="(default: 200)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the schemas")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T")
    parser.add_argument("--max-tokens", type=int, default=1500, metavar="N")
    parser.add_argument("--prompt", default="# An example.\nvalue = ", metavar="TEXT")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--progress", action="store_true", help="a line for each schema")
    return parser.parse_args(argv)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    model = gemtp.Model(args.target, drafter=args.drafter, threads=args.threads, context=2048)
    options = {"temperature": args.temperature, "seed": args.seed}
    start = time.perf_counter()
    model.generate(args.prompt, json_schema={"type": "null"}, **options)
    vocabulary = time.perf_counter() - start
    sums = {kind: Sum() for kind in _KINDS}
    compiled: list[float] = []
    invalid = different = unfinished = 0
    forced = [0, 0]
    drafts = [0, 0]
    maker = SchemaMaker(args.seed)
    for i in range(args.schemas):
        schema = maker.make()
        start = time.perf_counter()
        model.generate(args.prompt, json_schema=schema, max_tokens=0)
        compiled.append(time.perf_counter() - start)
        outs: dict[str, gemtp.Output] = {}
        # The order of the two alternates.
        for kind in ("schema", "drafted") if i % 2 else ("drafted", "schema"):
            outs[kind] = model.generate(
                args.prompt,
                json_schema=schema,
                draft=0 if kind == "schema" else "auto",
                max_tokens=args.max_tokens,
                **options,
            )
        outs["plain"] = model.generate(
            args.prompt,
            draft=0,
            max_tokens=len(outs["drafted"].tokens),
            ignore_eos=True,
            **options,
        )
        for kind, out in outs.items():
            sums[kind].add(out.stats)
        out = outs["drafted"]
        forced[0] += out.stats.grammar_drafted
        forced[1] += out.stats.grammar_accepted
        drafts[0] += out.stats.drafted
        drafts[1] += out.stats.accepted
        different += out.text != outs["schema"].text
        unfinished += out.finish_reason != "stop"
        wrong = not valid(out.text, schema)
        invalid += wrong
        if args.progress or wrong:
            print(i, len(out.tokens), out.finish_reason, out.text[:100], file=sys.stderr)
            if wrong:
                print(json.dumps(schema), file=sys.stderr)
    return {
        "schemas": args.schemas,
        "invalid": invalid,
        "different": different,
        "unfinished": unfinished,
        "tokens": sums["drafted"].tokens + args.schemas,
        "tokens_per_second": {kind: sums[kind].rate for kind in _KINDS},
        "drafted_over_plain": sums["drafted"].rate / sums["plain"].rate,
        "schema_over_plain": sums["schema"].rate / sums["plain"].rate,
        "drafted": drafts[0],
        "accepted": drafts[1],
        "grammar_drafted": forced[0],
        "grammar_accepted": forced[1],
        "vocabulary_seconds": vocabulary,
        "compile_seconds": {"median": statistics.median(compiled), "most": max(compiled)},
    }


def valid(text: str, schema: dict[str, Any]) -> bool:
    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def as_text(r: dict[str, Any]) -> str:
    rates = r["tokens_per_second"]
    lines = [
        f"{r['schemas']} schemas, {r['tokens']} tokens: {r['invalid']} answers invalid, "
        f"{r['unfinished']} unfinished, {r['different']} other than without drafting",
        "",
        "          tokens/s  over plain",
    ]
    for kind in _KINDS:
        lines.append(f"{kind:8}  {rates[kind]:8.1f}  {rates[kind] / rates['plain']:10.2f}")
    lines += [
        "",
        f"drafts: {r['accepted']} of {r['drafted']} accepted; of these forced by the grammar: "
        f"{r['grammar_accepted']} of {r['grammar_drafted']}",
        f"vocabulary {r['vocabulary_seconds']:.2f} s, once; a schema "
        f"{1e3 * r['compile_seconds']['median']:.1f} ms, at most "
        f"{1e3 * r['compile_seconds']['most']:.1f} ms",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
