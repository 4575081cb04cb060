"""Plots a report. Needs matplotlib: `pip install 'gemtp-native[plot]'`."""

from __future__ import annotations

import os
from typing import Any

from ...options import MAX_ROWS
from ..bench.render import machine_line, model_line
from ..plot import check_plot, save
from .report import TuneReport, choices

_COLOURS = ("#1f6fb4", "#c8641e")  # near, far
_OTHER = "#9a9a9a"
_FINE = [n / 200 for n in range(200)]  # acceptances


def plot(report: TuneReport, path: str | os.PathLike[str]) -> None:
    """Writes plots of the cost of rows, and of the best depth and its speed-up by acceptance."""
    check_plot(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14.4, 4.4), layout="constrained")
    figure.suptitle(f"{model_line(report)}\n{machine_line(report)}", fontsize=9)
    rows, depth, speedup = figure.subplots(1, 3)
    _draw_rows(report, rows)
    _draw_choices(report, depth, speedup)
    for axes in (rows, depth, speedup):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    rows.legend(fontsize=8)
    save(figure, path)


def _draw_rows(report: TuneReport, axes: Any) -> None:
    for context, colour in zip(report.contexts, _COLOURS, strict=False):
        passes = [v for v in report.verify if v.context == context]
        axes.plot(
            [v.rows for v in passes],
            [v.ratio for v in passes],
            "o-",
            color=colour,
            label=f"behind {context} tokens",
        )
    axes.plot([1, MAX_ROWS], [1, MAX_ROWS], ":", color=_OTHER, label="one pass for each row")
    _name(axes, "One target pass", "rows", "time, one row = 1")
    axes.set_ylim(0, 1.1 * max(v.ratio for v in report.verify))


def _draw_choices(report: TuneReport, depth: Any, speedup: Any) -> None:
    found = choices(report.costs, _FINE)
    for context, colour in zip(report.contexts, _COLOURS, strict=False):
        here = [c for c in found if c.context == context]
        x = [c.acceptance for c in here]
        depth.step(x, [c.depth for c in here], color=colour, where="post")
        speedup.plot(x, [c.speedup for c in here], color=colour)
    of = "drafts" if report.draft else "looked-up drafts"
    _name(depth, "Best depth", f"share of {of} that is right", "drafts a round")
    _name(speedup, "Expected speed", f"share of {of} that is right", "plain decoding = 1")
    for axes in (depth, speedup):
        axes.set_xlim(0, 1)
    depth.set_ylim(0, MAX_ROWS)
    speedup.set_ylim(bottom=0)


def _name(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
