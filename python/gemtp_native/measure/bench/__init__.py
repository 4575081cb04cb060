"""Measures the speed and memory of a model on this machine.

from gemtp_native.measure import bench

report = bench.run("target.gguf", "drafter.gguf", bench.BenchSettings(contexts=[0, 4096]))
print(bench.text(report))
report.decode[0].tokens_per_second
"""

from __future__ import annotations

from ..plot import check_plot
from .measure import run
from .plot import plot
from .render import csv_rows, text
from .report import BenchReport
from .settings import SECTIONS, BenchSettings

__all__ = [
    "SECTIONS",
    "BenchReport",
    "BenchSettings",
    "check_plot",
    "csv_rows",
    "plot",
    "run",
    "text",
]
