"""Checks callers' arguments: each mistake gets one sentence."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from . import _core
from .errors import ArgumentError
from .options import (
    DEFAULTS,
    FLOAT_MAX,
    INT32_MAX,
    MAX_DRAFT,
    NONE,
    NUMBERS,
    OPTIONS,
    GenerationOptions,
    Option,
)

Prompt = str | bytes | Sequence[int]

MAX_CONTEXT = 1 << 24
# The smallest and the largest value that an engine takes.
CONTEXTS, PREFILL_CHUNKS, KV_BUDGETS = (2, MAX_CONTEXT), (1, 65536), (1, 2**50)
LEAST_SEED, MOST_SEED = -(2**63), 2**64 - 1
MOST_EXACT = 2**53  # integers up to here are exact as doubles


def generation_params(options: GenerationOptions) -> _core.GenerationParams:
    unknown = sorted(options.keys() - DEFAULTS.keys())
    if unknown:
        raise TypeError(f"unexpected option {unknown[0]!r}; {_meant(unknown[0])}")
    given: Mapping[str, Any] = options
    o: dict[str, Any] = {**DEFAULTS, **{k: v for k, v in given.items() if v is not None}}
    for name in ("seed", "max_tokens"):
        if name in given and given[name] is None:
            o[name] = NONE
    out = _core.GenerationParams()
    for name in ("max_tokens", *NUMBERS):
        out.set(name, _number_of(OPTIONS[name], o[name]))
    out.seed = _seed(o["seed"])
    out.set("draft", _draft(o["draft"]))
    if o["logprobs"] is not None and o["logprobs"] is not False:
        out.set("logprobs", _number_of(OPTIONS["logprobs"], o["logprobs"]))
    out.logit_bias = biases(o["logit_bias"])
    suppressed = o["suppress_tokens"]  # a set has no order, and needs none
    out.suppress_tokens = id_list([*suppressed] if isinstance(suppressed, Set) else suppressed)
    out.stop = stop_strings(o["stop"])
    out.ignore_eos = boolean("ignore_eos", o["ignore_eos"])
    out.wait = o["wait"] is not None and boolean("wait", o["wait"])
    out.logits_processor = callback("logits_processor", o["logits_processor"])
    if out.logits_processor is not None:
        load_numpy()
    return out


# Names of other libraries and servers, and the option of the same meaning.
_NAMES_ELSEWHERE = {
    **dict.fromkeys(
        ("max_new_tokens", "max_completion_tokens", "n_predict", "num_predict", "max_length"),
        "max_tokens",
    ),
    "repeat_penalty": "repetition_penalty",
    "repeat_last_n": "penalty_last_n",
    "stop_strings": "stop",
    "schema": "json_schema",
}


def _meant(name: str) -> str:
    """Returns the end of a sentence about an unknown option: which one is close to it, or all."""
    import difflib

    known = _NAMES_ELSEWHERE.get(name)
    close = [known] if known else difflib.get_close_matches(name, DEFAULTS, 1)
    if close:
        return f"did you mean {close[0]}?"
    return f"the options are {', '.join(DEFAULTS)}"


def _number_of(option: Option, value: Any) -> float:
    """Checks the value of an option; of numbers that are not whole the core checks the domain."""
    if not option.whole:
        return number(option.name, value)
    whole = integer(option.name, value, low=None)
    if not option.contains(whole):
        raise out_of_domain(option, whole)
    return min(whole, MOST_EXACT)


def _seed(value: Any) -> int:
    """Returns the 64 bits of a number with or without sign."""
    seed = integer("seed", value, low=None)
    if not LEAST_SEED <= seed <= MOST_SEED:
        raise out_of_domain(OPTIONS["seed"], seed)
    return seed % 2**64


def _draft(draft: Any) -> int:
    """Returns the number of drafts; -1 for "auto"."""
    if draft == "auto":
        return int(OPTIONS["draft"].default)
    if isinstance(draft, str):
        raise out_of_domain(OPTIONS["draft"], draft)
    drafts = integer("draft", draft, low=None)
    if not 0 <= drafts <= MAX_DRAFT:
        raise out_of_domain(OPTIONS["draft"], drafts)
    return drafts


def out_of_domain(option: Option, value: Any) -> ArgumentError:
    """The error that the core raises, too."""
    return ArgumentError(f"{option.name} is {shown(value)} but must be {option.domain}")


def boolean(name: str, value: Any) -> bool:
    if not _is_bool(value):
        raise ArgumentError(f"{name} is {shown(value)}; it must be True or False")
    return bool(value)


def callback(name: str, function: Any) -> Any:
    if function is not None and not callable(function):
        raise ArgumentError(f"{name} is {shown(function)}; it must be a function")
    return function


def load_numpy() -> None:
    """Imports NumPy before the core makes an array. Otherwise its binding would import it from C++,
    and if Python ended meanwhile, a daemon thread there would abort the process."""
    import numpy  # noqa: F401


def is_f16(kv_type: str) -> bool:
    if kv_type not in ("f16", "f32"):
        raise ArgumentError(f'kv_type is {shown(kv_type)}; it must be "f16" or "f32"')
    return kv_type == "f16"


def thread_count(threads: int | None) -> int:
    """Returns the number as the core takes it: 0 for None."""
    return 0 if threads is None else integer("threads", threads, 1, 1024)


def device_name(device: Any) -> str:
    """Returns the name as the core takes it: "" for None."""
    if device is not None and not (isinstance(device, str) and device and _is_utf8(device)):
        raise ArgumentError(f'device is {shown(device)}; it must be a name such as "cpu", or None')
    return device or ""


def gpu_layer_count(layers: Any) -> str:
    """Returns the number as the core takes it: as text, "" for None."""
    if layers is None or (isinstance(layers, str) and layers == "auto"):
        return layers or ""
    try:
        return str(integer("gpu_layers", layers, 0))
    except ArgumentError:
        raise ArgumentError(
            f'gpu_layers is {shown(layers)}; it must be "auto", a number of layers or None'
        ) from None


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
        if not 0 <= i <= INT32_MAX:
            raise ArgumentError(f"token id {shown(i)} at index {at} is outside any vocabulary")
    return out


def integer(name: str, value: Any, low: int | None = -INT32_MAX, high: int = INT32_MAX) -> int:
    """Checks an integer; low=None accepts any."""
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


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_bool(value: Any) -> bool:
    """Whether value is a bool, also NumPy's, without importing NumPy."""
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")


def shown(value: Any) -> str:
    """repr() for a sentence: short, whatever the value is."""
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
    if FLOAT_MAX < abs(bias) < math.inf:
        raise ArgumentError(
            f"logit_bias of token {shown(token)} is {shown(value)}, beyond single precision; -inf "
            "bans a token"
        )
    return bias
