"""Runs the process in which grammars are tried."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.limited_process import EndedError, MissingError, Pool, Program, StartError
from ..base.log import logger
from . import trial

if TYPE_CHECKING:
    from .. import _core

_log = logger("grammar")

LIMITS: dict[str, Any] = {"max_lexer_states": 50_000, "verbose_errors": False}
"""Limits of llguidance, in that process and here, for following a text."""

_PATIENCE = 30.0  # seconds; generous, because the processor may be busy


@dataclass(frozen=True)
class Verdict:
    error: str
    bytes: int = 0
    exceeds: bool = False
    """The grammar exceeds a limit, so trying its parts would reveal nothing."""


class Helper:
    """Starts the process for the first grammar, and again if a grammar has ended it."""

    def __init__(self, tokenizer: _core.Tokenizer, size: int):
        special = [
            (token, text.encode())
            for text in tokenizer.control_tokens
            if (token := tokenizer.find(text)) >= 0
        ]
        about = {"size": size, "special": special, "end": list(tokenizer.end_tokens)}
        program = Program(
            file=Path(trial.__file__),
            needs="llguidance",
            settings=(about, LIMITS),
            max_answer=1 << 20,
            stack=trial.STACK,
        )
        self._pool = Pool(program, 1)
        self._missing = False

    def try_out(self, grammar: str) -> Verdict:
        """Whether the grammar compiles within the limits of `trial`."""
        why = "ends again and again"
        for _ in range(2):
            if self._missing:
                return Verdict("")
            try:
                with self._pool.process() as process:
                    answer = process.ask(grammar.encode(), _PATIENCE)
                return Verdict(**json.loads(bytes(answer)))
            except MissingError as e:
                self._missing = True
                _log.warning(
                    "no process can be started to try grammars in (%s); one that takes too much "
                    "time or memory is not kept from it",
                    e,
                )
            except StartError as e:
                why = f"cannot be started: {e}"
            except EndedError as e:
                if e.code != 0:
                    return Verdict(_ending(e.code), exceeds=True)
        return Verdict(f"the process that tries grammars {why}", exceeds=True)


def _ending(code: int) -> str:
    if code == trial.TOO_SLOW:
        return f"it takes longer than {trial.SECONDS:g} seconds; make it simpler"
    if code == trial.TOO_LARGE:
        return f"it takes more than {trial.MEMORY >> 20} MiB; make it simpler"
    return "its parts refer to each other too deeply, or it takes too long; make it simpler"
