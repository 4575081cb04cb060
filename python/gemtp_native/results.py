"""The results of a generation: tokens, text, statistics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .arguments import shown
from .base.counted import counted

TopLogprobs = list[tuple[int, float]]


@dataclass(frozen=True)
class DepthReport:
    """What the depth control has learned about this model on this machine, after the latest
    round."""

    verify_seconds: list[float]
    """[m]: seconds of a pass that verifies m drafts, over m + 1 rows."""
    first_draft_seconds: float
    """Seconds of the first draft step of a round."""
    draft_seconds: float
    """Seconds of every further draft step."""
    drafter_acceptance: float
    """Share of the drafter's tokens that were accepted if all before them in the round were."""
    lookup_acceptance: float
    """The same for looked-up tokens."""
    expected_tokens_per_second: float
    """Expected by the latest round."""


@dataclass(frozen=True)
class Stats:
    """Statistics of a generation. Times are in seconds."""

    rounds: int
    """Verify passes of the target, one per draft-verify round."""
    drafted: int
    """Proposed tokens that the target verified."""
    accepted: int
    """Verified tokens that were the target's own choice."""
    lookup_drafted: int
    """Drafted tokens that were looked up in the text instead of made by the drafter."""
    lookup_accepted: int
    grammar_drafted: int
    """Drafted tokens that the grammar forced."""
    grammar_accepted: int
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens whose K/V was in the cache from an earlier call."""
    prompt_seconds: float
    """Time until the first token was chosen."""
    tokens: int
    """Generated tokens, without rejected drafts."""
    decode_seconds: float
    """Time after the first token."""
    tokens_per_second: float
    """Tokens after the first, divided by decode_seconds."""
    depth_histogram: list[int]
    """[k]: rounds that drafted k tokens."""
    drafted_at: list[int]
    """[i]: rounds that proposed an (i+1)-th token."""
    accepted_at: list[int]
    """[i]: rounds whose (i+1)-th proposal was accepted."""
    seed: int
    """The seed that was used, even if it was drawn at random."""
    device: str
    """What computed it, e.g. "cuda:0"."""
    exact: bool
    """Whether that device has proved in its self-test to give the CPU's bytes, or is the CPU. (No
    model opens on a device that has not.)"""
    depth: DepthReport | None = field(default=None, repr=False)
    """What draft="auto" has learned; None for a fixed depth."""


@dataclass(frozen=True)
class Token:
    """One generated token. ``text`` is the text that it completes, possibly empty."""

    id: int
    """-1 if only text that had been held back remained."""
    source: Literal["target", "drafter", "lookup", "grammar"]
    """The source that proposed it before the target chose it: the drafter, a look-up in the text,
    the grammar, or none ("target")."""
    text: str
    logprob: float | None = None
    """Natural logarithm of its probability in the target's own distribution, at temperature 1 and
    before processors, penalties, masks and filters. None unless requested with ``logprobs``."""
    top_logprobs: TopLogprobs = field(default_factory=list, hash=False)
    """(id, logprob) of the likeliest tokens in its place, likeliest first."""

    @property
    def drafted(self) -> bool:
        """Whether it had been drafted."""
        return self.source != "target"


@dataclass(frozen=True, repr=False)
class Output:
    """A finished generation."""

    text: str
    """The text, without the end token or stop string that ended it."""
    tokens: list[int]
    """The tokens, without an end token but with the token that completed a stop string."""
    finish_reason: str
    """"stop" (end token or stop string), "length" (max_tokens) or "context" (the context is
    full)."""
    stats: Stats
    logprobs: list[float] = field(default_factory=list)
    """:attr:`Token.logprob` of each token; empty unless requested with ``logprobs``."""
    top_logprobs: list[TopLogprobs] = field(default_factory=list)
    """:attr:`Token.top_logprobs` of each token."""

    def __repr__(self) -> str:
        return (
            f"Output(text={shown(self.text)}, "
            f"{in_short(self.tokens, self.finish_reason, self.stats)})"
        )


def in_short(tokens: list[int], finish_reason: str, stats: Stats) -> str:
    """What a repr tells of a result besides its text."""
    return (
        f"{counted(len(tokens), 'token')}, finish_reason={finish_reason!r}, "
        f"{stats.tokens_per_second:.1f} tokens/s"
    )
