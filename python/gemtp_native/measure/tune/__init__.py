"""Measures the costs that draft="auto" needs to know on this machine, and saves them.

from gemtp_native.measure import tune

report = tune.run("target.gguf", "drafter.gguf")
print(tune.text(report))
tune.save(report)
"""

from __future__ import annotations

from .measure import run, save
from .plot import plot
from .render import text
from .report import TuneReport
from .settings import TuneSettings

__all__ = ["TuneReport", "TuneSettings", "plot", "run", "save", "text"]
