"""The Python interface of the native core: Model, and functions that need no open model."""

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
    CONTEXTS,
    KV_BUDGETS,
    PREFILL_CHUNKS,
    Prompt,
    boolean,
    callback,
    checked_path,
    device_name,
    generation_params,
    gpu_layer_count,
    id_list,
    integer,
    is_f16,
    load_numpy,
    shown,
    stop_strings,
    thread_count,
    utf8_text,
)
from .base.counted import counted
from .base.log import logger
from .chat.messages import prepared_tools
from .chat.prompt import Chats, start_early
from .chat.reply import Reply, ReplyStream
from .chat.tool_choice import CallRules, required_functions
from .errors import ArgumentError
from .find import DEMO, drafter_path, model_path
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
from .tokenizer import Tokenizer, decoded, encoded, note_control

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
    """The scores of the same tokens by two models: arrays with one entry per scored token.
    Logarithms are natural."""

    log_probs: np.ndarray
    """Log-probabilities of the given tokens by the model: float64."""
    reference_log_probs: np.ndarray
    """Log-probabilities by the reference: float64."""
    divergence: np.ndarray
    """KL(P || Q) in nats, where P is the reference's next-token distribution and Q the model's:
    float64."""
    same_best: np.ndarray
    """Whether the same token is the likeliest for both: bool."""


class Model:
    """A Gemma 4 target and, optionally, its drafter, opened from GGUF files.

    Args:
        target: path of the target's GGUF file, of any of its parts, or of a folder that contains
            it; or a name: "hf:owner/name:Q4_0" (downloaded if missing), "ollama:name:tag",
            "lmstudio:publisher/name", or "demo", the pair shipped with the package.
        drafter: the same for the drafter; "auto" uses a drafter that fits from beside the target or
            from the hub; None decodes without a drafter.
        threads: number of threads; None takes as many as help on this machine.
        context: tokens that a sequence can hold, prompt and answer together; at most the model's
            own context length.
        kv_type: "f16" or "f32", the type of stored keys and values.
        prefill_chunk: rows of one prefill pass; changes only memory and speed, never the result.
        mmap: False reads the embedding tables into memory. By default a token's rows are read from
            the file, which must then not change while the model is open (otherwise FileError).
            Nothing is mapped either way.
        kv_budget: bytes for the keys and values of all sequences, both in use and kept for later
            prompts that begin alike; None: half of the free memory, but at most 16 full contexts.
            The option ``wait`` decides what happens when it is used up.
        profile: False ignores the profile that `gemtp tune` has saved for these files and threads
            and from which draft="auto" starts. A profile that does not fit is ignored with a
            warning through the logger "gemtp_native". Profiles never change the text.
        progress: called while a GPU is tested, with 0, and while weights are loaded, with the
            fraction that is done, from 0 to 1; if it returns False, opening ends with
            CancelledError.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", "metal" (Apple's GPU), "emulated" (a
            GPU that is imitated on the CPU to test the GPU kernels; very slow) or "auto": a GPU if
            there is one on which the model fits, else the CPU. It never changes the text: a GPU
            first proves that it gives the CPU's bytes, or is refused with DeviceError ("auto":
            left, with a warning). None: the environment variable GEMTP_DEVICE, or "auto" if that
            is not set.
        gpu_layers: how many layers, the last ones, lie on a GPU, with their keys and values, or
            "auto": as many as fit, else their experts on the CPU. The head and the drafter lie
            there in any case. It never changes the text. None: the environment variable
            GEMTP_GPU_LAYERS, or "auto" if that is not set.

    Raises FileError for a damaged file, ModelError for files that do not fit together, and
    OutOfMemoryError, before loading anything, for a model that does not fit into memory;
    DeviceError for a GPU that fails, as every call does from then on. The
    environment variable GEMTP_ISA selects the instruction set ("scalar", "avx2", ...).
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
        device: str | None = None,
        gpu_layers: int | Literal["auto"] | None = None,
    ):
        found, helper = _files(target, drafter)
        start_early(found)
        start = time.monotonic()
        self._open_engine: _core.Engine | None = _core.Engine(
            found,
            helper,
            thread_count(threads),
            integer("context", context, *CONTEXTS),
            integer("prefill_chunk", prefill_chunk, *PREFILL_CHUNKS),
            is_f16(kv_type),
            boolean("mmap", mmap),
            "",
            0 if kv_budget is None else integer("kv_budget", kv_budget, *KV_BUDGETS),
            callback("progress", progress),
            device_name(device),
            gpu_layer_count(gpu_layers),
        )
        self._target = Path(os.fsdecode(found))
        self._chats: Chats | None = Chats(self._engine, os.fspath(found))
        self._grammars = Grammars()
        self._warned = False  # about control tokens in a prompt
        self._streams: weakref.WeakSet[TextStream | Session] = weakref.WeakSet()
        _log.info("%s", _opened(self, found, helper, kv_type, time.monotonic() - start))
        given = gpu_layer_count(gpu_layers) or os.environ.get("GEMTP_GPU_LAYERS", "")
        if self.device != "cpu" and given.isdecimal() and int(given) > self.gpu_layers:
            layers = counted(self.gpu_layers, "layer")
            _warnings.warning(
                "gpu_layers is %s; the model has %s, which are all there", given, layers
            )
        device = "the CPU" if self.device == "cpu" else self.device
        for why in self._engine.refused_gpus:
            _warnings.warning("the device is %s, for %s", device, why)
        if boolean("profile", profile) and use_profile(self._engine, found, helper, kv_type):
            _log.info("depth control starts from a saved profile")

    @property
    def _engine(self) -> _core.Engine:
        if self._open_engine is None:
            raise ArgumentError("the model is closed; open it again")
        return self._open_engine

    def close(self) -> None:
        """Frees the memory. Running streams end, those on other threads with CancelledError;
        sessions are closed, and any further use raises ArgumentError."""
        self._open_engine = None
        self._chats = None
        self._grammars = Grammars()
        while self._streams:
            with contextlib.suppress(KeyError, ArgumentError):  # lost by a fork
                self._streams.pop().close()

    def __repr__(self) -> str:
        if self._open_engine is None:
            return f"<closed Model of {self._target.name}>"
        helper = "with a drafter" if self.has_drafter else "no drafter"
        return (
            f"<Model of {self._target.name}: {helper}, context {self.context}, "
            f"{self.device}, {counted(self.threads, 'thread')}>"
        )

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep(self, stream: S) -> S:
        """Registers a stream or session to be ended with the model."""
        self._streams.add(stream)
        return stream

    def clear_cache(self) -> None:
        """Drops the keys and values of finished generations."""
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
            special: text that spells control tokens becomes these tokens, as in :meth:`tokenize`;
                do not use it for untrusted text. If it is off and the text spells a control token,
                a warning is logged once per model.
            on_prompt: called while the prompt is processed, with the number of tokens done and the
            total. options: see :class:`GenerationOptions`.
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
        """Like :meth:`generate`, but yields pieces of text as they are generated."""
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

    def _check_options(self, options: Mapping[str, Any]) -> None:
        """Raises ArgumentError for options with which this model generates nothing."""
        params = self._params_of(cast(GenerationOptions, options))
        params.set("max_tokens", 0)  # so that nothing is run
        _core.Generation(self._engine, [0], params)

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
        """:meth:`generate` for asyncio; cancelling the task stops the work."""
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
        thinking: bool | None = False,
        response_format: Mapping[str, Any] | None = None,
        template: str | None = None,
        continue_final_message: bool | None = None,
        add_generation_prompt: bool | None = None,
        max_tokens: int | None = None,
        stop: str | bytes | Sequence[str | bytes] | None = (),
        on_prompt: OnPrompt | None = None,
        **options: Unpack[TokenOptions],
    ) -> ReplyStream:
        """Like :meth:`chat`, but yields pieces of thoughts, answer and calls as they are generated.
        ``reply`` is the reply so far."""
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
        given = {name: value for name, value in options.items() if value is not None}
        if "seed" in options:  # None is a value of its own
            given["seed"] = options["seed"]
        all_options = cast(GenerationOptions, {**self.sampling, **given, "max_tokens": max_tokens})
        params = self._params_of(all_options, schema_of(response_format))
        rules = CallRules(self._engine, self._grammars, declared, functions)
        parser = _core.ReplyParser(tokenizer, ids, stops, names, rules.masked)
        params.constraint = rules.constraint(ids, params.constraint, bool(thinking))
        stream = self._stream(ids, params, on_prompt)
        return ReplyStream(stream, parser, tokenizer, rules.follows)

    @takes_options_of(chat_stream)
    def chat(self, messages: Iterable[Mapping[str, Any]], **options: Unpack[ChatOptions]) -> Reply:
        """Answers a conversation.

        Args:
            messages: dicts with "role" ("system", "user", "assistant", "tool") and "content", the
                latest last; ``reply.message`` is the next one. Their text never becomes control
                tokens. Other members: "tool_calls" in messages of the assistant, and "name" or
                "tool_call_id" in answers of tools.
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
        """:meth:`chat` for asyncio; cancelling the task stops the work."""
        with self.chat_stream(messages, **_waiting(options)) as stream:
            async for _ in stream:
                pass
            return stream.reply

    def session(self) -> Session:
        """Returns an empty :class:`Session`, a text that can be extended and continued
        repeatedly."""
        return self._session(_core.Session(self._engine))

    def restore(self, path: str | os.PathLike[str]) -> Session:
        """Restores a session that :meth:`Session.save` has saved. Raises FileError for a damaged
        file, ModelError for a file of another model, and ContextError if the session exceeds the
        context."""
        return self._session(_core.Session.restore(self._engine, checked_path("file", path)))

    def _session(self, native: _core.Session) -> Session:
        return self._keep(Session(native, self._ids_of, self._params_of, self._keep))

    def chat_prompt(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        tools: Iterable[Mapping[str, Any]] | None = None,
        thinking: bool | None = False,
        template: str | None = None,
        continue_final_message: bool | None = None,
        add_generation_prompt: bool | None = None,
    ) -> tuple[str, list[int]]:
        """Returns the prompt of :meth:`chat` as text and as token ids."""
        chats = self._chats if self._engine else None
        assert chats is not None
        return chats.prompt(
            messages, tools, thinking, template, continue_final_message, add_generation_prompt
        )

    def tokenize(self, text: str | bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """Returns the ids of ``text``; see :meth:`Tokenizer.encode`."""
        return encoded(self._engine.tokenizer, text, add_bos, special)

    def detokenize(self, ids: Iterable[int], special: bool = False) -> str:
        """Returns the text of ``ids``; see :meth:`Tokenizer.decode`."""
        return decoded(self._engine.tokenizer, ids, special)

    def logits(self, ids: Iterable[int]) -> np.ndarray:
        """Returns the target's logits after each of ``ids``: float32 [len(ids), vocab]."""
        load_numpy()
        return self._engine.logits(id_list(ids))

    def score(self, ids: Iterable[int], first: int = 1) -> np.ndarray:
        """Returns natural log-probabilities of ``ids[first:]``, each given all preceding tokens, at
        temperature 1 and over the whole vocabulary: float64 [len(ids) - first].

        Unlike :meth:`logits`, it needs no memory for all logits at once.
        """
        load_numpy()
        return self._engine.score(id_list(ids), integer("first", first))

    def compare(self, reference: Model, ids: Iterable[int], first: int = 1) -> Comparison:
        """Scores ``ids[first:]`` with this model and with ``reference``, and compares their
        next-token distributions."""
        if not isinstance(reference, Model):
            raise ArgumentError(f"the reference is {shown(reference)}; it must be a Model")
        load_numpy()
        log_p, log_q, divergence, same_best = reference._engine.compare(
            self._engine, id_list(ids), integer("first", first)
        )
        return Comparison(log_q, log_p, divergence, same_best.astype(bool))

    def draft(self, ids: Iterable[int], k: int) -> list[int]:
        """Returns the k tokens that the drafter proposes greedily after ``ids``.

        ``ids[-1]`` is the pending token of a draft-verify round, so at least two are needed.
        """
        return self.draft_trace(ids, k)[0]

    def draft_trace(self, ids: Iterable[int], k: int) -> tuple[list[int], np.ndarray, np.ndarray]:
        """:meth:`draft` with the drafter's outputs at each step: its logits, float32 [k, vocab]
        (-inf for tokens that are no candidates of an ordered head), and the hidden state that it
        passes to the next step, float32 [k, hidden of the target]."""
        load_numpy()
        return self._engine.draft(id_list(ids), integer("k", k))

    @property
    def target(self) -> Path:
        """The opened file; the first one if there are several parts."""
        return self._target

    @property
    def has_drafter(self) -> bool:
        return self._engine.has_drafter

    @property
    def context(self) -> int:
        """Number of tokens that a sequence can hold."""
        return self._engine.context

    @property
    def completes(self) -> bool:
        """Whether the model was made to go on with texts and not to answer messages: its file has
        no chat template, or says so itself (the key ``gemtp.completes``)."""
        return self._engine.completes

    @property
    def sampling(self) -> dict[str, float]:
        """Sampling options that the model's makers recommend (the file's keys
        ``general.sampling.*``): the defaults of chats and of the server. Text completion is greedy
        by default all the same."""
        return self._engine.sampling

    @property
    def vocab_size(self) -> int:
        return self._engine.vocab_size

    @property
    def threads(self) -> int:
        return self._engine.threads

    @property
    def device(self) -> str:
        """The device in use, e.g. "cpu"."""
        return self._engine.device

    @property
    def gpu_layers(self) -> int:
        """The number of layers on a GPU; 0 on the CPU."""
        return self._engine.gpu_layers

    @property
    def isa(self) -> str:
        """The instruction set in use, e.g. "avx2"."""
        return self._engine.isa

    def _ids_of(self, prompt: Prompt, special: bool = False, add_bos: bool = True) -> list[int]:
        boolean("special", special)  # of ids, too
        if isinstance(prompt, (str, bytes)):
            ids = self.tokenize(prompt, add_bos, special)
            if not special and not self._warned:
                self._warned = note_control(self._engine.tokenizer, prompt)
            return ids
        if not isinstance(prompt, Iterable):
            raise ArgumentError(f"the prompt is {shown(prompt)}; pass text or a list of token ids")
        return id_list(prompt)


def demo_models() -> tuple[Path, Path]:
    """Returns the paths of the small target and drafter shipped with the package, which
    ``Model("demo", drafter="demo")`` opens; they complete Python code."""
    target, drafter = (model_path(DEMO, role) for role in ("target", "drafter"))
    return Path(os.fsdecode(target)), Path(os.fsdecode(drafter))


def system_info() -> dict[str, Any]:
    """Describes the build and the machine: isa (in use), isas (available), threads, device (on
    which models open by default; "auto": a GPU or the CPU, as the model fits), backends (the
    available devices, without GPUs, which are not looked for), cuda_kernels (whether this build
    has those for NVIDIA's GPUs), version."""
    return {
        "version": __version__,
        "isa": _core.selected_isa(),
        "isas": _core.isas(),
        "threads": _core.default_threads(),
        "device": _core.select_device(),
        "backends": [name for name, _ in _core.devices()],
        "cuda_kernels": _core.has_cuda_kernels(),
    }


def memory_estimate(
    target: str | os.PathLike[str],
    drafter: str | os.PathLike[str] | None = None,
    context: int = 4096,
    kv_type: Literal["f16", "f32"] = "f16",
    prefill_chunk: int = 512,
) -> dict[str, int]:
    """Returns the memory in bytes that Model(...) with these arguments takes, estimated from the
    headers of the files. Model raises an error with these figures if they exceed the memory.

    ``weights``, ``kv`` (one sequence of ``context`` tokens) and ``scratch`` add up to ``needed``;
    rows of ``tables`` are read from the file.
    """
    found, helper = _files(target, drafter)
    return _core.memory_estimate(
        found,
        helper,
        integer("context", context, *CONTEXTS),
        integer("prefill_chunk", prefill_chunk, *PREFILL_CHUNKS),
        is_f16(kv_type),
    )


def _waiting(options: Given) -> Given:
    """Sets the default of ``wait`` for calls that run to the end without pause: they wait for K/V
    memory."""
    if options.get("wait") is None:
        options["wait"] = True
    return options


def _files(target: Any, drafter: Any) -> tuple[Any, Any]:
    """Resolves a caller's target and drafter to paths."""
    found = model_path(checked_path("target", target))
    if drafter is None:
        return found, None
    return found, drafter_path(checked_path("drafter", drafter), found, target)


def _opened(model: Model, target: Any, drafter: Any, kv_type: str, seconds: float) -> str:
    engine = model._engine
    read = engine.target_bytes / 1e6
    with_drafter = f" with {os.fsdecode(drafter)}" if drafter else ", no drafter"
    device = model.device
    if device != "cpu":
        device += f", {counted(model.gpu_layers, 'layer')} there"
    if engine.cpu_experts:
        device += f", experts of {engine.cpu_experts} on the CPU"
    return (
        f"opened {os.fsdecode(target)}{with_drafter} in {seconds:.2f} s: {device}, "
        f"{model.isa}, {counted(model.threads, 'thread')}, context {model.context}, "
        f"K/V in {kv_type} (at most {engine.kv_budget / 1e6:.0f} MB), "
        f"{read:.0f} MB of weights a token"
    )
