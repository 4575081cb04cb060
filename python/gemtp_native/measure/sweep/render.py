"""Formats a report as text for people and as rows for spreadsheets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from ...base.counted import counted
from ..text import size_text, table
from .report import Cell, SweepReport, Target


def text(report: SweepReport) -> str:
    """Returns tables; conclusions are left to the reader."""
    parts = [_header(report)]
    for title, rows in _tables(report):
        parts.append(f"{title}\n{table(rows)}")
    parts.append(
        "each target's text is the same with every drafter and without"
        if report.identical
        else "THE TEXTS DIFFER: this is a bug, please report"
    )
    for what, why in report.skipped.items():
        parts.append(f"{what}: {why}")
    return "\n\n".join(parts)


def csv_columns(report: SweepReport) -> list[str]:
    positions = range(1, report.depth + 1)
    return [
        *("version", "cpu", "device", "isa", "threads", "text", "target", "drafter"),
        *("target_bytes", "drafter_bytes", "perplexity", "perplexity_uncertainty"),
        *("divergence", "divergence_uncertainty", "same_best"),
        *(f"conditional_{i}" for i in positions),
        *(f"cumulative_{i}" for i in positions),
        *("tokens_per_round", "tokens_per_second", "best", "worst", "plain", "speedup"),
    ]


def csv_rows(report: SweepReport) -> Iterator[dict[str, Any]]:
    """Yields one row per pair, with csv_columns() as keys; unknown values are left out."""
    targets = {t.name: t for t in report.targets}
    drafters = {d.name: d for d in report.drafters}
    for cell in report.cells:
        target = targets[cell.target]
        row = {
            "version": report.version,
            "cpu": report.machine["cpu"],
            "device": report.device,
            "isa": report.isa,
            "threads": report.threads,
            "text": report.text,
            "target": cell.target,
            "drafter": cell.drafter,
            "target_bytes": target.bytes,
            "drafter_bytes": drafters[cell.drafter].bytes,
            **(vars(target.quality) if target.quality else {}),
            "tokens_per_round": cell.tokens_per_round,
            "tokens_per_second": cell.tokens_per_second,
            "best": cell.best,
            "worst": cell.worst,
            "plain": target.tokens_per_second,
            "speedup": cell.speedup,
        }
        for name, shares in (("conditional", cell.conditional), ("cumulative", cell.cumulative)):
            row.update({f"{name}_{i}": share for i, share in enumerate(shares, start=1)})
        yield {key: value for key, value in row.items() if value is not None}


def machine_line(report: SweepReport) -> str:
    machine = report.machine
    return (
        f"{machine['cpu']}, {counted(report.threads, 'thread')}, "
        f"{report.device}/{report.isa}, gemtp {report.version}"
    )


def _header(report: SweepReport) -> str:
    return "\n".join(
        [
            f"machine  {machine_line(report)}",
            f"text     {report.text}, {report.text_tokens} tokens; {report.scored} of them scored "
            f"in {counted(report.chunks, 'chunk')} of {report.context}",
            f"drafts   {report.depth} a round; {report.tokens} tokens, greedy, after each of "
            f"{report.prompts} prompts of {report.prompt_tokens}",
        ]
    )


def _tables(report: SweepReport) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    runs = f"median of {counted(report.runs, 'interleaved run')}"
    yield (
        f"Targets; KL divergence and same choice against {report.reference}; {runs}",
        [
            ("target", "size", "PPL", "+/-", "KL, nats", "+/-", "same choice", "plain tokens/s"),
            *map(_target_row, report.targets),
        ],
    )
    yield (
        f"Pairs; {runs}",
        [
            ("target", "drafter", "tokens/round", "tokens/s", "best", "worst", "to plain"),
            *(
                (
                    c.target,
                    c.drafter,
                    f"{c.tokens_per_round:.2f}",
                    *map(_rate, (c.tokens_per_second, c.best, c.worst)),
                    f"{c.speedup:.2f}",
                )
                for c in report.cells
            ),
        ],
    )
    positions = tuple(str(i) for i in range(1, report.depth + 1))
    for title, shares in (
        (
            "Rounds in which all drafts up to a position were accepted; standard error up to "
            f"{100 * _largest_error(report):.1f}%",
            _cumulative,
        ),
        ("How often a draft was accepted where all before it were", _conditional),
    ):
        yield (
            title,
            [
                ("target", "drafter", *positions),
                *((c.target, c.drafter, *shares(c, report.depth)) for c in report.cells),
            ],
        )


def _target_row(t: Target) -> tuple[str, ...]:
    q = t.quality
    figures = ("-",) * 5
    if q is not None:
        figures = (
            f"{q.perplexity:.4f}",
            f"{q.perplexity_uncertainty:.4f}",
            _number(q.divergence),
            _number(q.divergence_uncertainty),
            "-" if q.same_best is None else f"{100 * q.same_best:.1f}%",
        )
    return (t.name, size_text(t.bytes), *figures, _rate(t.tokens_per_second))


def _cumulative(cell: Cell, depth: int) -> tuple[str, ...]:
    return _shares(cell.cumulative, depth)


def _conditional(cell: Cell, depth: int) -> tuple[str, ...]:
    return _shares(cell.conditional, depth)


def _shares(shares: Sequence[float | None], depth: int) -> tuple[str, ...]:
    """Formats shares by position; positions that no round reached are empty."""
    known = ["-" if share is None else f"{100 * share:.1f}%" for share in shares]
    return (*known, *("-",) * (depth - len(known)))


def _largest_error(report: SweepReport) -> float:
    """The largest standard error of the cumulative shares, for independent rounds."""
    errors = (
        math.sqrt(share * (1 - share) / rounds)
        for cell in report.cells
        for share, rounds in zip(cell.cumulative, cell.drafted_at, strict=True)
    )
    return max(errors, default=0.0)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}" if value < 0.1 else f"{value:.4f}"


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}"
