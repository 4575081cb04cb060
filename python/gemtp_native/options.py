"""The options of a generation: names, types, limits and defaults."""

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
    """Options for choosing tokens. None means "not given", except for ``seed``."""

    temperature: float | None
    """0, the default, is greedy. In chats, the defaults of this and of the other filters and
    penalties are those that the model recommends (:attr:`Model.sampling`)."""
    top_k: int | None
    """Only the K likeliest tokens; 0 or -1 is off. It is applied before top_p, and top_p before
    min_p, all to the distribution at the given temperature."""
    top_p: float | None
    """Only the likeliest tokens whose probabilities sum to P; 1 is off, 0 keeps only the likeliest
    token."""
    min_p: float | None
    """Only tokens at least P times as likely as the likeliest; 0 is off."""
    repetition_penalty: float | None
    """For tokens among the latest penalty_last_n, logits above 0 are divided by this factor and
    others multiplied; 1 is off."""
    presence_penalty: float | None
    """Subtracted once from the logit of each of these tokens; 0 is off."""
    frequency_penalty: float | None
    """Subtracted from these logits for each occurrence of the token; 0 is off."""
    penalty_last_n: int | None
    """Number of latest tokens, of prompt and answer, that penalties consider; -1 (default): all."""
    logit_bias: Mapping[int, float] | None
    """Maps token ids to values added to their logits; -inf bans a token."""
    suppress_tokens: Iterable[int] | None
    """Ids that are never chosen, in addition to those in the model's file."""
    seed: int | None
    """The seed on which the text depends at temperatures above 0; default 0. None or -1 draws a
    random seed, reported in ``stats.seed``."""
    draft: Draft | None
    """Number of drafts per round: "auto" (as many as pay off, from the drafter or looked up in the
    text), or 0 (none) to 15 from the drafter. Never changes the text."""
    ignore_eos: bool | None
    """Continue after an end token."""
    json_schema: Mapping[str, Any] | str | None
    """The text is JSON that follows this schema. At most one of this, ``regex`` and ``grammar`` may
    be given. In a chat this applies to the answer, not to thoughts and tool calls before it."""
    regex: str | None
    """The whole text matches this regular expression (syntax of Rust's crate regex)."""
    grammar: str | None
    """The text follows this grammar, in llguidance's variant of Lark."""
    logprobs: int | Literal[False] | None
    """Return each token's log-probability, and those of this many likeliest tokens in its place, 0
    to 20; None: neither. They are the model's own, at temperature 1 and before penalties and
    filters."""
    wait: bool | None
    """Whether to wait, in order of arrival, when the K/V budget is used up. Only generations that
    have this option too are waited for, because they run to their end. Without it, or if no such
    generation is running, OutOfMemoryError is raised. By default calls that return a whole text
    wait; streams and sessions do not, because they may be held open indefinitely."""
    logits_processor: LogitsProcessor | None
    """Called before each token is chosen, with all tokens so far and the model's logits, float32
    [vocab]. It changes them in place or returns new ones (-inf bans a token). It may be called on
    any thread, delays other generations of the model, and must not use the model."""


class GenerationOptions(TokenOptions, total=False):
    """Keyword arguments of all functions that generate."""

    max_tokens: int | None
    """Maximum number of tokens to generate (default 128). None or -1: as many as the context
    holds."""
    stop: str | bytes | Sequence[str | bytes] | None
    """Strings that end the text and are not part of it; empty strings are ignored."""


class ChatOptions(TokenOptions, total=False):
    """Keyword arguments of chats."""

    tools: Iterable[Mapping[str, Any]] | None
    """Declarations of functions: "name", "description", "parameters" (JSON schema), and "strict"
    for calls that follow this schema."""
    tool_choice: str | Mapping[str, Any] | None
    """Like OpenAI's: "auto" (the model decides), "none" (it is shown no tools), "required" (it must
    call one) or {"type": "function", "function": {"name": ...}} (it must call this one). A required
    call replaces the answer, and its arguments follow the schema."""
    thinking: bool | None
    """Let the model think first."""
    response_format: Mapping[str, Any] | None
    """Format of the answer, like OpenAI's: {"type": "json_schema", "json_schema": {"name": ...,
    "schema": {...}}}, {"type": "json_object"} or {"type": "text"}."""
    template: str | None
    """A Jinja template instead of the file's."""
    continue_final_message: bool | None
    """Continue a final message of the assistant; the default does so if there is one. True raises
    an error for conversations that end otherwise, False closes the message and begins another
    turn."""
    add_generation_prompt: bool | None
    """True begins another turn after such a message, False begins none."""
    max_tokens: int | None
    """Maximum number of tokens of thoughts and answer; None or -1: as many as the context holds."""
    stop: str | bytes | Sequence[str | bytes] | None
    """Strings that end the answer, but not thoughts or calls."""
    on_prompt: OnPrompt | None
    """Like that of :meth:`Model.generate`."""


class Option(NamedTuple):
    """A numeric option of the core; see csrc/choose/option.h."""

    name: str
    whole: bool
    default: float
    least: float
    most: float
    above_least: bool
    below_most: bool
    domain: str
    """In words, to follow "must be"."""
    help: str
    key: str | None

    def contains(self, value: float) -> bool:
        """Whether the value is in the domain; the core also wants it to fit single precision."""
        return (
            self.least <= value <= self.most
            and not (self.above_least and value == self.least)
            and not (self.below_most and value == self.most)
        )


OPTIONS = {option.name: option for option in (Option(**row) for row in _core.options())}
MAX_DRAFT = int(OPTIONS["draft"].most)
MAX_ROWS = MAX_DRAFT + 1  # rows of a pass that verifies drafts
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
"""Options that can only be a number: those that decide how tokens are chosen."""
NONE = -1
"""The value that other engines use for no limit (max_tokens, top_k, penalty_last_n), a random seed,
and no log-probabilities; the core treats it the same way."""


def later_seed(seed: int, n: int) -> int:
    """Returns the nth seed after `seed`; it is never NONE."""
    return (seed % 2**64 + n) % (2**64 - 1)


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
    """Shows the signature of the function to which a function passes its ``**options``."""

    def shown(function: F) -> F:
        signature = inspect.signature(other).replace(
            return_annotation=inspect.signature(function).return_annotation
        )
        function.__signature__ = signature  # type: ignore[attr-defined]
        return function

    return shown
