"""A model's vocabulary as llguidance needs it, and matchers over it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from .. import _core
from ..errors import ArgumentError
from ..log import logger
from .compile import Source, failure

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_log = logger("grammar")

_KEPT = 32  # compiled grammars


class _Wrapper:
    """What llguidance asks of a tokenizer."""

    def __init__(self, tokenizer: _core.Tokenizer):
        self._tokenizer = tokenizer
        self.is_tokenizer_wrapper = True
        self.eos_token_id = tokenizer.end_tokens[0]
        self.bos_token_id = tokenizer.bos if tokenizer.bos >= 0 else None
        self.tokens, self.special_token_ids = _core.grammar_vocabulary(tokenizer)

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, False, False)


class Grammars:
    """Compiles grammars for a model. Its vocabulary is taken in once, when the first is asked for;
    what has been compiled is kept. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[Source, LLMatcher] = OrderedDict()

    def constraint(self, engine: _core.Engine, source: Source | None) -> _core.Constraint | None:
        """For one generation. Raises ArgumentError for what cannot be compiled."""
        if source is None:
            return None
        with self._lock:
            matcher = self._matcher(engine, source)
            return _core.matcher_constraint(matcher.deep_copy())

    def _matcher(self, engine: _core.Engine, source: Source) -> LLMatcher:
        try:
            from llguidance import LLMatcher
        except ImportError:
            raise ArgumentError(
                f"{source.kind} needs llguidance: pip install 'gemtp-native[grammar]'"
            ) from None
        found = self._compiled.get(source)
        if found is None:
            tokenizer = self._vocabulary(engine)

            def compiled(grammar: str) -> LLMatcher:
                return LLMatcher(tokenizer, grammar, log_level=0)

            try:
                found = compiled(source.grammar())
            except ValueError as e:
                raise ArgumentError(f"{source.kind} cannot be compiled: {e}") from None
            if found.is_error():
                message = found.get_error()
                raise failure(source, message, lambda other: compiled(other).get_error())
            for warning in found.get_grammar_warnings():
                _log.warning("%s: %s", source.kind, warning)
            self._compiled[source] = found
            if len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(source)
        return found

    def _vocabulary(self, engine: _core.Engine) -> LLTokenizer:
        if self._tokenizer is None:
            from llguidance import LLTokenizer

            tokenizer = engine.tokenizer
            if not tokenizer.end_tokens:
                raise ArgumentError(
                    "the model's vocabulary names no end token, so no grammar could end its text"
                )
            wrapper: Any = _Wrapper(tokenizer)
            self._tokenizer = LLTokenizer(
                wrapper,
                n_vocab=engine.vocab_size,
                eos_token=tokenizer.end_tokens,
                slices=LLTokenizer.json_slices(),
            )
        return self._tokenizer
