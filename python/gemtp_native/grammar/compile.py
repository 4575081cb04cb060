"""From what a caller gives to what llguidance compiles, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ArgumentError

# As json.dumps writes: what lies between two values is certain then, and costs no choice.
_JSON_STYLE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

# Nested deeper, recursive compilers are out of their depth.
_MAX_NESTING = 100
# Parts of a schema that are tried one by one to say where it fails.
_MAX_PARTS = 200


@dataclass(frozen=True)
class Source:
    """One of "json_schema", "regex" and "grammar", as text."""

    kind: str
    text: str

    def grammar(self) -> str:
        """As llguidance takes it."""
        from llguidance import LLMatcher

        if self.kind == "regex":
            return str(LLMatcher.grammar_from_regex(self.text))
        if self.kind == "grammar":
            return str(LLMatcher.grammar_from_lark(self.text))
        return str(LLMatcher.grammar_from_json_schema(self.text, defaults=_JSON_STYLE))


def source_of(json_schema: Any = None, regex: Any = None, grammar: Any = None) -> Source | None:
    """What the keywords of that name ask for; None: nothing."""
    given = {"json_schema": json_schema, "regex": regex, "grammar": grammar}
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return None
    if len(given) > 1:
        raise ArgumentError(f"{' and '.join(given)} exclude each other; pass one of them")
    [(kind, value)] = given.items()
    if kind == "json_schema":
        return Source(kind, _schema_text(value))
    if not isinstance(value, str):
        raise ArgumentError(f"{kind} is a {type(value).__name__}; it must be text")
    if not value:
        raise ArgumentError(f"{kind} is empty")
    _check_text(kind, value)
    return Source(kind, value)


def _check_text(kind: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ArgumentError(f"{kind} holds a lone surrogate, which is not a character") from None
    if "\0" in text:
        raise ArgumentError(f"{kind} holds a NUL character")
    depth = 0
    for c in text:
        depth += (c in "([{") - (c in ")]}")
        if depth > _MAX_NESTING:
            raise ArgumentError(f"{kind} is nested deeper than {_MAX_NESTING} brackets")


def _schema_text(schema: Any) -> str:
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as e:
            raise ArgumentError(f"json_schema is not JSON: {e}") from None
    if not isinstance(schema, Mapping):
        shown = "a list" if isinstance(schema, list) else json.dumps(schema, default=repr)[:60]
        raise ArgumentError(f"json_schema is {shown}; it must be an object")
    try:
        if _nesting(schema) > _MAX_NESTING:
            raise RecursionError
        return json.dumps(schema, allow_nan=False, ensure_ascii=True)
    except RecursionError:
        raise ArgumentError(f"json_schema is nested deeper than {_MAX_NESTING} levels") from None
    except (TypeError, ValueError) as e:
        raise ArgumentError(f"json_schema cannot be written as JSON: {e}") from None


def _nesting(value: Any, level: int = 0) -> int:
    if level > _MAX_NESTING:
        raise RecursionError
    children = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, (Mapping, list, tuple)):
        return level
    return max((_nesting(child, level + 1) for child in children), default=level)


def failure(source: Source, message: str, error_of: Callable[[str], str]) -> ArgumentError:
    """The error for a source that cannot be compiled. message: llguidance's; error_of: what it says
    of another grammar, "" if nothing is wrong with that one."""
    where = ""
    if source.kind == "json_schema":
        place = _place(json.loads(source.text), _reason(message), error_of)
        where = f" at {place}" if place else ""
    return ArgumentError(f"{source.kind} cannot be compiled{where}: {_reason(message)}")


def _reason(message: str) -> str:
    """In one line, without what llguidance draws below."""
    lines = [line.strip() for line in message.splitlines()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    first = lines[0].rstrip(":") if lines else ""
    if errors:
        first = first.removesuffix(": regex parse error")
        return f"{first}: {errors[0]}" if first else errors[0]
    return first


def _place(schema: Any, reason: str, error_of: Callable[[str], str]) -> str:
    """JSON pointer of the innermost part that fails for the same reason; "": the whole."""
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    found = ""
    for count, (pointer, part) in enumerate(_parts(schema, "")):
        if count == _MAX_PARTS:
            break
        if not pointer.startswith(found):
            continue
        try:
            grammar = Source("json_schema", json.dumps({**shared, **part})).grammar()
            if _reason(error_of(grammar)) == reason:
                found = pointer
        except ValueError:
            continue
    return found


def _parts(schema: Any, pointer: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Schemas inside a schema, outer ones first."""
    if not isinstance(schema, Mapping):
        return
    if pointer:
        yield pointer, schema
    for key, value in schema.items():
        at = f"{pointer}/{_escaped(key)}"
        if key in ("properties", "patternProperties", "$defs", "definitions"):
            for name, part in value.items() if isinstance(value, Mapping) else ():
                yield from _parts(part, f"{at}/{_escaped(name)}")
        elif key in ("anyOf", "oneOf", "allOf", "prefixItems"):
            for i, part in enumerate(value) if isinstance(value, list) else ():
                yield from _parts(part, f"{at}/{i}")
        elif key in ("items", "additionalProperties"):
            yield from _parts(value, at)


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
