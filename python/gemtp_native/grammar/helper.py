"""The process in which grammars are tried, as seen from here."""

from __future__ import annotations

import json
import sys
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.log import logger
from . import trial

if TYPE_CHECKING:
    import subprocess

    from .. import _core

_log = logger("grammar")

LIMITS: dict[str, Any] = {"max_lexer_states": 50_000, "verbose_errors": False}
"""Of llguidance, there and here: what a text that is being followed may take."""

_PATIENCE = 30.0  # seconds, where the processor has other things to do


@dataclass(frozen=True)
class Verdict:
    error: str
    bytes: int = 0
    exceeds: bool = False
    """A bound, not a rule: its parts would tell no more."""


class Helper:
    """Starts the process when a grammar is there to be tried, and again when one has ended it. Not
    for several threads at once."""

    def __init__(self, tokenizer: _core.Tokenizer, size: int):
        special = [
            [token, text.encode().decode("latin-1")]
            for text in tokenizer.control_tokens
            if (token := tokenizer.find(text)) >= 0
        ]
        about = {"size": size, "special": special, "end": list(tokenizer.end_tokens)}
        self._about = {**about, "path": sys.path, "limits": LIMITS}
        self._process: subprocess.Popen[bytes] | None = None
        self._end: Any = None
        self._missing = getattr(sys, "frozen", False) or not sys.executable

    def try_out(self, grammar: str) -> Verdict:
        """Whether it compiles within the bounds of `trial`."""
        line = json.dumps(grammar).encode() + b"\n"
        for _ in range(2):
            process = self._started()
            if process is None:
                return Verdict("")
            reply = self._asked(process, line)
            if reply:
                return Verdict(**json.loads(reply))
            code = process.wait()
            self._forget()
            if code != 0:
                return Verdict(_ending(code), exceeds=True)
        return Verdict("the process that tries grammars ends again and again", exceeds=True)

    def _started(self) -> subprocess.Popen[bytes] | None:
        if self._process is None and not self._missing:
            import subprocess

            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", str(Path(trial.__file__))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            except OSError as e:
                self._missing = True
                _log.warning(
                    "no process can be started to try grammars in (%s); one that takes too much "
                    "time or memory is not kept from it",
                    e,
                )
                return None
            self._end = weakref.finalize(self, _close, self._process)
            assert self._process.stdin
            with suppress(OSError):
                self._process.stdin.write(json.dumps(self._about).encode() + b"\n")
        return self._process

    @staticmethod
    def _asked(process: subprocess.Popen[bytes], line: bytes) -> bytes:
        assert process.stdin
        assert process.stdout
        timer = threading.Timer(_PATIENCE, process.kill)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(line)
            process.stdin.flush()
            return process.stdout.readline()
        except OSError:
            return b""
        finally:
            timer.cancel()

    def _forget(self) -> None:
        if self._end is not None:
            self._end()
        self._process = self._end = None


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        with suppress(OSError):
            if stream is not None:
                stream.close()
    process.kill()
    process.wait()


def _ending(code: int) -> str:
    if code == trial.TOO_SLOW:
        return f"it takes longer than {trial.SECONDS:g} seconds; make it simpler"
    if code == trial.TOO_LARGE:
        return f"it takes more than {trial.MEMORY >> 20} MiB; make it simpler"
    return "its parts refer to each other too deeply, or it takes too long; make it simpler"
