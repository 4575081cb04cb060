"""Reads the members of a request one by one, with strict checks, and rejects unknown ones."""

from __future__ import annotations

import difflib
import json
import logging
import math
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NoReturn

from ..options import Option
from .errors import RequestError

_log = logging.getLogger("gemtp_native.serve")

MAX_NESTING = 64
MAX_VALUES = 300_000
"""Most values in a body: more than the longest context has tokens."""

_STRING = re.compile(rb'"(?:[^"\\]+|\\.)*"', re.DOTALL)


def parse_json(body: bytes) -> dict[str, Any]:
    """Parses a request's body. Its values are finite, encodable as UTF-8 and not deeply nested."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as e:
        raise RequestError(
            f"the body is not valid UTF-8 (byte {e.start}); send JSON in UTF-8", code="invalid_json"
        ) from None
    _check_count(body)
    try:
        data = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RequestError:
        raise
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as e:
        raise RequestError(
            f"the body is not JSON: {e.msg} at line {e.lineno}, column {e.colno}; send an object "
            "such as OpenAI's protocol has it",
            code="invalid_json",
        ) from None
    except ValueError:  # integers with thousands of digits
        raise RequestError("a number in the body is too long", code="invalid_json") from None
    if not isinstance(data, dict):
        raise RequestError(f"the body is {_kind(data)}; send a JSON object", code="invalid_json")
    _check(data)
    return data


def _check_count(body: bytes) -> None:
    """Limits the number of values, because json blocks other threads while it reads."""
    if sum(map(body.count, _SEPARATORS)) <= MAX_VALUES:
        return
    count = last = 0
    for text in _STRING.finditer(body):
        count += sum(body.count(c, last, text.start()) for c in _SEPARATORS)
        last = text.end()
        if count > MAX_VALUES:
            break
    count += sum(body.count(c, last) for c in _SEPARATORS)
    if count > MAX_VALUES:
        raise RequestError(
            f"the body holds more than {MAX_VALUES} values; send less at once", code="invalid_json"
        )


_SEPARATORS = (b",", b"[", b"{")


def _no_number(name: str) -> NoReturn:
    raise RequestError(f"{name} is not JSON; send a finite number", code="invalid_json")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        raise RequestError(f"the number {shown} is too large", code="invalid_json")
    return value


def _too_deep() -> RequestError:
    return RequestError(
        f"the body is nested more than {MAX_NESTING} deep; simplify it", code="invalid_json"
    )


def _check(data: Any) -> None:
    level: list[Any] = [data]
    for _ in range(MAX_NESTING):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += value.keys()
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str) and not value.isascii():
                _check_text(value)
        if not below:
            return
        level = below
    raise _too_deep()


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RequestError(
            "a text in the body holds a lone surrogate (\\ud800 to \\udfff), which is not a "
            "character; clean the input first",
            code="invalid_json",
        ) from None


class Fields:
    """The members of an object. A member that is null counts as absent, as in OpenAI's protocol.

    Each member is requested once, by its type; ``finish`` checks those that were not requested.
    """

    def __init__(self, data: dict[str, Any], where: str = "", lenient: bool = False):
        self.data = data
        self.lenient = lenient
        self._where = where
        self._known: set[str] = set()

    def take(self, name: str) -> Any:
        self._known.add(name)
        return self.data.get(name)

    def inner(self, name: str, data: dict[str, Any]) -> Fields:
        return Fields(data, self.path(name), self.lenient)

    def path(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def refuse(self, name: str, must: str, code: str = "invalid_value") -> NoReturn:
        param = self.path(name)
        raise RequestError(f"{param} is {shown(self.data.get(name))}; {must}", param, code)

    def integer(self, name: str, low: int, high: int) -> int | None:
        value = self._whole(name)
        if value is not None and not low <= value <= high:
            self.refuse(name, f"it must be between {low} and {high}")
        return value

    def _whole(self, name: str) -> int | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(name, "it must be a whole number", "invalid_type")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        value = self._number(name)
        if value is not None and not low <= value <= high:
            self.refuse(name, f"it must be at least {low:g} and at most {high:g}")
        return value

    def option(self, option: Option, name: str | None = None) -> Any:
        """Reads an option of generations. name: of the member, if it is another."""
        name = name or option.name
        value: float | None = self._whole(name) if option.whole else self._number(name)
        if value is not None and not option.contains(value):
            self.refuse(name, f"it must be {option.domain}")
        return value

    def _number(self, name: str) -> float | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.refuse(name, "it must be a number", "invalid_type")
        return value

    def boolean(self, name: str) -> bool | None:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, "it must be true or false", "invalid_type")
        return value

    def text(self, name: str, longest: int | None = None) -> str | None:
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, str):
            self.refuse(name, "it must be a text", "invalid_type")
        if longest is not None and len(value) > longest:
            self.refuse(name, f"it must have at most {longest} characters")
        return value

    def list(self, name: str) -> list[Any] | None:
        value = self.take(name)
        if value is not None and not isinstance(value, list):
            self.refuse(name, "it must be a list", "invalid_type")
        return value

    def object(self, name: str) -> Fields | None:
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.refuse(name, "it must be an object", "invalid_type")
        return self.inner(name, value)

    def objects(self, name: str) -> Sequence[Fields]:
        out = []
        for i, value in enumerate(self.list(name) or []):
            if not isinstance(value, dict):
                at = self.path(f"{name}[{i}]")
                raise RequestError(
                    f"{at} is {shown(value)}; it must be an object", self.path(name), "invalid_type"
                )
            out.append(self.inner(f"{name}[{i}]", value))
        return out

    def schema(self, name: str) -> dict[str, Any] | None:
        """Reads a JSON schema, whose members are not members of the request."""
        found = self.object(name)
        return None if found is None else found.data

    def one_of(self, name: str, values: Sequence[str]) -> str | None:
        """Reads one of these texts; with `lenient`, other texts count as absent."""
        value = self.text(name)
        if value is None or value in values:
            return value
        if not self.lenient:
            known = f"{', '.join(map(shown, values[:-1]))} or {shown(values[-1])}"
            self.refuse(name, f"it must be {known}")
        self.note(name, "its value is not known")
        return None

    def only(self, name: str, values: Collection[Any], because: str) -> None:
        """Checks a member of the protocol of which only these values are supported."""
        value = self.take(name)
        same = (isinstance(value, bool) == isinstance(v, bool) and value == v for v in values)
        if value is not None and not any(same):
            self.refuse(name, because, "unsupported_value")

    def finish(self, ignored: Iterable[str] = (), empty: bool = False) -> None:
        """Rejects members that were not requested, unless they may be ignored. empty: also those
        that hold nothing may."""
        given = [name for name, value in self.data.items() if value is not None]
        left = [name for name in given if name not in self._known]
        if empty:
            left = [name for name in left if self.data[name] not in ("", [], {})]
        for name in set(ignored).intersection(left):
            self.note(name, "it means nothing here")
            left.remove(name)
        if self.lenient:
            for name in left[:_MOST_NOTES]:
                self.note(name, "it is not known")
            return
        if not left:
            return
        known = sorted(self._known.union(ignored))
        close = difflib.get_close_matches(left[0][:64], known, 1)
        hint = (
            f"did you mean {close[0]}?" if close else "leave it out, or start the server --lenient"
        )
        param = self.path(left[0][:64])
        raise RequestError(f"there is no {param}; {hint}", param, "unknown_parameter")

    def note(self, name: str, why: str) -> None:
        """Logs that a member is ignored, once for all requests."""
        member = re.sub(r"\[[0-9]+\]", "[]", self.path(name[:64]))
        if member not in _noted and len(_noted) < _MOST_NOTES:
            _noted.add(member)
            _log.warning("requests have %s, which is ignored: %s", ascii(member)[1:-1], why)


_noted: set[str] = set()
_MOST_NOTES = 100


def shown(value: Any) -> str:
    """Formats a value for a sentence: short, whatever it is."""
    if isinstance(value, (dict, list)):
        return _kind(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return shown(value)
