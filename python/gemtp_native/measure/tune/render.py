"""Formats a report as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...base.counted import counted
from ...options import MAX_ROWS
from ..bench.render import bandwidth_line, header, milliseconds, rate, setup_lines
from ..text import percent, size_text, table
from .report import ACCEPTANCES, TuneReport


def text(report: TuneReport) -> str:
    """Returns tables, at most 100 columns wide."""
    n = report.rounds
    parts = [
        _header(report),
        f"One target pass over several rows; median of {counted(n, 'interleaved round')}"
        f"\n{_passes(report)}",
    ]
    if report.draft:
        parts.append(f"One draft step of a round\n{_steps(report)}")
    parts.append(f"{_choices_title(report)}\n{_choices(report)}")
    took = f"{report.seconds:.0f} s"
    if report.profile:
        parts.append(f'{took}; draft="auto" starts from the profile saved in\n{report.profile}')
    else:
        parts.append(f"{took}; no profile was saved")
    return "\n\n".join(parts)


def _header(report: TuneReport) -> str:
    reads = f"{size_text(report.token_bytes)} read a token"
    if report.draft_bytes is not None:
        reads += f", {size_text(report.draft_bytes)} a draft step"
    share = percent(1000 * report.token_bytes / report.verify[0].ms, report.bandwidth.best)
    return header(
        [
            *setup_lines(report),
            ("weights", reads),
            ("reads", bandwidth_line(report.bandwidth)),
            ("", f"a pass over one row reads its weights at {share} of that"),
        ]
    )


def _passes(report: TuneReport) -> str:
    at = {(v.rows, v.context): v for v in report.verify}

    def cells(line: int, context: int) -> tuple[str, ...]:
        v = at[line + 1, context]
        return milliseconds(v.ms), f"{v.ratio:.2f}"

    rows = [str(n) for n in range(1, MAX_ROWS + 1)]
    return _columns(report, "rows", ("ms behind {}", "to 1 row"), rows, cells)


def _steps(report: TuneReport) -> str:
    at = {(d.step, d.context): d for d in report.draft}

    def cells(line: int, context: int) -> tuple[str, ...]:
        d = at[line, context]
        return milliseconds(d.ms), f"{d.ratio:.3f}"

    return _columns(report, "step", ("ms behind {}", "to 1 row"), ("first", "later"), cells)


def _choices_title(report: TuneReport) -> str:
    if report.draft:
        return "What to draft, if this share of the drafts is right"
    return (
        "No drafter was given: drafts that are looked up in the text cost nothing to make.\n"
        "How many of them to verify, if this share is right"
    )


def _choices(report: TuneReport) -> str:
    at = {(c.acceptance, c.context): c for c in report.choices}

    def cells(line: int, context: int) -> tuple[str, ...]:
        c = at[ACCEPTANCES[line], context]
        return str(c.depth), rate(c.tokens_per_second), f"{c.speedup:.2f}"

    heads = ("drafts behind {}", "tokens/s", "to plain")
    return _columns(report, "right", heads, [percent(a, 1) for a in ACCEPTANCES], cells)


def _columns(
    report: TuneReport,
    label: str,
    heads: Sequence[str],
    names: Sequence[str],
    cells: Callable[[int, int], tuple[str, ...]],
) -> str:
    """Formats a line for each of `names`, with a group of columns for each context; `cells` returns
    them for (line, context)."""
    lines = [(label, *(head.format(c) for c in report.contexts for head in heads))]
    for line, name in enumerate(names):
        lines.append((name, *(cell for c in report.contexts for cell in cells(line, c))))
    return table(lines)
