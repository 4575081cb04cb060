"""The grammar of tool calls in Gemma 4's format, made from the functions' JSON schemas.

    call:NAME{city:<|"|>Paris<|"|>,days:3,inner:{a:[true,null]}}<tool_call|>

Strings stand between quote tokens, without escapes; keys are bare; nothing has blanks around it.
Members come in the order of `properties`, or in that of their names, in which templates show them.

Whatever follows the grammar satisfies the schema, but not everything that satisfies the schema
follows the grammar: an object that lists its properties has no others unless it says
`additionalProperties`, and numbers have at most 64 digits. A keyword that no grammar can follow is
an error for a function that is strict, and is reported and ignored for others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ArgumentError
from .parameters import Parameters, literal, shared_rules, spelled

STRICT, HELD, FREE = "strict", "held", "free"
"""How a function's arguments follow its schema: every keyword, those that can be followed, none."""

_FREE_ARGUMENTS = '"{" free'
_ANY_ARGUMENTS = "object0"
_QUOTE = "\ud800"  # no character, so no text has it


@dataclass(frozen=True)
class CallGrammar:
    lark: str
    notes: list[str]
    """What calls are not held to, a sentence for each function."""


@dataclass(frozen=True)
class Calls:
    """Functions that may be called, and the marks of a vocabulary."""

    quote: int
    end: int
    functions: list[tuple[str, Any, str]]
    """Name, parameters, and one of STRICT, HELD and FREE."""

    def text(self) -> str:
        try:
            return json.dumps([self.quote, self.end, self.functions], allow_nan=False)
        except ValueError:
            raise ArgumentError("the parameters of a tool hold a number that is not JSON") from None

    @staticmethod
    def of(text: str) -> Calls:
        return Calls(*json.loads(text))

    def grammar(self, relaxed: bool = False) -> CallGrammar:
        """relaxed: calls of functions that are not strict need only be well-formed."""
        rules: dict[str, str] = {}
        begins = []
        notes = []
        for i, (name, schema, mode) in enumerate(self.functions):
            parameters = Parameters(schema, name, mode == STRICT, rules, f"f{i}_")
            arguments = _FREE_ARGUMENTS if mode == FREE else _ANY_ARGUMENTS
            reason = ""
            if mode == STRICT or (mode == HELD and not relaxed):
                try:
                    arguments = parameters.arguments()
                    words = ", ".join(sorted(parameters.ignored))
                    reason = f"{words} cannot be followed" if words else ""
                except ArgumentError as e:
                    if mode == STRICT:
                        raise
                    reason = str(e)
            elif mode == HELD:
                reason = "they are too large or too deep"
            if reason:
                notes.append(f"calls of {name!r} are not held to all of its parameters: {reason}")
            begins.append(f"{literal(f'call:{name}')} {arguments}")
        rules["free"] = "(/(?s:.)+/ | quote TEXT quote)*"
        rules["start"] = f"({' | '.join(begins)}) <[{self.end}]>"
        rules |= shared_rules(self.quote)
        return CallGrammar("\n".join(f"{name}: {body}" for name, body in rules.items()), notes)


def calls_of(
    tools: Sequence[Mapping[str, Any]], functions: Sequence[str] | None, quote: int, end: int
) -> Calls | None:
    """Returns what a reply may call. tools: in the form of `chat.messages.prepared_tools`.
    functions: those of which it must call one; None: it need not call any. The result is None if no
    call has to follow a schema."""
    out = []
    for tool in tools:
        function = tool["function"]
        name, strict = function["name"], function.get("strict") is True
        if functions is not None and name not in functions:
            continue
        mode = STRICT if strict else FREE if functions is None else HELD
        if re.search("""[{"']""", name) or name != name.strip():
            if mode == FREE:
                continue
            raise ArgumentError(
                f"the function {name!r} cannot be called: its name holds a quote, a brace or "
                "blanks at its ends"
            )
        out.append((name, function.get("parameters"), mode))
    if all(mode == FREE for _, _, mode in out):
        return None
    return Calls(quote, end, out)


def call_tokens(
    name: str, arguments: Mapping[str, Any], encode: Callable[[str], list[int]], calls: Calls
) -> list[int]:
    """Returns the tokens of a call as the format has it, from behind its first mark."""
    out: list[int] = []
    for i, part in enumerate(f"call:{name}{spelled(arguments, _QUOTE)}".split(_QUOTE)):
        out += [*([calls.quote] if i else []), *encode(part)]
    return [*out, calls.end]
