"""What the fuzz targets in Python share.

A target is a module fuzz_NAME.py with a function `one_input(data)`: it gives the bytes to a reader
and checks what must hold, which is more than not to crash. `python harness.py NAME [libFuzzer's
options and files]` runs it under atheris; tests/files/test_fuzz_inputs.py calls it without.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from gemtp_native.errors import Error

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

T = TypeVar("T")
TARGETS = ["checkpoint", "grammar", "imatrix", "messages", "profile", "requests"]
_KEYS = [
    *("type", "properties", "items", "anyOf", "$ref", "$defs", "enum", "required", "pattern"),
    *("role", "content", "name", "function", "parameters", "text", "tool_calls", "arguments"),
]
_TEXTS = [
    *("object", "string", "array", "integer", "#", "#/$defs/a", "#/items/0", "^a+$", "user"),
    *("<|turn>", "\ud800", "\0", "\u00b2", "\n", "a" * 70, "1e999", "date"),
]
_NUMBERS = [0, 1, -1, 2**31, 2**63, 2**64, 10**400, -0.0, 1e308, 5e-324, math.inf, math.nan]


class Choices:
    """Values that the bytes of an input choose; when they are used up, the simplest ones."""

    def __init__(self, data: bytes):
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return max(0, len(self._data) - self._at)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def below(self, limit: int) -> int:
        value = self.byte()
        return (value if limit <= 256 else value << 8 | self.byte()) % limit

    def one_of(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def flag(self) -> bool:
        return self.byte() & 1 == 1

    def rest(self) -> bytes:
        rest = self._data[self._at :]
        self._at = len(self._data)
        return rest

    def text(self) -> str:
        if self.flag():
            return self.one_of(_TEXTS)
        length = self.below(12)
        return bytes(self.byte() for _ in range(length)).decode("utf-8", "surrogateescape")

    def number(self) -> int | float:
        return self.one_of(_NUMBERS) if self.flag() else self.byte() - 128

    def value(self, level: int = 0) -> Any:
        """Something that JSON can hold, or that Python's json reads from what is not JSON."""
        kind = self.below(6 if level < 5 else 4)
        if kind < 2:
            return self.one_of([None, True, False]) if kind == 0 else self.number()
        if kind < 4:
            return self.text()
        if kind == 4:
            return [self.value(level + 1) for _ in range(self.below(4))]
        return {
            self.one_of(_KEYS) if self.flag() else self.text(): self.value(level + 1)
            for _ in range(self.below(5))
        }

    def edited(self, value: Any, edits: int) -> Any:
        """A copy of a JSON value in which some parts are others, or are gone."""
        value = json.loads(json.dumps(value))
        for _ in range(edits):
            value = self._edited(value)
        return value

    def _edited(self, value: Any) -> Any:
        if not isinstance(value, (dict, list)) or not value or self.below(8) == 0:
            return self.value()
        keys: Any = list(value) if isinstance(value, dict) else range(len(value))
        key = self.one_of(keys)
        if self.below(8) == 0:
            del value[key]
        elif isinstance(value, dict) and self.below(8) == 0:
            value[self.text()] = self.value()
        else:
            value[key] = self._edited(value[key])
        return value


def check_sentence(message: str) -> None:
    """Checks that a message is one line that a terminal can show."""
    assert message, "an empty message"
    assert not any(ord(c) < 32 or ord(c) == 127 for c in message), repr(message)
    message.encode()


def refused(read: Callable[[], object], kind: type[Exception] = Error) -> bool:
    """Runs `read` and returns whether it raised an error for users of this kind, of which the
    sentence is checked. Whatever else it raises is a find."""
    try:
        read()
    except kind as error:
        message = str(error)
    else:
        return False
    check_sentence(message)
    assert "internal error" not in message, message
    return True


@cache
def _folder() -> AbstractContextManager[str]:
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)


def folder() -> Path:
    """A folder of this process, in memory where there is one."""
    return Path(_folder().name)  # type: ignore[attr-defined]


def _main() -> None:
    import atheris

    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["gemtp_native"]):
        target = importlib.import_module(f"fuzz_{name}")
    atheris.Setup(sys.argv, target.one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.modules["harness"] = sys.modules["__main__"]
    _main()
