"""Untrusted templates, each rendered in a separate process with limits on time and memory."""

from __future__ import annotations

import marshal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..base.limited_process import EndedError, Pool, Program, StartError
from ..errors import ArgumentError, ModelError
from .clock import SECONDS, Clock, TemplateLimitError, one_clock

MEMORY = 512 << 20
"""Memory limit of a process in bytes, including the interpreter."""
MAX_SOURCE = 1_000_000
MAX_OUTPUT = 16_000_000
"""Limit on the characters of a rendering."""
PROCESSES = 4

PROGRAM = Program(
    file=Path(__file__).with_name("jinja_process.py"),
    needs="jinja2",
    settings=(MEMORY, MAX_OUTPUT),
    max_answer=4 * MAX_OUTPUT + 1000,
    memory=MEMORY,
)
pool = Pool(PROGRAM, PROCESSES)


class Template:
    """A template that compiles. `name` is used in sentences: "the chat template of model.gguf"."""

    def __init__(self, source: str, name: str = "the chat template", seconds: float = SECONDS):
        self.name = name
        self._source = source
        self._seconds = seconds
        if len(source) > MAX_SOURCE:
            raise ModelError(f"{name} has {len(source)} characters; at most {MAX_SOURCE} are run")
        self._ask(None, None)

    def render(self, variables: Mapping[str, Any], marks: Mapping[int, str] | None = None) -> str:
        """Renders. marks, for str.translate, replace characters in messages and tools."""
        return self._ask(dict(variables), marks)

    def _ask(self, variables: dict[str, Any] | None, marks: Mapping[int, str] | None) -> str:
        with one_clock(self._seconds) as clock:
            try:
                kind, text = _answer((self._source, variables, marks, clock.left), clock)
            except StartError as e:
                raise ModelError(f"{self.name} runs in a process of its own, and {e}") from None
            except EndedError as e:
                broken = _broken_bound(e, clock)
                raise TemplateLimitError(f"{self.name} {broken}; use another template") from None
        if kind == b"T":
            return text
        sentence = f"{self.name} {' '.join(text.split())[:300]}"
        if kind == b"R":
            raise ArgumentError(sentence)
        raise (TemplateLimitError if kind == b"U" else ModelError)(
            f"{sentence}; use another template"
        )


def _answer(asked: Any, clock: Clock) -> tuple[bytes, str]:
    """Returns the answer's kind and text, as sent by `jinja_process`."""
    with pool.process() as process:
        request = marshal.dumps(asked, 4)
        begin = time.monotonic()
        try:
            answer = process.ask(request, clock.left)
            return bytes(answer[:1]), str(answer[1:], "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise EndedError(process.end()) from None
        finally:
            clock.left -= time.monotonic() - begin


def _broken_bound(e: EndedError, clock: Clock) -> str:
    if e.late:
        return f"takes longer than {clock.seconds:g} seconds"
    if e.large:
        return f"needs more than {MEMORY >> 20} MB of memory"
    return f"brings the process down that renders it, which may take {MEMORY >> 20} MB"
