"""What /v1/chat/completions and /v1/completions are asked for, read into what the engine takes."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..arguments import NONE
from ..chat.messages import prepared_tools
from ..chat.tool_choice import required_functions
from ..errors import ArgumentError
from .errors import RequestError
from .fields import Fields, shown
from .sequence import OnPrompt, Prompt, Sequence
from .settings import Settings

if TYPE_CHECKING:
    from ..chat.reply import ReplyStream
    from ..model import Model, TextStream

MOST_TOKENS = 2**31 - 1
COMPLETION_TOKENS = 16  # what OpenAI's /v1/completions gives if nothing is asked for
MAX_TEXT = 1 << 16  # characters of a grammar or pattern
MAX_STOP = 1024  # characters
_PROMPT = "it must be a text, a list of token ids, or a list of either"

# Members of OpenAI's protocol, and of other servers', that change nothing here.
IGNORED = (
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "prediction", "verbosity", "cache_prompt",
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """A request that is in order as far as can be known without the model."""

    chat: bool
    sequences: list[Sequence]
    choices_per_prompt: int
    stream: bool
    include_usage: bool
    return_tokens: bool
    logprobs: int | None
    """How many of the likeliest tokens to name beside each; None: no logprobs."""


def chat_work(data: dict[str, Any], settings: Settings) -> Work:
    f = Fields(data)
    messages = f.list("messages")
    if not messages:
        f.refuse("messages", 'it must be a list such as [{"role": "user", "content": "Hello"}]')
    options = _sampling(f, settings)
    options |= _constraint(f, "response_format")
    limits = [_limit(f, name) for name in ("max_completion_tokens", "max_tokens")]
    max_tokens = _capped(next((n for n in limits if n is not None), NONE), settings)
    wanted = f.boolean("logprobs")
    top = f.integer("top_logprobs", 0, 20)
    if top and not wanted:
        f.refuse("top_logprobs", "it needs logprobs to be true")
    logprobs = (top or 0) if wanted else None
    tools, tool_options, one_call = _tools(f)
    options |= tool_options
    thinking = _thinking(f)
    f.only("modalities", [["text"]], 'only ["text"] is supported')
    for name in ("functions", "function_call"):
        f.only(name, [], "it is deprecated and not supported; use tools and tool_choice")
    for name in ("audio", "web_search_options"):
        f.only(name, [], "it is not supported; leave it out")

    options |= {"max_tokens": max_tokens, "logprobs": logprobs}
    prompt = _Chat({"messages": messages, "tools": tools, "thinking": thinking}, options)
    return _work(f, settings, [prompt], logprobs, chat=True, one_call=one_call)


def completion_work(data: dict[str, Any], settings: Settings) -> Work:
    f = Fields(data)
    texts = _prompts(f)
    options = _sampling(f, settings)
    options |= _constraint(f, "response_format")
    if "response_format" in options:
        options["json_schema"] = _schema(f, options.pop("response_format"))
    max_tokens = _limit(f, "max_tokens")
    options["max_tokens"] = _capped(
        COMPLETION_TOKENS if max_tokens is None else max_tokens, settings
    )
    logprobs = f.integer("logprobs", 0, 20) if f.take("logprobs") is not False else None
    f.only("echo", [False], "it is not supported; put the prompt before the answer yourself")
    f.only("best_of", [1], "it is not supported; ask for n, and choose by logprobs")
    f.only("suffix", [""], "it is not supported: the models continue texts, they do not fill gaps")

    options["logprobs"] = logprobs
    special = f.boolean("special") or False
    prompts: list[Prompt] = [_Text(text, special, options) for text in texts]
    return _work(f, settings, prompts, logprobs, chat=False)


@dataclass(frozen=True)
class _Chat:
    conversation: dict[str, Any]
    options: dict[str, Any]

    def ids(self, model: Model) -> list[int]:
        return model.chat_prompt(**self.conversation)[1]

    def start(self, model: Model, seed: int, on_prompt: OnPrompt | None) -> ReplyStream:
        return model.chat_stream(
            **self.conversation, seed=seed, on_prompt=on_prompt, **self.options
        )


@dataclass(frozen=True)
class _Text:
    text: str | list[int]
    special: bool
    options: dict[str, Any]

    def ids(self, model: Model) -> list[int]:
        return model._ids_of(self.text, self.special)

    def start(self, model: Model, seed: int, on_prompt: OnPrompt | None) -> TextStream:
        return model.stream(
            self.text, special=self.special, seed=seed, on_prompt=on_prompt, **self.options
        )


def _work(
    f: Fields,
    settings: Settings,
    prompts: list[Prompt],
    logprobs: int | None,
    chat: bool,
    one_call: bool = False,
) -> Work:
    n = f.integer("n", 1, settings.max_sequences) or 1
    if n * len(prompts) > settings.max_sequences:
        f.refuse("n", f"prompts times n must be at most {settings.max_sequences}")
    seed = _seed(f, settings)
    stream = f.boolean("stream") or False
    stream_options = f.object("stream_options")
    include_usage = False
    if stream_options is not None:
        if not stream:
            f.refuse("stream_options", "it needs stream to be true")
        include_usage = stream_options.boolean("include_usage") or False
        stream_options.finish(["include_obfuscation"], settings.lenient)
    return_tokens = f.boolean("return_tokens") or False
    f.text("model")
    f.finish(IGNORED, settings.lenient)
    sequences = [
        Sequence(
            i,
            (seed % 2**64 + i % n) % (2**64 - 1),  # never NONE
            prompts[i // n],
            leader=i // n * n if n > 1 else None,
            copies=min(n, settings.parallel) - 1,
            show_prompt=stream and return_tokens,
            one_call=one_call,
        )
        for i in range(n * len(prompts))
    ]
    return Work(chat, sequences, n, stream, include_usage, return_tokens, logprobs)


def _sampling(f: Fields, settings: Settings) -> dict[str, Any]:
    """Keywords of Model.stream that both kinds of requests have, but for the seed."""
    given = {
        "temperature": f.number("temperature", 0, 100),
        "top_k": f.integer("top_k", NONE, MOST_TOKENS),
        "top_p": f.number("top_p", 0, 1),
        "min_p": f.number("min_p", 0, 1, open_high=True),
        "repetition_penalty": f.number("repetition_penalty", 0, 100, open_low=True),
        "presence_penalty": f.number("presence_penalty", -100, 100),
        "frequency_penalty": f.number("frequency_penalty", -100, 100),
        "penalty_last_n": f.integer("penalty_last_n", NONE, MOST_TOKENS),
        "logit_bias": _biases(f),
        "stop": _stops(f, settings),
        "draft": _draft(f),
        "ignore_eos": f.boolean("ignore_eos"),
    }
    defaults = {k: v for k, v in settings.sampling.items() if k != "seed"}
    return {
        **defaults,
        "draft": settings.draft,
        **{name: value for name, value in given.items() if value is not None},
    }


def _seed(f: Fields, settings: Settings) -> int:
    given = f.integer("seed", -(2**63), 2**64 - 1)
    if given is None:
        given = settings.sampling.get("seed")
    return secrets.randbits(32) if given is None or (given - NONE) % 2**64 == 0 else given


def _limit(f: Fields, name: str) -> int | None:
    return f.integer(name, NONE, MOST_TOKENS)


def _capped(tokens: int, settings: Settings) -> int:
    limits = [n for n in (tokens, settings.max_tokens) if n not in (None, NONE)]
    return min(limits, default=NONE)


def _draft(f: Fields) -> Any:
    value = f.take("draft")
    if value is None or value == "auto":
        return value
    return (
        f.integer("draft", 0, 15)
        if not isinstance(value, str)
        else f.refuse("draft", 'it must be "auto" or a number from 0 to 15')
    )


def _stops(f: Fields, settings: Settings) -> list[str] | None:
    value = f.take("stop")
    if value is None:
        return None
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(s, str) for s in stops):
        f.refuse("stop", "it must be a text or a list of texts", "invalid_type")
    if len(stops) > settings.max_stops:
        f.refuse("stop", f"it must have at most {settings.max_stops} entries, not {len(stops)}")
    for i, s in enumerate(stops):
        if len(s) > MAX_STOP:
            raise RequestError(
                f"stop[{i}] has {len(s)} characters; it must have at most {MAX_STOP}",
                "stop",
                "invalid_value",
            )
    return stops


def _biases(f: Fields) -> dict[int, float] | None:
    if f.take("logit_bias") == []:  # llama.cpp's for none
        return None
    biases = f.object("logit_bias")
    if biases is None:
        return None
    out = {}
    for name in biases._data:
        if not (name.isascii() and name.isdigit() and len(name) <= 9):
            raise RequestError(
                f"logit_bias names token {shown(name[:40])}; it must be the number of a token",
                "logit_bias",
                "invalid_value",
            )
        value = biases.number(name, -100, 100)
        if value is not None:
            out[int(name)] = value
    return out


def _constraint(f: Fields, name: str) -> dict[str, Any]:
    """What the answer has to follow, as a keyword of the engine."""
    given: dict[str, Any] = {
        "grammar": f.text("grammar", MAX_TEXT),
        "regex": f.text("regex", MAX_TEXT),
        name: _response_format(f, name),
    }
    given = {k: v for k, v in given.items() if v is not None}
    if len(given) > 1:
        names = " and ".join(given)
        raise RequestError(f"{names} exclude each other; pass one", name, "invalid_value")
    return given


def _response_format(f: Fields, name: str) -> dict[str, Any] | None:
    value = f.object(name)
    if value is None:
        return None
    kind = value.take("type")
    if kind not in ("text", "json_object", "json_schema"):
        value.refuse("type", 'it must be "text", "json_object" or "json_schema"')
    schema = value.object("json_schema")
    if kind == "json_schema" and (schema is None or not isinstance(schema.take("schema"), dict)):
        raise RequestError(
            f"{name}.json_schema.schema is missing; it must be a JSON schema",
            f"{name}.json_schema",
            "invalid_value",
        )
    return None if kind == "text" else value._data


def _schema(f: Fields, response_format: dict[str, Any]) -> Any:
    if response_format["type"] == "json_object":
        return {"type": "object"}
    return response_format["json_schema"]["schema"]


def _tools(f: Fields) -> tuple[list[Any] | None, dict[str, Any], bool]:
    """Declarations, what is said about them, and whether one call is all that is wanted."""
    tools = f.list("tools")
    for i, tool in enumerate(tools or []):
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise RequestError(
                f'tools[{i}] is not of the form {{"type": "function", "function": {{...}}}}',
                "tools",
                "invalid_value",
            )
    try:
        declared = prepared_tools(tools)
    except ArgumentError as e:
        raise RequestError(str(e), "tools", "invalid_value") from None
    choice = f.take("tool_choice")
    if choice == "auto" and not tools:
        f.refuse("tool_choice", "it needs tools")
    try:
        required_functions(choice, declared)
    except ArgumentError as e:
        raise RequestError(str(e), "tool_choice", "invalid_value") from None
    options = {} if choice is None else {"tool_choice": choice}
    one_call = f.boolean("parallel_tool_calls") is False
    return (tools or None) if choice != "none" else None, options, one_call


def _thinking(f: Fields) -> bool:
    thinking = f.boolean("thinking")
    kwargs = f.object("chat_template_kwargs")
    if kwargs is not None:
        enabled = kwargs.boolean("enable_thinking")
        kwargs.finish()
        thinking = enabled if thinking is None else thinking
    effort = f.text("reasoning_effort")
    if effort is not None and effort not in ("none", "minimal", "low", "medium", "high", "xhigh"):
        f.refuse("reasoning_effort", 'it must be "none", "minimal", "low", "medium" or "high"')
    if thinking is None:
        return effort not in (None, "none", "minimal")
    return thinking


def _prompts(f: Fields) -> list[Any]:
    """Texts or lists of token ids."""
    prompt = f.take("prompt")
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list) or not prompt:
        f.refuse("prompt", _PROMPT, "invalid_type")
    if _are_ids(prompt):
        return [prompt]
    if not all(isinstance(p, str) or (isinstance(p, list) and p and _are_ids(p)) for p in prompt):
        f.refuse("prompt", _PROMPT, "invalid_type")
    return prompt


def _are_ids(values: list[Any]) -> bool:
    return all(isinstance(v, int) and not isinstance(v, bool) for v in values)
