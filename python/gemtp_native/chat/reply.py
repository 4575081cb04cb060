"""What a model answers in a chat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from .. import _core
    from ..model import Stats, TextStream, Token

PieceKind = Literal["content", "thinking", "tool_call", "malformed_call"]


@dataclass(frozen=True)
class ToolCall:
    """A function that the model wants to be called."""

    name: str
    arguments: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """As in the `tool_calls` of a message."""
        return {
            "type": "function",
            "function": {"name": self.name, "arguments": dict(self.arguments)},
        }


@dataclass(frozen=True)
class ReplyPiece:
    """What became certain of a reply."""

    kind: PieceKind
    text: str
    """Valid UTF-8. Of a call, the whole of it as the model spelled it."""
    call: ToolCall | None = None
    """Of the kind "tool_call"."""


@dataclass(frozen=True)
class Reply:
    """A finished answer."""

    content: str
    """The answer, without thoughts and calls. A call that cannot be read is part of it, as text."""
    thinking: str
    tool_calls: list[ToolCall]
    malformed_calls: list[str]
    """Calls that do not follow the format, as the model spelled them."""
    text: str
    """All that was generated, control tokens spelled out."""
    tokens: list[int]
    finish_reason: str
    """"stop" (the model ended, or a stop string), "tool_calls" (it waits for tools), "length"
    (max_tokens) or "context" (it is full)."""
    stats: Stats

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


class ReplyStream(Iterator[ReplyPiece]):
    """Pieces of a reply as they become certain.

    Work happens only while a piece is asked for; ``close()`` (or leaving a ``with`` block) ends it.
    """

    def __init__(self, stream: TextStream, parser: _core.ReplyParser, tokenizer: _core.Tokenizer):
        self._stream = stream
        self._steps: Iterator[list[Token]] | None = stream.steps()
        self._parser = parser
        self._tokenizer = tokenizer
        self._parts = _Parts()
        self._pending: list[ReplyPiece] = []
        self._tokens: list[int] = []

    def __next__(self) -> ReplyPiece:
        while not self._pending:
            if self._steps is None:
                raise StopIteration
            step = next(self._steps, None)
            if step is None:
                self._take(self._parser.finish())
                self.close()
            else:
                self._read(step)
        piece = self._pending.pop(0)
        self._parts.add(piece)
        return piece

    def _read(self, step: list[Token]) -> None:
        for token in step:
            if token.id < 0:
                continue
            self._tokens.append(token.id)
            self._take(self._parser.push(token.id))
            if self._parser.stopped:
                self.close()
                return

    def _take(self, events: list[tuple[str, str, str, Any]]) -> None:
        for kind, text, name, arguments in events:
            call = ToolCall(name, arguments) if kind == "tool_call" else None
            self._pending.append(ReplyPiece(cast(PieceKind, kind), text, call))

    def close(self) -> None:
        """Stops the generation and hands its K/V cache back to the model."""
        self._steps = None
        self._stream.close()

    def __enter__(self) -> ReplyStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def stats(self) -> Stats:
        return self._stream.stats

    @property
    def finish_reason(self) -> str:
        """ "unfinished" until the end; then as in :class:`Reply`."""
        if self._parser.stopped:
            return "stop"
        reason = self._stream.finish_reason
        return "tool_calls" if reason == "stop" and self._parts.calls else reason

    @property
    def reply(self) -> Reply:
        """What has been read so far."""
        parts = self._parts
        return Reply(
            content="".join(parts.content),
            thinking="".join(parts.thinking),
            tool_calls=list(parts.calls),
            malformed_calls=list(parts.malformed),
            text=self._tokenizer.decode(self._tokens, True),
            tokens=list(self._tokens),
            finish_reason=self.finish_reason,
            stats=self.stats,
        )
