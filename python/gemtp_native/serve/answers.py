"""Answers in the protocol's shapes: chunks of a stream, or the whole."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from typing import Any

from ..results import Stats
from .job import Begun, Ended, Event, Primed, PromptDone, Round, Shown
from .requests import Work
from .tokens import TokenTexts

_FINISH = {"context": "length"}  # other reasons have the same names here
_NAMES = {"grammar_accepted": "grammar_forced"}  # of figures; others have the same names
# Figures that are part of usage and timings, or not for clients.
_TOLD = (
    "drafted", "accepted", "grammar_drafted", "prompt_tokens", "cached_tokens", "prompt_seconds",
    "tokens", "decode_seconds", "tokens_per_second", "seed", "device",
    "exact", "depth",
)  # fmt: skip


@dataclass
class _Choice:
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[Shown] = field(default_factory=list)
    tokens: list[dict[str, Any]] = field(default_factory=list)
    characters: int = 0
    reasoning_tokens: int = 0
    begun: bool = False
    end: Ended | None = None


class Answer:
    """Takes events in order and makes the chunks or the whole answer to be sent."""

    def __init__(self, work: Work, model_name: str, texts: TokenTexts):
        self._work = work
        self._texts = texts
        self._choices = [_Choice() for _ in work.jobs]
        self._left = len(work.jobs)
        prefix = "chatcmpl" if work.chat else "cmpl"
        kind = "chat.completion" if work.chat else "text_completion"
        self._head = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "object": kind + (".chunk" if work.chat and work.stream else ""),
            "created": int(time.time()),
            "model": model_name,
        }

    @property
    def complete(self) -> bool:
        return self._left == 0

    def take(self, event: Event) -> list[dict[str, Any]]:
        """Takes an event and returns its chunks."""
        choice = self._choices[event.index]
        if isinstance(event, Begun):
            choice.begun = True
            if self._work.chat:
                return [self._chunk(event.index, {"role": "assistant", "content": ""})]
            return []
        if isinstance(event, Primed):
            return []
        if isinstance(event, PromptDone):
            progress = {"done": event.done, "total": event.total}
            return [self._with({"choices": [], "gemtp": {"prompt": progress}})]
        if isinstance(event, Round):
            return self._round(choice, event)
        choice.end = event
        self._left -= 1
        chunks = [self._chunk(event.index, {}, finish=self._finish(choice))]
        if self.complete:
            if self._work.include_usage:
                chunks.append({**self._head, "choices": [], "usage": self.usage()})
            chunks[-1] |= self._timings()
        return chunks

    def whole(self) -> dict[str, Any]:
        """The whole answer, once it is complete and if it is not streamed."""
        choices = [self._whole_choice(i, c) for i, c in enumerate(self._choices)]
        return {**self._head, "choices": choices, "usage": self.usage(), **self._timings()}

    # ---------------------------------------------------------------- rounds

    def _round(self, choice: _Choice, event: Round) -> list[dict[str, Any]]:
        content = "".join(t.content for t in event.tokens)
        reasoning = "".join(t.reasoning for t in event.tokens)
        calls = [
            {
                "index": len(choice.calls) + i,
                "id": f"call_{secrets.token_hex(12)}",
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": json.dumps(call.arguments, ensure_ascii=False),
                },
            }
            for i, call in enumerate(c for t in event.tokens for c in t.calls)
        ]
        counted = [t for t in event.tokens if t.kind == "content"]
        choice.reasoning_tokens += sum(t.kind == "reasoning" for t in event.tokens)
        choice.calls += calls
        logprobs = None
        if self._work.logprobs is not None and counted:
            logprobs = self._logprobs(counted, choice.characters)
        choice.characters += len(content)
        returned = self._work.return_tokens and event.round > 0
        if not self._work.stream:
            choice.content.append(content)
            choice.reasoning.append(reasoning)
            if self._work.logprobs is not None:
                choice.logprobs += counted
            if returned:
                choice.tokens += self._tokens(event.tokens)
            return []
        delta: dict[str, Any] = {}
        if reasoning:
            delta["reasoning_content"] = reasoning
        if content or logprobs:
            delta["content"] = content
        if calls:
            delta["tool_calls"] = calls
        if not delta and not returned:
            return []
        chunk = self._chunk(event.index, delta, logprobs)
        if returned:
            chunk["gemtp"] = {
                "tokens": self._tokens(event.tokens),
                "round": event.round,
                "drafted": event.drafted,
                "t": round(event.seconds, 6),
            }
        return [chunk]

    def _tokens(self, tokens: list[Shown]) -> list[dict[str, Any]]:
        return [
            {
                "id": t.token.id,
                "text": t.text,
                "source": t.token.source,
                "step": t.step,
                **({"kind": t.kind} if self._work.chat else {}),
            }
            for t in tokens
        ]

    def _logprobs(self, tokens: list[Shown], offset: int) -> dict[str, Any]:
        plain = [t.token for t in tokens]
        if self._work.chat:
            return {"content": self._texts.chat(plain), "refusal": None}
        return self._texts.completion(plain, offset, self._work.logprobs or 0)

    # ---------------------------------------------------------------- shapes

    def _with(self, members: dict[str, Any]) -> dict[str, Any]:
        usage = {"usage": None} if self._work.include_usage else {}
        return {**self._head, **members, **usage}

    def _chunk(
        self, index: int, delta: dict[str, Any], logprobs: Any = None, finish: str | None = None
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index}
        if self._work.chat:
            choice["delta"] = delta
        else:
            choice["text"] = delta.get("content", "")
        choice |= {"logprobs": logprobs, "finish_reason": finish}
        return self._with({"choices": [choice]})

    def _finish(self, choice: _Choice) -> str:
        assert choice.end
        return _FINISH.get(choice.end.finish_reason, choice.end.finish_reason)

    def _whole_choice(self, index: int, choice: _Choice) -> dict[str, Any]:
        content = "".join(choice.content)
        out: dict[str, Any] = {"index": index}
        if self._work.chat:
            message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
            if reasoning := "".join(choice.reasoning):
                message["reasoning_content"] = reasoning
            if choice.calls:
                message["tool_calls"] = [
                    {k: v for k, v in call.items() if k != "index"} for call in choice.calls
                ]
                message["content"] = content or None
            out["message"] = message
        else:
            out["text"] = content
        out["logprobs"] = (
            None if self._work.logprobs is None else self._logprobs(choice.logprobs, 0)
        )
        out["finish_reason"] = self._finish(choice)
        if self._work.return_tokens:
            out["gemtp"] = {"tokens": choice.tokens}
        return out

    # ---------------------------------------------------------------- figures

    def usage(self) -> dict[str, Any]:
        """The usage. A prompt counts once, however many answers it gets."""
        ends = [c.end for c in self._choices if c.end]
        firsts = ends[:: self._work.choices_per_prompt]
        prompt = sum(e.stats.prompt_tokens for e in firsts)
        tokens = sum(e.stats.tokens for e in ends)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": tokens,
            "total_tokens": prompt + tokens,
            "prompt_tokens_details": {"cached_tokens": sum(e.stats.cached_tokens for e in firsts)},
            "completion_tokens_details": {
                "reasoning_tokens": sum(c.reasoning_tokens for c in self._choices)
            },
        }

    def _timings(self) -> dict[str, Any]:
        """Timings with the names of llama-server. Of several sequences, counts are summed and times
        are those of the longest."""
        ends = [c.end for c in self._choices if c.end]
        stats = [e.stats for e in ends]
        cached = sum(s.cached_tokens for s in stats)
        prompt_n = sum(s.prompt_tokens for s in stats) - cached
        prompt_ms = 1000 * max(s.prompt_seconds for s in stats)
        predicted_n = sum(s.tokens for s in stats)
        predicted_ms = 1000 * max(s.decode_seconds for s in stats)
        timings = {
            "cache_n": cached,
            "prompt_n": prompt_n,
            "prompt_ms": prompt_ms,
            "prompt_per_token_ms": prompt_ms / prompt_n if prompt_n else 0.0,
            "prompt_per_second": 1000 * prompt_n / prompt_ms if prompt_ms else 0.0,
            "predicted_n": predicted_n,
            "predicted_ms": predicted_ms,
            "predicted_per_token_ms": predicted_ms / predicted_n if predicted_n else 0.0,
            "predicted_per_second": 1000 * predicted_n / predicted_ms if predicted_ms else 0.0,
            "draft_n": sum(s.drafted for s in stats),
            "draft_n_accepted": sum(s.accepted for s in stats),
        }
        more = {
            _NAMES.get(f.name, f.name): _together([getattr(s, f.name) for s in stats])
            for f in fields(Stats)
            if f.name not in _TOLD
        }
        more["seed"] = ends[0].seed
        more["device"], more["exact"] = stats[0].device, stats[0].exact
        return {"timings": timings, "gemtp_stats": more}


def _together(values: list[Any]) -> Any:
    """Sums numbers; sums lists element by element."""
    if not isinstance(values[0], list):
        return sum(values)
    return [sum(at) for at in zip_longest(*values, fillvalue=0)]
