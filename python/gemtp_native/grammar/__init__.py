"""Structured output: texts that follow a JSON schema, a regular expression or a grammar."""

from __future__ import annotations

from .compile import Source, source_of
from .response_format import schema_of
from .vocabulary import Grammars

__all__ = ["Grammars", "Source", "schema_of", "source_of"]
