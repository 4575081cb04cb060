"""The options of a generation: what they are called, may be, and are unless they are given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict, TypeVar

from . import _core

if TYPE_CHECKING:
    import numpy as np

Draft = Literal["auto"] | int
LogitsProcessor = Callable[[Sequence[int], "np.ndarray"], "np.ndarray | None"]
OnPrompt = Callable[[int, int], Any]
F = TypeVar("F", bound=Callable[..., Any])


class TokenOptions(TypedDict, total=False):
    """How tokens are chosen. None is as good as not given, but for ``seed``."""

    temperature: float | None
    """0 is greedy, and what is taken unless it is given. Chats take what the model recommends, for
    this and the other filters and penalties: :attr:`Model.sampling`."""
    top_k: int | None
    """Only the K likeliest tokens; 0 or -1 is off. It comes before top_p, and that before min_p,
    all of the distribution at that temperature."""
    top_p: float | None
    """Only the likeliest tokens that sum to P; 1 is off, 0 leaves the likeliest alone."""
    min_p: float | None
    """Only tokens at least P times as likely as the likeliest; 0 is off."""
    repetition_penalty: float | None
    """Logits above 0 are divided by it and others multiplied, of tokens among the latest
    penalty_last_n; 1 is off."""
    presence_penalty: float | None
    """Subtracted once from the logits of these tokens; 0 is off."""
    frequency_penalty: float | None
    """Subtracted from them for each time they occur; 0 is off."""
    penalty_last_n: int | None
    """Tokens of prompt and answer that the penalties look at; -1 (unless given): all."""
    logit_bias: Mapping[int, float] | None
    """Token id -> added to its logit; -inf bans it."""
    suppress_tokens: Iterable[int] | None
    """Ids that are never chosen, besides those that the file names."""
    seed: int | None
    """With a temperature above 0, the text is a function of it; 0 unless given. None or -1: a new
    one, which ``stats.seed`` tells."""
    draft: Draft | None
    """Tokens to draft a round: "auto" (what pays off, by the drafter or looked up in the text), 0
    (none) to 15 (by the drafter). Never changes the text."""
    ignore_eos: bool | None
    """Go on after an end token."""
    json_schema: Mapping[str, Any] | str | None
    """The text is JSON that follows this schema; of this, ``regex`` and ``grammar`` at most one. In
    a chat the answer is, whatever thoughts and calls of tools come before it."""
    regex: str | None
    """The text as a whole matches this regular expression (of Rust's crate regex)."""
    grammar: str | None
    """The text follows this grammar, in llguidance's variant of Lark."""
    logprobs: int | Literal[False] | None
    """Give each token's log-probability, and those of so many of the likeliest in its place, 0 to
    20; None: neither. They are the model's own, at temperature 1, before penalties and filters."""
    wait: bool | None
    """Where the K/V budget has no room for one more: wait, first come, first served, for one that
    may wait itself, as each is run to its end by somebody. Otherwise, and when no such one is at
    work, OutOfMemoryError. Unless given, what returns a whole text waits, streams and sessions do
    not: whoever has them may hold them open for ever."""
    logits_processor: LogitsProcessor | None
    """Called before each token is chosen, with all tokens so far and the model's logits, float32
    [vocab], which it changes in place or returns anew (-inf bans a token). It may be called on any
    thread, holds up others that generate with the model, and cannot use the model."""


class GenerationOptions(TokenOptions, total=False):
    """Keyword arguments of everything that generates."""

    max_tokens: int | None
    """The most tokens to generate; 128 unless given. None or -1: what the context holds."""
    stop: str | bytes | Sequence[str | bytes] | None
    """Strings that end the text and are not part of it; empty ones count as none."""


class ChatOptions(TokenOptions, total=False):
    """Keyword arguments of chats."""

    tools: Iterable[Mapping[str, Any]] | None
    """Declarations of functions: "name", "description", "parameters" (JSON schema)."""
    tool_choice: str | Mapping[str, Any] | None
    """As OpenAI's: "auto" (the model decides), "none" (it is shown no tools), "required" (it has to
    call one) or {"type": "function", "function": {"name": ...}} (it has to call this one). A call
    that has to come takes the answer's place."""
    thinking: bool
    """Let the model think first."""
    response_format: Mapping[str, Any] | None
    """Of the answer, as OpenAI's: {"type": "json_schema", "json_schema": {"name": ..., "schema":
    {...}}}, {"type": "json_object"} or {"type": "text"}."""
    template: str | None
    """A Jinja template instead of the file's."""
    continue_final_message: bool | None
    """Go on with a final message of the assistant's; unless given, where there is one. True refuses
    conversations that end otherwise, False closes it and begins another turn."""
    add_generation_prompt: bool | None
    """True begins another turn behind such a message, False begins none."""
    max_tokens: int | None
    """The most tokens of thoughts and answer; None or -1: what the context holds."""
    stop: str | bytes | Sequence[str | bytes] | None
    """Strings that end the answer; thoughts and calls are not searched for them."""
    on_prompt: OnPrompt | None
    """As in :meth:`Model.generate`."""


class Option(NamedTuple):
    """An option that is one number, as the core has it: see csrc/choose/option.h."""

    name: str
    whole: bool
    default: float
    least: float
    most: float
    above_least: bool
    below_most: bool
    help: str
    key: str | None


OPTIONS = {option.name: option for option in (Option(**row) for row in _core.options())}
MAX_DRAFT = int(OPTIONS["draft"].most)
MAX_ROWS = MAX_DRAFT + 1  # of a pass that verifies drafts
MAX_LOGPROBS = int(OPTIONS["logprobs"].most)
INT32_MAX = int(OPTIONS["top_k"].most)
FLOAT_MAX = OPTIONS["temperature"].most

DEFAULTS: dict[str, Any] = {
    **{option.name: option.default for option in OPTIONS.values()},
    "draft": "auto",
    "logprobs": None,
    "logit_bias": None,
    "suppress_tokens": (),
    "stop": (),
    "ignore_eos": False,
    "json_schema": None,
    "regex": None,
    "grammar": None,
    "logits_processor": None,
    "wait": None,
}

NUMBERS = tuple(n for n in OPTIONS if n not in ("max_tokens", "seed", "draft", "logprobs"))
"""Options that are a number and nothing else: they say how tokens are chosen."""
NONE = -1
"""What other engines write for no limit (max_tokens, top_k, penalty_last_n), a new seed, and no
log-probabilities; the core reads it as that."""


def takes_options(function: F) -> F:
    """Shows the options that a function takes as ``**options`` in its signature."""
    own = inspect.signature(function)
    named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in DEFAULTS.items()
        if name not in own.parameters
    ]
    signature = own.replace(parameters=[*named, *options])
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def takes_options_of(other: Callable[..., Any]) -> Callable[[F], F]:
    """The same for a function that hands its ``**options`` to the other."""

    def shown(function: F) -> F:
        signature = inspect.signature(other).replace(
            return_annotation=inspect.signature(function).return_annotation
        )
        function.__signature__ = signature  # type: ignore[attr-defined]
        return function

    return shown
