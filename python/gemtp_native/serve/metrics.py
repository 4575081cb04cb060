"""Metrics for Prometheus, in its text format 0.0.4; only for the event loop's thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..model import Stats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

# Figures of sequences that are summed: name and description of the counter.
_FIGURES = {
    "prompt_tokens": ("gemtp_prompt_tokens_total", "Prompt tokens, cached ones included."),
    "cached_tokens": (
        "gemtp_prompt_tokens_cached_total", "Prompt tokens that did not have to be computed."
    ),
    "prompt_seconds": (
        "gemtp_prompt_seconds_total", "Seconds of sequences until their first token."
    ),
    "tokens": ("gemtp_tokens_predicted_total", "Tokens generated."),
    "decode_seconds": (
        "gemtp_tokens_predicted_seconds_total", "Seconds of sequences after their first token."
    ),
    "rounds": ("gemtp_rounds_total", "Rounds of draft and verification."),
    "drafted": ("gemtp_draft_tokens_total", "Drafts that the target verified."),
    "accepted": (
        "gemtp_draft_accepted_tokens_total", "Drafts that were the target's own choice."
    ),
}  # fmt: skip


class Counter:
    """A counter with at most one label. label: its name; "": none."""

    kind = "counter"

    def __init__(self, name: str, text: str, label: str = ""):
        self.name, self.text, self._label = name, text, label
        self._values: dict[str, float] = {} if label else {"": 0}

    def add(self, amount: float = 1, label: str = "") -> None:
        self._values[label] = self._values.get(label, 0) + amount

    def lines(self) -> list[str]:
        return [
            f"{self.name}{_labels(self._label, label)} {value:.10g}"
            for label, value in sorted(self._values.items())
        ]


class Gauge:
    kind = "gauge"

    def __init__(self, name: str, text: str, value: Callable[[], float]):
        self.name, self.text, self._value = name, text, value

    def lines(self) -> list[str]:
        return [f"{self.name} {self._value():.10g}"]


class Histogram:
    kind = "histogram"

    def __init__(self, name: str, text: str, bounds: Sequence[float] = _SECONDS):
        self.name, self.text, self._bounds = name, text, bounds
        self._counts = [0] * len(bounds)
        self._count, self._sum = 0, 0.0

    def observe(self, value: float) -> None:
        self._count += 1
        self._sum += value
        for i, bound in enumerate(self._bounds):
            self._counts[i] += value <= bound

    def lines(self) -> list[str]:
        rows = [
            f'{self.name}_bucket{{le="{bound:g}"}} {count}'
            for bound, count in zip(self._bounds, self._counts, strict=True)
        ]
        rows.append(f'{self.name}_bucket{{le="+Inf"}} {self._count}')
        return [*rows, f"{self.name}_sum {self._sum:.10g}", f"{self.name}_count {self._count}"]


class Metrics:
    """The server's metrics. Where llama-server or vLLM count the same, the names follow theirs."""

    def __init__(
        self,
        running: Callable[[], float],
        waiting: Callable[[], float],
        connections: Callable[[], float],
        info: dict[str, str],
    ):
        self._info = info
        self._figures = {name: Counter(*told) for name, told in _FIGURES.items()}
        self.finished = Counter(
            "gemtp_request_success_total", "Sequences that ended, by what ended them.",
            "finished_reason",
        )  # fmt: skip
        self.cancelled = Counter(
            "gemtp_requests_cancelled_total", "Requests whose client went away or was too slow."
        )
        self.responses = Counter("gemtp_http_responses_total", "Answers by HTTP status.", "status")
        self.first_token = Histogram(
            "gemtp_time_to_first_token_seconds", "From the arrival of a request, queue included."
        )
        self.queue_time = Histogram("gemtp_request_queue_time_seconds", "Waiting for a turn.")
        self.request_time = Histogram(
            "gemtp_e2e_request_latency_seconds", "From the arrival of a request to its end."
        )
        self._all: list[Counter | Gauge | Histogram] = [
            *self._figures.values(), self.finished, self.cancelled, self.responses,
            Gauge("gemtp_requests_processing", "Sequences that are generated now.", running),
            Gauge("gemtp_requests_deferred", "Sequences that wait for their turn.", waiting),
            Gauge("gemtp_http_connections", "Open connections.", connections),
            self.first_token, self.queue_time, self.request_time,
        ]  # fmt: skip

    def count(self, stats: Stats) -> None:
        """Counts a sequence that has ended in any way."""
        for name, counter in self._figures.items():
            counter.add(getattr(stats, name))

    def text(self) -> bytes:
        lines = [
            "# HELP gemtp_build_info What runs here.",
            "# TYPE gemtp_build_info gauge",
            f"gemtp_build_info{{{','.join(_label(k, v) for k, v in self._info.items())}}} 1",
        ]
        for metric in self._all:
            lines.append(f"# HELP {metric.name} {metric.text}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines += metric.lines()
        return ("\n".join(lines) + "\n").encode()


def _labels(name: str, value: str) -> str:
    return f"{{{_label(name, value)}}}" if name else ""


def _label(name: str, value: str) -> str:
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'{name}="{escaped}"'
