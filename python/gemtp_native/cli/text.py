"""Formats the statistics of a generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..base.counted import counted
from ..measure.text import percent, table

if TYPE_CHECKING:
    from ..model import Stats


def options_text(options: Mapping[str, float]) -> str:
    """Formats sampling options: "temperature 1, top_k 64"."""
    return ", ".join(f"{name} {value:g}" for name, value in options.items())


def statistics(stats: Stats) -> str:
    """Formats the statistics of a generation in a few lines."""
    fresh = stats.prompt_tokens - stats.cached_tokens
    lines = [
        f"prompt   {counted(stats.prompt_tokens, 'token')} ({stats.cached_tokens} cached), "
        f"{stats.prompt_seconds:.3f} s, {_rate(fresh, stats.prompt_seconds)}",
        f"decode   {counted(stats.tokens, 'token')}, {stats.decode_seconds:.3f} s, "
        f"{stats.tokens_per_second:.1f} tokens/s",
    ]
    if stats.seed:
        lines.append(f"seed     {stats.seed}")
    if stats.rounds:
        lines.append(
            f"rounds   {stats.rounds}, drafted {stats.drafted}, accepted {stats.accepted} "
            f"({percent(stats.accepted, stats.drafted)})"
        )
    for what, drafted, accepted in (
        ("look-up  drafted", stats.lookup_drafted, stats.lookup_accepted),
        ("grammar  forced", stats.grammar_drafted, stats.grammar_accepted),
    ):
        if drafted:
            share = percent(accepted, drafted)
            lines.append(f"{what} {drafted} of these, accepted {accepted} ({share})")
    return "\n".join(lines)


def depth_lines(stats: Stats) -> str:
    """Formats what draft="auto" has learned (Stats.depth)."""
    depth = stats.depth
    if depth is None:
        return "depth    fixed"
    shown = (1, 2, 4, 8, 16)
    passes = ", ".join(f"{1000 * depth.verify_seconds[rows - 1]:.3g}" for rows in shown)
    lines = [
        f"depth    a pass over {', '.join(map(str, shown))} rows: {passes} ms",
        f"         a draft step {1000 * depth.first_draft_seconds:.3g} ms, "
        f"a further one {1000 * depth.draft_seconds:.3g} ms",
        f"         right if all before were: drafter {100 * depth.drafter_acceptance:.0f}%, "
        f"look-up {100 * depth.lookup_acceptance:.0f}%",
        f"         promised {depth.expected_tokens_per_second:.1f} tokens/s in the latest round",
    ]
    return "\n".join(lines)


def acceptance_table(stats: Stats) -> str:
    """Formats how often the draft at each position was the target's choice."""
    rows = [("draft", "proposed", "accepted", "share")]
    for depth, (drafted, accepted) in enumerate(
        zip(stats.drafted_at, stats.accepted_at, strict=True), start=1
    ):
        rows.append((str(depth), str(drafted), str(accepted), percent(accepted, drafted)))
    return table(rows)


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:.1f} tokens/s" if seconds > 0 else "-"
