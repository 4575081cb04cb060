"""What callers pass, checked: each mistake gets one sentence. And the options of a generation."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from . import _core
from .errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np

Prompt = str | bytes | Sequence[int]
Draft = Literal["auto"] | int
LogitsProcessor = Callable[[Sequence[int], "np.ndarray"], "np.ndarray | None"]
F = TypeVar("F", bound=Callable[..., Any])

MAX_LOGPROBS = 20
_INT32_MAX = 2**31 - 1
_FLOAT_MAX = (2 - 2**-23) * 2.0**127


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


DEFAULTS: GenerationOptions = {
    "max_tokens": 128,
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "penalty_last_n": -1,
    "logit_bias": None,
    "suppress_tokens": (),
    "seed": 0,
    "stop": (),
    "draft": "auto",
    "ignore_eos": False,
    "json_schema": None,
    "regex": None,
    "grammar": None,
    "logprobs": None,
    "logits_processor": None,
    "wait": None,
}

NUMBERS = (
    "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty",
    "frequency_penalty", "penalty_last_n",
)  # fmt: skip
"""Options that are one number and say how tokens are chosen."""
NONE = -1
"""What other engines write for no limit (max_tokens, top_k, penalty_last_n), a new seed, and no
log-probabilities; the core reads it as that."""


def takes_options(function: F) -> F:
    """Shows the options that a function takes as ``**options`` in its signature."""
    own = inspect.signature(function)
    named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    given = {p.name for p in named}
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in DEFAULTS.items()
        if name not in given
    ]
    function.__signature__ = own.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
    return function


def generation_params(options: GenerationOptions) -> _core.GenerationParams:
    unknown = sorted(options.keys() - DEFAULTS.keys())
    if unknown:
        raise TypeError(f"unexpected option {unknown[0]!r}; the options are {', '.join(DEFAULTS)}")
    given: Mapping[str, Any] = options
    o: dict[str, Any] = {**DEFAULTS, **{k: v for k, v in given.items() if v is not None}}
    for name in ("seed", "max_tokens"):
        if name in given and given[name] is None:
            o[name] = NONE
    out = _core.GenerationParams()
    out.sampling = _sampling(o)
    out.max_tokens = integer("max_tokens", o["max_tokens"])
    out.stop = stop_strings(o["stop"])
    out.draft = _draft(o["draft"])
    out.ignore_eos = boolean("ignore_eos", o["ignore_eos"])
    out.wait = o["wait"] is not None and boolean("wait", o["wait"])
    if o["logprobs"] is not None and o["logprobs"] is not False:
        out.logprobs = integer("logprobs", o["logprobs"], NONE, MAX_LOGPROBS)
    out.logits_processor = callback("logits_processor", o["logits_processor"])
    if out.logits_processor is not None:
        load_numpy()
    return out


def _sampling(o: Mapping[str, Any]) -> _core.SamplingParams:
    out = _core.SamplingParams()
    defaults: Mapping[str, Any] = DEFAULTS
    for name in NUMBERS:
        checked = integer if isinstance(defaults[name], int) else number
        setattr(out, name, checked(name, o[name]))
    out.seed = integer("seed", o["seed"], low=None) % 2**64
    out.logit_bias = biases(o["logit_bias"])
    suppressed = o["suppress_tokens"]  # in any order
    out.suppress_tokens = id_list([*suppressed] if isinstance(suppressed, Set) else suppressed)
    return out


def _draft(draft: Any) -> int:
    """-1: auto."""
    if draft == "auto":
        return -1
    if isinstance(draft, str) or integer("draft", draft) < 0:
        raise ArgumentError(f'draft is {shown(draft)}; it must be "auto" or a number from 0 to 15')
    return int(draft)


def boolean(name: str, value: Any) -> bool:
    if value is not True and value is not False:
        raise ArgumentError(f"{name} is {shown(value)}; it must be True or False")
    return bool(value)


def callback(name: str, function: Any) -> Any:
    if function is not None and not callable(function):
        raise ArgumentError(f"{name} is {shown(function)}; it must be a function")
    return function


def load_numpy() -> None:
    """Before the core makes an array. Its binding would import NumPy from C++, and when Python ends
    meanwhile, a daemon thread there would abort the process."""
    import numpy  # noqa: F401


def is_f16(kv_type: str) -> bool:
    if kv_type not in ("f16", "f32"):
        raise ArgumentError(f'kv_type is {shown(kv_type)}; it must be "f16" or "f32"')
    return kv_type == "f16"


def id_list(ids: Iterable[int]) -> list[int]:
    if isinstance(ids, (str, bytes, bytearray, memoryview)):
        raise ArgumentError("token ids must be a list of numbers, not text; tokenize it first")
    if isinstance(ids, (Mapping, Set)):
        raise ArgumentError(f"token ids are {shown(ids)}, which has no order; pass a list")
    try:
        given = list(ids)
        out = [i.__index__() for i in given]
    except (AttributeError, TypeError):
        raise ArgumentError("token ids must be a list of whole numbers") from None
    if bool in set(map(type, given)):
        raise ArgumentError("token ids must be a list of whole numbers, not of True and False")
    for at, i in enumerate(out):
        if not 0 <= i <= _INT32_MAX:
            raise ArgumentError(f"token id {shown(i)} at index {at} is outside any vocabulary")
    return out


def integer(name: str, value: Any, low: int | None = -_INT32_MAX, high: int = _INT32_MAX) -> int:
    """low=None: any."""
    try:
        if _is_bool(value):
            raise TypeError
        number: int = value.__index__()
    except (AttributeError, TypeError):
        raise ArgumentError(f"{name} is {shown(value)}; it must be a whole number") from None
    if low is not None and not low <= number <= high:
        raise ArgumentError(f"{name} is {shown(number)}; it must be between {low} and {high}")
    return number


def number(name: str, value: Any) -> float:
    try:
        if _is_bool(value) or isinstance(value, (str, bytes, bytearray)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(f"{name} is {shown(value)}; it must be a number") from None


def _is_bool(value: Any) -> bool:
    """NumPy's too, without loading it."""
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")


def shown(value: Any) -> str:
    """repr for a sentence: short, whatever the value is."""
    try:
        text = repr(value)
    except Exception:  # among others, int refuses to print thousands of digits
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 60 else f"{text[:57]}..."


def checked_path(name: str, value: Any) -> Any:
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise ArgumentError(f"the {name} is {shown(value)}; it must be a path")
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise ArgumentError(
            f"the {name} is {shown(value)}, which no path can be: it holds a character that file "
            "names have no bytes for"
        ) from None
    return value


def utf8_text(text: str | bytes) -> str:
    try:
        (text if isinstance(text, bytes) else text.encode()).decode()
    except UnicodeError:
        raise ArgumentError(f"a stop string, {shown(text)}, is not valid UTF-8") from None
    return text if isinstance(text, str) else text.decode()


def stop_strings(stop: Any) -> list[str | bytes]:
    strings = [stop] if isinstance(stop, (str, bytes)) else () if stop is None else stop
    if not isinstance(strings, Iterable):
        raise ArgumentError(f"stop is {shown(stop)}; it must be a string or a list of strings")
    strings = list(strings)
    for s in strings:
        if not isinstance(s, (str, bytes)):
            raise ArgumentError(f"a stop string is {shown(s)}; it must be str or bytes")
    return strings


def biases(logit_bias: Any) -> list[tuple[int, float]]:
    if logit_bias is None:
        return []
    if not isinstance(logit_bias, Mapping):
        raise ArgumentError(f"logit_bias is {shown(logit_bias)}; it must map token ids to numbers")
    return [(integer("a logit_bias id", i), _bias(i, b)) for i, b in logit_bias.items()]


def _bias(token: int, value: Any) -> float:
    bias = number("a logit_bias value", value)
    if _FLOAT_MAX < abs(bias) < math.inf:
        raise ArgumentError(
            f"logit_bias of token {shown(token)} is {shown(value)}, beyond single precision; -inf "
            "bans a token"
        )
    return bias
