"""The prompt of a chat with an opened model."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from .. import _core
from ..errors import ArgumentError, ModelError
from .messages import prepared, prepared_tools

if TYPE_CHECKING:
    from .template import ChatTemplate, Renderer

_log = logging.getLogger("gemtp_native")

# Keys as templates call them -> what vocabularies call the tokens.
_NAMED = {"eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}

_KEPT = 1_000_000
"""Characters of given templates that are kept ready, beside the one used last."""


class Chats:
    """Templates of an engine's file, or given ones, each made ready once."""

    def __init__(self, engine: _core.Engine, path: str | bytes):
        self._engine = engine
        self._file = os.path.basename(os.fsdecode(path))
        self._lock = threading.Lock()
        self._templates: dict[str | None, Renderer] = {}

    def prompt(
        self, messages: Any, tools: Any, thinking: bool, template: str | None
    ) -> tuple[str, list[int]]:
        """Text and tokens."""
        if template is not None and not isinstance(template, str):
            raise ArgumentError(f"the template is a {type(template).__name__}; it must be text")
        given = prepared(messages)
        declared = prepared_tools(tools)
        rendered = self._ready(template).render(given, declared, bool(thinking))
        return rendered.text, self._engine.tokenizer.encode_chat(rendered.text, rendered.literal)

    def _ready(self, source: str | None) -> Renderer:
        """Kept while there is room; the file's own always."""
        with self._lock:
            found = self._templates.get(source)
        if found is None:
            found = self._load(source)
        with self._lock:
            self._templates.pop(source, None)
            self._templates[source] = found  # the last
            given = [text for text in self._templates if text is not None]
            size = sum(map(len, given))
            for text in given[:-1]:
                if size > _KEPT:
                    size -= len(text)
                    del self._templates[text]
        return found

    def _load(self, source: str | None) -> Renderer:
        from .template import BuiltinTemplate

        if source is not None:
            return self._compile(source, "the chat template")
        own = self._engine.chat_template
        if own is not None:
            name = f"the chat template of {self._file}"
            try:
                text = own.decode("utf-8")
            except UnicodeDecodeError:
                raise ModelError(f"{name} is not valid UTF-8; use another template") from None
            template = self._compile(text, name)
            if template.shortcomings:
                _log.warning(
                    "%s is not the latest of Gemma 4: it %s; a newer file, or the model's newer "
                    "chat_template.jinja as template, does better",
                    name,
                    ", ".join(template.shortcomings),
                )
            return template
        tokenizer = self._engine.tokenizer
        if min(tokenizer.find("<|turn>"), tokenizer.find("<turn|>")) < 0:
            raise ModelError(
                f"{self._file} has no chat template, and no <|turn> in its vocabulary: it was not "
                "made for chats; use generate, or pass a template"
            )
        _log.warning(
            "%s has no chat template; the messages are put in Gemma 4's own format", self._file
        )
        return BuiltinTemplate()

    def _compile(self, source: str, name: str) -> ChatTemplate:
        from .template import ChatTemplate

        tokenizer = self._engine.tokenizer
        tokens = {key: text for key, text in _NAMED.items() if tokenizer.find(text) >= 0}
        tokens["bos_token"] = tokenizer.token_text(tokenizer.bos) if tokenizer.bos >= 0 else ""
        return ChatTemplate(source, tokenizer.control_tokens, tokens, name)
