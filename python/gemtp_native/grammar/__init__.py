"""Structured output: texts that follow a JSON schema, a regular expression or a grammar."""

from __future__ import annotations

from .calls import Calls, call_tokens, calls_of
from .compile import CALLS, Source, source_of
from .response_format import schema_of
from .vocabulary import INSTALL, Grammars, available

__all__ = [
    "CALLS",
    "INSTALL",
    "Calls",
    "Grammars",
    "Source",
    "available",
    "call_tokens",
    "calls_of",
    "schema_of",
    "source_of",
]
