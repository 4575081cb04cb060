"""A model's vocabulary as llguidance needs it, and matchers over it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from .. import _core
from ..base.ending import finished_before_end, sleeping_at_end
from ..base.forking import begins_anew_in_child
from ..base.log import logger
from ..errors import ArgumentError
from . import trial
from .compile import CALLS, Source, failure

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from .helper import Helper

_log = logger("grammar")

KEPT = 64 << 20
"""Limit on the bytes of compiled grammars that are kept."""
_LEAST = 256 << 10  # bytes that a compiled grammar counts at least
_REFUSALS = 256  # number of refusals that are remembered
INSTALL = "pip install 'gemtp-native[grammar]'"

T = TypeVar("T")


@dataclass(frozen=True)
class _Compiled:
    matcher: LLMatcher
    bytes: int


class _Wrapper:
    """The interface that llguidance requires of a tokenizer."""

    def __init__(self, tokenizer: _core.Tokenizer):
        self._tokenizer = tokenizer
        self.is_tokenizer_wrapper = True
        self.eos_token_id = tokenizer.end_tokens[0]
        self.bos_token_id = tokenizer.bos if tokenizer.bos >= 0 else None
        self.tokens, self.special_token_ids = _core.grammar_vocabulary(tokenizer)

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, False, False)


def available() -> bool:
    """Whether llguidance is installed."""
    try:
        import llguidance  # noqa: F401
    except ImportError:
        return False
    return True


class Grammars:
    """Compiles grammars for a model. Its vocabulary is taken in once, when the first is asked for.
    What has been compiled is kept while there is room, and what cannot be as a sentence. For any
    thread."""

    def __init__(self) -> None:
        self.begin_in_child()
        begins_anew_in_child(self)
        self._kept: OrderedDict[bytes, _Compiled] = OrderedDict()
        self._refusals: OrderedDict[bytes, str] = OrderedDict()
        self._tokenizer: LLTokenizer | None = None
        self._helper: Helper | None = None

    def begin_in_child(self) -> None:
        self._compiling = threading.Lock()
        self._lock = threading.Lock()  # guards the caches; never held for long

    def constraint(self, engine: _core.Engine, source: Source | None) -> _core.Constraint | None:
        """Returns a constraint for one generation. Raises ArgumentError for a source that cannot be
        compiled."""
        return _core.matcher_constraint(self.matcher(engine, source)) if source else None

    def matcher(self, engine: _core.Engine, source: Source) -> LLMatcher:
        """Returns a matcher for one generation. Raises like :meth:`constraint`."""
        with finished_before_end():
            matcher = self._found(source)
            if matcher is None:
                with self._compiling:
                    matcher = self._found(source) or self._made(engine, source)
            return matcher

    def _found(self, source: Source) -> LLMatcher | None:
        """Returns a copy of the cached matcher."""
        with self._lock:
            refusal = self._refusals.get(source.digest)
            found = self._kept.get(source.digest)
            if found is not None:
                self._kept.move_to_end(source.digest)
        if refusal is not None:
            raise ArgumentError(refusal)
        return found.matcher.deep_copy() if found else None

    def _made(self, engine: _core.Engine, source: Source) -> LLMatcher:
        if not available():
            raise ArgumentError(f"{source.kind} needs llguidance: {INSTALL}")
        try:
            compiled = self._compiled(engine, source)
        except ArgumentError as e:
            with self._lock:
                self._refusals[source.digest] = str(e)
                if len(self._refusals) > _REFUSALS:
                    self._refusals.popitem(last=False)
            raise
        with self._lock:
            self._kept[source.digest] = compiled
            while sum(c.bytes for c in self._kept.values()) > KEPT:
                self._kept.popitem(last=False)
        return compiled.matcher.deep_copy()

    def _compiled(self, engine: _core.Engine, source: Source) -> _Compiled:
        from .helper import LIMITS, Helper, Verdict

        tokenizer = self._vocabulary(engine)
        if self._helper is None:
            self._helper = Helper(engine.tokenizer, engine.vocab_size)
        helper = self._helper
        grammar = source.grammar()
        verdict = helper.try_out(grammar)
        if verdict.error and source.kind == CALLS:  # those of other functions may do
            relaxed = source.grammar(relaxed=True)
            verdict = helper.try_out(relaxed) if relaxed != grammar else verdict
            grammar = relaxed
        if verdict.error:
            raise failure(source, verdict, helper.try_out)
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(**LIMITS)
        matcher = _with_stack(lambda: LLMatcher(tokenizer, grammar, log_level=0, limits=limits))
        if matcher.is_error():
            raise failure(source, Verdict(matcher.get_error()), helper.try_out)
        for warning in matcher.get_grammar_warnings():
            _log.warning("%s: %s", source.kind, warning)
        return _Compiled(matcher, max(verdict.bytes, _LEAST))

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


def _with_stack(work: Callable[[], T]) -> T:
    """Runs in a thread whose stack suffices for every grammar that has passed the trial."""
    made: list[T] = []
    error: BaseException = MemoryError("there is no memory for a thread")

    def run() -> None:
        nonlocal error
        try:
            made.append(work())
        except BaseException as e:
            error = e

    thread = threading.Thread(target=run)
    with _stacks:
        usual = threading.stack_size(2 * trial.STACK)
        try:
            with sleeping_at_end():
                thread.start()
        finally:
            threading.stack_size(usual)
    thread.join()
    if not made:
        raise error
    return made[0]


_stacks = threading.Lock()
