"""What a generation gives: tokens, text, figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

TopLogprobs = list[tuple[int, float]]


@dataclass(frozen=True)
class DepthReport:
    """What depth control has learned of this model on this machine, after the latest round."""

    verify_seconds: list[float]
    """[m]: of a pass that verifies m drafts, over m + 1 rows."""
    first_draft_seconds: float
    """Of the first draft step of a round."""
    draft_seconds: float
    """Of every further one."""
    drafter_acceptance: float
    """Share of the drafter's tokens that were accepted if all before them in the round were."""
    lookup_acceptance: float
    """The same of looked-up tokens."""
    expected_tokens_per_second: float
    """Promised by the latest round."""


@dataclass(frozen=True)
class Stats:
    """What a generation cost. Times are seconds."""

    rounds: int
    """Verify passes of the target, one per draft-verify round."""
    drafted: int
    """Proposed tokens that the target verified."""
    accepted: int
    """Those that were the target's own choice."""
    lookup_drafted: int
    """Of drafted, those that were looked up in the text rather than made by the drafter."""
    lookup_accepted: int
    grammar_drafted: int
    """Of drafted, those that the grammar forces."""
    grammar_accepted: int
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens whose K/V an earlier call had left in the cache."""
    prompt_seconds: float
    """Until the first token was chosen."""
    tokens: int
    """Tokens generated; rejected drafts are not among them."""
    decode_seconds: float
    """After the first token."""
    tokens_per_second: float
    """Tokens after the first, over decode_seconds."""
    depth_histogram: list[int]
    """[k]: rounds that drafted k tokens."""
    drafted_at: list[int]
    """[i]: rounds that proposed an (i+1)-th token."""
    accepted_at: list[int]
    """[i]: of those rounds, the ones whose (i+1)-th proposal was accepted."""
    seed: int
    """What the text is a function of, beside prompt and options; also where a new one was drawn."""
    depth: DepthReport | None = None
    """What draft="auto" has learned; None for a fixed depth."""


@dataclass(frozen=True)
class Token:
    """One generated token. ``text`` is what became certain with it, possibly nothing."""

    id: int
    """-1 where nothing but text remained that had been held back."""
    source: Literal["target", "drafter", "lookup", "grammar"]
    """Who had guessed it before the target chose it: the drafter, a look-up in the text, the
    grammar that it has to follow, or nobody ("target")."""
    text: str
    logprob: float | None = None
    """Natural logarithm of its probability in the target's own distribution: at temperature 1,
    before processors, penalties, masks and filters. None unless the option
    ``logprobs`` asks for it."""
    top_logprobs: TopLogprobs = field(default_factory=list, hash=False)
    """(id, logprob) of the likeliest tokens in its place, likeliest first."""

    @property
    def drafted(self) -> bool:
        """Whether it had been guessed."""
        return self.source != "target"


@dataclass(frozen=True)
class Output:
    """A finished generation."""

    text: str
    """Without the end token and without the stop string that ended it."""
    tokens: list[int]
    """Up to, not including, the end token; up to and including the token that completed a stop
    string."""
    finish_reason: str
    """"stop" (end token or stop string), "length" (max_tokens) or "context" (it is full)."""
    stats: Stats
    logprobs: list[float] = field(default_factory=list)
    """Of each token, as :attr:`Token.logprob`; empty unless the option ``logprobs`` asks for it."""
    top_logprobs: list[TopLogprobs] = field(default_factory=list)
    """Of each token, as :attr:`Token.top_logprobs`."""
