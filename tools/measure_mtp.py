#!/usr/bin/env python3
"""Measures drafting on texts: the figures of docs/mtp.md.

    noise    acceptance of the first draft with the target's noise and with noise of its own
    texts    draft="auto" against plain decoding and fixed depths, on Python files and English prose
    rewrite  the look-up on a file that is repeated with small edits

Python files are those of the standard library that the shipped pair was not trained on
(demo_corpus.py); prose is the language reference inside pydoc_data, which it has not seen either.
"""

from __future__ import annotations

import argparse
import json
import keyword
import math
import re
import statistics
import sys
import tempfile
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np

import gemtp_native as gemtp
from demo_corpus import read_corpus
from gemtp_native import _core
from gemtp_native.make import synth

ROUNDS_KEYS = ("rounds", "drafted", "accepted", "lookup_drafted", "lookup_accepted")


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    try:
        report = {"noise": noise, "texts": texts, "rewrite": rewrite}[args.table](args)
    except (gemtp.Error, OSError) as e:
        print(f"measure_mtp: error: {e}", file=sys.stderr)
        return 1
    print(json.dumps(report, indent=1) if args.json else as_text(report))
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tables = parser.add_subparsers(dest="table", required=True)
    shipped = gemtp.demo_models()
    for name, prompts, tokens in (("noise", 64, 64), ("texts", 16, 192), ("rewrite", 3, 512)):
        table = tables.add_parser(name)
        at = table.add_argument
        made = name == "rewrite"
        at("--target", type=Path, default=None if made else shipped[0], metavar="FILE.gguf")
        at("--drafter", type=Path, default=None if made else shipped[1], metavar="FILE.gguf")
        at("--threads", type=_number, metavar="N", help="(default: all)")
        at("--prompts", type=_number, default=prompts, metavar="N", help=f"(default: {prompts})")
        at("--tokens", type=_number, default=tokens, metavar="N", help=f"(default: {tokens})")
        at("--text", type=Path, metavar="FILE", help="Python code (default: held-out files)")
        at("--json", action="store_true")
        if not made:
            at("--prompt-tokens", type=_number, default=96, metavar="N", help="(default: 96)")
        if name == "noise":
            at("--temperature", type=float, default=1.0, metavar="T", help="(default: 1)")
            at("--seeds", type=_number, default=8, metavar="N", help="of the other noise (8)")
        if name == "texts":
            at("--prose", type=Path, metavar="FILE", help="(default: from pydoc_data)")
        if made:
            at("--layers", type=_number, default=6, metavar="N", help="of the made E2B target (6)")
            at("--accept", type=float, default=0.75, metavar="P", help="of its drafter (0.75)")
    return parser.parse_args(argv)


def _number(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


# ---------------------------------------------------------------- texts to measure on


def python_text(file: Path | None) -> tuple[str, str]:
    """Returns name and text."""
    if file is not None:
        return file.name, file.read_text(encoding="utf-8")
    files = [d.text for d in read_corpus() if d.held_out and len(d.text) > 2000]
    return f"{len(files)} held-out files of the standard library", "\n".join(files)


def prose_text(file: Path | None) -> tuple[str, str]:
    """Returns name and text: the paragraphs of the language reference that are sentences, not
    code."""
    if file is not None:
        return file.name, file.read_text(encoding="utf-8")
    from pydoc_data.topics import topics

    paragraphs = [p for topic in topics.values() for p in topic.split("\n\n")]
    prose = [
        p
        for p in dict.fromkeys(paragraphs)
        if len(p) > 200 and sum(c.isalpha() or c.isspace() for c in p) > 0.93 * len(p)
    ]
    return f"{len(prose)} paragraphs of pydoc_data.topics", "\n\n".join(prose)


def cut(model: gemtp.Model, text: str, prompts: int, length: int) -> list[list[int]]:
    """Cuts prompts of `length` tokens, including <bos>, from evenly spaced places of a text."""
    bos, *body = model.tokenize(text)
    if len(body) < prompts * length:
        raise gemtp.ArgumentError(
            f"the text has {len(body)} tokens and {prompts} prompts of {length} need "
            f"{prompts * length}; give a longer text or ask for less"
        )
    starts = (i * len(body) // prompts for i in range(prompts))
    return [[bos, *body[at : at + length - 1]] for at in starts]


# ---------------------------------------------------------------- noise


def probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Converts [vocab] logits (-inf: no candidate) to their softmax in float64."""
    scaled = logits.astype(np.float64) / temperature
    p = np.exp(scaled - scaled.max())
    return p / p.sum()


def shared_noise_agreement(p: np.ndarray, q: np.ndarray) -> float:
    """Chance that argmax(log p + G) and argmax(log q + G) are the same token, G Gumbel noise.

    Both are i if G_j - G_i < -max(log p_j/p_i, log q_j/q_i) for all j, which has the probability
    1 / sum_j max(p_j/p_i, q_j/q_i). The maximum is p's where p_j/q_j is at least p_i/q_i.
    """
    keep = (p > 0) | (q > 0)
    p, q = p[keep], q[keep]
    with np.errstate(divide="ignore"):
        order = np.argsort(-(p / q), kind="stable")
    p, q = p[order], q[order]
    above, below = np.cumsum(p), q.sum() - np.cumsum(q)
    both = (p > 0) & (q > 0)
    return float(np.sum(1 / (above[both] / p[both] + below[both] / q[both])))


def choose(logits: np.ndarray, position: int, temperature: float, seed: int) -> int:
    params = _core.GenerationParams()
    params.set("temperature", temperature)
    params.seed = seed
    return int(_core.choose_many(logits, [position], [], params)[0])


def contexts(
    model: gemtp.Model, prompt: list[int], answer: list[int], t: float, seed: int, seeds: int
) -> dict[str, np.ndarray]:
    """Returns, for each token of the answer after the first, the results of a first draft in its
    place."""
    ids = prompt + answer
    logits = model.logits(ids)
    rows: dict[str, list[float]] = {
        k: []
        for k in ("shared", "shared theory", "other", "other theory", "rejection theory", "target")
    }
    for n in range(len(prompt) + 1, len(ids)):
        drafter = model.draft_trace(ids[:n], 1)[1][0]
        p, q = probabilities(logits[n - 1], t), probabilities(drafter, t)
        choice = choose(logits[n - 1], n, t, seed)
        others = [choose(drafter, n, t, seed + 1_000_003 * (k + 1)) for k in range(seeds)]
        rows["target"].append(choice == ids[n])
        rows["shared"].append(choice == choose(drafter, n, t, seed))
        rows["other"].append(others.count(choice) / seeds)
        rows["shared theory"].append(shared_noise_agreement(p, q))
        rows["other theory"].append(float(p @ q))
        rows["rejection theory"].append(float(np.minimum(p, q).sum()))
    return {name: np.array(values, dtype=float) for name, values in rows.items()}


def rounds_of_one_draft(agreed: np.ndarray) -> tuple[int, int]:
    """Counts the drafts and accepted drafts of an engine with draft=1 at the places of `agreed`.

    An accepted draft is followed by a token of the target's own; the last token is not drafted.
    """
    at = drafted = accepted = 0
    while at < len(agreed) - 1:
        drafted += 1
        accepted += bool(agreed[at])
        at += 2 if agreed[at] else 1
    return drafted, accepted


def mean_and_error(sums: list[float], counts: list[int]) -> list[float]:
    """Returns the mean over all places and its standard error. Texts are independent; places of one
    text are not."""
    mean = sum(sums) / sum(counts)
    squares = sum((s - mean * n) ** 2 for s, n in zip(sums, counts, strict=True))
    texts = len(sums)
    error = math.sqrt(squares * texts / (texts - 1)) / sum(counts) if texts > 1 else math.nan
    return [mean, error]


def noise(args: argparse.Namespace) -> dict[str, Any]:
    if not args.temperature > 0:
        raise gemtp.ArgumentError("without a temperature above 0 there is no noise")
    if args.tokens < 4:
        raise gemtp.ArgumentError("texts of fewer than 4 tokens have no drafts to count")
    length = args.prompt_tokens + args.tokens
    model = gemtp.Model(args.target, args.drafter, threads=args.threads, context=length + 1)
    name, text = python_text(args.text)
    found, engine, expected = [], [], []
    for seed, prompt in enumerate(cut(model, text, args.prompts, args.prompt_tokens)):
        out = model.generate(
            prompt,
            max_tokens=args.tokens,
            temperature=args.temperature,
            seed=seed,
            draft=1,
            ignore_eos=True,
        )
        found.append(contexts(model, prompt, out.tokens, args.temperature, seed, args.seeds))
        engine.append((out.stats.drafted_at[0], out.stats.accepted_at[0]))
        expected.append(rounds_of_one_draft(found[-1]["shared"]))
    counts = [len(f["shared"]) for f in found]
    rows = {
        key: mean_and_error([float(f[key].sum()) for f in found], counts)
        for key in found[0]
        if key != "target"
    }
    gain = [float((f["shared"] - f["other"]).sum()) for f in found]
    rows["shared less other"] = mean_and_error(gain, counts)
    rows["engine, draft=1"] = mean_and_error([a for _, a in engine], [d for d, _ in engine])
    return {
        "table": "noise",
        "text": name,
        "temperature": args.temperature,
        "prompts": len(found),
        "contexts": sum(counts),
        "acceptance": rows,
        "target_choices_reproduced": min(float(f["target"].min()) for f in found) == 1,
        "engine_counts_reproduced": engine == expected,
    }


# ---------------------------------------------------------------- speed


class Runs:
    """Generates from the same prompts with several ways of drafting, in turns."""

    def __init__(self, ways: dict[str, tuple[gemtp.Model, gemtp.model.Draft]]):
        self.ways = ways  # "plain" is among them
        self.rates: dict[str, list[float]] = {name: [] for name in ways}
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in ways}
        self.identical = True
        for model, draft in ways.values():
            model.generate([2, 5, 7], max_tokens=8, draft=draft, ignore_eos=True)

    def run(self, prompt: list[int], **options: Any) -> list[int]:
        """Runs each way once, with another one first each time; returns the tokens."""
        names = list(self.ways)
        first = len(self.rates["plain"]) % len(names)
        outputs = {}
        for name in names[first:] + names[:first]:
            model, draft = self.ways[name]
            out = model.generate(prompt, draft=draft, ignore_eos=True, **options)
            outputs[name] = out.tokens
            self.rates[name].append(out.stats.tokens_per_second)
            self.counts[name].update({k: getattr(out.stats, k) for k in ROUNDS_KEYS})
        self.identical &= all(tokens == outputs["plain"] for tokens in outputs.values())
        return outputs["plain"]

    def rows(self) -> dict[str, dict[str, Any]]:
        plain = self.rates["plain"]
        return {
            name: {
                "over_plain": statistics.median(r / p for r, p in zip(rates, plain, strict=True)),
                "tokens_per_second": statistics.median(rates),
                **self.counts[name],
            }
            for name, rates in self.rates.items()
        }


def texts(args: argparse.Namespace) -> dict[str, Any]:
    length = args.prompt_tokens + args.tokens
    model = gemtp.Model(args.target, args.drafter, threads=args.threads, context=length + 1)
    ways: dict[str, Any] = {"plain": (model, 0), "auto": (model, "auto")}
    ways |= {f"draft={k}": (model, k) for k in range(1, 6)}
    parts = []
    for name, text in (python_text(args.text), prose_text(args.prose)):
        prompts = cut(model, text, args.prompts, args.prompt_tokens)
        for temperature in (0.0, 0.7):
            runs = Runs(ways)
            for seed, prompt in enumerate(prompts):
                runs.run(prompt, max_tokens=args.tokens, temperature=temperature, seed=seed)
            parts.append(
                {
                    "text": name,
                    "temperature": temperature,
                    "prompts": len(prompts),
                    "identical": runs.identical,
                    "ways": runs.rows(),
                }
            )
    return {"table": "texts", "tokens": args.tokens, "parts": parts}


# ---------------------------------------------------------------- rewrite


def edited(code: str) -> str:
    """Renames the two most frequent longer names in the code and removes comment lines."""
    words = Counter(re.findall(r"\b[a-z_]{4,}\b", code))
    names = [w for w, _ in words.most_common() if not keyword.iskeyword(w)][:2]
    for name in names:
        code = re.sub(rf"\b{name}\b", f"new_{name}", code)
    lines = code.splitlines(keepends=True)
    return "".join(line for line in lines if not line.lstrip().startswith("#"))


def as_walk(original: list[int], copy: list[int], walk: list[int]) -> tuple[list[int], list[int]]:
    """Maps the original and its edited copy to tokens of a model that generates only `walk`.

    The copy becomes the beginning of the walk. Common parts stay common, and parts that only the
    original has become tokens after the copy.
    """
    new, spare = walk[: len(copy)], iter(walk[len(copy) :])
    old: list[int] = []
    for tag, a, b, c, d in SequenceMatcher(None, original, copy, autojunk=False).get_opcodes():
        old += new[c:d] if tag == "equal" else [next(spare) for _ in range(a, b)]
    return old, new


def rewrite(args: argparse.Namespace) -> dict[str, Any]:
    """Uses a synthetic target, whose next token depends only on the latest one, because the shipped
    model does not copy: of 100 tokens after a file and the beginning of its copy, at best a third
    are the file's. The real files determine where edits are, and how long they are. Recurring names
    and phrases, which lead look-ups both right and astray, are lost.
    """
    if (args.target is None) != (args.drafter is None):
        raise gemtp.ArgumentError("give both --target and --drafter, of gemtp synth, or neither")
    with tempfile.TemporaryDirectory() as folder:
        if args.target is None:
            made = {"layers": args.layers, "vocab_size": 16384, "progress": False}
            synth.write_pair("e2b", folder, accept=args.accept, **made)
        target = args.target or Path(folder) / "target.gguf"
        drafter = args.drafter or Path(folder) / "drafter.gguf"
        room = {"threads": args.threads, "context": 4 * args.tokens + 8}
        alone = gemtp.Model(target, **room)
        pair = gemtp.Model(target, drafter, **room)
    ways: dict[str, Any] = {
        "plain": (alone, 0),
        "auto, look-up alone": (alone, "auto"),
        "auto, both sources": (pair, "auto"),
        "draft=2": (pair, 2),
        "draft=4": (pair, 4),
    }
    tokenizer = gemtp.Tokenizer(gemtp.demo_models()[0])
    files = (
        [args.text.read_text(encoding="utf-8")]
        if args.text
        else [d.text for d in read_corpus() if d.held_out and not d.is_test and len(d.text) > 4000]
    )[: args.prompts]
    runs, changed, equal = Runs(ways), [], []
    for seed, code in enumerate(files):
        code = code[: 6 * args.tokens]  # about twice the copied length
        copy = tokenizer.encode(edited(code))[: args.tokens]
        # The part of the original from which the copy is made.
        original = tokenizer.encode(code)[: 2 * args.tokens]
        blocks = SequenceMatcher(None, original, copy, autojunk=False).get_matching_blocks()
        original = original[: max((b.a + b.size for b in blocks if b.size), default=0)]
        start = 1000 + seed
        walk = [start] + alone.generate(
            [start], max_tokens=len(copy) + len(original), ignore_eos=True
        ).tokens
        old, new = as_walk(original, copy, walk)
        got = runs.run([*old, new[0]], max_tokens=len(new) - 1)
        equal.append(got == new[1:])
        changed.append(1 - sum(b.size for b in blocks) / len(copy))
    return {
        "table": "rewrite",
        "files": len(files),
        "tokens": args.tokens,
        "changed": statistics.mean(changed),
        "output_is_the_edited_copy": all(equal),
        "identical": runs.identical,
        "ways": runs.rows(),
    }


# ---------------------------------------------------------------- output


def as_text(report: dict[str, Any]) -> str:
    lines = []
    if report["table"] == "noise":
        lines += [
            f"{report['contexts']} places in {report['prompts']} texts at temperature "
            f"{report['temperature']:g}; prompts from {report['text']}",
            "",
            "| first draft | accepted |",
            "|---|---|",
        ]
        for name, (mean, error) in report["acceptance"].items():
            lines.append(f"| {name} | {100 * mean:.1f}% ± {100 * error:.1f} |")
        lines.append("")
        lines += [f"{key}: {report[key]}" for key in report if key.endswith("reproduced")]
        return "\n".join(lines)
    for part in report.get("parts", [report]):
        title = {k: v for k, v in part.items() if k not in ("ways", "parts", "table")}
        lines += [", ".join(f"{k} {v}" for k, v in title.items()), ""]
        lines += [
            "| | over plain | tokens/s | by the drafter | looked up |",
            "|---|---|---|---|---|",
        ]
        for name, row in part["ways"].items():
            drafter = [row[k] - row[f"lookup_{k}"] for k in ("accepted", "drafted")]
            lookup = [row[f"lookup_{k}"] for k in ("accepted", "drafted")]
            shown = (f"{a} of {d}" if d else "" for a, d in (drafter, lookup))
            rate = f"{row['over_plain']:.2f} | {row['tokens_per_second']:.4g}"
            lines.append(f"| {name} | {rate} | {' | '.join(shown)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


if __name__ == "__main__":
    sys.exit(main())
