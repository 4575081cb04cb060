"""Ordered heads for drafters that have a plain one: docs/cluster.md."""

from .build import ClusterSettings, cluster
from .report import ClusterReport

__all__ = ["ClusterReport", "ClusterSettings", "cluster"]
