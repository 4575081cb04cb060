"""Plots a report. Needs matplotlib: `pip install 'gemtp-native[plot]'`."""

from __future__ import annotations

import os
from typing import Any

from ...errors import ArgumentError
from ..plot import check_plot, save
from .render import machine_line, model_line
from .report import BenchReport

_OURS, _OTHER = "#1f6fb4", "#9a9a9a"


def plot(report: BenchReport, path: str | os.PathLike[str]) -> None:
    """Writes a plot of the measured sections."""
    check_plot(path)
    from matplotlib.figure import Figure

    panels = [
        draw
        for draw, figures in (
            (_draw_generate, report.generate),
            (_draw_rows, report.rows),
            (_draw_decode, report.decode),
            (_draw_prefill, report.prefill),
        )
        if figures
    ]
    if not panels:
        raise ArgumentError("nothing to plot; measure generate, rows, decode or prefill")
    columns = 2 if len(panels) == 4 else len(panels)
    lines = len(panels) // columns
    figure = Figure(figsize=(4.8 * columns, 0.6 + 3.8 * lines), layout="constrained")
    figure.suptitle(f"{model_line(report)}\n{machine_line(report)}", fontsize=9)
    all_axes = figure.subplots(lines, columns, squeeze=False).flat
    for draw, axes in zip(panels, all_axes, strict=True):
        draw(report, axes)
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    save(figure, path)


def _draw_generate(report: BenchReport, axes: Any) -> None:
    fixed = [g for g in report.generate if g.depth != "auto"]
    x = [g.depth for g in fixed]
    axes.fill_between(x, [g.worst for g in fixed], [g.best for g in fixed], color=_OURS, alpha=0.2)
    axes.plot(x, [g.tokens_per_second for g in fixed], "o-", color=_OURS, label="fixed depth")
    for g in report.generate:
        if g.depth == "auto":
            axes.axhline(g.tokens_per_second, color=_OURS, linestyle="--", label="auto")
    plain = fixed[0].tokens_per_second
    axes.axhline(plain, color=_OTHER, linestyle=":", label="without drafter")
    _finish(axes, "Generation", "drafts a round", "tokens/s")
    axes.set_xticks(x)
    axes.legend(fontsize=8)


def _draw_rows(report: BenchReport, axes: Any) -> None:
    x = [r.rows for r in report.rows]
    axes.plot(x, [r.ratio for r in report.rows], "o-", color=_OURS, label="measured")
    axes.plot(x, x, ":", color=_OTHER, label="one pass for each row")
    _finish(axes, f"Rows of a pass, behind {report.at} tokens", "rows", "time, one row = 1")
    axes.set_ylim(0, 1.1 * max(r.ratio for r in report.rows))
    axes.legend(fontsize=8)


def _draw_decode(report: BenchReport, axes: Any) -> None:
    x = [d.context for d in report.decode]
    axes.fill_between(
        x,
        [1000 / d.worst_ms for d in report.decode],
        [1000 / d.best_ms for d in report.decode],
        color=_OURS,
        alpha=0.2,
    )
    axes.plot(x, [d.tokens_per_second for d in report.decode], "o-", color=_OURS, label="measured")
    if report.bandwidth:
        limit = [report.bandwidth.best / d.read_bytes for d in report.decode]
        axes.plot(x, limit, ":", color=_OTHER, label="memory bandwidth")
        axes.legend(fontsize=8)
    _finish(axes, "Plain decoding", "tokens of context", "tokens/s")


def _draw_prefill(report: BenchReport, axes: Any) -> None:
    x = [p.tokens for p in report.prefill]
    axes.plot(x, [p.tokens_per_second for p in report.prefill], "o-", color=_OURS)
    _finish(axes, "Prefill", "tokens of prompt", "tokens/s")


def _finish(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(bottom=0)
