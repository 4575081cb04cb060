"""Messages and tools of any program, and saved conversations: they are refused, or take a form that
the chat format can write, and which is the same when it is taken a second time.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import gemtp_native as gemtp
from gemtp_native.chat.messages import prepared, prepared_tools
from gemtp_native.cli.conversation import Conversation
from gemtp_native.errors import ArgumentError, FileError
from harness import Choices, folder, refused
from scripted_model import scripted_model

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": [1, "x"]}'}}
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm"},
    {"role": "tool", "tool_call_id": "c1", "content": '{"result": 5}'},
    {"role": "assistant", "content": "<|channel>thought\nhm<channel|>five"},
    {"role": "user", "content": "and <|turn>?"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "description": "adds",
            "parameters": {"type": "object", "properties": {"a": {"type": "array"}}},
            "strict": True,
        },
    }
]


class _Model:
    """What a conversation needs of a model to be loaded."""

    sampling: dict[str, float] = {}

    def _check_options(self, options: Any) -> None:
        pass


def one_input(data: bytes) -> None:
    c = Choices(data)
    if c.below(4) == 0:
        _load(c)
        return
    messages = c.edited(MESSAGES, c.below(5)) if c.below(8) else c.value()
    tools = c.edited(TOOLS, c.below(4)) if c.below(8) else c.value()
    refused(lambda: _render(messages, tools), ArgumentError)
    refused(lambda: prepared_tools(tools), ArgumentError)


def _render(messages: Any, tools: Any) -> None:
    ready = prepared(messages)
    assert prepared(ready) == ready
    json.dumps(ready)
    text, ids = _model().chat_prompt(messages, tools=tools)
    text.encode()
    assert ids


@cache
def _model() -> gemtp.Model:
    return gemtp.Model(scripted_model(folder() / "chat.gguf"), threads=1, context=256)


def _load(c: Choices) -> None:
    path = folder() / "conversation.json"
    if c.below(4) == 0:
        path.write_bytes(c.rest())
    else:
        text = json.dumps(c.edited({"messages": MESSAGES}, 1 + c.below(4)))
        path.write_text(text, encoding="utf-8")
    conversation = Conversation(_Model())
    if not refused(lambda: conversation.load(path), FileError):
        conversation.save(path)
        again = Conversation(_Model())
        again.load(path)
        assert again.messages == conversation.messages
