"""The friendly face of the native core: Model, and what is known before there is one."""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from . import __version__, _core
from .arguments import (
    Prompt,
    boolean,
    callback,
    checked_path,
    generation_params,
    id_list,
    integer,
    is_f16,
    load_numpy,
    shown,
    stop_strings,
    utf8_text,
)
from .base.log import logger
from .chat.messages import prepared_tools
from .chat.prompt import Chats, start_early
from .chat.reply import Reply, ReplyStream
from .chat.tool_choice import required_functions
from .errors import ArgumentError
from .find import drafter_path, model_path
from .grammar import Grammars, schema_of, source_of
from .options import (
    ChatOptions,
    GenerationOptions,
    OnPrompt,
    TokenOptions,
    takes_options,
    takes_options_of,
)
from .profile import use as use_profile
from .results import DepthReport, Output, Stats, Token
from .session import Session
from .stream import TextStream
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Unpack

__all__ = [
    "Comparison",
    "DepthReport",
    "GenerationOptions",
    "Model",
    "Output",
    "Session",
    "Stats",
    "TextStream",
    "Token",
    "Tokenizer",
    "demo_models",
    "memory_estimate",
    "system_info",
]

_Params = _core.GenerationParams
S = TypeVar("S", TextStream, Session)
Given = TypeVar("Given", bound=TokenOptions)

_log = logger("model")
_warnings = logger()


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
        mmap: False reads the embedding tables into memory. By default a token's rows are read from
            the file, which must then stay as it is while the model is open: FileError if it
            does not. Nothing is mapped either way.
        kv_budget: bytes that keys and values of all sequences may take together, those at work and
            those kept for later prompts that begin alike; None: half of the memory that is free,
            at most 16 full contexts. What happens when it is used up says the option ``wait``.
        profile: False ignores what `gemtp tune` has saved for these files and threads, from which
            draft="auto" starts. A profile that does not fit is ignored with a warning through the
            logger "gemtp_native". It never changes the text.
        progress: called while weights are loaded, with how much is done, from 0 to 1; False gives
            up, with CancelledError.

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
        progress: Callable[[float], bool | None] | None = None,
    ):
        found, helper = _files(target, drafter)
        start_early()
        start = time.monotonic()
        self._open_engine: _core.Engine | None = _core.Engine(
            found,
            helper,
            0 if threads is None else integer("threads", threads, 1, 1024),
            integer("context", context),
            integer("prefill_chunk", prefill_chunk),
            is_f16(kv_type),
            bool(mmap),
            "",
            0 if kv_budget is None else integer("kv_budget", kv_budget, 1, 2**63 - 1),
            callback("progress", progress),
        )
        self._target = Path(os.fsdecode(found))
        self._chats: Chats | None = Chats(self._engine, os.fspath(found))
        self._grammars = Grammars()
        self._warned = False  # of control tokens in a prompt
        self._streams: weakref.WeakSet[TextStream | Session] = weakref.WeakSet()
        _log.info("%s", _opened(self, found, helper, kv_type, time.monotonic() - start))
        if profile and use_profile(self._engine, found, helper, kv_type):
            _log.info("depth control starts from a saved profile")

    @property
    def _engine(self) -> _core.Engine:
        if self._open_engine is None:
            raise ArgumentError("the model is closed; open it again")
        return self._open_engine

    def close(self) -> None:
        """Gives the memory back. Streams that are under way end, those at work on other threads
        with CancelledError; sessions are closed, and any further use is an ArgumentError."""
        self._open_engine = None
        self._chats = None
        self._grammars = Grammars()
        while self._streams:
            with contextlib.suppress(KeyError, ArgumentError):  # of one that a fork has lost
                self._streams.pop().close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep(self, stream: S) -> S:
        """To be ended with the model."""
        self._streams.add(stream)
        return stream

    def clear_cache(self) -> None:
        """Forgets the keys and values of finished generations."""
        self._engine.clear_cache()

    @takes_options
    def generate(
        self,
        prompt: Prompt,
        *,
        special: bool = False,
        on_prompt: OnPrompt | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Output:
        """Completes ``prompt``, a text (BOS is prepended) or a list of token ids.

        Args:
            special: control tokens that the text spells are these tokens, as in :meth:`tokenize`;
                not for text of others. Where it is off and the text spells one, a warning says so,
                once for each model.
            on_prompt: called while a prompt is read, with its tokens that have been run and all.
            options: see :class:`GenerationOptions`.
        """
        given = _waiting(options)
        with self.stream(prompt, special=special, on_prompt=on_prompt, **given) as stream:
            return stream.output("".join(stream))

    @takes_options
    def stream(
        self,
        prompt: Prompt,
        *,
        special: bool = False,
        on_prompt: OnPrompt | None = None,
        **options: Unpack[GenerationOptions],
    ) -> TextStream:
        """Like :meth:`generate`, but gives pieces of text as they become certain."""
        ids = self._ids_of(prompt, special)
        return self._stream(ids, self._params_of(options), on_prompt)

    def _params_of(self, options: GenerationOptions, reply_schema: Any = None) -> _Params:
        params = generation_params(options)
        schema = options.get("json_schema")
        if reply_schema is not None:
            if schema is not None:
                raise ArgumentError("response_format and json_schema exclude each other")
            schema = reply_schema
        params.constraint = self._grammars.constraint(
            self._engine, source_of(schema, options.get("regex"), options.get("grammar"))
        )
        return params

    def _stream(self, ids: list[int], params: _Params, on_prompt: OnPrompt | None) -> TextStream:
        callback("on_prompt", on_prompt)
        return self._keep(TextStream(_core.Generation(self._engine, ids, params), on_prompt))

    @takes_options
    async def agenerate(
        self,
        prompt: Prompt,
        *,
        special: bool = False,
        on_prompt: OnPrompt | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Output:
        """:meth:`generate` beside other tasks; cancelling the task stops the work."""
        given = _waiting(options)
        with self.stream(prompt, special=special, on_prompt=on_prompt, **given) as stream:
            return stream.output("".join([piece async for piece in stream]))

    @takes_options
    def chat_stream(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        tools: Iterable[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        thinking: bool = False,
        response_format: Mapping[str, Any] | None = None,
        template: str | None = None,
        continue_final_message: bool | None = None,
        add_generation_prompt: bool | None = None,
        max_tokens: int | None = None,
        stop: str | bytes | Sequence[str | bytes] | None = (),
        on_prompt: OnPrompt | None = None,
        **options: Unpack[TokenOptions],
    ) -> ReplyStream:
        """Like :meth:`chat`, but gives pieces of thoughts, answer and calls as they become
        certain. ``reply`` is what has been read so far."""
        declared = prepared_tools(None if tool_choice == "none" else tools)
        functions = required_functions(tool_choice, declared)
        _, ids = self.chat_prompt(
            messages,
            tools=declared,
            thinking=thinking,
            template=template,
            continue_final_message=continue_final_message,
            add_generation_prompt=add_generation_prompt,
        )
        tokenizer = self._engine.tokenizer
        stops = [utf8_text(s) for s in stop_strings(stop)]
        names = [declaration["function"]["name"] for declaration in declared]
        parser = _core.ReplyParser(tokenizer, ids, stops, names)
        given = {name: value for name, value in options.items() if value is not None}
        if "seed" in options:  # where None means something
            given["seed"] = options["seed"]
        all_options = cast(GenerationOptions, {**self.sampling, **given, "max_tokens": max_tokens})
        params = self._params_of(all_options, schema_of(response_format))
        if functions is not None:
            params.constraint = _core.call_constraint(tokenizer, ids, functions, thinking)
        elif params.constraint is not None:
            params.constraint = _core.reply_constraint(
                tokenizer, ids, params.constraint, thinking, bool(declared)
            )
        return ReplyStream(self._stream(ids, params, on_prompt), parser, tokenizer)

    @takes_options_of(chat_stream)
    def chat(self, messages: Iterable[Mapping[str, Any]], **options: Unpack[ChatOptions]) -> Reply:
        """Answers a conversation.

        Args:
            messages: dicts with "role" ("system", "user", "assistant", "tool") and "content", the
                latest last. ``reply.message`` is the next one. Whatever they say, they hold no
                control tokens. Further members: "tool_calls" of the assistant's, and "name" or
                "tool_call_id" of a tool's answer.
            options: see :class:`ChatOptions`.
        """
        with self.chat_stream(messages, **_waiting(options)) as stream:
            for _ in stream:
                pass
            return stream.reply

    @takes_options_of(chat_stream)
    async def achat(
        self, messages: Iterable[Mapping[str, Any]], **options: Unpack[ChatOptions]
    ) -> Reply:
        """:meth:`chat` beside other tasks; cancelling the task stops the work."""
        with self.chat_stream(messages, **_waiting(options)) as stream:
            async for _ in stream:
                pass
            return stream.reply

    def session(self) -> Session:
        """An empty :class:`Session`: a text to append to and to generate at, again and again."""
        return self._session(_core.Session(self._engine))

    def restore(self, path: str | os.PathLike[str]) -> Session:
        """The session that :meth:`Session.save` has put into a file. Raises FileError for a damaged
        file, ModelError for another model's, ContextError for one longer than the context."""
        return self._session(_core.Session.restore(self._engine, checked_path("file", path)))

    def _session(self, native: _core.Session) -> Session:
        return self._keep(Session(native, self._ids_of, self._params_of, self._keep))

    def chat_prompt(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        tools: Iterable[Mapping[str, Any]] | None = None,
        thinking: bool = False,
        template: str | None = None,
        continue_final_message: bool | None = None,
        add_generation_prompt: bool | None = None,
    ) -> tuple[str, list[int]]:
        """What :meth:`chat` lets the model continue: the text, and the tokens it is read as."""
        chats = self._chats if self._engine else None
        assert chats is not None
        return chats.prompt(
            messages, tools, thinking, template, continue_final_message, add_generation_prompt
        )

    def tokenize(self, text: str | bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """Ids of ``text``; see :meth:`Tokenizer.encode`."""
        return self._engine.tokenizer.encode(text, add_bos, special)

    def detokenize(self, ids: Iterable[int], special: bool = False) -> str:
        """Text of ``ids``; see :meth:`Tokenizer.decode`."""
        return self._engine.tokenizer.decode(id_list(ids), special)

    def logits(self, ids: Iterable[int]) -> np.ndarray:
        """The target's logits after each of ``ids``: float32 [len(ids), vocab]."""
        load_numpy()
        return self._engine.logits(id_list(ids))

    def score(self, ids: Iterable[int], first: int = 1) -> np.ndarray:
        """Natural log-probabilities of ``ids[first:]``, each given all that precedes it: float64
        [len(ids) - first]. At temperature 1, over the whole vocabulary.

        Memory does not grow with the vocabulary, as that of :meth:`logits` does.
        """
        load_numpy()
        return self._engine.score(id_list(ids), integer("first", first))

    def compare(self, reference: Model, ids: Iterable[int], first: int = 1) -> Comparison:
        """Scores ``ids[first:]`` with this model and with ``reference``, and says how far their
        next-token distributions are apart."""
        if not isinstance(reference, Model):
            raise ArgumentError(f"the reference is {shown(reference)}; it must be a Model")
        load_numpy()
        log_p, log_q, divergence, same_best = reference._engine.compare(
            self._engine, id_list(ids), integer("first", first)
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
        load_numpy()
        return self._engine.draft(id_list(ids), integer("k", k))

    @property
    def target(self) -> Path:
        """The file that was opened; of several parts, the first."""
        return self._target

    @property
    def has_drafter(self) -> bool:
        return self._engine.has_drafter

    @property
    def context(self) -> int:
        """Tokens a sequence can hold."""
        return self._engine.context

    @property
    def sampling(self) -> dict[str, float]:
        """Options that its makers recommend, by its file's keys ``general.sampling.*``: defaults of
        chats and of the server. A text is completed greedily all the same."""
        return self._engine.sampling

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

    def _ids_of(self, prompt: Prompt, special: bool = False, add_bos: bool = True) -> list[int]:
        boolean("special", special)
        if isinstance(prompt, (str, bytes)):
            ids = self.tokenize(prompt, add_bos, special)
            if not special:
                self._warn_of_control(prompt)
            return ids
        if not isinstance(prompt, Iterable):
            raise ArgumentError(f"the prompt is {shown(prompt)}; pass text or a list of token ids")
        return id_list(prompt)

    def _warn_of_control(self, text: str | bytes) -> None:
        if self._warned:
            return
        spelled = self._engine.tokenizer.spelled_control(text)
        if spelled:
            self._warned = True
            _warnings.warning(
                "the prompt spells the control token %s, which counts as text; if it is meant, "
                "set special (--special)",
                spelled,
            )


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
    """What Model(...) with these arguments takes, in bytes, from the files' headers alone. Model
    refuses what exceeds the memory, with these figures.

    ``weights``, ``kv`` (one sequence of ``context`` tokens) and ``scratch`` add up to ``needed``;
    ``tables`` are looked up by row in the file's pages, which come and go.
    """
    found, helper = _files(target, drafter)
    return _core.memory_estimate(
        found,
        helper,
        integer("context", context),
        integer("prefill_chunk", prefill_chunk),
        is_f16(kv_type),
    )


def _waiting(options: Given) -> Given:
    """Of what is run to its end without pause: it waits for room, unless it is not to."""
    if options.get("wait") is None:
        options["wait"] = True
    return options


def _files(target: Any, drafter: Any) -> tuple[Any, Any]:
    """Paths of what a caller calls target and drafter."""
    found = model_path(checked_path("target", target))
    if drafter is None:
        return found, None
    return found, drafter_path(checked_path("drafter", drafter), found, target)


def _opened(model: Model, target: Any, drafter: Any, kv_type: str, seconds: float) -> str:
    engine = model._engine
    read = engine.target_bytes / 1e6
    with_drafter = f" with {os.fsdecode(drafter)}" if drafter else ", no drafter"
    return (
        f"opened {os.fsdecode(target)}{with_drafter} in {seconds:.2f} s: {model.isa}, "
        f"{model.threads} threads, context {model.context}, K/V in {kv_type} (at most "
        f"{engine.kv_budget / 1e6:.0f} MB), {read:.0f} MB of weights a token"
    )
