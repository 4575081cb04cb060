"""The prompt of a chat with an opened model."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .. import _core, chat
from ..arguments import boolean
from ..base.log import logger
from ..errors import ArgumentError, Error, ModelError
from .clock import one_clock
from .known import known_template
from .messages import content_text, prepared, prepared_tools, without_strict

if TYPE_CHECKING:
    from .template import ChatTemplate, Rendered, Renderer

_log = logger()

# Variables of templates -> tokens of vocabularies.
_NAMED = {"eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}

_SCHEMA_MEMBERS = frozenset({"type", "description", "properties", "required", "nullable"})

_KEPT = 1_000_000
"""Total characters of the callers' templates that are kept compiled, besides the latest one."""


def _can_go_on(message: dict[str, Any]) -> bool:
    """Whether the message is text of the assistant that can be continued."""
    if message["role"] != "assistant" or message.get("tool_calls"):
        return False
    if message.get("tool_responses"):
        return False
    return bool(content_text(message["content"]) or message.get("reasoning_content"))


_early: threading.Thread | None = None
_started = False


def start_early(path: str | bytes | os.PathLike[str]) -> None:
    """Starts a process for the first chat's template while the model is opened, and has it compiled
    there, if the template needs that."""
    global _early
    if chat.expected and not _started:
        early = threading.Thread(target=_start, args=(path,), daemon=True)
        early.start()
        _early = early


def _start(path: str | bytes | os.PathLike[str]) -> None:
    global _started
    try:
        template = _core.GgufFile(path).value("tokenizer.chat_template")
    except Error:  # whoever opens the file will hear
        return
    if isinstance(template, str) and not known_template(template):
        from .sandbox import Template

        _started = True
        with suppress(Error):
            Template(template)


class Chats:
    """The templates for an engine, its file's or the caller's, each compiled once."""

    def __init__(self, engine: _core.Engine, path: str | bytes):
        self._engine = engine
        self._file = os.path.basename(os.fsdecode(path))
        self._lock = threading.Lock()
        self._templates: dict[str | None, Renderer] = {}
        self._hidden: set[tuple[str, str]] = set()

    def prompt(
        self,
        messages: Any,
        tools: Any,
        thinking: bool | None,
        template: str | None,
        continue_final_message: bool | None = None,
        add_generation_prompt: bool | None = None,
    ) -> tuple[str, list[int]]:
        """Returns the prompt as text and tokens."""
        if _early is not None:
            _early.join()
        if template is not None and not isinstance(template, str):
            raise ArgumentError(f"the template is a {type(template).__name__}; it must be text")
        thinking = thinking is not None and boolean("thinking", thinking)
        for name, flag in (
            ("continue_final_message", continue_final_message),
            ("add_generation_prompt", add_generation_prompt),
        ):
            if flag is not None:
                boolean(name, flag)
        given = prepared(messages)
        declared = [without_strict(tool) for tool in prepared_tools(tools)]
        if continue_final_message and add_generation_prompt:
            raise ArgumentError(
                "continue_final_message and add_generation_prompt exclude each other; a message "
                "that goes on needs no beginning"
            )
        final = given[-1]
        if continue_final_message is None:
            continue_final_message = (
                add_generation_prompt is None
                and len(given) > 1
                and _can_go_on(final)
                and bool(thinking or content_text(final["content"]))
            )
        elif continue_final_message and not (len(given) > 1 and _can_go_on(final)):
            raise ArgumentError(
                "continue_final_message needs a conversation that ends with text or reasoning of "
                "the assistant, without calls of tools, behind another message"
            )
        if continue_final_message:
            given.pop()
        with one_clock():
            rendered = self._ready(template).render(
                given,
                declared,
                thinking,
                continue_final_message or add_generation_prompt is not False,
            )
        self._tell_of_hidden(declared, rendered.text)
        if continue_final_message:
            rendered = self._continued(rendered, final, thinking)
        return rendered.text, self._engine.tokenizer.encode_chat(rendered.text, rendered.literal)

    def _tell_of_hidden(self, declared: list[dict[str, Any]], text: str) -> None:
        """Warns, once for each, of parameters that the template has not written, as Gemma's leaves
        out those that are called like a member of a schema."""
        for tool in declared:
            function = tool["function"]
            parameters = function.get("parameters")
            members = parameters.get("properties") if isinstance(parameters, dict) else None
            for name in _SCHEMA_MEMBERS.intersection(members if isinstance(members, dict) else ()):
                shown = any(form in text for form in (f"{name}:{{", f'"{name}"', f"'{name}'"))
                if not shown and (function["name"], name) not in self._hidden:
                    self._hidden.add((function["name"], name))
                    _log.warning(
                        "the chat template does not show the model the parameter %r of the tool "
                        "%r; give it another name",
                        name,
                        function["name"],
                    )

    def _continued(self, rendered: Rendered, begun: dict[str, Any], thinking: bool) -> Rendered:
        """Appends the given beginning of the model's turn, in the form in which the model writes
        it."""
        thought, text = begun.get("reasoning_content", ""), content_text(begun["content"])
        thinks = thinking and self._engine.tokenizer.find("<|channel>") >= 0
        if not thinks and not text:
            raise ArgumentError(
                "the final message holds reasoning alone, and goes on only where the model may "
                "think; pass thinking=True"
            )
        if thinks and thought:
            rendered = rendered.with_more("<|channel>thought\n", thought)
            rendered = rendered.with_more("\n<channel|>" if text else "", "")
        return rendered.with_more("", text)

    def _ready(self, source: str | None) -> Renderer:
        """Compiled templates are kept within a limit; the file's own is always kept."""
        with self._lock:
            found = self._templates.get(source)
        if found is None:
            found = self._load(source)
        with self._lock:
            self._templates.pop(source, None)
            self._templates[source] = found  # moved to the end, as the latest
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
