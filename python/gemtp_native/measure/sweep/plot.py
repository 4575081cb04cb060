"""Plots a report as heat maps. Needs matplotlib: `pip install 'gemtp-native[plot]'`."""

from __future__ import annotations

import os
from typing import Any

from ..plot import check_plot, save
from .render import machine_line
from .report import SweepReport, Target


def plot(report: SweepReport, path: str | os.PathLike[str]) -> None:
    """Writes a plot of targets by drafters: tokens per round, share of first drafts accepted, and
    speed."""
    check_plot(path)
    from matplotlib.figure import Figure

    columns, rows, depth = len(report.drafters), len(report.targets), report.depth
    figure = Figure(
        figsize=(3 * (1.9 + 0.9 * columns), 1.6 + 0.75 * rows + 0.8), layout="constrained"
    )
    figure.suptitle(f"{depth} drafts a round\n{machine_line(report)}", fontsize=9)
    rates = [c.tokens_per_second for c in report.cells]
    first = [c.cumulative[0] if c.cumulative else 0.0 for c in report.cells]
    # Colours span the possible range, not the measured one, so that differences are not
    # exaggerated.
    panels = (
        ("tokens per round", "{:.2f}", [c.tokens_per_round for c in report.cells], 1, depth + 1),
        ("first draft accepted", "{:.1%}", first, 0, 1),
        ("tokens/s", "{:.0f}", rates, 0, max(rates)),
    )
    all_axes = figure.subplots(1, 3, sharey=True)
    for axes, (title, form, values, low, high) in zip(all_axes, panels, strict=True):
        grid = [values[i * columns : (i + 1) * columns] for i in range(rows)]
        _draw(report, axes, title, form, grid, low, high)
    save(figure, path)


def _draw(
    report: SweepReport,
    axes: Any,
    title: str,
    form: str,
    grid: list[list[float]],
    low: float,
    high: float,
) -> None:
    axes.imshow(grid, cmap="viridis", aspect="auto", vmin=low, vmax=high)
    for i, row in enumerate(grid):
        for j, value in enumerate(row):
            dark = value - low <= 0.5 * (high - low)
            axes.text(
                j,
                i,
                form.format(value),
                ha="center",
                va="center",
                color="white" if dark else "black",
            )
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("drafter")
    axes.set_xticks(range(len(report.drafters)), [d.name for d in report.drafters], fontsize=8)
    axes.set_yticks(range(len(report.targets)), map(_label, report.targets), fontsize=8)


def _label(target: Target) -> str:
    q = target.quality
    if q is None:
        return target.name
    divergence = "" if q.divergence is None else f", KL {q.divergence:.3f}"
    return f"{target.name}\nPPL {q.perplexity:.2f}{divergence}"
