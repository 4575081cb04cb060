"""Ordered heads for drafters that have a plain one: docs/cluster.md."""

from .build import Settings, cluster
from .report import Report

__all__ = ["Report", "Settings", "cluster"]
