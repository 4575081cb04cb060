"""Formats a report as text for people and as rows for spreadsheets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from ...base.counted import counted
from ..text import percent, size_text
from .report import Bandwidth, BenchReport, Setup, Timing

CSV_COLUMNS = (
    "version",
    "cpu",
    "device",
    "isa",
    "threads",
    "target",
    "section",
    "parameter",
    "ms",
    "best_ms",
    "worst_ms",
    "tokens_per_second",
    "ratio",
    "best_ratio",
    "bytes_per_second",
    "share",
    "acceptance",
    "tokens_per_round",
    "rounds",
)


def text(report: BenchReport) -> str:
    """Returns tables, at most 100 columns wide."""
    parts = [_header(report)]
    for title, rows in _tables(report):
        parts.append(f"{title}\n{_table(rows)}")
    if report.identical is not None:
        same = "the tokens of all generations are the same"
        parts.append(
            same if report.identical else "THE TOKENS DIFFER: this is a bug, please report"
        )
    for section, why in report.skipped.items():
        parts.append(f"{section}: {why}")
    return "\n\n".join(parts)


def csv_rows(report: BenchReport) -> Iterator[dict[str, Any]]:
    """Yields one row per figure, with CSV_COLUMNS as keys. Every row names the machine and files,
    so that rows of several machines can be combined."""
    common = {
        "version": report.version,
        "cpu": report.machine["cpu"],
        "device": report.device,
        "isa": report.isa,
        "threads": report.threads,
        "target": os.path.basename(report.target["path"]),
    }

    def row(section: str, parameter: Any, item: Any, **more: Any) -> dict[str, Any]:
        known = {c: getattr(item, c) for c in CSV_COLUMNS if hasattr(item, c)}
        rounds = report.rounds.get(section, "")
        return {
            **common,
            **known,
            "section": section,
            "parameter": parameter,
            "rounds": rounds,
            **more,
        }

    yield row("load", "", None, ms=1000 * report.load.seconds)
    for name in ("plain", "prefetched", "copied") if report.bandwidth else ():
        if (bandwidth := getattr(report.bandwidth, name)) is not None:
            yield row("bandwidth", name, None, bytes_per_second=bandwidth)
    for p in report.prefill:
        yield row("prefill", p.tokens, p)
    for d in report.decode:
        yield row("decode", d.context, d)
    for r in report.rows:
        yield row("rows", r.rows, r)
    for s in report.draft:
        yield row("draft", s.head, s, bytes_per_second=1000 * s.read_bytes / s.ms)
    for g in report.generate:
        yield row("generate", g.depth, g, ratio=g.speedup)


# ---------------------------------------------------------------- header


def setup_lines(setup: Setup) -> list[tuple[str, str]]:
    """Returns machine, build and files as (name, text)."""
    drafter = setup.drafter
    return [
        ("machine", machine_line(setup)),
        (
            "build",
            f"gemtp {setup.version}, {setup.identity}/{setup.isa}, "
            f"{counted(setup.threads, 'thread')}, K/V in {setup.kv_type}, {setup.compiler}",
        ),
        ("target", _file(setup.target)),
        ("drafter", "none" if drafter is None else _file(drafter)),
    ]


def bandwidth_line(b: Bandwidth) -> str:
    ways = {"with plain loads": b.plain, "with prefetch": b.prefetched, "copied": b.copied}
    found = [f"{value / 1e9:.1f} GB/s {way}" for way, value in ways.items() if value is not None]
    return f"{', '.join(found)}, from {size_text(b.buffer_bytes)}; best of {b.rounds}"


def header(lines: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{name:<8} {value}"[:100] for name, value in lines)


def machine_line(setup: Setup) -> str:
    machine = setup.machine
    memory = _size(machine["memory_bytes"])
    usable, cores = machine["usable_cores"], machine["cores"]
    return (
        f"{machine['cpu']}, {usable} of {cores} cores usable, {memory} of memory, "
        f"{machine['platform']}"
    )


def model_line(setup: Setup) -> str:
    return (
        f"{_file_name(setup.target)}: gemtp {setup.version}, {setup.device}/{setup.isa}, "
        f"{counted(setup.threads, 'thread')}"
    )


def _header(report: BenchReport) -> str:
    memory = report.memory
    lines = [
        *setup_lines(report),
        ("load", _load(report)),
        (
            "memory",
            f"{_size(memory.resident_bytes)} resident, {_size(memory.peak_bytes)} at the peak, "
            f"with a context of {memory.context}",
        ),
        ("weights", _weights(report)),
    ]
    if report.bandwidth:
        lines.append(("reads", bandwidth_line(report.bandwidth)))
    return header(lines)


def _file(file: dict[str, Any]) -> str:
    types = ", ".join(f"{name} {size_text(size)}" for name, size in [*file["types"].items()][:3])
    return f"{_file_name(file)}, {file['architecture']}, {size_text(file['bytes'])}: {types}"


def _file_name(file: dict[str, Any]) -> str:
    name = os.path.basename(file["path"])
    return name if len(name) <= 32 else f"{name[:14]}...{name[-15:]}"


def _load(report: BenchReport) -> str:
    load = report.load
    if load.from_storage_bytes is None:
        return f"{load.seconds:.2f} s (files from storage or page cache: the system does not say)"
    if load.cached_seconds == load.seconds:
        return f"{load.seconds:.2f} s, files in the page cache"
    cold = f"{load.seconds:.2f} s with {size_text(load.from_storage_bytes)} from storage"
    if load.cached_seconds is None:
        return f"{cold}; the files do not stay in the page cache"
    return f"{cold}; {load.cached_seconds:.2f} s with the files in the page cache"


def _weights(report: BenchReport) -> str:
    w = report.weights
    line = f"{size_text(w.token_bytes)} read a token"
    if w.draft_bytes is not None:
        line += f", {size_text(w.draft_bytes)} a draft step"
    if w.plain_head_draft_bytes is not None:
        line += f" ({size_text(w.plain_head_draft_bytes)} with the plain head)"
    return line


def _size(count: int | None) -> str:
    return "unknown" if count is None else size_text(count)


# ---------------------------------------------------------------- tables


def _tables(report: BenchReport) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    sections: list[tuple[str, str, tuple[str, ...], list[tuple[str, ...]]]] = [
        (
            "prefill",
            "Prefill",
            ("tokens", "ms", "best", "worst", "tokens/s"),
            [(str(p.tokens), *_timing(p), rate(p.tokens_per_second)) for p in report.prefill],
        ),
        (
            "decode",
            "Plain decoding",
            ("context", "ms/token", "best", "worst", "tokens/s", "GB/s", "of bandwidth"),
            [
                (
                    str(d.context),
                    *_timing(d),
                    rate(d.tokens_per_second),
                    f"{d.bytes_per_second / 1e9:.1f}",
                    "-" if d.share is None else percent(d.share, 1),
                )
                for d in report.decode
            ],
        ),
        (
            "rows",
            f"One target pass over several rows, behind {report.at} tokens",
            ("rows", "ms", "best", "worst", "to 1 row", "best to best"),
            [
                (str(r.rows), *_timing(r), f"{r.ratio:.2f}", f"{r.best_ratio:.2f}")
                for r in report.rows
            ],
        ),
        (
            "draft",
            f"One draft step, behind {report.at} tokens",
            ("head", "ms", "best", "worst", "to 1 row", "best to best", "reads"),
            [
                (
                    s.head,
                    *_timing(s),
                    f"{s.ratio:.3f}",
                    f"{s.best_ratio:.3f}",
                    size_text(s.read_bytes),
                )
                for s in report.draft
            ],
        ),
        (
            "generate",
            f"{report.generated_tokens} tokens after {report.prompt_tokens}, greedy",
            ("draft", "tokens/s", "best", "worst", "accepted", "tokens/round", "to plain"),
            [
                (
                    str(g.depth),
                    rate(g.tokens_per_second),
                    rate(g.best),
                    rate(g.worst),
                    percent(g.accepted, g.drafted),
                    f"{g.tokens_per_round:.2f}",
                    f"{g.speedup:.2f}",
                )
                for g in report.generate
            ],
        ),
    ]
    for section, title, head, rows in sections:
        if rows:
            n = report.rounds[section]
            rounds = f"median of {counted(n, 'interleaved round')}"
            yield f"{title}; {rounds}", [head, *rows]


def _timing(t: Timing) -> tuple[str, ...]:
    return (milliseconds(t.ms), milliseconds(t.best_ms), milliseconds(t.worst_ms))


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    from ..text import table

    return table(rows)


def milliseconds(value: float) -> str:
    """Formats milliseconds with at least three significant digits."""
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.4f}"


def rate(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}"
