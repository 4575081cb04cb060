"""The results of clustering a head."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class ClusterReport:
    drafter: str
    out: str
    vocabulary: int
    hidden: int
    centroids: int
    cluster_size: int
    top_k: int
    seed: int
    states: Literal["text", "rows"]
    """What the shares are measured on: states of the drafter on the held-out end of a text, or,
    without a target, rows of the head."""
    measured: int
    """Number of states measured."""
    same: dict[int, float]
    """k -> share of states whose best token lies in the best k clusters, so that the draft is the
    same."""
    replaced: dict[int, float] | None
    """The same for an ordered head that was in the file before."""
    replaced_centroids: int | None
    read_before: int
    """Bytes of the head that one draft step reads."""
    read_after: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        data = asdict(self)
        for name in ("same", "replaced"):
            if data[name] is not None:
                data[name] = {str(k): v for k, v in data[name].items()}
        return data
