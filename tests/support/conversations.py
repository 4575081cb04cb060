"""Random conversations: every member that Gemma 4's template reads, in every combination."""

from __future__ import annotations

import random
from typing import Any

WORDS = [
    "",
    " ",
    "hello",
    "a < b > c",
    "naïve 日本語 🙂",
    "\n\nline\n",
    "  x  ",
    '"q"',
    "{a:1}",
    "<b>",
]
WORDS += ["\u00a0x\u2003", "Ünï", "| pipe |", "don't", "None", "\t", "İSTANBUL", "tail \x1c"]
MARKS = ["<|turn>", "<turn|>", "<|tool_call>", "<tool_call|>", '<|"|>', "<bos>", "<|tur", "n>", "<"]
MARKS += [
    "<turn|>\n<|turn>model\n",
    "<|channel>",
    "<channel|>",
    "<|channel>thought\nhm\n<channel|>",
]
NAMES = [
    "get_weather",
    "Search",
    "f",
    "Äpfel",
    "äpfel",
    "zeta",
    "Zeta",
    "_x",
    "type",
    "description",
]


class Conversations:
    """Makes random conversations. hostile: texts also spell control tokens."""

    def __init__(self, seed: int, hostile: bool = False):
        self.random = random.Random(seed)
        self.words = WORDS + MARKS if hostile else WORDS

    def make(self) -> dict[str, Any]:
        """Returns variables of a template: messages, tools, enable_thinking."""
        r = self.random
        messages: list[dict[str, Any]] = []
        if r.random() < 0.4:
            role = r.choice(["system", "developer"])
            messages.append({"role": role, "content": self.text()})
        for _ in range(r.randrange(0 if messages else 1, 4)):
            messages.append({"role": "user", "content": self.content()})
            for _ in range(r.randrange(3)):
                messages.append(self.answer())
        if r.random() < 0.7:
            messages.append({"role": "user", "content": self.content()})
        tools = [self.tool() for _ in range(r.randrange(1, 4))] if r.random() < 0.5 else None
        return {"messages": messages, "tools": tools, "thinking": r.random() < 0.5}

    def text(self) -> str:
        return "".join(self.random.choices(self.words, k=self.random.randrange(4)))

    def content(self) -> Any:
        if self.random.random() < 0.8:
            return self.text()
        return [{"type": "text", "text": self.text()} for _ in range(self.random.randrange(3))]

    def answer(self) -> dict[str, Any]:
        r = self.random
        out: dict[str, Any] = {"role": r.choice(["assistant", "assistant", "model"])}
        if r.random() < 0.8:
            out["content"] = self.content()
        if r.random() < 0.4:
            out["tool_calls"] = [
                {"type": "function", "function": {"name": self.name(), "arguments": self.object()}}
                for _ in range(r.randrange(1, 3))
            ]
            if r.random() < 0.7:
                out["tool_responses"] = [self.response() for _ in out["tool_calls"]]
        return out

    def response(self) -> dict[str, Any]:
        out = {"response": self.value()}
        if self.random.random() < 0.9:
            out["name"] = self.name()
        return out

    def name(self) -> str:
        return self.random.choice(NAMES)

    def key(self) -> str:
        return self.random.choice([self.name(), self.text()])

    def object(self, depth: int = 0) -> dict[str, Any]:
        return {self.key(): self.value(depth + 1) for _ in range(self.random.randrange(4))}

    def value(self, depth: int = 0) -> Any:
        r = self.random
        kind = r.randrange(6 if depth > 2 else 9)
        if kind < 2:
            return self.text()
        if kind == 2:
            return r.choice([True, False, None])
        if kind == 3:
            return r.choice([0, -1, 7, 10**15, -(2**63), r.randrange(1000)])
        if kind == 4:
            return r.choice([0.5, 1.0, 1e16, 1e-5, 123456.789, -0.0, 1e22, 5e-324, 0.1, 1e15])
        if kind == 5:
            return r.random() * 10.0 ** r.randrange(-8, 20)
        if kind == 6:
            return [self.value(depth + 1) for _ in range(r.randrange(4))]
        return self.object(depth)

    def tool(self) -> dict[str, Any]:
        r = self.random
        function: dict[str, Any] = {"name": self.name()}
        if r.random() < 0.9:
            function["description"] = self.text()
        if r.random() < 0.9:
            function["parameters"] = self.schema()
        if r.random() < 0.3:
            function["response"] = {"description": self.text(), "type": r.choice(["object", "x"])}
        return {"type": "function", "function": function}

    def schema(self) -> dict[str, Any]:
        r = self.random
        out: dict[str, Any] = {}
        if r.random() < 0.95:
            out["type"] = "object"
        if r.random() < 0.9:
            out["properties"] = {self.name(): self.property() for _ in range(r.randrange(4))}
        if r.random() < 0.6:
            out["required"] = [self.name() for _ in range(r.randrange(3))]
        return out

    def property(self, depth: int = 0) -> dict[str, Any]:
        r = self.random
        kinds = ["string", "integer", "number", "boolean"] + ["object", "array"] * (depth < 2)
        out: dict[str, Any] = {"type": r.choice(kinds)}
        if r.random() < 0.7:
            out["description"] = self.text()
        if r.random() < 0.3:
            out["nullable"] = r.choice([True, False, None])
        if r.random() < 0.4:
            out["enum"] = [self.value(2) for _ in range(r.randrange(3))]
        if r.random() < 0.7:
            out["properties"] = {
                self.name(): self.property(depth + 1) for _ in range(r.randrange(max(1, 3 - depth)))
            }
        if r.random() < 0.4:
            out["required"] = [self.name() for _ in range(r.randrange(3))]
        if depth < 4 and r.random() < 0.7:
            out["items"] = self.items(depth)
        return out

    def items(self, depth: int) -> dict[str, Any]:
        r = self.random
        out: dict[str, Any] = {"type": r.choice(["string", "object", ["string", "null"], None])}
        if r.random() < 0.4:
            out["properties"] = {self.name(): self.property(depth + 1)}
        if r.random() < 0.4:
            out["required"] = [self.name()]
        if r.random() < 0.4:
            out[r.choice(["enum", "minimum", "Format"])] = self.value(2)
        return out
