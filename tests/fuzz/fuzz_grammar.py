"""Schemas, patterns, grammars and the parameters of functions: each becomes a source for the
compiler, which llguidance takes apart in a process of its own, or is refused.
"""

from __future__ import annotations

import json
from typing import Any

from gemtp_native.errors import ArgumentError
from gemtp_native.grammar.calls import FREE, HELD, STRICT, Calls, calls_of
from gemtp_native.grammar.compile import source_of
from gemtp_native.grammar.parameters import Parameters
from gemtp_native.grammar.pattern import PatternError, contained
from gemtp_native.grammar.response_format import schema_of
from gemtp_native.grammar.schema import is_endless, without_unknown_formats
from harness import Choices, refused

SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "array", "items": {"$ref": "#/$defs/b"}, "minItems": 1, "maxItems": 3},
        "b": {"anyOf": [{"type": "string", "pattern": "^x|y$", "maxLength": 4}, {"const": 1}]},
        "c": {"type": "integer", "minimum": -3, "exclusiveMaximum": 9, "multipleOf": 3},
        "d": {"allOf": [{"$ref": "#/properties/b"}, {"type": ["string", "null"]}]},
        "e": {"type": "string", "format": "date-time"},
    },
    "patternProperties": {"^z": {"enum": ["u", 2, None]}},
    "required": ["a", "b"],
    "additionalProperties": False,
    "$defs": {"b": {"oneOf": [{"type": "boolean"}, {"type": "number"}]}},
}
_PATTERN = ["(", ")", "[", "]", "^", "$", "|", "\\", "d", "a", "*", "{2,", "}", "?:", "-", "/"]


def one_input(data: bytes) -> None:
    c = Choices(data)
    c.one_of([_schema, _parameters, _pattern, _response_format, _text])(c)


def _any_schema(c: Choices) -> Any:
    return c.edited(SCHEMA, c.below(6)) if c.below(4) else c.value()


def _schema(c: Choices) -> None:
    schema = _any_schema(c)
    refused(lambda: _checked(source_of(json_schema=schema)), ArgumentError)
    text = json.dumps(schema)
    refused(lambda: _checked(source_of(json_schema=text)), ArgumentError)
    without_unknown_formats(schema)
    is_endless(schema)


def _checked(source: Any) -> None:
    if source is None:  # no schema was given
        return
    source.text.encode()
    assert len(source.digest) == 32


def _parameters(c: Choices) -> None:
    schema, mode = _any_schema(c), c.one_of([STRICT, HELD, FREE])
    rules: dict[str, str] = {}
    parameters = Parameters(schema, "f", mode == STRICT, rules, "f0_")
    refused(parameters.arguments, ArgumentError)
    assert mode != STRICT or not parameters.ignored
    tool = {"function": {"name": c.text(), "parameters": schema, "strict": mode == STRICT}}

    def make() -> None:
        calls = calls_of([tool], None if c.flag() else [tool["function"]["name"]], 3, 4)
        if calls is not None:
            # The text travels to another process, and means the same there.
            assert Calls.of(calls.text()).grammar() == calls.grammar()

    refused(make, ArgumentError)


def _pattern(c: Choices) -> None:
    pattern = "".join(c.one_of(_PATTERN) if c.flag() else c.text() for _ in range(c.below(12)))
    refused(lambda: contained(pattern), PatternError)


def _response_format(c: Choices) -> None:
    sound = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    refused(lambda: schema_of(c.edited(sound, 1 + c.below(3))), ArgumentError)


def _text(c: Choices) -> None:
    kind = c.one_of(["regex", "grammar", "json_schema"])
    text = c.rest().decode("utf-8", "surrogateescape")
    refused(lambda: source_of(**{kind: text}), ArgumentError)
