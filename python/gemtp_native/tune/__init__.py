"""Measures what draft="auto" needs to know about this machine, and saves it.

from gemtp_native import tune

report = tune.run("target.gguf", "drafter.gguf")
print(tune.text(report))
tune.save(report)
"""

from __future__ import annotations

from .measure import run, save
from .plot import plot
from .render import text
from .report import Report
from .settings import Settings

__all__ = ["Report", "Settings", "plot", "run", "save", "text"]
