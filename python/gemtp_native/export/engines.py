"""One function per engine, which converts a configuration to the engine's form."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath

from ..errors import ArgumentError
from .configuration import Configuration, Sampling, Source
from .depth import DEFAULT_ACCEPTANCE, Depth, depth_of
from .snippet import transformers_script


@dataclass(frozen=True)
class Note:
    """Something that the engine cannot express, or expresses differently."""

    key: str  # key in gemtp.json
    text: str


@dataclass(frozen=True)
class Export:
    """The exported form for an engine."""

    engine: str
    written_for: str  # the engine's version with these options
    draft: int | None  # drafts per round; None: the engine decides
    draft_source: str  # configuration, profile, default or engine
    command: tuple[str, ...] | None  # None: the text is a Python script
    text: str
    notes: tuple[Note, ...]


@dataclass
class _Draft:
    """An export that is being composed."""

    engine: str
    written_for: str
    depth: Depth
    words: list[list[str]] = field(default_factory=list)  # an option and its value form a line
    notes: list[Note] = field(default_factory=list)

    def add(self, *words: object) -> None:
        self.words.append([_number(w) if isinstance(w, float) else str(w) for w in words])

    def note(self, key: str, text: str) -> None:
        self.notes.append(Note(key, text))

    def finished(self, depth: int | None, source: str) -> Export:
        return Export(
            self.engine,
            self.written_for,
            depth,
            source,
            tuple(word for line in self.words for word in line),
            " \\\n  ".join(shlex.join(line) for line in self.words) + "\n",
            tuple(self.notes),
        )


def export(
    configuration: Configuration, engine: str, acceptance: float = DEFAULT_ACCEPTANCE
) -> Export:
    """Exports a configuration. engine: one of ENGINES. Raises ArgumentError if the configuration
    lacks something that the engine needs.

    acceptance: share of drafts that are right; with a saved profile it determines the depth for
    "auto".
    """
    if engine not in ENGINES:
        raise ArgumentError(f"the engine is {engine!r}; {', '.join(ENGINES)} are possible.")
    if not 0 <= acceptance <= 1:
        raise ArgumentError(f"acceptance is {acceptance:g}; it must be between 0 and 1.")
    written_for, write = ENGINES[engine]
    return write(configuration, _Draft(engine, written_for, depth_of(configuration, acceptance)))


# ---------------------------------------------------------------- the engines


def _gemtp(c: Configuration, out: _Draft) -> Export:
    out.add("gemtp", "generate", _gguf(c.target, "target", out))
    if c.drafter is not None:
        out.add("--drafter", _gguf(c.drafter, "drafter", out))
    out.add("--draft", c.draft)
    out.add("--context", c.context)
    if c.threads is not None:
        out.add("--threads", c.threads)
    out.add("--kv-type", c.kv_type)
    s = c.sampling
    out.add("--max-tokens", s.max_tokens)
    for name, value in _changed(s).items():
        out.add(f"--{name.replace('_', '-')}", value)
    return out.finished(*((None, "engine") if c.draft == "auto" else (c.draft, "configuration")))


def _vllm(c: Configuration, out: _Draft) -> Export:
    s = c.sampling
    out.add("vllm", "serve", _hub(c.target, "target", out))
    out.add("--max-model-len", c.context)
    out.add("--seed", s.seed)
    # Ignores the model's generation_config.json, so that options not given here are off.
    out.add("--generation-config", "vllm")
    default: dict[str, float] = {"temperature": s.temperature}
    known = ("top_k", "top_p", "min_p", "repetition_penalty")
    default |= _changed(s, *known)
    if c.drafter is not None and out.depth.value and default.pop("min_p", 0):
        out.note("sampling.min_p", "left out: vLLM refuses it together with a drafter")
    out.add("--override-generation-config", _json(default))
    if c.drafter is not None and out.depth.value:
        speculative = {
            "method": "mtp",
            "model": _hub(c.drafter, "drafter", out),
            "num_speculative_tokens": out.depth.value,
        }
        out.add("--speculative-config", _json(speculative))
    _note_depth(c, out)
    _note_gpu(c, out)
    for name in _unknown(s, *known):
        out.note(f"sampling.{name}", "vLLM has no default for it; send it with each request")
    _note_max_tokens(out)
    _note_seed(s, out)
    return out.finished(out.depth.value, out.depth.source)


def _sglang(c: Configuration, out: _Draft) -> Export:
    s = c.sampling
    out.add("sglang", "serve")
    out.add("--model-path", _hub(c.target, "target", out))
    out.add("--context-length", c.context)
    out.add("--random-seed", s.seed)
    if c.drafter is not None and out.depth.value:
        # A chain, not a tree: the verified rows are the pending token and the drafts.
        out.add("--speculative-algorithm", "NEXTN")
        out.add("--speculative-draft-model-path", _hub(c.drafter, "drafter", out))
        out.add("--speculative-num-steps", out.depth.value)
        out.add("--speculative-eagle-topk", 1)
        out.add("--speculative-num-draft-tokens", out.depth.value + 1)
    _note_depth(c, out)
    _note_gpu(c, out)
    values = {"temperature": s.temperature} | _changed(s)
    values.pop("seed", None)
    out.note(
        "sampling",
        "SGLang takes its defaults from the model's generation_config.json; send with each "
        f"request: {_json(values)}",
    )
    _note_max_tokens(out)
    _note_seed(s, out)
    return out.finished(out.depth.value, out.depth.source)


def _transformers(c: Configuration, out: _Draft) -> Export:
    s = c.sampling
    target = _hub(c.target, "target", out)
    depth = out.depth.value if c.drafter is not None else 0
    drafter = _hub(c.drafter, "drafter", out) if c.drafter is not None and depth else None
    script = transformers_script(target, drafter, depth, c.threads, s, out.written_for)
    _note_depth(c, out)
    out.note("context", "transformers reserves none; the cache grows with the text")
    _note_model_type(c, out)
    for name in _unknown(s, "top_k", "top_p", "min_p", "repetition_penalty"):
        out.note(f"sampling.{name}", "left out: transformers does not have it")
    _note_seed(s, out)
    return Export(
        out.engine, out.written_for, depth, out.depth.source, None, script, tuple(out.notes)
    )


def _llama_server(c: Configuration, out: _Draft) -> Export:
    s = c.sampling
    out.add("llama-server")
    out.add("--model", _gguf(c.target, "target", out))
    if c.drafter is not None and out.depth.value:
        out.add("--spec-type", "draft-mtp")
        out.add("--spec-draft-model", _gguf(c.drafter, "drafter", out))
        out.add("--spec-draft-n-max", out.depth.value)
    out.add("--ctx-size", c.context)
    out.add("--parallel", 1)  # slots share the context
    if c.threads is not None:
        out.add("--threads", c.threads)
    out.add("--cache-type-k", c.kv_type)
    out.add("--cache-type-v", c.kv_type)
    out.add("--predict", s.max_tokens)
    out.add("--samplers", "penalties;temperature;top_k;top_p;min_p")  # in gemtp's order
    out.add("--temp", s.temperature)
    out.add("--top-k", s.top_k)
    out.add("--top-p", s.top_p)
    out.add("--min-p", s.min_p)
    out.add("--seed", s.seed)
    penalties = {
        "repetition_penalty": "--repeat-penalty",
        "presence_penalty": "--presence-penalty",
        "frequency_penalty": "--frequency-penalty",
    }
    active = _changed(s, *penalties)
    for name, value in active.items():
        out.add(penalties[name], value)
    if active:
        out.add("--repeat-last-n", c.context)  # all tokens; the default is 64
    _note_depth(c, out)
    _note_seed(s, out)
    return out.finished(out.depth.value, out.depth.source)


def _litert_lm(c: Configuration, out: _Draft) -> Export:
    s = c.sampling
    file, repository = _bundle(c, out)
    out.add("litert-lm", "run")
    if repository is not None:
        out.add("--from-huggingface-repo", repository)
    out.add(file)
    out.add("--backend", "cpu")
    if c.threads is not None:
        out.add("--cpu-thread-count", c.threads)
    off = c.drafter is None or c.draft == 0
    out.add(
        "--enable-speculative-decoding",
        "false" if off else "auto" if c.draft == "auto" else "true",
    )
    out.add("--max-num-tokens", c.context)
    out.add("--temperature", s.temperature)
    if s.temperature == 0:
        out.add("--top-k", 1)  # greedy, whatever temperature 0 means there
    else:
        if s.top_k:
            out.add("--top-k", s.top_k)
        else:
            out.note("sampling.top_k", "LiteRT-LM cannot switch it off; the model's default holds")
        out.add("--top-p", s.top_p)
    out.add("--seed", s.seed)
    if not off and c.draft != "auto":
        out.note("draft", f"LiteRT-LM decides how many tokens to draft; {c.draft} is not passed on")
    if c.drafter is not None:
        out.note("drafter", "LiteRT-LM uses the drafter inside of the .litertlm file")
    out.note("kv_type", "LiteRT-LM decides the type of the K/V cache")
    for name in _unknown(s, "top_k", "top_p"):
        out.note(f"sampling.{name}", "left out: litert-lm run does not have it")
    out.note("sampling.max_tokens", "left out: litert-lm run does not have it")
    _note_seed(s, out)
    return out.finished(*((0, "configuration") if off else (None, "engine")))


# engine: (the version whose options are used, the function that exports for it)
ENGINES: dict[str, tuple[str, Callable[[Configuration, _Draft], Export]]] = {
    "vllm": ("vLLM 0.21 and later", _vllm),
    "sglang": ("SGLang main of August 2026", _sglang),
    "transformers": ("transformers 5.22.2", _transformers),
    "llama-server": ("llama.cpp build 11434", _llama_server),
    "litert-lm": ("LiteRT-LM 0.16", _litert_lm),
    "gemtp": ("this gemtp", _gemtp),
}


# ---------------------------------------------------------------- what they share


def _hub(source: Source, name: str, out: _Draft) -> str:
    if source.hub is None:
        raise ArgumentError(
            f"{out.engine} reads Hugging Face checkpoints, but {name}.hub is missing; add the id "
            f"or the folder to gemtp.json."
        )
    return source.hub


def _gguf(source: Source, name: str, out: _Draft) -> str:
    if source.gguf is None:
        raise ArgumentError(
            f"{out.engine} reads GGUF files, but {name}.gguf is missing; add the path to "
            f"gemtp.json (gemtp convert makes such a file)."
        )
    return _file(source.gguf)


def _file(path: str) -> str:
    """Returns the path in a form that does not look like an option."""
    return f"./{path}" if path.startswith("-") else path


def _bundle(c: Configuration, out: _Draft) -> tuple[str, str | None]:
    """Returns (a .litertlm file, its repository or None)."""
    if c.target.litertlm is not None:
        return _file(c.target.litertlm), None
    if c.target.hub is None:
        raise ArgumentError(
            "litert-lm reads .litertlm files, but neither target.litertlm nor target.hub is there; "
            "add one of them to gemtp.json."
        )
    model = PurePath(c.target.hub).name
    repository = f"litert-community/{model}-litert-lm"
    if model not in _BUNDLES:
        out.note("target.hub", f"whether {repository} exists is not known; see target.litertlm")
    return f"{model}.litertlm", repository


_BUNDLES = ("gemma-4-E2B-it", "gemma-4-E4B-it")  # named in LiteRT-LM's documentation

_OFF = Sampling()


def _changed(s: Sampling, *names: str) -> dict[str, float]:
    """Returns those of these parameters (default: all but max_tokens) that are not off."""
    chosen = names or tuple(name for name in vars(_OFF) if name != "max_tokens")
    return {n: getattr(s, n) for n in chosen if getattr(s, n) != getattr(_OFF, n)}


def _unknown(s: Sampling, *names: str) -> list[str]:
    """Returns parameters that are not off and not among `names`, which the engine supports."""
    return [name for name in _changed(s) if name not in ("temperature", "seed", *names)]


def _note_depth(c: Configuration, out: _Draft) -> None:
    if c.draft != "auto":
        return
    if c.drafter is None:
        out.note("draft", 'without a drafter "auto" looks drafts up in the text; left out')
    else:
        out.note(
            "draft",
            f'"auto" changes with every round in gemtp; here it is {out.depth.reason}',
        )


def _note_gpu(c: Configuration, out: _Draft) -> None:
    if c.threads is not None:
        out.note("threads", "a GPU does the work; not passed on")
    _note_model_type(c, out)


def _note_model_type(c: Configuration, out: _Draft) -> None:
    out.note("kv_type", f"K/V has the type of the checkpoint's weights, not {c.kv_type}")


def _note_max_tokens(out: _Draft) -> None:
    out.note("sampling.max_tokens", "send it with each request (max_tokens)")


def _note_seed(s: Sampling, out: _Draft) -> None:
    if s.temperature > 0:
        out.note("sampling.seed", "other random numbers: the same seed gives another text there")


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _json(values: dict[str, object] | dict[str, float]) -> str:
    plain = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in values.items()}
    return json.dumps(plain)
