"""Random JSON schemas: objects, arrays, choices, nesting, bounds, patterns, references.

All of them are bounded, so that every text that follows one ends: strings and arrays have a maximum
length, and no schema contains itself.
"""

from __future__ import annotations

import random
from typing import Any

_NAMES = [
    "id",
    "name",
    "title",
    "kind",
    "state",
    "owner",
    "email",
    "phone",
    "street",
    "city",
    "zip",
    "country",
    "price",
    "amount",
    "unit",
    "count",
    "score",
    "rating",
    "tags",
    "items",
    "parts",
    "notes",
    "text",
    "summary",
    "created",
    "updated",
    "start",
    "end",
    "width",
    "height",
    "depth",
    "color",
    "size",
    "weight",
    "active",
    "visible",
    "parent",
    "children",
    "options",
    "values",
    "language",
    "version",
]
_WORDS = [
    "red",
    "green",
    "blue",
    "small",
    "medium",
    "large",
    "open",
    "closed",
    "pending",
    "done",
    "north",
    "south",
    "east",
    "west",
    "alpha",
    "beta",
    "gamma",
    "low",
    "high",
    "never",
    "always",
    "daily",
    "weekly",
    "monthly",
]
_PATTERNS = (
    r"^[A-Z]{2}-[0-9]{4}$",
    r"^[a-z]{2,8}$",
    r"^[0-9]{2}:[0-9]{2}$",
    r"^(yes|no|maybe)$",
    r"^#[0-9a-f]{6}$",
    r"^[a-z]{1,8}@[a-z]{1,8}\.(com|org)$",
)
_FORMATS = ("date", "ipv4", "uuid")


class SchemaMaker:
    """Makes random schemas; the same seed makes the same ones."""

    def __init__(self, seed: int):
        self._random = random.Random(seed)
        self._definitions: dict[str, Any] = {}

    def make(self) -> dict[str, Any]:
        """Makes a schema of an object, with its definitions."""
        self._definitions = {}
        if self._random.random() < 0.3:
            for name in self._random.sample(_NAMES, self._random.randint(1, 2)):
                self._definitions[name] = self._object(2)
        schema = self._object(0)
        if self._definitions:
            schema["$defs"] = self._definitions
        return schema

    def _object(self, depth: int) -> dict[str, Any]:
        names = self._random.sample(_NAMES, self._random.randint(1, 5))
        required = [n for n in names if self._random.random() < 0.8]
        return {
            "type": "object",
            "properties": {name: self._value(depth + 1) for name in names},
            "required": required,
            "additionalProperties": False,
        }

    def _value(self, depth: int) -> dict[str, Any]:
        simple = (self._integer, self._number, self._string, self._pattern, self._enum, self._other)
        nested = (self._array, self._object, self._any_of, self._reference)
        if depth < 3 and self._random.random() < 0.4:
            return self._random.choice(nested)(depth)
        return self._random.choice(simple)()

    def _array(self, depth: int) -> dict[str, Any]:
        least = self._random.randint(0, 2)
        return {
            "type": "array",
            "items": self._value(depth + 1),
            "minItems": least,
            "maxItems": least + self._random.randint(0, 2),
        }

    def _any_of(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self._value(depth + 1) for _ in range(self._random.randint(2, 3))]}

    def _reference(self, depth: int) -> dict[str, Any]:
        if not self._definitions or depth < 1:
            return self._enum()
        return {"$ref": f"#/$defs/{self._random.choice(list(self._definitions))}"}

    def _integer(self) -> dict[str, Any]:
        low = self._random.randint(-100, 1000)
        return {
            "type": "integer",
            "minimum": low,
            "maximum": low + self._random.choice((1, 9, 150, 100000)),
        }

    def _number(self) -> dict[str, Any]:
        low = self._random.randint(-10, 10)
        return {
            "type": "number",
            "minimum": low,
            "maximum": low + self._random.randint(1, 50),
            "multipleOf": 0.25,
        }

    def _string(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": self._random.randint(5, 40)}

    def _pattern(self) -> dict[str, Any]:
        if self._random.random() < 0.3:
            return {"type": "string", "format": self._random.choice(_FORMATS)}
        return {"type": "string", "pattern": self._random.choice(_PATTERNS)}

    def _enum(self) -> dict[str, Any]:
        words: list[Any] = self._random.sample(_WORDS, self._random.randint(2, 5))
        if self._random.random() < 0.2:
            words.append(self._random.choice((None, True, 0, 12.5)))
        return {"enum": words}

    def _other(self) -> dict[str, Any]:
        return self._random.choice(
            ({"type": "boolean"}, {"type": "null"}, {"const": self._random.choice(_WORDS)})
        )
