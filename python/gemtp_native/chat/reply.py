"""The reply of a model in a chat."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from ..arguments import shown
from ..base.closing import Closing
from ..base.counted import counted
from ..results import Stats, Token, TopLogprobs, in_short

if TYPE_CHECKING:
    from .. import _core
    from ..stream import TextStream

PieceKind = Literal["content", "thinking", "tool_call", "malformed_call"]


@dataclass(frozen=True)
class ToolCall:
    """A function call that the model requests."""

    name: str
    arguments: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Returns the call in the form of a message's `tool_calls`."""
        return {
            "type": "function",
            "function": {"name": self.name, "arguments": dict(self.arguments)},
        }


@dataclass(frozen=True)
class ReplyPiece:
    """A piece of a reply."""

    kind: PieceKind
    text: str
    """Valid UTF-8. For a call, its whole text as the model wrote it."""
    call: ToolCall | None = None
    """Set for the kind "tool_call"."""


@dataclass(frozen=True, repr=False)
class Reply:
    """A finished answer."""

    content: str
    """The answer, without thoughts and calls. A malformed call is part of it, as text."""
    thinking: str
    tool_calls: list[ToolCall]
    malformed_calls: list[str]
    """Calls that do not follow the format, as the model wrote them."""
    text: str
    """All generated text, with control tokens written out."""
    tokens: list[int]
    finish_reason: str
    """"stop" (the model ended, or a stop string), "tool_calls" (it waits for tools), "length"
    (max_tokens) or "context" (the context is full)."""
    stats: Stats
    logprobs: list[float] = field(default_factory=list)
    """Log-probability of each token; empty unless requested with ``logprobs``."""
    top_logprobs: list[TopLogprobs] = field(default_factory=list)
    """For each token, (id, logprob) of the likeliest tokens in its place."""

    def __repr__(self) -> str:
        calls = [call.name for call in self.tool_calls]
        return (
            f"Reply(content={shown(self.content)}"
            + (f", thinking={shown(self.thinking)}" if self.thinking else "")
            + (f", tool_calls={shown(calls)}" if calls else "")
            + f", {in_short(self.tokens, self.finish_reason, self.stats)})"
        )

    @property
    def message(self) -> dict[str, Any]:
        """The reply as the next message of the conversation."""
        out: dict[str, Any] = {"role": "assistant", "content": self.content}
        if self.thinking:
            out["reasoning_content"] = self.thinking
        if self.tool_calls:
            out["tool_calls"] = [call.as_dict() for call in self.tool_calls]
        return out


@dataclass
class _Parts:
    content: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)

    def add(self, piece: ReplyPiece) -> None:
        if piece.call is not None:
            self.calls.append(piece.call)
        elif piece.kind == "thinking":
            self.thinking.append(piece.text)
        else:
            self.content.append(piece.text)
        if piece.kind == "malformed_call":
            self.malformed.append(piece.text)


class ReplyStream(Closing, Iterator[ReplyPiece], AsyncIterator[ReplyPiece]):
    """Yields pieces of a reply as they are generated, for ``for`` and ``async for``.

    Work happens only while a piece is requested; ``close()`` (or leaving a ``with`` block) ends it.
    Any thread may call ``cancel()`` and ``close()``; everything else is for one thread at a time.
    """

    def __init__(
        self,
        stream: TextStream,
        parser: _core.ReplyParser,
        tokenizer: _core.Tokenizer,
        follows: Callable[[str, dict[str, Any]], bool],
    ):
        """follows: whether the name and the arguments of a call without its mark are allowed."""
        self._stream = stream
        self._follows = follows
        self._parser = parser
        self._tokenizer = tokenizer
        self._parts = _Parts()
        self._pending: list[ReplyPiece] = []
        self._tokens: list[Token] = []
        self._ended = False

    def __repr__(self) -> str:
        return f"<ReplyStream: {counted(len(self._tokens), 'token')}, {self.finish_reason}>"

    # ---------------------------------------------------------------- a round at a time

    def steps(self) -> Iterator[list[tuple[Token, list[ReplyPiece]]]]:
        """Yields the tokens of each draft-verify round, each with the pieces that it completes.
        Text held back at the end comes with a token of id -1."""
        while not self._ended:
            if step := self._read(self._stream.next_step()):
                yield step

    async def asteps(self) -> AsyncIterator[list[tuple[Token, list[ReplyPiece]]]]:
        """:meth:`steps` for ``async for``."""
        while not self._ended:
            if step := self._read(await self._stream.anext_step()):
                yield step

    def _read(self, step: list[Token] | None) -> list[tuple[Token, list[ReplyPiece]]]:
        out = []
        for token in step or []:
            if token.id < 0:
                continue  # held back by the text stream; the parser holds back its own
            self._tokens.append(token)
            out.append((token, self._pieces(self._parser.push(token.id))))
            if self._parser.stopped:
                self.close()
                return out
        if step is None:
            if rest := self._pieces(self._parser.finish()):
                out.append((Token(-1, "target", ""), rest))
            self.close()
        return out

    def _pieces(self, events: list[tuple[str, str, str, Any]]) -> list[ReplyPiece]:
        pieces = []
        for kind, text, name, arguments in events:
            unmarked = kind == "tool_call" and not text.startswith("<|tool_call>")
            if unmarked and not self._follows(name, arguments):
                kind = "malformed_call"
            call = ToolCall(name, arguments) if kind == "tool_call" else None
            pieces.append(ReplyPiece(cast(PieceKind, kind), text, call))
            self._parts.add(pieces[-1])
        return pieces

    # ---------------------------------------------------------------- a piece at a time

    def __next__(self) -> ReplyPiece:
        while not self._pending:
            if self._ended:
                raise StopIteration
            self._queue(self._read(self._stream.next_step()))
        return self._pending.pop(0)

    async def __anext__(self) -> ReplyPiece:
        while not self._pending:
            if self._ended:
                raise StopAsyncIteration
            self._queue(self._read(await self._stream.anext_step()))
        return self._pending.pop(0)

    def _queue(self, step: list[tuple[Token, list[ReplyPiece]]]) -> None:
        self._pending += [piece for _, pieces in step for piece in pieces]

    # ---------------------------------------------------------------- its end

    def cancel(self) -> None:
        """Works like :meth:`TextStream.cancel`."""
        self._stream.cancel()

    def close(self) -> None:
        """Stops the generation and gives its K/V cache back to the model."""
        self._ended = True
        self._stream.close()

    # ---------------------------------------------------------------- what it has given

    @property
    def tokens(self) -> list[int]:
        """The token ids generated so far."""
        return [t.id for t in self._tokens]

    @property
    def stats(self) -> Stats:
        return self._stream.stats

    @property
    def finish_reason(self) -> str:
        """ "unfinished" until the end; then as in :class:`Reply`, or "cancelled"."""
        if self._parser.stopped:
            return "stop"
        reason = self._stream.finish_reason
        return "tool_calls" if reason == "stop" and self._parts.calls else reason

    @property
    def reply(self) -> Reply:
        """The reply so far."""
        parts = self._parts
        logprobs = [t.logprob for t in self._tokens if t.logprob is not None]
        return Reply(
            content="".join(parts.content),
            thinking="".join(parts.thinking),
            tool_calls=list(parts.calls),
            malformed_calls=list(parts.malformed),
            text=self._tokenizer.decode(self.tokens, True),
            tokens=self.tokens,
            finish_reason=self.finish_reason,
            stats=self.stats,
            logprobs=logprobs,
            top_logprobs=[t.top_logprobs for t in self._tokens] if logprobs else [],
        )
