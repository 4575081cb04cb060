"""Whether a reply may, must or must not call a function, and the mask that sees to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import _core
from ..base.log import logger
from ..errors import ArgumentError
from ..grammar import CALLS, INSTALL, Grammars, Source, available, call_tokens, calls_of
from ..grammar.calls import STRICT

if TYPE_CHECKING:
    from llguidance import LLMatcher

_log = logger()

_FORM = (
    'tool_choice must be "auto", "none", "required" or '
    '{"type": "function", "function": {"name": ...}}'
)


def required_functions(tool_choice: Any, tools: list[dict[str, Any]]) -> list[str] | None:
    """Returns the functions of which the reply must call one; None if it need not call any. tools:
    as `prepared_tools` returns them."""
    if tool_choice in (None, "auto", "none"):
        return None
    names = [declaration["function"]["name"] for declaration in tools]
    if tool_choice == "required":
        wanted = names
    else:
        function = tool_choice.get("function") if isinstance(tool_choice, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or tool_choice.get("type") != "function":
            raise ArgumentError(_FORM)
        wanted = [name]
        if names and name not in names:
            raise ArgumentError(
                f"tool_choice names {name!r}, but the tools are {', '.join(map(repr, names))}"
            )
    if not names:
        raise ArgumentError("tool_choice asks for a call, but there are no tools")
    return wanted


class CallRules:
    """What a reply may call, and which arguments its calls may have.

    tools: as `prepared_tools` returns them; functions: as `required_functions` does.
    """

    def __init__(
        self,
        engine: _core.Engine,
        grammars: Grammars,
        tools: list[dict[str, Any]],
        functions: list[str] | None,
    ):
        tokenizer = engine.tokenizer
        self._tokenizer = tokenizer
        self._tools = bool(tools)
        self._functions = functions
        self._matcher: LLMatcher | None = None
        marks = [tokenizer.find(mark) for mark in ('<|"|>', "<tool_call|>", "<|tool_call>")]
        self._calls = calls_of(tools, functions, *marks[:2]) if min(marks) >= 0 else None
        if self._calls is None:
            return
        modes = [mode for _, _, mode in self._calls.functions]
        if STRICT not in modes and not available():
            _tell_of_llguidance()
            return
        self._matcher = grammars.matcher(engine, Source(CALLS, self._calls.text()))

    @property
    def masked(self) -> bool:
        """Whether calls follow a grammar."""
        return self._matcher is not None

    def constraint(
        self, prompt: list[int], answer: _core.Constraint | None, thinking: bool
    ) -> _core.Constraint | None:
        """Returns the constraint of the reply. answer: that of an answer, if there is one."""
        if self._functions is None and self._matcher is None and answer is None:
            return None
        return _core.reply_constraint(
            self._tokenizer,
            prompt,
            None if self._functions is not None else answer,
            self._matcher,
            self._functions or [],
            thinking,
            self._tools,
            self._functions is not None,
        )

    def follows(self, name: str, arguments: dict[str, Any]) -> bool:
        """Whether a call that has come without its mark, and so without a mask, could have come
        under it."""
        if self._matcher is None or self._calls is None:
            return True
        tokens = call_tokens(
            name, arguments, lambda text: self._tokenizer.encode(text, False, False), self._calls
        )
        return self._matcher.validate_tokens(tokens) == len(tokens)


_told = False


def _tell_of_llguidance() -> None:
    global _told
    if not _told:
        _told = True
        _log.warning(
            "required calls have any arguments, because llguidance is missing: %s", INSTALL
        )
