"""Converts a caller's schema, pattern or grammar to llguidance's input, and explains its errors."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..base.log import logger
from ..errors import ArgumentError
from .calls import STRICT, Calls
from .schema import is_endless, without_unknown_formats

if TYPE_CHECKING:
    from .helper import Verdict

# The separators of json.dumps: the text between two values is then forced and costs no choice.
_JSON_STYLE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

# Deeper nesting exceeds the stack of recursive compilers.
_MAX_NESTING = 100
# Number of parts of a schema that are tried one by one to find where it fails.
_MAX_PARTS = 200
_PLACE_SECONDS = 1.0
_MAX_REASON = 200  # characters
_MAX_SOURCE = 1_000_000  # characters


_GBNF_RULE = re.compile(r"^\s*[\w-]+\s*::=", re.MULTILINE)


CALLS = "holding calls to their parameters"
"""The kind of sources that `Calls.text` has made."""

_log = logger("grammar")


@dataclass(frozen=True)
class Source:
    """One of "json_schema", "regex", "grammar" and CALLS, as text."""

    kind: str
    text: str

    @property
    def digest(self) -> bytes:
        """A key for caches."""
        return hashlib.sha256(f"{self.kind}:{self.text}".encode()).digest()

    def grammar(self, relaxed: bool = False) -> str:
        """The form that llguidance takes. relaxed: see `Calls.grammar`."""
        from llguidance import LLMatcher

        if self.kind == CALLS:
            calls = Calls.of(self.text).grammar(relaxed)
            for note in calls.notes:
                _log.warning("%s", note)
            return str(LLMatcher.grammar_from_lark(calls.lark))
        if self.kind == "regex":
            return str(LLMatcher.grammar_from_regex(self.text))
        if self.kind == "grammar":
            return str(LLMatcher.grammar_from_lark(self.text))
        return str(LLMatcher.grammar_from_json_schema(self.text, defaults=_JSON_STYLE))


def source_of(json_schema: Any = None, regex: Any = None, grammar: Any = None) -> Source | None:
    """Returns the source for the keywords of these names; None: no constraint."""
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
    if kind == "grammar" and _GBNF_RULE.search(value):
        raise ArgumentError(
            "grammar is in GBNF, llama.cpp's form, and has to be in Lark's: `python -m "
            "llguidance.gbnf_to_lark FILE.gbnf` writes FILE.lark"
        )
    return Source(kind, value)


def _check_size(kind: str, text: str) -> None:
    if len(text) > _MAX_SOURCE:
        raise ArgumentError(
            f"{kind} has {len(text)} characters; it must have at most {_MAX_SOURCE:,}"
        )


def _check_text(kind: str, text: str) -> None:
    _check_size(kind, text)
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
        text = json.dumps(schema, allow_nan=False, ensure_ascii=True)
    except RecursionError:
        raise ArgumentError(f"json_schema is nested deeper than {_MAX_NESTING} levels") from None
    except (TypeError, ValueError) as e:
        raise ArgumentError(f"json_schema cannot be written as JSON: {e}") from None
    _check_size("json_schema", text)
    schema = json.loads(text)
    if is_endless(schema):
        raise ArgumentError(
            "json_schema asks for a text without end: it refers to itself in a part that has to "
            "come; make that part optional, or let it be null"
        )
    return json.dumps(without_unknown_formats(schema))


def _nesting(value: Any, level: int = 0) -> int:
    if level > _MAX_NESTING:
        raise RecursionError
    children = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, (Mapping, list, tuple)):
        return level
    return max((_nesting(child, level + 1) for child in children), default=level)


def failure(
    source: Source, verdict: Verdict, verdict_of: Callable[[str], Verdict]
) -> ArgumentError:
    """Returns the error for a source that cannot be compiled. verdict_of: tries another grammar."""
    where = ""
    if source.kind == CALLS:
        what = _culprit(Calls.of(source.text), verdict_of)
        return ArgumentError(f"{what} cannot be compiled: {_reason(verdict.error)}")
    if source.kind == "json_schema" and not verdict.exceeds:
        place = _place(json.loads(source.text), _reason(verdict.error), verdict_of)
        where = f" at {place}" if place else ""
    return ArgumentError(f"{source.kind} cannot be compiled{where}: {_reason(verdict.error)}")


def _culprit(calls: Calls, verdict_of: Callable[[str], Verdict]) -> str:
    deadline = time.monotonic() + _PLACE_SECONDS
    for function in calls.functions:
        alone = Source(CALLS, Calls(calls.quote, calls.end, [function]).text())
        if function[2] == STRICT and verdict_of(alone.grammar(relaxed=True)).error:
            return f"the parameters of the function {function[0]!r}"
        if time.monotonic() > deadline:
            break
    return "the parameters of the tools"


def _reason(message: str) -> str:
    """Returns llguidance's message as one line, without the drawing below it."""
    lines = [line.strip() for line in message.splitlines()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    first = lines[0].rstrip(":") if lines else ""
    if errors:
        first = first.removesuffix(": regex parse error")
        first = f"{first}: {errors[0]}" if first else errors[0]
    return first if len(first) <= _MAX_REASON else f"{first[: _MAX_REASON - 3]}..."


def _place(schema: Any, reason: str, verdict_of: Callable[[str], Verdict]) -> str:
    """Returns the JSON pointer of the innermost part that fails for the same reason; "": the whole
    schema."""
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    found = ""
    deadline = time.monotonic() + _PLACE_SECONDS
    for count, (pointer, part) in enumerate(_parts(schema, "")):
        if count == _MAX_PARTS or time.monotonic() > deadline:
            break
        if not pointer.startswith(found):
            continue
        try:
            grammar = Source("json_schema", json.dumps({**shared, **part})).grammar()
            if _reason(verdict_of(grammar).error) == reason:
                found = pointer
        except ValueError:
            continue
    return found


def _parts(schema: Any, pointer: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the schemas inside a schema, outer ones first."""
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
