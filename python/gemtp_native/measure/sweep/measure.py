"""The measurements. One model is open at a time (two while distributions are compared), so that a
sweep needs no more memory than its largest pair. Compared measurements are interleaved."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ... import __version__, _core
from ...errors import ArgumentError, ContextError, ModelError, OutOfMemoryError
from ...gguf.parts import size_of
from ...model import Model
from ...profile.machine import describe_machine
from ..bench.measure import interleave
from ..perplexity.chunks import first_scored, split, token_ids
from ..perplexity.estimate import Tally, standard_error
from .files import Variant
from .report import Cell, Drafter, Quality, SweepReport, Target, acceptance
from .settings import SweepSettings

_WARM_UP = 8  # tokens generated after opening a model, before timing

Progress = Callable[[str, int, int], None]
Key = tuple[str, str | None]  # names of target and drafter; None: without one


def default_text() -> bytes:
    """Returns a few kilobytes of prose, mail, code and data, for a first impression."""
    return Path(__file__).with_name("text.txt").read_bytes().rstrip(b"\n")


def run(
    targets: Sequence[Variant],
    drafters: Sequence[Variant],
    text: bytes | str | None = None,
    settings: SweepSettings | None = None,
    reference: Variant | None = None,
    text_name: str = "a text",
    progress: Progress = lambda _, __, ___: None,
) -> SweepReport:
    """Measures every target with every drafter.

    text: the text from which prompts are cut and which is scored; None: :func:`default_text`.
    reference: the target with which the distributions are compared; None: the largest target, which
    should have the highest precision. ``progress`` is called with a name, the number done and the
    total.
    """
    if not targets or not drafters:
        raise ArgumentError("a sweep needs at least one target and one drafter")
    if text is None:
        text, text_name = default_text(), "built-in text"
    return _Run(
        targets, drafters, text, text_name, settings or SweepSettings(), reference, progress
    )()


@dataclass
class _Generations:
    """The totals of all generations of one target with one drafter, in the latest round."""

    rounds: int = 0
    tokens: int = 0  # tokens after the first of each generation
    seconds: float = 0.0
    drafted_at: Counter[int] = field(default_factory=Counter)
    accepted_at: Counter[int] = field(default_factory=Counter)


class _Run:
    def __init__(
        self,
        targets: Sequence[Variant],
        drafters: Sequence[Variant],
        text: bytes | str,
        text_name: str,
        settings: SweepSettings,
        reference: Variant | None,
        progress: Progress,
    ):
        self.targets, self.drafters = targets, drafters
        self.settings, self.progress = settings, progress
        chosen = reference or max(targets, key=lambda v: size_of(v.path))
        self.reference = next((t for t in targets if t.path == chosen.path), chosen)
        self.text, self.text_name = text, text_name
        self.outputs: dict[str, set[tuple[tuple[int, ...], ...]]] = {t.name: set() for t in targets}
        self.latest: dict[Key, _Generations] = {}

    def __call__(self) -> SweepReport:
        s = self.settings
        model = self._open(self.reference, None, s.context)
        self.ids = token_ids(model, self.text)
        self.chunks = split(model, self.ids, s.context, s.chunks)
        self.prompts = _prompts(self.ids, s.prompts, s.prompt_tokens, model._engine.tokenizer.bos)
        self.report = SweepReport(
            version=__version__,
            compiler=_core.compiler(),
            machine=describe_machine(),
            threads=model.threads,
            device=model.device,
            isa=model.isa,
            kv_type=s.kv_type,
            text=self.text_name,
            text_tokens=len(self.ids),
            depth=s.depth,
            prompts=len(self.prompts),
            prompt_tokens=s.prompt_tokens,
            tokens=s.tokens,
            runs=s.runs,
            context=s.context,
            chunks=len(self.chunks),
            scored=len(self.chunks) * (s.context - first_scored(s.context)),
            reference=self.reference.name,
        )
        quality = self._qualities(model)
        del model
        rates = self._rates()
        self._fill(quality, rates)
        return self.report

    def _open(self, target: Variant, drafter: Variant | None, context: int) -> Model:
        model = Model(
            target.path,
            drafter=None if drafter is None else drafter.path,
            context=context,
            **self.settings.engine,
        )
        if model.context < context:
            raise ContextError(
                f"{target.path} holds {model.context} tokens and {context} are asked for; ask for "
                f"shorter prompts, generations or chunks"
            )
        return model

    # ------------------------------------------------------------ quality

    def _qualities(self, reference: Model) -> dict[str, Quality]:
        done, total = 0, len(self.targets) * len(self.chunks)

        def tick() -> None:
            nonlocal done
            done += 1
            self.progress("text", done, total)

        found = {}
        for target in self.targets:
            if target.path == self.reference.path:
                found[target.name] = self._quality(reference, None, tick)
                continue
            try:
                model = self._open(target, None, self.settings.context)
            except OutOfMemoryError as e:
                self.report.skipped[f"quality of {target.name}"] = (
                    f"it and the reference do not fit into memory together: {e}"
                )
                done += len(self.chunks)
                continue
            if token_ids(model, self.text) != self.ids:
                raise ModelError(
                    f"{target.path} and {self.reference.path} divide the text into different "
                    f"tokens; only models with the same tokenizer can be compared"
                )
            found[target.name] = self._quality(model, reference, tick)
        return found

    def _quality(self, model: Model, reference: Model | None, tick: Callable[[], None]) -> Quality:
        first = first_scored(self.settings.context)
        tally = Tally()
        divergences, same = [], []
        for chunk in self.chunks:
            if reference is None:
                estimate = tally.add(model.score(chunk, first))
            else:
                c = model.compare(reference, chunk, first)
                estimate = tally.add(c.log_probs)
                divergences.append(c.divergence)
                same.append(c.same_best)
            tick()
        if reference is None:  # there is nothing to compare with
            return Quality(estimate.perplexity, estimate.uncertainty, 0.0, 0.0, 1.0)
        values = np.concatenate(divergences)
        mean = float(values.mean())
        return Quality(
            estimate.perplexity,
            estimate.uncertainty,
            mean,
            standard_error(mean, float(np.square(values).sum()), len(values)),
            float(np.concatenate(same).mean()),
        )

    # ------------------------------------------------------------ generations

    def _rates(self) -> dict[Key, list[float]]:
        """Measures tokens per second of every target with every drafter and without, by rounds."""
        cases: dict[Key, Callable[[], float]] = {
            (t.name, None if d is None else d.name): partial(self._generate, t, d)
            for t in self.targets
            for d in (None, *self.drafters)
        }
        self.done, self.total = 0, len(cases) * self.settings.runs
        return interleave(cases, self.settings.runs)

    def _generate(self, target: Variant, drafter: Variant | None) -> float:
        s = self.settings
        model = self._open(target, drafter, s.prompt_tokens + 1 + s.tokens)
        depth = 0 if drafter is None else s.depth
        model.generate(self.prompts[-1], max_tokens=_WARM_UP, draft=depth, ignore_eos=True)
        sums = _Generations()
        texts = []
        for prompt in self.prompts:
            out = model.generate(prompt, max_tokens=s.tokens, draft=depth, ignore_eos=True)
            texts.append(tuple(out.tokens))
            stats = out.stats
            sums.rounds += stats.rounds
            sums.tokens += stats.tokens - 1
            sums.seconds += stats.decode_seconds
            sums.drafted_at.update(dict(enumerate(stats.drafted_at)))
            sums.accepted_at.update(dict(enumerate(stats.accepted_at)))
        self.outputs[target.name].add(tuple(texts))
        self.latest[target.name, None if drafter is None else drafter.name] = sums
        self.done += 1
        self.progress("generations", self.done, self.total)
        return sums.tokens / sums.seconds

    # ------------------------------------------------------------ the report

    def _fill(self, quality: dict[str, Quality], rates: dict[Key, list[float]]) -> None:
        report = self.report
        report.identical = all(len(texts) == 1 for texts in self.outputs.values())
        for drafter in self.drafters:
            size = size_of(drafter.path)
            report.drafters.append(Drafter(drafter.name, str(drafter.path), size))
        for target in self.targets:
            plain = rates[target.name, None]
            report.targets.append(
                Target(
                    target.name,
                    str(target.path),
                    size_of(target.path),
                    quality.get(target.name),
                    statistics.median(plain),
                    max(plain),
                    min(plain),
                )
            )
            for drafter in self.drafters:
                key = target.name, drafter.name
                report.cells.append(_cell(key, self.latest[key], rates[key], plain))


def _cell(
    names: tuple[str, str], sums: _Generations, rates: list[float], plain: list[float]
) -> Cell:
    drafted_at = [n for _, n in sorted(sums.drafted_at.items())]
    accepted_at = [sums.accepted_at[i] for i in range(len(drafted_at))]
    cumulative, conditional = acceptance(drafted_at, accepted_at)
    rate = statistics.median(rates)
    return Cell(
        target=names[0],
        drafter=names[1],
        rounds=sums.rounds,
        drafted_at=drafted_at,
        accepted_at=accepted_at,
        cumulative=cumulative,
        conditional=conditional,
        tokens_per_round=sums.tokens / sums.rounds,
        tokens_per_second=rate,
        best=max(rates),
        worst=min(rates),
        speedup=rate / statistics.median(plain),
    )


def _prompts(ids: list[int], count: int, length: int, bos: int) -> list[list[int]]:
    """Returns evenly spaced pieces of the text, each after BOS if the model has one."""
    body = ids[1:] if bos >= 0 and ids[:1] == [bos] else ids
    if len(body) < count * length:
        raise ArgumentError(
            f"the text has {len(body)} tokens and {count} prompts of {length} need "
            f"{count * length}; give a longer text, or ask for fewer or shorter prompts"
        )
    starts = [i * len(body) // count for i in range(count)]
    return [[bos] * (bos >= 0) + body[at : at + length] for at in starts]
