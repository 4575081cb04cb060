"""The job of generating one sequence, on a worker thread that reports to the request's channel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from ..base.log import logger
from ..chat.reply import ReplyPiece, ReplyStream, ToolCall
from ..errors import CancelledError, OutOfMemoryError
from .channel import Channel, Closed
from .errors import as_request_error

if TYPE_CHECKING:
    from ..model import Model, Stats, TextStream, Token

_log = logger("serve")


@dataclass(frozen=True)
class Shown:
    """A token, and the text that it completes."""

    token: Token
    kind: str
    """"content", "reasoning", "tool" or "control"."""
    content: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    step: int = 0
    """Index among the drafts of its round, from 1; 0: the target's own token."""

    @property
    def text(self) -> str:
        return self.reasoning + self.content or (self.token.text if self.kind == "tool" else "")


@dataclass(frozen=True)
class Begun:
    """Generation has begun; all errors in the request have been reported before."""

    index: int


@dataclass(frozen=True)
class Primed:
    """The keys and values of the prompt can be reused by waiting jobs with the same prompt."""

    index: int


@dataclass(frozen=True)
class PromptDone:
    index: int
    done: int
    total: int


@dataclass(frozen=True)
class Round:
    index: int
    tokens: list[Shown]
    round: int
    """From 1; 0: tokens of the prompt."""
    drafted: int
    """Number of tokens proposed in the round."""
    seconds: float
    """Time since the computation of the sequence began."""


@dataclass(frozen=True)
class Ended:
    index: int
    finish_reason: str
    stats: Stats
    seed: int
    queue_seconds: float
    first_seconds: float | None
    """Time from the beginning of the computation to the first token."""


Event = Begun | Primed | PromptDone | Round | Ended
OnPrompt = Callable[[int, int], None]


class Prompt(Protocol):
    """A prompt to be continued."""

    @property
    def characters(self) -> int:
        """A lower bound on the number of characters."""

    def ids(self, model: Model) -> list[int]: ...

    def shown(self, model: Model, cancelled: Callable[[], bool]) -> list[Token]:
        """Tokens of the prompt that the answer begins with."""

    def start(
        self, model: Model, seed: int, on_prompt: OnPrompt | None
    ) -> TextStream | ReplyStream: ...


@dataclass
class Job:
    index: int
    seed: int
    prompt: Prompt
    leader: int | None = None
    """The index of the sequence that runs the same prompt first; its own index if others wait for
    it."""
    copies: int = 0
    """Number of copies of the prompt's keys and values to be made for other jobs."""
    show_prompt: bool = False
    one_call: bool = False
    """End after the first call of a tool."""
    arrived: float = field(default_factory=time.perf_counter)
    _stream: TextStream | ReplyStream | None = None
    _cancelled: bool = False
    stats: Stats | None = None
    """Set when the job has ended in any way; None again when they have been counted."""

    def cancel(self) -> None:
        """Cancels the job. Any thread may call it."""
        self._cancelled = True
        stream = self._stream
        if stream is not None:
            stream.cancel()

    def run(self, model: Model, channel: Channel[Event]) -> None:
        """Runs the job to its end, in a worker thread. Errors end the channel."""
        try:
            self._run(model, channel)
        except Closed:
            pass
        except Exception as e:
            if not (self._cancelled and isinstance(e, CancelledError)):
                error = as_request_error(e)
                if error.code == "internal":
                    _log.exception("a request failed")
                with suppress(Closed):
                    channel.end(error)
        finally:
            self._stream = None

    def _run(self, model: Model, channel: Channel[Event]) -> None:
        begin = time.perf_counter()

        def on_prompt(done: int, total: int) -> None:
            channel.put(PromptDone(self.index, done, total), 64)

        shown = on_prompt if self.show_prompt else None
        primed = None
        if self.leader == self.index:
            primed = self._prime(model, shown)
            channel.put(Primed(self.index), 0)
            shown = None
        echoed = self.prompt.shown(model, lambda: self._cancelled)
        self._stream = stream = self.prompt.start(model, self.seed, shown)
        with stream:
            if self._cancelled:  # while there was nothing yet to cancel
                return
            try:
                channel.put(Begun(self.index), 0)
                if echoed:
                    tokens = [Shown(t, "content", t.text) for t in echoed]
                    channel.put(Round(self.index, tokens, 0, 0, 0.0), 256 * len(tokens))
                first = None
                calls = 0
                drafted = 0
                for number, tokens in enumerate(_rounds(stream, model), 1):
                    now = time.perf_counter() - begin
                    first = now if first is None else first
                    calls += sum(len(t.calls) for t in tokens)
                    before, drafted = drafted, stream.stats.drafted
                    event = Round(self.index, tokens, number, drafted - before, now)
                    channel.put(event, 256 * len(tokens))
                    if self.one_call and calls:
                        break
            finally:
                self.stats = _with_prime(stream.stats, primed)
            reason = "tool_calls" if self.one_call and calls else stream.finish_reason
            waited = begin - self.arrived
            channel.put(Ended(self.index, reason, self.stats, self.seed, waited, first), 0)

    def _prime(self, model: Model, on_prompt: OnPrompt | None) -> Stats:
        """Runs the prompt and leaves its keys and values for jobs with the same prompt. (A sequence
        continues from the keys and values, or their beginning, of a sequence that has ended, if
        they are no longer in use.)"""
        ids = self.prompt.ids(model)
        with model.session() as session:
            stream = session.stream(ids, max_tokens=1, on_prompt=on_prompt, wait=True)
            self._stream = stream
            if not self._cancelled:  # while there was nothing yet to cancel
                for _ in stream.steps():
                    pass
            with suppress(OutOfMemoryError):  # the others then run it again
                for _ in range(self.copies):
                    session.fork().close()
            return stream.stats


def _with_prime(stats: Stats, primed: Stats | None) -> Stats:
    """The stats of a sequence whose prompt was run in advance."""
    if primed is None:
        return stats
    return replace(
        stats,
        cached_tokens=primed.cached_tokens,
        prompt_seconds=primed.prompt_seconds + stats.prompt_seconds,
    )


def _rounds(stream: TextStream | ReplyStream, model: Model) -> Iterator[list[Shown]]:
    if isinstance(stream, ReplyStream):
        marks = _Marks(model)
        for step in stream.steps():
            yield [marks.shown(token, pieces, i) for i, (token, pieces) in enumerate(step, 1)]
    else:
        for tokens in stream.steps():
            yield [
                Shown(t, "content", t.text, step=i if t.drafted else 0)
                for i, t in enumerate(tokens, 1)
            ]


class _Marks:
    """Classifies the tokens of a reply by kind of text."""

    _AFTER = {
        "<|channel>": "reasoning",
        "<channel|>": "content",
        "<|tool_call>": "tool",
        "<tool_call|>": "content",
    }
    _KINDS = {"thinking": "reasoning", "tool_call": "tool"}

    def __init__(self, model: Model):
        tokenizer: Any = model._engine.tokenizer
        self._marks = {tokenizer.find(text): kind for text, kind in self._AFTER.items()}
        self._kind = "content"

    def shown(self, token: Token, pieces: list[ReplyPiece], place: int) -> Shown:
        kind = self._kind
        if token.id in self._marks and token.id >= 0:
            self._kind = self._marks[token.id]
            kind = "tool" if any(p.call for p in pieces) else "control"
        elif pieces:
            kind = self._KINDS.get(pieces[-1].kind, "content")
            self._kind = kind if kind != "tool" else self._kind
        content = "".join(p.text for p in pieces if p.kind in ("content", "malformed_call"))
        reasoning = "".join(p.text for p in pieces if p.kind == "thinking")
        calls = tuple(p.call for p in pieces if p.call is not None)
        return Shown(token, kind, content, reasoning, calls, place if token.drafted else 0)
