"""The measurements. Compared cases are interleaved: a round takes one sample of each, and the next
round goes backwards, so that neither a busy moment nor a drift of the clock favours one case."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar

from ... import __version__, _core
from ...errors import ContextError
from ...gguf.parts import size_of
from ...model import Model, Output
from ...options import MAX_ROWS
from ...profile.machine import (
    describe_file,
    describe_machine,
    peak_bytes,
    reset_peak,
    resident_bytes,
    storage_bytes,
)
from .report import (
    Bandwidth,
    BenchReport,
    Decode,
    Draft,
    Generate,
    Load,
    Memory,
    Prefill,
    Rows,
    Timing,
    Weights,
)
from .settings import DRAFT_STEPS, BenchSettings, Depth

PROMPTS = (64, 512, 2048)
CONTEXTS = (0, 4096, 16384)
TEXT = "The history of the printing press begins with"
FALLBACK_PROMPT = tuple(range(1, 17))  # for files without a tokenizer

_SHORTEST_SAMPLE = 0.005  # seconds; shorter cases are repeated within a sample

K = TypeVar("K", bound=Hashable)
Path = str | os.PathLike[str]
Progress = Callable[[str], None]


def run(
    target: Path,
    drafter: Path | None = None,
    settings: BenchSettings | None = None,
    progress: Progress = lambda _: None,
) -> BenchReport:
    """Measures a model. ``progress`` is called with a line about the next measurement."""
    return _Run(target, drafter, settings or BenchSettings(), progress).report


def interleave(
    cases: dict[K, Callable[[], float]],
    rounds: int,
    budget: float = float("inf"),
    progress: Callable[[int], None] = lambda _: None,
) -> dict[K, list[float]]:
    """Takes samples of every case, round by round, as long as the next round is likely to end
    within the budget (in seconds); at least one round."""
    samples: dict[K, list[float]] = {key: [] for key in cases}
    start = time.monotonic()
    for n in range(rounds):
        if n and (time.monotonic() - start) * (n + 1) / n > budget:
            break
        progress(n)
        order = list(cases)
        for key in reversed(order) if n % 2 else order:
            samples[key].append(cases[key]())
    return samples


def repeated(sample: Callable[[], float]) -> float:
    """Returns the mean of as many samples as add up to a measurable time."""
    total, count = 0.0, 0
    while total < _SHORTEST_SAMPLE:
        total += sample()
        count += 1
    return total / count


class BandwidthCases:
    """Measures the memory from which the model's weights are read: the CPU's by reading, that of a
    GPU by copying within it."""

    def __init__(self, model: Model):
        self.samples: list[Callable[[], float]]
        if model.device == "cpu":
            cpu = _core.ReadBandwidth(model.threads)
            self.bytes, self.samples = cpu.bytes, [cpu.plain, cpu.prefetched]
        else:
            gpu = _core.CopyBandwidth(model._engine)
            self.bytes, self.samples = gpu.bytes, [gpu.sample]

    def report(self, found: list[list[float]]) -> Bandwidth:
        """found: what each of the samples has given."""
        best: list[float | None] = [max(values) for values in found]
        plain, prefetched, copied = [*best, None] if len(best) == 2 else [None, None, *best]
        return Bandwidth(plain, prefetched, copied, self.bytes, len(found[0]))


class _Run:
    def __init__(
        self, target: Path, drafter: Path | None, settings: BenchSettings, progress: Progress
    ):
        self.settings, self.progress = settings, progress
        self.skipped: dict[str, str] = {}
        files = describe_file(target), None if drafter is None else describe_file(drafter)
        self.limit: int = files[0]["context_length"] or 0  # Model reports a damaged file
        self.prompts = self._fitting("prefill", settings.prompts, PROMPTS, 0)
        self.contexts = self._fitting("decode", settings.contexts, CONTEXTS, 1)
        self.prompt = self._prompt(target)
        self.model, load = self._load(target, drafter)
        self.report = BenchReport(
            version=__version__,
            compiler=_core.compiler(),
            machine=describe_machine(),
            threads=self.model.threads,
            device=self.model.device,
            identity=self.model._engine.identity,
            isa=self.model.isa,
            target=files[0],
            drafter=files[1],
            kv_type=settings.kv_type,
            load=load,
            memory=self._first_token(),
            weights=Weights(self.model._engine.target_bytes, None, None),
            at=settings.at,
            skipped=self.skipped,
        )
        if not self.model.has_drafter and self._wants("draft"):
            self.skipped["draft"] = "no drafter was given"
        self._measure_pieces()
        if self._wants("generate"):
            self._measure_generation()

    def _wants(self, section: str) -> bool:
        return section in self.settings.sections

    # ------------------------------------------------------------ lengths

    def _fitting(
        self, section: str, asked: Any, default: tuple[int, ...], rows: int
    ) -> tuple[int, ...]:
        """Returns the lengths to measure: those requested, or the defaults that the model can
        hold."""
        if not self._wants(section):
            return ()
        if asked is not None:
            self._check_room(f"{section} of {max(asked)} tokens", max(asked) + rows)
            return tuple(asked)
        fits = tuple(n for n in default if not self.limit or n + rows <= self.limit)
        if fits != default:
            left_out = ", ".join(str(n) for n in default if n not in fits)
            self.skipped[section] = (
                f"lengths {left_out} are more than the model's {self.limit} tokens of context"
            )
        return fits

    def _check_room(self, what: str, tokens: int) -> None:
        if self.limit and tokens > self.limit:
            raise ContextError(
                f"{what} needs a context of {tokens} tokens and the model was made for "
                f"{self.limit}; ask for less"
            )

    def _prompt(self, target: Path) -> list[int]:
        text = self.settings.text
        if text is not None and not isinstance(text, (str, bytes)):
            return list(text)
        has_tokenizer = _core.GgufFile(target).value("tokenizer.ggml.model") is not None
        if text is None and not has_tokenizer:
            return list(FALLBACK_PROMPT)
        return _core.Tokenizer(target).encode(TEXT if text is None else text, True, False)

    def _context(self) -> int:
        """Returns the context in tokens that all requested measurements need."""
        needs = [16, *self.prompts, *(n + 1 for n in self.contexts)]
        if self._wants("rows") or self._wants("draft"):
            self._check_room(f"a pass over {MAX_ROWS} rows", self.settings.at + MAX_ROWS)
            needs.append(self.settings.at + MAX_ROWS)
        if self._wants("generate"):
            tokens = len(self.prompt) + self.settings.tokens
            self._check_room(
                f"a prompt of {len(self.prompt)} and an answer of {self.settings.tokens}", tokens
            )
            needs.append(tokens)
        return max(needs)

    # ------------------------------------------------------------ loading

    def _load(self, target: Path, drafter: Path | None) -> tuple[Model, Load]:
        context = self._context()

        def load() -> tuple[Model, float, int | None]:
            before, start = storage_bytes(), time.perf_counter()
            model = Model(target, drafter=drafter, context=context, **self.settings.engine)
            seconds, after = time.perf_counter() - start, storage_bytes()
            return model, seconds, None if before is None or after is None else after - before

        self.progress("loading")
        reset_peak()
        model, seconds, stored = load()
        if stored is None:
            return model, Load(seconds, None, None)
        size = sum(size_of(f) for f in (target, drafter) if f is not None)
        little = max(size // 100, 1 << 20)  # allows for other files of the process
        if stored < little:
            return model, Load(seconds, stored, seconds)
        del model
        self.progress("loading again, from the page cache")
        model, cached, still = load()
        return model, Load(
            seconds, stored, cached if still is not None and still < little else None
        )

    def _first_token(self) -> Memory:
        self.model.generate(self.prompt[:8], max_tokens=1)
        return Memory(resident_bytes(), peak_bytes(), self.model.context)

    # ------------------------------------------------------------ pieces of decoding

    def _measure_pieces(self) -> None:
        """Measures everything in one round-robin, because the results are compared: decoding with
        the bandwidth, rows and draft steps with one row."""
        settings, report = self.settings, self.report
        drafts = self._wants("draft") and self.model.has_drafter
        bench = _core.Bench(self.model._engine, plain_head=drafts)
        if self.model.has_drafter:
            report.weights.draft_bytes = self.model._engine.drafter_bytes
        if bench.both_heads:
            report.weights.plain_head_draft_bytes = bench.plain_head_bytes
        cases: dict[tuple[str, int], Callable[[], float]] = {}

        def verify(context: int, rows: int) -> Callable[[], float]:
            return lambda: repeated(lambda: bench.verify(context, rows))

        def draft(plain_head: bool) -> Callable[[], float]:
            def sample() -> float:
                bench.verify(settings.at, 1)  # as in decoding, the target has swept the caches
                return bench.draft(settings.at, DRAFT_STEPS, plain_head)

            return lambda: repeated(sample) / DRAFT_STEPS

        for context in self.contexts:
            cases["decode", context] = verify(context, 1)
        if self._wants("rows"):
            for rows in settings.rows:
                cases["rows", rows] = verify(settings.at, rows)
        elif drafts:
            cases["rows", 1] = verify(settings.at, 1)
        if drafts:
            cases["draft", 0] = draft(False)
            if bench.both_heads:
                cases["draft", 1] = draft(True)
        memory = BandwidthCases(self.model) if self._wants("bandwidth") else None
        if memory:
            for n, sample in enumerate(memory.samples):
                cases["bandwidth", n] = sample
        if cases:
            self.progress("warming up")
            for case in cases.values():
                case()
            samples = interleave(
                cases, settings.runs, settings.budget, self._round("passes and draft steps")
            )
            for section in dict.fromkeys(section for section, _ in cases):
                report.rounds[section] = len(next(iter(samples.values())))
            if memory:
                found = [samples["bandwidth", n] for n in range(len(memory.samples))]
                report.bandwidth = memory.report(found)
            self._report_pieces(bench, samples)
        del memory
        if self.prompts:
            self._measure_prefill(bench)

    def _report_pieces(
        self, bench: _core.Bench, samples: dict[tuple[str, int], list[float]]
    ) -> None:
        report = self.report
        times = {key: Timing.of(values) for key, values in samples.items()}
        for (section, n), time_of in times.items():
            if section == "decode":
                seconds = time_of["ms"] / 1000
                read = report.weights.token_bytes + bench.kv_bytes(n)
                whole = report.bandwidth if not self.model._engine.split else None
                share = read / seconds / whole.best if whole else None
                report.decode.append(
                    Decode(
                        context=n,
                        tokens_per_second=1 / seconds,
                        read_bytes=read,
                        bytes_per_second=read / seconds,
                        share=share,
                        **time_of,
                    )
                )
                continue
            if section not in ("rows", "draft"):
                continue
            one = times["rows", 1]
            ratios = {
                "ratio": time_of["ms"] / one["ms"],
                "best_ratio": time_of["best_ms"] / one["best_ms"],
            }
            if section == "rows" and self._wants("rows"):
                report.rows.append(Rows(rows=n, **ratios, **time_of))
            elif section == "draft":
                ordered = bench.ordered_head and n == 0
                read = bench.plain_head_bytes if n else self.model._engine.drafter_bytes
                head = "ordered" if ordered else "plain"
                report.draft.append(Draft(head=head, read_bytes=read, **ratios, **time_of))

    def _measure_prefill(self, bench: _core.Bench) -> None:
        self.progress("warming up")
        bench.prefill(min(self.prompts))

        def prefill(tokens: int) -> Callable[[], float]:
            return lambda: repeated(lambda: bench.prefill(tokens))

        samples = interleave(
            {n: prefill(n) for n in self.prompts},
            self.settings.runs,
            self.settings.budget,
            self._round("prefill"),
        )
        self.report.rounds["prefill"] = len(samples[self.prompts[0]])
        for n, seconds in samples.items():
            timing = Timing.of(seconds)
            rate = 1000 * n / timing["ms"]
            self.report.prefill.append(Prefill(tokens=n, tokens_per_second=rate, **timing))

    def _round(self, what: str) -> Callable[[int], None]:
        return lambda n: self.progress(f"{what}, round {n + 1} of at most {self.settings.runs}")

    # ------------------------------------------------------------ generation

    def _measure_generation(self) -> None:
        settings, report = self.settings, self.report
        depths = settings.depths
        if not self.model.has_drafter:
            depths = (0,)
            self.skipped["generate"] = "only depth 0: no drafter was given"
        outputs: dict[Depth, Output] = {}
        texts = set()

        def generate(depth: Depth) -> float:
            out = self.model.generate(
                self.prompt, max_tokens=settings.tokens, draft=depth, ignore_eos=True
            )
            outputs[depth] = out
            texts.add(tuple(out.tokens))
            return out.stats.tokens_per_second

        self.progress("warming up")
        generate(depths[-1])
        samples = interleave(
            {depth: partial(generate, depth) for depth in depths},
            settings.runs,
            settings.budget,
            self._round("generations"),
        )
        report.rounds["generate"] = len(samples[0])
        report.prompt_tokens, report.generated_tokens = len(self.prompt), settings.tokens
        report.identical = len(texts) == 1
        plain = statistics.median(samples[0])
        for depth, rates in samples.items():
            stats = outputs[depth].stats
            median = statistics.median(rates)
            report.generate.append(
                Generate(
                    depth=depth,
                    tokens_per_second=median,
                    best=max(rates),
                    worst=min(rates),
                    drafted=stats.drafted,
                    accepted=stats.accepted,
                    acceptance=stats.accepted / stats.drafted if stats.drafted else None,
                    tokens_per_round=(stats.tokens - 1) / stats.rounds,
                    speedup=median / plain,
                )
            )
