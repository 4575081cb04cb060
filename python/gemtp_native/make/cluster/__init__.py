"""Makes ordered heads for drafters with a plain head; see docs/cluster.md."""

from .build import ClusterSettings, cluster
from .report import ClusterReport

__all__ = ["ClusterReport", "ClusterSettings", "cluster"]
