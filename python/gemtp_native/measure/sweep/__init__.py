"""Measures how the types of a target and its drafter affect acceptance, speed and quality.

from gemtp_native.measure import sweep

targets = sweep.named(["target-f16.gguf", "target-q4_0.gguf"])
drafters = sweep.named(["drafter-f16.gguf", "drafter-q8_0.gguf"])
report = sweep.run(targets, drafters)
print(sweep.text(report))
report.cells[0].tokens_per_round
"""

from __future__ import annotations

from ..plot import check_plot
from .files import Variant, named, quantized
from .measure import default_text, run
from .plot import plot
from .render import csv_rows, text
from .report import SweepReport
from .settings import SweepSettings

__all__ = [
    "SweepReport",
    "SweepSettings",
    "Variant",
    "check_plot",
    "csv_rows",
    "default_text",
    "named",
    "plot",
    "quantized",
    "run",
    "text",
]
