#!/usr/bin/env python3
"""Looks for a text that depends on anything but weights, prompt, parameters and seed.

    python tools/check_identity.py [TARGET.gguf [DRAFTER.gguf]] [--minutes M | --texts N]

Texts with random prompts and parameters are generated alone: on one thread, without drafts. Then
several at a time, with a drafter, any depth, more threads, prompts that begin alike, sessions that
are forked and rewound, and neighbours that are cancelled. All bytes are compared, and those of a
cancelled text as far as it came. Runs until told to stop (--minutes, --texts or Ctrl+C), and prints
what it counted; at the first difference it prints the case as JSON, and it exits with 1 then and
after any error. Without models it takes the shipped pair.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gemtp_native as gemtp

CONTEXT = 512
MOST_TOKENS = 48
COMPANY = 6  # most texts at once
WAYS = ("generate", "stream", "session", "fork", "rewind", "cancel")


@dataclass
class Case:
    """A text, and how it is generated in company."""

    prompt: list[int]
    options: dict[str, Any]
    way: str
    draft: int | str
    stop_after: int  # tokens, for "cancel"


class Different(Exception):
    """A text in company is not what it is alone."""


class Checker:
    """The models: for each K/V type one that works alone, and some that work in company."""

    def __init__(self, target: Path, drafter: Path | None, seed: int):
        self._random = random.Random(seed)
        self._files = target, drafter
        self._models: dict[tuple[str, int, bool], gemtp.Model] = {}
        self.counts: Counter[str] = Counter()

    def _model(self, kv_type: str, threads: int, drafting: bool) -> gemtp.Model:
        key = kv_type, threads, drafting
        if key not in self._models:
            target, drafter = self._files
            self._models[key] = gemtp.Model(
                target,
                drafter=drafter if drafting else None,
                threads=threads,
                context=CONTEXT,
                kv_type=kv_type,
            )
        return self._models[key]

    def batch(self) -> None:
        """Compares some texts. Raises Different."""
        r = self._random
        kv_type = r.choice(["f16", "f32"])
        alone = self._model(kv_type, 1, False)
        drafting = self._files[1] is not None and r.random() < 0.8
        together = self._model(kv_type, r.choice([1, 2, 3]), drafting)
        if r.random() < 0.3:
            together.clear_cache()
        begin = [r.randrange(5, alone.vocab_size) for _ in range(r.choice([1, 20, 200]))]
        depths = ["auto", *range(16)] if drafting else ["auto", 0]
        cases = [self._case(begin, depths, alone.vocab_size) for _ in range(r.randint(1, COMPANY))]
        expected = [_alone(alone, case) for case in cases]
        with ThreadPoolExecutor(COMPANY) as workers:
            found = list(workers.map(partial(_in_company, together), cases))
        for case, whole, text in zip(cases, expected, found, strict=True):
            part = whole[: len(text)] if case.way == "cancel" else whole
            if text != part:
                raise Different(
                    json.dumps(
                        {"case": asdict(case), "kv_type": kv_type, "alone": whole, "found": text}
                    )
                )
            self.counts[case.way] += 1
            self.counts["tokens"] += len(text)

    def _case(self, begin: list[int], depths: list[Any], vocab: int) -> Case:
        r = self._random
        prompt = begin[: r.randint(1, len(begin))] if r.random() < 0.6 else []
        prompt = prompt + [r.randrange(5, vocab) for _ in range(r.randint(1, 30))]
        options: dict[str, Any] = {
            "max_tokens": r.randint(1, MOST_TOKENS),
            "ignore_eos": r.random() < 0.8,
            "seed": r.getrandbits(32),
        }
        if r.random() < 0.7:
            options |= {
                "temperature": r.choice([0.3, 0.8, 1.0, 1.5]),
                "top_k": r.choice([0, 1, 20, 100]),
                "top_p": r.choice([1.0, 0.95, 0.5]),
                "min_p": r.choice([0.0, 0.05]),
            }
        if r.random() < 0.3:
            options |= {
                "repetition_penalty": r.choice([1.1, 1.5]),
                "presence_penalty": r.choice([0.0, 0.5]),
                "penalty_last_n": r.choice([-1, 16]),
            }
        if r.random() < 0.2:
            options["logit_bias"] = {r.randrange(vocab): r.choice([-100.0, 5.0])}
        return Case(prompt, options, r.choice(WAYS), r.choice(depths), r.randint(1, MOST_TOKENS))


def _alone(model: gemtp.Model, case: Case) -> list[int]:
    return model.generate(case.prompt, draft=0, **case.options).tokens


def _in_company(model: gemtp.Model, case: Case) -> list[int]:
    options = {**case.options, "draft": case.draft}
    if case.way == "generate":
        return model.generate(case.prompt, **options).tokens
    if case.way in ("stream", "cancel"):
        with model.stream(case.prompt, **options) as stream:
            for _ in stream:
                if case.way == "cancel" and len(stream.tokens) >= case.stop_after:
                    break
            return list(stream.tokens)
    with model.session() as session:
        half = len(case.prompt) // 2
        if case.way == "rewind":  # over tokens that are not part of the text
            session.append(case.prompt[:half] + case.prompt[half:][::-1])
            session.generate(max_tokens=3, ignore_eos=True, draft=case.draft)
            session.rewind(half)
            session.append(case.prompt[half:])
        else:
            session.append(case.prompt)
        if case.way == "fork":
            with session.fork() as fork:
                return fork.generate(**options).tokens
        return session.generate(**options).tokens


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    target, drafter = args.models or gemtp.demo_models()
    seed = random.SystemRandom().getrandbits(32) if args.seed is None else args.seed
    checker = Checker(target, drafter, seed)
    begin = shown = time.monotonic()
    ended = ""
    try:
        while not _done(args, checker, time.monotonic() - begin):
            checker.batch()
            if time.monotonic() - shown > 60:
                shown = time.monotonic()
                print(_line(checker), file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        pass
    except Different as e:
        print(e)
        ended = ": DIFFERENT"
    except gemtp.Error as e:
        print(f"check_identity: error: {e}", file=sys.stderr)
        ended = ": FAILED"
    print(f"{_line(checker)}, in {time.monotonic() - begin:.0f} s, seed {seed}{ended}")
    return 1 if ended else 0


def _done(args: argparse.Namespace, checker: Checker, seconds: float) -> bool:
    if args.texts is not None and _texts(checker) >= args.texts:
        return True
    return args.minutes is not None and seconds >= 60 * args.minutes


def _texts(checker: Checker) -> int:
    return sum(checker.counts[way] for way in WAYS)


def _line(checker: Checker) -> str:
    ways = ", ".join(f"{way} {checker.counts[way]:,}" for way in WAYS)
    return f"{_texts(checker):,} texts of {checker.counts['tokens']:,} tokens are equal ({ways})"


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", type=Path, nargs="?", metavar="TARGET.gguf")
    parser.add_argument("drafter", type=Path, nargs="?", metavar="DRAFTER.gguf")
    parser.add_argument("--minutes", type=float, metavar="M", help="(default: until Ctrl+C)")
    parser.add_argument("--texts", type=int, metavar="N", help="end after so many texts")
    parser.add_argument("--seed", type=int, metavar="N", help="of the cases (default: random)")
    args = parser.parse_args(argv)
    args.models = None if args.target is None else (args.target, args.drafter)
    return args


if __name__ == "__main__":
    sys.exit(main())
