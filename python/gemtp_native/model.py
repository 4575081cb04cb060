"""The friendly face of the native core: Model, Tokenizer, and what they return."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from . import __version__, _core
from .chat.prompt import Chats
from .chat.reply import Reply, ReplyStream
from .errors import ArgumentError
from .find import drafter_path, model_path
from .profile import use as use_profile

Prompt = str | bytes | Sequence[int]
Draft = Literal["auto"] | int


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
    depth: DepthReport | None = None
    """What draft="auto" has learned; None for a fixed depth."""


@dataclass(frozen=True)
class Token:
    """One generated token. ``text`` is what became certain with it, possibly nothing."""

    id: int
    source: Literal["target", "drafter", "lookup"]
    """Who had guessed it before the target chose it: the drafter, a look-up in the text, or nobody
    ("target")."""
    text: str

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


@dataclass(frozen=True)
class Comparison:
    """What two models say of the same tokens. Arrays of one entry for each scored token; logarithms
    are natural."""

    log_probs: np.ndarray
    """Of the given token, by the model that was asked: float64."""
    reference_log_probs: np.ndarray
    """By the reference: float64."""
    divergence: np.ndarray
    """KL(P || Q) in nats, P the reference's next-token distribution, Q the model's: float64."""
    same_best: np.ndarray
    """Whether both find the same token likeliest: bool."""


class TextStream(Iterator[str]):
    """Pieces of text as they become certain, each valid UTF-8.

    Work happens only while a piece is asked for; ``close()`` (or leaving a ``with`` block) ends it.
    """

    def __init__(self, generation: _core.Generation):
        self._generation: _core.Generation | None = generation
        self._pending: list[Token] = []
        self._tokens: list[int] = []
        self._stats = generation.stats
        self._finish_reason = generation.finish_reason
        self._depth: DepthReport | None = None

    def steps(self) -> Iterator[list[Token]]:
        """The tokens of each round (of draft and verification), as they come."""
        while self._generation is not None and not self._generation.done:
            step = [
                Token(id, cast(Any, source), text) for id, source, text in self._generation.step()
            ]
            if self._generation.done and self._generation.tail and not step:
                step = [Token(-1, "target", self._generation.tail)]
            self._tokens += [t.id for t in step if t.id >= 0]
            self._stats = self._generation.stats
            self._finish_reason = self._generation.finish_reason
            if step:
                yield step

    def __next__(self) -> str:
        while True:
            while self._pending:
                token = self._pending.pop(0)
                if token.text:
                    return token.text
            step = next(self.steps(), None)
            if step is None:
                self.close()
                raise StopIteration
            self._pending = step

    def close(self) -> None:
        """Stops the generation and hands its K/V cache back to the model."""
        self._depth = self._depth_report()
        self._generation = None
        self._pending = []

    def __enter__(self) -> TextStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def tokens(self) -> list[int]:
        """Ids generated so far."""
        return list(self._tokens)

    @property
    def finish_reason(self) -> str:
        return self._finish_reason

    @property
    def stats(self) -> Stats:
        return Stats(**self._stats, depth=self._depth_report())

    def _depth_report(self) -> DepthReport | None:
        if self._generation is None:
            return self._depth
        report = self._generation.depth_report
        return None if report is None else DepthReport(**report)


class Tokenizer:
    """The tokenizer of any GGUF that has one, also of a file that holds only a vocabulary."""

    def __init__(self, path: str | os.PathLike[str]):
        self._core = _core.Tokenizer(model_path(_path("tokenizer file", path)))

    def encode(self, text: str | bytes, add_bos: bool = False, special: bool = False) -> list[int]:
        """Ids of ``text``. With ``special``, text that spells a control token becomes that token:
        leave it off for anything that a user or a tool wrote."""
        return self._core.encode(text, add_bos, special)

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """Text of ``ids``; control tokens are written out only with ``special``."""
        return self._core.decode(_id_list(ids), special)

    @property
    def vocab_size(self) -> int:
        return self._core.vocab_size

    @property
    def bos(self) -> int:
        """Id of the beginning-of-sequence token, -1 if the file names none."""
        return self._core.bos

    @property
    def end_tokens(self) -> list[int]:
        """Ids that end a generation."""
        return self._core.end_tokens


class Model:
    """A Gemma 4 target and, optionally, its drafter, opened from GGUF files.

    Args:
        target: path of the target's GGUF, of any of its parts, or of a folder with it; or a name:
            "hf:owner/name:Q4_0" (fetched if it is not there), "ollama:name:tag",
            "lmstudio:publisher/name".
        drafter: the same of the drafter, "auto" for the one that is found beside the target or on
            the hub and fits, or None to decode without one.
        threads: threads to compute with; None takes as many as this machine profits from.
        context: tokens a sequence can hold, prompt and answer together; at most the length the
            model was made for.
        kv_type: "f16" or "f32", the type keys and values are kept in.
        prefill_chunk: rows of one prefill pass; changes memory and speed, never the result.
        mmap: False reads the file into memory, for files that may change while in use.
        kv_budget: bytes that keys and values of all sequences may take together, those at work and
            those kept for later prompts that begin alike; None: half of the memory that is free,
            at most 16 full contexts.
        profile: False ignores what `gemtp tune` has saved for these files and threads, from which
            draft="auto" starts. A profile that does not fit is ignored with a warning through the
            logger "gemtp_native". It never changes the text.

    Raises FileError for a damaged file, ModelError for files that do not fit together, and
    OutOfMemoryError, before loading anything, for a model that does not fit into memory.
    The environment variable GEMTP_ISA picks the instruction set ("scalar", "avx2", ...).
    """

    def __init__(
        self,
        target: str | os.PathLike[str],
        drafter: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        context: int = 4096,
        kv_type: Literal["f16", "f32"] = "f16",
        prefill_chunk: int = 512,
        mmap: bool = True,
        profile: bool = True,
        kv_budget: int | None = None,
    ):
        found = model_path(_path("target", target))
        helper = None
        if drafter is not None:
            helper = drafter_path(_path("drafter", drafter), found, target)
        self._engine = _core.Engine(
            found,
            helper,
            0 if threads is None else _integer("threads", threads, 1, 1024),
            _integer("context", context),
            _integer("prefill_chunk", prefill_chunk),
            _is_f16(kv_type),
            bool(mmap),
            "",
            0 if kv_budget is None else _integer("kv_budget", kv_budget, 1),
        )
        self._chats = Chats(self._engine, os.fspath(found))
        if profile:
            use_profile(self._engine, found, helper, kv_type)

    def clear_cache(self) -> None:
        """Forgets the keys and values of finished generations."""
        self._engine.clear_cache()

    def generate(self, prompt: Prompt, **options: Any) -> Output:
        """Completes ``prompt``, a text (BOS is prepended) or a list of token ids.

        Options are those of :meth:`stream`.
        """
        stream = self.stream(prompt, **options)
        with stream:
            text = "".join(stream)
            return Output(text, stream.tokens, stream.finish_reason, stream.stats)

    def stream(
        self,
        prompt: Prompt,
        *,
        max_tokens: int = 128,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        penalty_last_n: int = -1,
        logit_bias: Mapping[int, float] | None = None,
        suppress_tokens: Iterable[int] = (),
        seed: int = 0,
        stop: str | bytes | Sequence[str | bytes] = (),
        draft: Draft = "auto",
        ignore_eos: bool = False,
    ) -> TextStream:
        """Like :meth:`generate`, but yields pieces of text as they become certain.

        Args:
            max_tokens: the most tokens to generate.
            temperature: 0 is greedy.
            top_k: 0 is off. top_p: 1 is off. min_p: 0 is off. They apply in this order, to the
                distribution at that temperature.
            repetition_penalty, presence_penalty, frequency_penalty: over the latest
                penalty_last_n tokens of prompt and answer (-1: all).
            logit_bias: id -> added to its logit; -inf bans a token.
            suppress_tokens: ids that are never chosen, besides those that the file names.
            seed: with a temperature above 0, the text is a function of it.
            stop: strings that end the text and are not part of it.
            draft: tokens to draft a round: "auto" (what pays off, by the drafter or looked up in
                the text), 0 (none) to 15 (by the drafter). Never changes the text.
            ignore_eos: go on after an end token.
        """
        params = _core.SamplingParams()
        params.temperature = _number("temperature", temperature)
        params.top_k = _integer("top_k", top_k)
        params.top_p = _number("top_p", top_p)
        params.min_p = _number("min_p", min_p)
        params.repetition_penalty = _number("repetition_penalty", repetition_penalty)
        params.presence_penalty = _number("presence_penalty", presence_penalty)
        params.frequency_penalty = _number("frequency_penalty", frequency_penalty)
        params.penalty_last_n = _integer("penalty_last_n", penalty_last_n)
        params.seed = _integer("seed", seed, low=None) % 2**64
        params.logit_bias = _biases(logit_bias)
        params.suppress_tokens = _id_list(suppress_tokens)
        if draft != "auto" and (isinstance(draft, str) or _integer("draft", draft) < 0):
            raise ArgumentError(
                f'draft is {_shown(draft)}; it must be "auto" or a number from 0 to 15'
            )
        generation = _core.Generation(
            self._engine,
            self._prompt_ids(prompt),
            params,
            _integer("max_tokens", max_tokens),
            _stop_strings(stop),
            -1 if draft == "auto" else int(draft),
            bool(ignore_eos),
        )
        return TextStream(generation)

    def chat(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        tools: Iterable[Mapping[str, Any]] | None = None,
        thinking: bool = False,
        template: str | None = None,
        max_tokens: int | None = None,
        **options: Any,
    ) -> Reply:
        """Answers a conversation.

        Args:
            messages: dicts with "role" ("system", "user", "assistant", "tool") and "content", the
                latest last. ``reply.message`` is the next one. Whatever they say, they hold no
                control tokens. Further members: "tool_calls" of the assistant's, and "name" or
                "tool_call_id" of a tool's answer.
            tools: declarations of functions: "name", "description", "parameters" (JSON schema).
            thinking: let the model think first.
            template: a Jinja template instead of the file's.
            max_tokens: the most tokens of thoughts and answer; None: what the context holds.
            options: those of :meth:`stream`. ``stop`` ends the answer; thoughts and calls it does
                not look at.
        """
        with self.chat_stream(
            messages,
            tools=tools,
            thinking=thinking,
            template=template,
            max_tokens=max_tokens,
            **options,
        ) as stream:
            for _ in stream:
                pass
            return stream.reply

    def chat_stream(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        tools: Iterable[Mapping[str, Any]] | None = None,
        thinking: bool = False,
        template: str | None = None,
        max_tokens: int | None = None,
        stop: str | bytes | Sequence[str | bytes] = (),
        **options: Any,
    ) -> ReplyStream:
        """Like :meth:`chat`, but yields pieces of thoughts, answer and calls as they become
        certain. ``reply`` is what has been read so far."""
        _, ids = self._chats.prompt(messages, tools, thinking, template)
        tokenizer = self._engine.tokenizer
        parser = _core.ReplyParser(tokenizer, ids, [_utf8(s) for s in _stop_strings(stop)])
        limit = self.context if max_tokens is None else max_tokens
        return ReplyStream(self.stream(ids, max_tokens=limit, **options), parser, tokenizer)

    def chat_prompt(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        tools: Iterable[Mapping[str, Any]] | None = None,
        thinking: bool = False,
        template: str | None = None,
    ) -> tuple[str, list[int]]:
        """What :meth:`chat` lets the model continue: the text, and the tokens it is read as."""
        return self._chats.prompt(messages, tools, thinking, template)

    def tokenize(self, text: str | bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """Ids of ``text``; see :meth:`Tokenizer.encode`."""
        return self._engine.tokenizer.encode(text, add_bos, special)

    def detokenize(self, ids: Iterable[int], special: bool = False) -> str:
        """Text of ``ids``; see :meth:`Tokenizer.decode`."""
        return self._engine.tokenizer.decode(_id_list(ids), special)

    def logits(self, ids: Iterable[int]) -> np.ndarray:
        """The target's logits after each of ``ids``: float32 [len(ids), vocab]."""
        return self._engine.logits(_id_list(ids))

    def score(self, ids: Iterable[int], first: int = 1) -> np.ndarray:
        """Natural log-probabilities of ``ids[first:]``, each given all that precedes it: float64
        [len(ids) - first]. At temperature 1, over the whole vocabulary.

        Memory does not grow with the vocabulary, as that of :meth:`logits` does.
        """
        return self._engine.score(_id_list(ids), _integer("first", first))

    def compare(self, reference: Model, ids: Iterable[int], first: int = 1) -> Comparison:
        """Scores ``ids[first:]`` with this model and with ``reference``, and says how far their
        next-token distributions are apart."""
        if not isinstance(reference, Model):
            raise ArgumentError(f"the reference is {_shown(reference)}; it must be a Model")
        log_p, log_q, divergence, same_best = reference._engine.compare(
            self._engine, _id_list(ids), _integer("first", first)
        )
        return Comparison(log_q, log_p, divergence, same_best.astype(bool))

    def draft(self, ids: Iterable[int], k: int) -> list[int]:
        """The k tokens that the drafter proposes after ``ids``, greedily.

        ``ids[-1]`` is the pending token of a draft-verify round, so at least two are needed.
        """
        return self.draft_trace(ids, k)[0]

    def draft_trace(self, ids: Iterable[int], k: int) -> tuple[list[int], np.ndarray, np.ndarray]:
        """:meth:`draft` with the drafter's outputs at each step: its logits, float32 [k, vocab]
        (-inf for tokens out of an ordered head's running), and the hidden state that it hands to
        the next step, float32 [k, hidden of the target]."""
        return self._engine.draft(_id_list(ids), _integer("k", k))

    @property
    def has_drafter(self) -> bool:
        return self._engine.has_drafter

    @property
    def context(self) -> int:
        """Tokens a sequence can hold."""
        return self._engine.context

    @property
    def vocab_size(self) -> int:
        return self._engine.vocab_size

    @property
    def threads(self) -> int:
        return self._engine.threads

    @property
    def isa(self) -> str:
        """The instruction set in use, e.g. "avx2"."""
        return self._engine.backend.split("/")[1]

    def _prompt_ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, (str, bytes)):
            return self.tokenize(prompt)
        if not isinstance(prompt, Iterable):
            raise ArgumentError(f"the prompt is {_shown(prompt)}; pass text or a list of token ids")
        return _id_list(prompt)


def demo_models() -> tuple[Path, Path]:
    """Paths of the small target and drafter that the package ships; they complete Python code."""
    data = Path(__file__).parent / "data"
    return data / "target.gguf", data / "drafter.gguf"


def system_info() -> dict[str, Any]:
    """What this build runs on: isa (in use), isas (that could run), threads, backends, version."""
    return {
        "version": __version__,
        "isa": _core.selected_isa(),
        "isas": _core.isas(),
        "threads": _core.default_threads(),
        "backends": ["cpu"],
    }


def memory_estimate(
    target: str | os.PathLike[str],
    drafter: str | os.PathLike[str] | None = None,
    context: int = 4096,
    kv_type: Literal["f16", "f32"] = "f16",
    prefill_chunk: int = 512,
) -> dict[str, int]:
    """What Model(...) with these arguments takes, in bytes, from the files' headers alone.

    ``weights``, ``kv`` (one sequence of ``context`` tokens) and ``scratch`` add up to ``needed``;
    ``tables`` are looked up by row in the file's pages, which come and go.
    """
    return _core.memory_estimate(
        _path("target", target),
        None if drafter is None else _path("drafter", drafter),
        _integer("context", context),
        _integer("prefill_chunk", prefill_chunk),
        _is_f16(kv_type),
    )


_INT32_MAX = 2**31 - 1


def _is_f16(kv_type: str) -> bool:
    if kv_type not in ("f16", "f32"):
        raise ArgumentError(f'kv_type is {_shown(kv_type)}; it must be "f16" or "f32"')
    return kv_type == "f16"


def _id_list(ids: Iterable[int]) -> list[int]:
    if isinstance(ids, (str, bytes)):
        raise ArgumentError("token ids must be a list of numbers, not text; tokenize it first")
    try:
        out = [i.__index__() for i in ids]
    except (AttributeError, TypeError):
        raise ArgumentError("token ids must be a list of whole numbers") from None
    for at, i in enumerate(out):
        if not 0 <= i <= _INT32_MAX:
            raise ArgumentError(f"token id {_shown(i)} at index {at} is outside any vocabulary")
    return out


def _integer(name: str, value: Any, low: int | None = -_INT32_MAX, high: int = _INT32_MAX) -> int:
    """low=None: any."""
    try:
        number: int = value.__index__()
    except AttributeError:
        raise ArgumentError(f"{name} is {_shown(value)}; it must be a whole number") from None
    if low is not None and not low <= number <= high:
        raise ArgumentError(f"{name} is {_shown(number)}; it must be between {low} and {high}")
    return number


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(f"{name} is {_shown(value)}; it must be a number") from None


def _shown(value: Any) -> str:
    """repr for a sentence: short, whatever the value is."""
    try:
        text = repr(value)
    except Exception:  # among others, int refuses to print thousands of digits
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _path(name: str, value: Any) -> Any:
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise ArgumentError(f"the {name} is {_shown(value)}; it must be a path")
    return value


def _utf8(text: str | bytes) -> str:
    try:
        (text if isinstance(text, bytes) else text.encode()).decode()
    except UnicodeError:
        raise ArgumentError(f"a stop string, {_shown(text)}, is not valid UTF-8") from None
    return text if isinstance(text, str) else text.decode()


def _stop_strings(stop: Any) -> list[str | bytes]:
    strings = [stop] if isinstance(stop, (str, bytes)) else stop
    if not isinstance(strings, Iterable):
        raise ArgumentError(f"stop is {_shown(stop)}; it must be a string or a list of strings")
    strings = list(strings)
    for s in strings:
        if not isinstance(s, (str, bytes)):
            raise ArgumentError(f"a stop string is {_shown(s)}; it must be str or bytes")
    return strings


def _biases(logit_bias: Any) -> list[tuple[int, float]]:
    if logit_bias is None:
        return []
    if not isinstance(logit_bias, Mapping):
        raise ArgumentError(f"logit_bias is {_shown(logit_bias)}; it must map token ids to numbers")
    return [
        (_integer("a logit_bias id", i), _number("a logit_bias value", b))
        for i, b in logit_bias.items()
    ]
