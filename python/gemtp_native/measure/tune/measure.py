"""The measurements: passes over 1 to 16 rows, each followed by draft steps as in decoding, and the
memory bandwidth. They are interleaved, so that a busy moment of the machine affects all of them."""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from ... import __version__, _core
from ...errors import ContextError
from ...model import Model
from ...options import MAX_ROWS
from ...profile import Profile, conditions
from ...profile import save as save_profile
from ...profile.machine import describe_file, describe_machine
from ..bench.measure import BandwidthCases, interleave, repeated
from ..bench.report import Bandwidth, Timing
from .report import Draft, TuneReport, Verify, choices
from .settings import TuneSettings

NEAR, FAR = 64, 4096  # tokens of context
STEPS = 4  # steps of a longer drafting, from which the cost of later steps follows
ROUNDS = 9  # at most

PathLike = str | os.PathLike[str]
Progress = Callable[[float, str], None]  # share done, next measurement
_Samples = dict[tuple[str, int, int], list[float]]


def run(
    target: PathLike,
    drafter: PathLike | None = None,
    settings: TuneSettings | None = None,
    progress: Progress = lambda share, what: None,
) -> TuneReport:
    """Measures a pair, or a target whose drafts are only looked up in the text. `progress` is
    called with the share that is done, 0 to 1, and the next measurement."""
    settings = settings or TuneSettings()
    start = time.monotonic()
    files = describe_file(target), None if drafter is None else describe_file(drafter)
    contexts = _contexts(settings.context, files[0]["context_length"] or 0)
    progress(0, "loading")
    model = Model(
        target,
        drafter=drafter,
        context=max(contexts) + MAX_ROWS,
        profile=False,
        **settings.engine,
    )
    samples, bandwidth = _Pieces(model, contexts, settings.budget, progress).measure()
    verify, draft = _verify(samples), _draft(samples)
    report = TuneReport(
        version=__version__,
        compiler=_core.compiler(),
        machine=describe_machine(),
        threads=model.threads,
        device=model.device,
        identity=model._engine.identity,
        isa=model.isa,
        target=files[0],
        drafter=files[1],
        kv_type=settings.kv_type,
        token_bytes=model._engine.target_bytes,
        draft_bytes=model._engine.drafter_bytes if model.has_drafter else None,
        rounds=bandwidth.rounds,
        seconds=time.monotonic() - start,
        bandwidth=bandwidth,
        verify=verify,
        draft=draft,
    )
    report.choices = choices(report.costs)
    return report


def save(report: TuneReport) -> Path:
    """Saves the profile for Model(...) on the same device. Raises FileError if it cannot be
    written."""
    drafter = report.drafter["path"] if report.drafter else None
    profile = Profile(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        conditions=conditions(
            report.target["path"],
            drafter,
            report.threads,
            report.kv_type,
            report.isa,
            report.identity,
        ),
        costs=report.costs,
        bandwidth=report.bandwidth.best,
    )
    path = save_profile(profile)
    report.profile = str(path)
    return path


def _contexts(asked: int | None, limit: int) -> list[int]:
    """Returns the context lengths to measure. limit 0: not given by the file (Model reports damaged
    files)."""
    room = limit - MAX_ROWS if limit else FAR
    if room < 1 or (asked or 0) > room:
        raise ContextError(
            f"a pass over {MAX_ROWS} rows behind {asked or 1} tokens needs a context of "
            f"{(asked or 1) + MAX_ROWS} and the model was made for {limit}; ask for less"
        )
    near, far = min(NEAR, room), min(FAR, room) if asked is None else asked
    return sorted({near, far} - {0})


class _Pieces:
    def __init__(self, model: Model, contexts: Sequence[int], budget: float, progress: Progress):
        self.contexts, self.budget, self.progress = contexts, budget, progress
        self.bench = _core.Bench(model._engine, plain_head=False)
        self.has_drafter = model.has_drafter
        self.memory = BandwidthCases(model)
        self.drafted: _Samples = defaultdict(list)
        self.what, self.done = "", 0

    def measure(self) -> tuple[_Samples, Bandwidth]:
        """Returns seconds by ("verify", context, rows) and ("draft", context, steps)."""
        cases: dict[tuple[str, int, int], Callable[[], float]] = {}
        for context in self.contexts:
            for rows in range(1, MAX_ROWS + 1):
                cases["verify", context, rows] = self._pass(context, rows)
        for n, sample in enumerate(self.memory.samples):
            cases["bandwidth", n, 0] = sample
        self.start, self.end = time.monotonic(), len(cases) * ROUNDS
        self.progress(0, "warming up")
        for (_, _, rows), case in cases.items():
            if rows in (0, 1, MAX_ROWS):  # the others need no more memory than these
                case()
        self.drafted.clear()
        cases = {key: self._counted(case) for key, case in cases.items()}
        left = self.budget - (time.monotonic() - self.start)
        samples = interleave(cases, ROUNDS, left, self._round)
        found = [samples.pop(("bandwidth", n, 0)) for n in range(len(self.memory.samples))]
        bandwidth = self.memory.report(found)
        return {**samples, **self.drafted}, bandwidth

    def _pass(self, context: int, rows: int) -> Callable[[], float]:
        """A verify pass, followed by drafting, as in a round, with the caches as the pass has left
        them. Thus timing draft steps needs no extra passes."""
        steps = 1 if rows % 2 else STEPS

        def sample() -> float:
            seconds = repeated(lambda: self.bench.verify(context, rows))
            if self.has_drafter:
                drafting = self.bench.draft(context, steps, False)
                self.drafted["draft", context, steps].append(drafting)
            return seconds

        return sample

    def _counted(self, case: Callable[[], float]) -> Callable[[], float]:
        def counted() -> float:
            used = (time.monotonic() - self.start) / self.budget if self.budget else 1.0
            # Measuring ends with the last round or with the budget.
            self.progress(min(1.0, max(used, self.done / self.end)), self.what)
            self.done += 1
            return case()

        return counted

    def _round(self, n: int) -> None:
        self.what = f"round {n + 1}"


def _verify(samples: _Samples) -> list[Verify]:
    one = {
        context: statistics.median(seconds)
        for (kind, context, rows), seconds in samples.items()
        if kind == "verify" and rows == 1
    }
    return [
        Verify(
            rows=rows,
            context=context,
            ratio=statistics.median(seconds) / one[context],
            **Timing.of(seconds),
        )
        for (kind, context, rows), seconds in samples.items()
        if kind == "verify"
    ]


def _draft(samples: _Samples) -> list[Draft]:
    draft = []
    for kind, context, steps in samples:
        if kind != "draft" or steps != 1:
            continue
        first = samples["draft", context, 1]
        later = later_steps(statistics.median(first), samples["draft", context, STEPS])
        one = statistics.median(samples["verify", context, 1])
        for step, seconds in enumerate((first, later)):
            ratio = statistics.median(seconds) / one
            draft.append(Draft(step=step, context=context, ratio=ratio, **Timing.of(seconds)))
    return draft


def later_steps(first: float, draftings: Sequence[float]) -> list[float]:
    """Returns seconds of one step after the first, from draftings of STEPS steps: their time beyond
    the first step, divided by the other steps, or the mean step if a busy moment during the first
    makes that difference meaningless."""
    return [(s - first) / (STEPS - 1) if s > first else s / STEPS for s in draftings]
