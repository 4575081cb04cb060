"""Converts requests to /v1/chat/completions and /v1/completions to arguments of the engine."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..arguments import LEAST_SEED, MOST_SEED
from ..base.whole_number import whole_number
from ..options import MAX_DRAFT, MAX_LOGPROBS, NONE, NUMBERS, OPTIONS, later_seed
from .echo import echoed
from .errors import RequestError
from .fields import Fields, shown
from .job import Job, OnPrompt, Prompt
from .nested import check_messages, response_format, thinking_of, tools_of
from .settings import ServerSettings

if TYPE_CHECKING:
    from ..chat.reply import ReplyStream
    from ..model import Model, TextStream
    from ..results import Token

MAX_BIAS = 100  # as OpenAI has it
COMPLETION_TOKENS = 16  # default of OpenAI's /v1/completions
MAX_TEXT = 1 << 16  # characters of a grammar or pattern
MAX_STOP = 1024  # characters
_PROMPT = "it must be a text, a list of token ids, or a list of either"

# Members of OpenAI's protocol, and of other servers and clients, that have no effect here.
IGNORED = (
    # OpenAI, LiteLLM, OpenRouter, Open WebUI
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_options", "prompt_cache_retention", "prediction", "verbosity", "moderation",
    "keep_alive", "request_id", "session_id", "chat_id", "conversation_id", "thread_id", "priority",
    "provider", "route", "models", "transforms", "usage", "include_reasoning", "litellm_metadata",
    "litellm_session_id", "ttl", "draft_model",
    # llama.cpp's server and page: how it works, how it answers, and numbers of the samplers in OFF
    "cache_prompt", "id_slot", "slot_id", "timings_per_token", "return_progress", "n_keep",
    "n_indent", "t_max_predict_ms", "reasoning_format", "backend_sampling", "samplers",
    "dynatemp_exponent", "xtc_threshold", "dry_base", "dry_allowed_length", "dry_penalty_last_n",
    "dry_sequence_breakers", "mirostat_tau", "mirostat_eta", "penalize_nl", "response_fields",
    "adaptive_decay", "n_discard", "n_cache_reuse", "context_shift", "speculative.n_max",
    "speculative.n_min", "speculative.p_min", "speculative.type",
    # vLLM, SillyTavern, text-generation-webui
    "skip_special_tokens", "spaces_between_special_tokens", "add_special_tokens", "add_bos_token",
    "truncation_length", "do_sample", "smoothing_curve", "sampler_order", "sampler_priority",
    "chat_completion_source", "api_type", "api_server", "legacy_api", "bypass_status_check",
    "rep_pen_slope", "rep_pen_size", "repetition_decay", "temperature_last", "speculative_ngram",
    "num_ctx", "max_tokens_second", "dynatemp_low", "dynatemp_high", "dynatemp_min", "dynatemp_max",
    "trim_stop", "quantizations", "allow_fallbacks", "use_default_badwordsids",
)  # fmt: skip

# Samplers and other features of llama.cpp, vLLM and text-generation-webui that are missing here;
# clients send the value that turns them off.
OFF: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        ("typical_p", "typ_p", "typical", "tfs_z", "tfs", "guidance_scale", "length_penalty",
         "encoder_repetition_penalty", "num_beams", "n_cmpl"), (1,)
    ),
    **dict.fromkeys(
        ("top_a", "mirostat", "mirostat_mode", "dry_multiplier", "xtc_probability", "n_probs",
         "dynatemp_range", "nsigma", "smoothing_factor", "epsilon_cutoff", "eta_cutoff", "min_keep",
         "penalty_alpha", "no_repeat_ngram_size", "min_tokens", "min_length"), (0,)
    ),
    "top_n_sigma": (0, -1),
    "adaptive_target": (-1, -0.01),
    **dict.fromkeys(
        ("use_beam_search", "early_stopping", "ban_eos_token", "include_stop_str_in_output",
         "post_sampling_probs", "return_token_ids", "return_tokens_as_token_ids",
         "dynamic_temperature"), (False,)
    ),
    **dict.fromkeys(
        ("stop_token_ids", "bad_words", "lora", "image_data", "plugins", "custom_token_bans",
         "negative_prompt", "documents", "banned_strings"), ([], "")
    ),
}  # fmt: skip

# Other servers' names of options.
_LIMITS = ("max_tokens", "n_predict", "max_new_tokens", "num_predict")
_FULL = -2  # of n_predict and num_predict: until the context is full
_SAME = {
    "rep_pen": "repetition_penalty",
    "repeat_penalty": "repetition_penalty",
    "repeat_last_n": "penalty_last_n",
}
_RANGES = ("repetition_penalty_range", "rep_pen_range")  # 0: all tokens
_CONSTRAINTS = {
    "grammar": ("grammar", "grammar_string", "guided_grammar"),
    "regex": ("regex", "guided_regex"),
    "json_schema": ("json_schema", "guided_json"),
}


@dataclass(frozen=True)
class Work:
    """A request that is valid as far as can be checked without the model."""

    chat: bool
    jobs: list[Job]
    choices_per_prompt: int
    stream: bool
    include_usage: bool
    return_tokens: bool
    logprobs: int | None
    """Number of likeliest tokens to return with each token; None: no logprobs."""


def chat_work(data: dict[str, Any], settings: ServerSettings) -> Work:
    f = Fields(data, lenient=settings.lenient)
    messages = f.list("messages")
    if not messages:
        f.refuse("messages", 'it must be a list such as [{"role": "user", "content": "Hello"}]')
    check_messages(f)
    options = _sampling(f, settings)
    options |= _constraint(f)
    limit = _limit(f, "max_completion_tokens")
    max_tokens = _capped(NONE if limit is None else limit, settings)
    wanted = f.boolean("logprobs")
    top = f.integer("top_logprobs", 0, MAX_LOGPROBS)
    if top and not wanted:
        f.refuse("top_logprobs", "it needs logprobs to be true")
    logprobs = (top or 0) if wanted else None
    tools, tool_options, one_call = tools_of(f)
    options |= tool_options
    thinking = thinking_of(f)
    f.only("modalities", [["text"]], 'only ["text"] is supported')
    for name in ("functions", "function_call"):
        f.only(name, ["none"], "it is deprecated and not supported; use tools and tool_choice")
    for name in ("audio", "web_search_options"):
        f.only(name, [], "it is not supported; leave it out")

    options |= {"max_tokens": max_tokens, "logprobs": logprobs}
    conversation = {"messages": messages, "tools": tools, "thinking": thinking}
    conversation |= _final_message(f)
    prompt = _Chat(conversation, options)
    return _work(f, settings, [prompt], logprobs, chat=True, one_call=one_call)


def completion_work(data: dict[str, Any], settings: ServerSettings) -> Work:
    f = Fields(data, lenient=settings.lenient)
    texts = _prompts(f)
    options = _sampling(f, settings)
    options |= _constraint(f)
    if "response_format" in options:
        options["json_schema"] = _schema(options.pop("response_format"))
    max_tokens = _limit(f)
    options["max_tokens"] = _capped(
        COMPLETION_TOKENS if max_tokens is None else max_tokens, settings
    )
    logprobs = None if f.take("logprobs") is False else f.integer("logprobs", NONE, MAX_LOGPROBS)
    logprobs = None if logprobs == NONE else logprobs
    f.only("best_of", [1], "it is not supported; ask for n, and choose by logprobs")
    f.only("suffix", [""], "it is not supported: the models continue texts, they do not fill gaps")

    options["logprobs"] = logprobs
    special = f.boolean("special") or False
    echo = f.boolean("echo") or False
    prompts: list[Prompt] = [_Text(text, special, echo, options) for text in texts]
    return _work(f, settings, prompts, logprobs, chat=False)


@dataclass(frozen=True)
class _Chat:
    conversation: dict[str, Any]
    options: dict[str, Any]

    @property
    def characters(self) -> int:
        contents = [m["content"] for m in self.conversation["messages"] if _is_users(m)]
        return sum(len(c.strip()) for c in contents if isinstance(c, str))

    def ids(self, model: Model) -> list[int]:
        return model.chat_prompt(**self.conversation)[1]

    def shown(self, model: Model, cancelled: Callable[[], bool]) -> list[Token]:
        return []

    def start(self, model: Model, seed: int, on_prompt: OnPrompt | None) -> ReplyStream:
        return model.chat_stream(
            **self.conversation, seed=seed, on_prompt=on_prompt, wait=True, **self.options
        )


def _is_users(message: Any) -> bool:
    """Whether all content of the message enters the prompt."""
    return isinstance(message, dict) and message.get("role") == "user" and "content" in message


@dataclass(frozen=True)
class _Text:
    text: str | list[int]
    special: bool
    echo: bool
    options: dict[str, Any]

    @property
    def characters(self) -> int:
        return len(self.text) if isinstance(self.text, str) else 0

    def ids(self, model: Model) -> list[int]:
        return model._ids_of(self.text, self.special)

    def shown(self, model: Model, cancelled: Callable[[], bool]) -> list[Token]:
        if not self.echo:
            return []
        return echoed(model, self.text, self.special, self.options["logprobs"], cancelled)

    def start(self, model: Model, seed: int, on_prompt: OnPrompt | None) -> TextStream:
        return model.stream(
            self.text,
            special=self.special,
            seed=seed,
            on_prompt=on_prompt,
            wait=True,
            **self.options,
        )


def _work(
    f: Fields,
    settings: ServerSettings,
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
        stream_options.finish(["include_obfuscation", "continuous_usage_stats"])
    return_tokens = f.boolean("return_tokens") or False
    f.text("model")
    for name, values in OFF.items():
        f.only(name, values, "it is not supported here; leave it out")
    f.finish(IGNORED)
    sequences = [
        Job(
            i,
            later_seed(seed, i % n),
            prompts[i // n],
            leader=i // n * n if n > 1 else None,
            copies=min(n, settings.parallel) - 1,
            show_prompt=stream and return_tokens,
            one_call=one_call,
        )
        for i in range(n * len(prompts))
    ]
    return Work(chat, sequences, n, stream, include_usage, return_tokens, logprobs)


def _sampling(f: Fields, settings: ServerSettings) -> dict[str, Any]:
    """The keywords of Model.stream, except the seed, that both kinds of requests have."""
    ranges = [f.option(OPTIONS["penalty_last_n"], name) for name in _RANGES]
    given = {"penalty_last_n": next((n or NONE for n in ranges if n is not None), None)}
    for name, ours in (*_SAME.items(), *((name, name) for name in NUMBERS)):
        value = f.option(OPTIONS[ours], name)
        given[ours] = given.get(ours) if value is None else value
    given |= {
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


def _seed(f: Fields, settings: ServerSettings) -> int:
    given = f.integer("seed", LEAST_SEED, MOST_SEED)
    if given is None:
        given = settings.sampling.get("seed")
    return secrets.randbits(32) if given is None or (given - NONE) % 2**64 == 0 else given


def _limit(f: Fields, *first: str) -> int | None:
    """Returns the first limit that is given. first: names that come before those that all have."""
    found = []
    for name in (*first, *_LIMITS):
        full = name in ("n_predict", "num_predict") and f.data.get(name) == _FULL
        found.append(f.option(OPTIONS["max_tokens"], name) if not full else NONE)
        f.take(name)
    return next((n for n in found if n is not None), None)


def _capped(tokens: int, settings: ServerSettings) -> int:
    limits = [n for n in (tokens, settings.max_tokens) if n not in (None, NONE)]
    return min(limits, default=NONE)


def _draft(f: Fields) -> Any:
    value = f.take("draft")
    if isinstance(value, str) and value != "auto":
        f.refuse("draft", f'it must be "auto" or a number from 0 to {MAX_DRAFT}')
    return value if value == "auto" else f.integer("draft", 0, MAX_DRAFT)


def _stops(f: Fields, settings: ServerSettings) -> list[str] | None:
    value, other = f.take("stop"), f.take("stopping_strings")  # text-generation-webui's name
    value = other if value is None else value
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
    given = f.take("logit_bias")
    if isinstance(given, list):  # of pairs, as llama.cpp's clients send them
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in given):
            f.refuse("logit_bias", "it must be an object, or a list of pairs", "invalid_type")
        biases = f.inner("logit_bias", {str(token): value for token, value in given})
    elif (found := f.object("logit_bias")) is not None:
        biases = found
    else:
        return None
    out = {}
    for name in biases.data:
        token = whole_number(name)
        if token is None:
            raise RequestError(
                f"logit_bias names token {shown(name[:40])}; it must be the number of a token",
                "logit_bias",
                "invalid_value",
            )
        banned = biases.data[name] is False
        value = -math.inf if banned else biases.number(name, -MAX_BIAS, MAX_BIAS)
        if value is not None:
            out[token] = value
    return out


def _constraint(f: Fields) -> dict[str, Any]:
    """The constraint on the answer, as a keyword of the engine."""
    given: dict[str, dict[str, Any]] = {}
    for kind, spellings in _CONSTRAINTS.items():
        for name in spellings:
            value = f.schema(name) if kind == "json_schema" else f.text(name, MAX_TEXT)
            if value not in (None, ""):
                given[name] = {kind: value}
    if (answer := response_format(f)) is not None:
        given["response_format"] = {"response_format": answer}
    if len(given) > 1:
        names = " and ".join(given)
        raise RequestError(
            f"{names} exclude each other; pass one", "response_format", "invalid_value"
        )
    return next(iter(given.values()), {})


def _schema(response_format: dict[str, Any]) -> Any:
    if response_format["type"] == "json_object":
        return {"type": "object"}
    return response_format["json_schema"]["schema"]


def _final_message(f: Fields) -> dict[str, Any]:
    """Whether to continue a final message of the assistant, by vLLM's names for that."""
    goes_on = f.boolean("continue_final_message")
    begins = f.boolean("add_generation_prompt")
    if goes_on and begins:
        f.refuse("continue_final_message", "it excludes add_generation_prompt; leave one out")
    return {"continue_final_message": goes_on, "add_generation_prompt": begins}


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
