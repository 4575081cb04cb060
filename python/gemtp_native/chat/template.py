"""Chat templates: render messages as a prompt in which no text of a message is a control token.

A template is run twice. In the second run, the characters with which control tokens begin and end
("<" and ">") are replaced in messages and tools by characters that occur nowhere else. If the two
texts differ only in these, their positions show exactly which of them came from a message; a
control token that contains one is text. If the texts differ otherwise, because the template
searches for such characters in the model's messages (Gemma's removes thoughts from them), thoughts
are removed first. If the texts still differ, the messages are rejected. Thus the text is always the
template's output for the messages, byte for byte.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from .. import _core
from ..base.log import logger
from ..errors import ArgumentError, ModelError
from .clock import SECONDS, TemplateLimitError, one_clock
from .known import Turns, known_template
from .messages import (
    answers_in_order,
    content_text,
    with_answers_folded,
    with_prefaces,
    without_thoughts,
)

if TYPE_CHECKING:
    from .sandbox import Template

_log = logger()


@dataclass(frozen=True)
class Rendered:
    text: str
    literal: list[tuple[int, int]]
    """Ranges of bytes that are never part of a control token."""

    def with_more(self, own: str, given: str) -> Rendered:
        """Appends text: `own` may contain control tokens, `given` is literal."""
        begin = len((self.text + own).encode("utf-8"))
        end = begin + len(given.encode("utf-8"))
        literal = [*self.literal, (begin, end)] if given else self.literal
        return Rendered(self.text + own + given, literal)


class Renderer(Protocol):
    """Renders messages in the form that `messages.prepared` returns."""

    def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]],
        thinking: bool | None,
        generation_prompt: bool = True,
    ) -> Rendered: ...


class BuiltinTemplate:
    """Gemma 4's own format, for files without a template."""

    def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]],
        thinking: bool | None,
        generation_prompt: bool = True,
    ) -> Rendered:
        messages = with_answers_folded(with_prefaces(answers_in_order(messages)))
        folded = [{**m, "content": _text_of(m)} for m in messages]
        return Rendered(*_core.render_chat(folded, tools, bool(thinking), generation_prompt))


def _text_of(message: Mapping[str, Any]) -> Any:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content
    ):
        return content
    raise ArgumentError("the answer of a tool stands behind no call; put it behind one")


class ChatTemplate:
    """A Jinja template.

    Args:
        source: the template.
        control_tokens: texts that the vocabulary turns into control tokens.
        tokens: variables such as "bos_token".
        name: the template's name in error sentences.
        seconds: limit on the time of a rendering.
    """

    def __init__(
        self,
        source: str,
        control_tokens: Sequence[str],
        tokens: Mapping[str, str],
        name: str = "the chat template",
        seconds: float = SECONDS,
    ):
        self.name = name
        self._source = source
        self._seconds = seconds
        self._template: Turns | Template = known_template(source) or _untrusted(
            source, name, seconds
        )
        self._told_of_calls = False
        self._tokens = dict(tokens)
        self._edges = sorted({edge for token in control_tokens for edge in (token[0], token[-1])})
        longest_first = sorted(control_tokens, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]],
        thinking: bool | None,
        generation_prompt: bool = True,
    ) -> Rendered:
        """Renders messages with the changes that this version of the template needs."""
        if tools and not self._knows_tools:
            raise ArgumentError(f"{self.name} has no place for tools; leave them out")
        if self._declares_tools:
            tools = [_core.writable_declaration(tool) for tool in tools]
        if any(m.get("tool_calls") for m in messages) and self._drops_calls:
            self._tell_of_calls()
        messages = [self._writable(m) for m in answers_in_order(messages)]
        if self._ends_turns_at_calls:
            messages = with_prefaces(messages)
        if self.gives_tools_turns:
            messages = with_answers_folded(messages)
        return self._render_prefaced(messages, tools or None, thinking, generation_prompt)

    def _tell_of_calls(self) -> None:
        if not self._told_of_calls:
            self._told_of_calls = True
            _log.warning("%s has no place for calls of tools: the model is not told", self.name)

    def _writable(self, message: dict[str, Any]) -> dict[str, Any]:
        """Converts content to types that the template supports; others would appear as Python's
        repr."""
        content = message.get("content", "")
        if isinstance(content, str):
            return message
        if message["role"] == "tool":
            if not self._shows_data:
                return message
            return {**message, "content": json.dumps(content, ensure_ascii=False)}
        return message if self._knows_parts else {**message, "content": content_text(content)}

    def _render_prefaced(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        thinking: bool | None,
        generation_prompt: bool,
    ) -> Rendered:
        """Renders messages and inserts each preface before its call, found by a mark in its
        name."""
        prefaces = [m["preface"] for m in messages if "preface" in m]
        if not prefaces:
            return self.render_as_is(messages, tools, thinking, generation_prompt)
        (mark,) = _unused_characters(1, self._source, _all_text(messages, tools))
        marked = [_marked_call(m, mark) for m in messages]
        rendered = self.render_as_is(marked, tools, thinking, generation_prompt)
        return _with_prefaces_put(rendered, prefaces, mark, self.gives_tools_turns)

    def render_as_is(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        thinking: bool | None = None,
        add_generation_prompt: bool = True,
    ) -> Rendered:
        """Renders the messages unchanged. thinking=None leaves the choice to the template."""
        variables: dict[str, Any] = {
            **self._tokens,
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
        }
        if thinking is not None:
            variables["enable_thinking"] = thinking
        with one_clock(self._seconds):
            return self._rendered(variables)

    def _rendered(self, variables: dict[str, Any]) -> Rendered:
        messages, tools = variables["messages"], variables["tools"]
        text = self._template.render(variables)
        edges = [c for c in self._edges if c in text]
        if not any(_holds(part, edges) for part in (messages, tools)):
            return Rendered(text, [])
        marks = _unused_characters(len(edges), text, self._source, _all_text(messages, tools))
        marked = str.maketrans(dict(zip(edges, marks, strict=True)))
        unmarked = str.maketrans(dict(zip(marks, edges, strict=True)))
        first = None
        for basis in (messages, without_thoughts(messages)):
            if basis is not messages and self._try({**variables, "messages": basis}) != text:
                break
            seen = self._try({**variables, "messages": basis}, marked)
            first = seen if first is None else first
            if seen is not None and seen.translate(unmarked) == text:
                return Rendered(text, _ranges(seen, marks))
        # All control tokens of `first` are the template's. If the text has the same ones, none of
        # them comes from a message.
        if first is not None and self._control.findall(first) == self._control.findall(text):
            return Rendered(text, [])
        raise ArgumentError(
            f"the messages spell control tokens in a way in which {self.name} cannot be kept from "
            "writing them; take them out of the messages"
        )

    def _try(self, variables: dict[str, Any], marks: dict[int, str] | None = None) -> str | None:
        try:
            return self._template.render(variables, marks)
        except TemplateLimitError:
            raise
        except (ArgumentError, ModelError):
            return None

    # The template's features, detected by rendering messages that need them.

    _CALL = {"type": "function", "function": {"name": "probe", "arguments": {"a": None}}}

    def _probe(self, *messages: dict[str, Any], tools: list[dict[str, Any]] | None = None) -> str:
        rendered = self._try(
            {
                **self._tokens,
                "messages": [{"role": "user", "content": "?"}, *messages],
                "tools": tools,
                "add_generation_prompt": False,
                "enable_thinking": False,
            }
        )
        return rendered or ""

    @cached_property
    def _knows_tools(self) -> bool:
        function = {"name": "probe", "description": "", "parameters": {}}
        return "probe" in self._probe(tools=[{"type": "function", "function": function}])

    @cached_property
    def _knows_parts(self) -> bool:
        """Whether the template supports text in parts."""
        in_parts = {"role": "user", "content": [{"type": "text", "text": "probe"}]}
        return self._probe(in_parts) == self._probe({"role": "user", "content": "probe"})

    @cached_property
    def _shows_data(self) -> bool:
        """Whether a tool's data is rendered as Python's repr."""
        call = {"role": "assistant", "content": "", "tool_calls": [self._CALL]}
        answer = {"role": "tool", "name": "probe", "content": {"probing": None}}
        return "{'probing': None}" in self._probe(call, answer)

    @cached_property
    def _drops_calls(self) -> bool:
        written = self._probe({"role": "assistant", "content": "", "tool_calls": [self._CALL]})
        return written != "" and "probe" not in written

    @cached_property
    def _declares_tools(self) -> bool:
        """Whether declarations are rendered in Gemma 4's form."""
        function = {"name": "probe", "description": "", "parameters": {}}
        return "declaration:probe{" in self._probe(
            tools=[{"type": "function", "function": function}]
        )

    @cached_property
    def _calls_tools(self) -> bool:
        call = {"role": "assistant", "content": "", "tool_calls": [self._CALL]}
        return "<|tool_call>call:probe{" in self._probe(call)

    @cached_property
    def gives_tools_turns(self) -> bool:
        """Whether messages of tools become turns, which Gemma 4 was not trained on."""
        call = {"role": "assistant", "content": "", "tool_calls": [self._CALL]}
        return self._calls_tools and "<|turn>tool" in self._probe(
            call, {"role": "tool", "name": "probe", "content": "!"}
        )

    @cached_property
    def _ends_turns_at_calls(self) -> bool:
        """Whether the turn of a message with text and calls ends before the tools' answers."""
        call = {"role": "assistant", "content": "!", "tool_calls": [{**self._CALL, "id": "a"}]}
        answer = {"role": "tool", "name": "probe", "tool_call_id": "a", "content": "?"}
        turn = self._probe(call, answer).rpartition("<|turn>model")[2].strip()
        return self._calls_tools and not (
            turn.startswith("!") and turn.endswith("<tool_response|>")
        )

    @cached_property
    def shortcomings(self) -> list[str]:
        """Features of newer Gemma 4 templates that this one lacks; empty for other formats."""
        if not self._calls_tools:
            return []
        call = {"role": "assistant", "content": "", "tool_calls": [self._CALL]}
        thought = {"role": "assistant", "content": "!", "reasoning_content": "probing"}
        answered = {**call, "tool_responses": [{"name": "probe", "response": "!"}]}
        checks = {
            "writes null as None": "a:null" not in self._probe(call),
            "gives answers of tools a turn of their own": self.gives_tools_turns,
            "drops the reasoning of the turn that goes on": "probing" not in self._probe(thought),
            "leaves turns open behind answers of tools": "<turn|>"
            not in self._probe(answered, {"role": "user", "content": "?"})
            .partition("probe")[2]
            .partition("<|turn>user")[0],
        }
        return [what for what, missing in checks.items() if missing]


def _untrusted(source: str, name: str, seconds: float) -> Template:
    from .sandbox import Template  # takes milliseconds that a known template need not wait for

    return Template(source, name, seconds)


_CALL = "<|tool_call>call:"
_ANSWERED = "<tool_response|>"
_TURN = "<|turn>model\n"


def _marked_call(message: dict[str, Any], mark: str) -> dict[str, Any]:
    if "preface" not in message:
        return message
    first, *others = message["tool_calls"]
    function = {**first["function"], "name": mark + first["function"]["name"]}
    out = {**message, "tool_calls": [{**first, "function": function}, *others]}
    del out["preface"]
    return out


def _with_prefaces_put(rendered: Rendered, prefaces: list[str], mark: str, joins: bool) -> Rendered:
    """Inserts the prefaces at their marks. joins: a turn that begins directly after the answer of a
    tool belongs to the turn of that answer. Marks elsewhere, e.g. in an answer with the name of its
    call, are removed."""
    if rendered.text.count(_CALL + mark) != len(prefaces):
        raise ArgumentError(
            "the template does not write a call where a message has one; leave the text beside "
            "calls of tools out"
        )
    wanted = iter(prefaces)
    text, at, size = "", 0, 0  # bytes of the rendered text, and of the result
    literal: list[tuple[int, int]] = []
    ends, shifts = [], []  # ends of pieces, and how far they have moved
    turn = f"(?:(?<={re.escape(_ANSWERED)}){re.escape(_TURN)})?" if joins else ""
    last = 0
    for cut in [*re.finditer(f"{turn}({re.escape(_CALL)})?{mark}", rendered.text), None]:
        piece = rendered.text[last : cut.start()] if cut else rendered.text[last:]
        ends.append(at + len(piece.encode("utf-8")))
        shifts.append(size - at)
        size += len(piece.encode("utf-8"))
        text += piece
        if cut is None:
            break
        if call := cut[1]:
            preface = next(wanted)
            length = len(preface.encode("utf-8"))
            literal += [(size, size + length)] if preface else []
            text += preface + call
            size += length + len(call)
        last = cut.end()
        at = ends[-1] + len(cut[0].encode("utf-8"))
    moved = ((b, e, shifts[bisect_left(ends, e)]) for b, e in rendered.literal)
    return Rendered(text, sorted([*literal, *((b + by, e + by) for b, e, by in moved)]))


def _holds(value: Any, characters: Sequence[str]) -> bool:
    if isinstance(value, str):
        return any(c in value for c in characters)
    if isinstance(value, dict):
        return any(_holds(k, characters) or _holds(v, characters) for k, v in value.items())
    return isinstance(value, list) and any(_holds(v, characters) for v in value)


def _all_text(*values: Any) -> str:
    return json.dumps(values, ensure_ascii=False)


def _unused_characters(count: int, *texts: str) -> list[str]:
    """Characters of the private use area that occur in none of the texts."""
    used = set().union(*texts)
    free = (chr(c) for c in (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE)))
    out = [c for c, _ in zip((c for c in free if c not in used), range(count), strict=False)]
    if len(out) < count:
        raise ArgumentError("the messages use all characters of the private use area")
    return out


def _ranges(marked: str, marks: Sequence[str]) -> list[tuple[int, int]]:
    """Ranges of the marks, in bytes of the text without marks."""
    pattern = re.compile(f"[{''.join(marks)}]+")
    out: list[tuple[int, int]] = []
    at = offset = 0
    for match in pattern.finditer(marked):
        offset += len(marked[at : match.start()].encode("utf-8"))
        length = match.end() - match.start()  # the replaced characters are ASCII
        out.append((offset, offset + length))
        offset += length
        at = match.end()
    return out
