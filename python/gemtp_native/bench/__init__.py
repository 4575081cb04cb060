"""Measures what a model costs on this machine.

from gemtp_native import bench

report = bench.run("target.gguf", "drafter.gguf", bench.Settings(contexts=[0, 4096]))
print(bench.text(report))
report.decode[0].tokens_per_second
"""

from __future__ import annotations

from .measure import run
from .plot import check_plot, plot
from .render import csv_rows, text
from .report import Report
from .settings import SECTIONS, Settings

__all__ = ["SECTIONS", "Report", "Settings", "check_plot", "csv_rows", "plot", "run", "text"]
