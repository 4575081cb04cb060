"""The history of `gemtp chat`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.input_file import read_input
from ..base.json_text import json_text
from ..base.whole_file import write_whole
from ..errors import ArgumentError, FileError
from ..options import NONE, later_seed

if TYPE_CHECKING:
    from ..chat.reply import Reply, ReplyStream
    from ..model import Model


class Conversation:
    """The messages so far, and the options for the next answer."""

    def __init__(
        self,
        model: Model,
        system: str = "",
        thinking: bool = False,
        template: str | None = None,
        options: dict[str, Any] | None = None,
    ):
        self.model = model
        self.system = system
        self.thinking = thinking
        self.template = template
        self.options = dict(options or {})
        model._check_options(self.options)
        self.turns: list[dict[str, Any]] = []

    @property
    def messages(self) -> list[dict[str, Any]]:
        first = [{"role": "system", "content": self.system}] if self.system else []
        return first + self.turns

    @property
    def recommended(self) -> dict[str, float]:
        """The options taken from the model's file, because the user has not set them."""
        sampling = self.model.sampling
        return {name: value for name, value in sampling.items() if name not in self.options}

    @property
    def temperature(self) -> float:
        chosen: dict[str, Any] = {**self.model.sampling, **self.options}
        return float(chosen.get("temperature", 0))

    def ask(self, text: str) -> ReplyStream:
        """Adds a message and begins an answer; answered() or undo() must follow."""
        self.turns.append({"role": "user", "content": text})
        try:
            return self.answer()
        except Exception:
            self.turns.pop()
            raise

    def answer(self) -> ReplyStream:
        return self.model.chat_stream(
            self.messages, thinking=self.thinking, template=self.template, **self.options
        )

    def answered(self, reply: Reply) -> None:
        self.turns.append(reply.message)

    def undo(self) -> bool:
        """Removes the latest question and its answer."""
        while self.turns:
            if self.turns.pop()["role"] == "user":
                return True
        return False

    def unanswer(self) -> bool:
        """Removes the latest answer; when sampling, the next one will differ."""
        at = len(self.turns)
        while at and self.turns[at - 1]["role"] != "user":
            at -= 1
        if at == 0:
            return False
        del self.turns[at:]
        if self.options.get("seed") != NONE:
            self.options["seed"] = later_seed(self.options.get("seed") or 0, 1)
        return True

    def save(self, path: Path) -> None:
        """Saves the conversation as JSON that only the owner may read; the file appears when
        complete."""
        text = json_text({"messages": self.messages}, indent=2) + "\n"
        write_whole(path, text.encode("utf-8"), private=True)

    def load(self, path: Path) -> None:
        """Replaces this conversation by a saved one."""
        from ..chat.messages import prepared

        try:
            saved = json.loads(read_input(path))
        except ValueError:
            raise FileError(f"{path} is no saved conversation: it is not JSON in UTF-8") from None
        try:
            messages = prepared(saved["messages"] if isinstance(saved, dict) else saved)
        except (KeyError, ArgumentError) as e:
            raise FileError(f"{path} is no saved conversation: {e}") from None
        self.system = ""
        if messages[0]["role"] in ("system", "developer"):
            self.system = str(messages.pop(0).get("content", ""))
        self.turns = messages
