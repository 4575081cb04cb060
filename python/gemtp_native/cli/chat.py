"""`gemtp chat`: a conversation with a model."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.counted import counted
from ..base.input_file import MOST_PROMPT, read_standard_input, read_text_input, reason
from ..base.json_text import json_text
from ..errors import ArgumentError, Error, FileError
from . import INTERRUPTED
from .notes import after_the_text
from .options import (
    add_model_options,
    add_pair_options,
    add_sampling_options,
    add_structure_options,
    add_target,
    open_model,
    sampling_options,
    structure_options,
)
from .streams import has_colours
from .text import acceptance_table, options_text, statistics

if TYPE_CHECKING:
    from ..chat.reply import Reply, ReplyStream
    from .conversation import Conversation

MODELS = ("target", "drafter")  # arguments that may name a model by where it comes from

_HELP = """\
/help            this list
/reset           begin anew; the system message stays
/undo            take back the latest question and its answer
/regen           answer the latest question again (with the next seed)
/system [TEXT]   show or set the system message
/think [on|off]  let the model think first
/save FILE       write the conversation as JSON
/load FILE       go on with a saved one
/stats [on|off]  what the latest answer cost; on: after every answer
/quit            end, as Ctrl-D does
A line that ends with \\ goes on in the next one; \"\"\" begins and ends text of several lines.
Ctrl-C stops an answer."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A conversation with a model. In a terminal, /help lists the commands. Other input is one "
        "message, and its answer goes to standard output; --lines reads a message a line."
    )
    add_target(parser)
    add_pair_options(parser)
    chat = parser.add_argument_group("chat")
    chat.add_argument("--system", default="", metavar="TEXT", help="the system message")
    chat.add_argument("--think", action="store_true", help="let the model think first")
    chat.add_argument(
        "--template", type=Path, metavar="FILE", help="a Jinja template instead of the model's"
    )
    mode = chat.add_mutually_exclusive_group()
    mode.add_argument(
        "--complete",
        action="store_true",
        help="go on with what you type instead of answering it, as with models that were not made "
        "to chat",
    )
    mode.add_argument(
        "--chat", action="store_true", help="answer messages, whatever the model was made for"
    )
    chat.add_argument("--load", type=Path, metavar="FILE", help="go on with a saved conversation")
    chat.add_argument(
        "--max-tokens", type=int, metavar="N", help="of an answer (default: what the context holds)"
    )
    chat.add_argument(
        "--lines", action="store_true", help="a message or command a line, also from a pipe"
    )
    add_sampling_options(parser, recommended=True)
    add_structure_options(parser)
    add_model_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--stats", action="store_true", help="statistics after every answer")
    output.add_argument(
        "--json", action="store_true", help="each answer as a line of JSON, when it is complete"
    )
    output.add_argument("--quiet", action="store_true", help="no notes on standard error")


def run(args: argparse.Namespace) -> int:
    if args.complete and args.template:
        raise ArgumentError("--complete has no use for a --template: choose one")
    template = read_text_input(args.template) if args.template else None
    structure = structure_options(args)
    from ..chat.known import AS_TYPED
    from .conversation import Conversation

    model = open_model(args)
    completes = args.complete or (model.completes and not args.chat and template is None)
    options = {
        **sampling_options(args),
        **structure,
        "draft": args.draft,
        "max_tokens": args.max_tokens,
    }
    conversation = Conversation(
        model, args.system, args.think, AS_TYPED if completes else template, options
    )
    if args.load:
        conversation.load(args.load)
    return _Chat(conversation, args, completes).run()


class _Chat:
    """Reads messages and commands, and shows answers."""

    def __init__(self, conversation: Conversation, args: argparse.Namespace, completes: bool):
        self._conversation = conversation
        self._mode_said = not completes
        self._json = args.json
        self._quiet = args.quiet
        self._show_stats = args.stats
        self._lines = args.lines
        self._terminal = sys.stdin.isatty()
        self._dim, self._plain = ("", "")
        if has_colours() and not args.json:
            self._dim, self._plain = ("\x1b[2m", "\x1b[0m")
        self._latest: ReplyStream | None = None
        self._commands: dict[str, Callable[[str], None]] = {
            "help": lambda _: self._say(_HELP),
            "reset": self._reset,
            "undo": self._undo,
            "regen": self._regenerate,
            "system": self._system,
            "think": self._think,
            "save": self._save,
            "load": self._load,
            "stats": self._stats,
        }

    def run(self) -> int:
        if not self._terminal and not self._lines:
            return self._answer_all_of_input()
        if self._terminal:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  line editing and history for input()
            self._unasked("/help lists the commands, Ctrl-D ends")
            self._say_mode()
        if self._terminal and (recommended := self._conversation.recommended):
            self._unasked(f"as the model recommends: {options_text(recommended)}")
        with contextlib.suppress(AttributeError, OSError):
            sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        for text in self._messages():
            try:
                if not self._line(text):
                    break
            except Error as e:
                if not self._terminal:
                    raise
                print(f"gemtp: error: {e}", file=sys.stderr)
        return 0

    def _answer_all_of_input(self) -> int:
        data = read_standard_input()
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as e:
            raise FileError(
                f"standard input is not valid UTF-8: the byte at offset {e.start} does not belong"
            ) from None
        if not text.strip():
            raise FileError("standard input holds no message")
        return INTERRUPTED if self._show(self._conversation.ask(text)) else 0

    # ------------------------------------------------------------ input

    def _messages(self) -> Iterator[str]:
        """Yields messages and commands, one at a time, until the input ends."""
        while True:
            try:
                yield self._message()
            except EOFError:
                if self._terminal:
                    print()
                return
            except KeyboardInterrupt:  # drop the typed text
                if not self._terminal:
                    raise
                print()

    def _message(self) -> str:
        lines = [self._input("> ")]
        size = len(lines[0])

        def add() -> None:
            nonlocal size
            lines.append(self._input(". ", size))
            size += len(lines[-1]) + 1

        if lines[0].lstrip().startswith('"""'):
            lines[0] = lines[0].lstrip()[3:]
            while '"""' not in lines[-1]:
                add()
            lines[-1] = lines[-1][: lines[-1].index('"""')]
            return "\n".join(lines).strip("\n")
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            add()
        return "\n".join(lines)

    def _input(self, prompt: str, before: int = 0) -> str:
        """Reads a line of a message that already has this many characters."""
        try:
            if self._terminal:
                return input(prompt)
            line = sys.stdin.readline(MOST_PROMPT + 1)
        except UnicodeDecodeError:
            raise FileError("standard input is not valid UTF-8") from None
        except OSError as e:
            raise FileError(f"standard input cannot be read: {reason(e)}.") from None
        if before + len(line) > MOST_PROMPT:
            raise FileError(
                f"standard input has a message of more than {MOST_PROMPT:,} characters."
            )
        if not line:
            raise EOFError
        return line.removesuffix("\n")

    def _line(self, text: str) -> bool:
        """Handles a command. Returns False to end the chat."""
        name, _, rest = text.strip().partition(" ")
        if name in ("/quit", "/exit", "/bye"):
            return False
        if name.startswith("/") and "\n" not in text:
            command = self._commands.get(name[1:])
            if command is None:
                self._note(f"there is no command {name}; /help lists them")
            else:
                command(rest.strip())
        elif text.strip():
            self._show(self._conversation.ask(text))
        return True

    # ------------------------------------------------------------ output

    def _show(self, stream: ReplyStream) -> bool:
        """Shows an answer and adds it to the history. Returns whether it was interrupted."""
        self._latest = stream
        with after_the_text():
            interrupted = self._show_text(stream)
            reply = stream.reply
            if interrupted and not reply.content:
                self._conversation.undo()
            else:
                self._conversation.answered(reply)
            if self._json:
                print(json_text(_as_json(reply, interrupted)))
            else:
                sys.stdout.write(self._plain + "\n")
            sys.stdout.flush()
        self._say_mode()
        if interrupted:
            self._note("stopped")
        elif reply.finish_reason == "length":
            self._unasked(f"cut after {counted(len(reply.tokens), 'token')}, as --max-tokens asks")
        elif reply.finish_reason == "context":
            self._unasked("the context is full; /reset begins anew, --context sets its size")
        if self._show_stats:
            self._say_statistics()
        return interrupted

    def _say_mode(self) -> None:
        if not self._mode_said:
            self._unasked("the model goes on with what you type; --chat has it answer instead")
        self._mode_said = True

    def _show_text(self, stream: ReplyStream) -> bool:
        """Prints an answer while it is generated. Returns whether it was interrupted."""
        kind = ""
        try:
            with stream:
                for piece in stream:
                    if not self._json:
                        self._write(piece.kind, piece.text, kind)
                    kind = piece.kind
        except KeyboardInterrupt:
            return True
        except BaseException:
            self._conversation.undo()
            raise
        return False

    def _write(self, kind: str, text: str, before: str) -> None:
        quiet = kind in ("thinking", "tool_call")
        was_quiet = before in ("thinking", "tool_call")
        if before and quiet != was_quiet:
            sys.stdout.write(self._plain + "\n")
        if quiet and not was_quiet:
            sys.stdout.write(self._dim)
        sys.stdout.write(text)
        sys.stdout.flush()

    def _say_statistics(self) -> None:
        if self._latest is None:
            self._note("nothing has been answered yet")
            return
        stats = self._latest.stats
        print(statistics(stats), file=sys.stderr)
        if stats.drafted:
            print(acceptance_table(stats), file=sys.stderr)

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr)

    def _unasked(self, text: str) -> None:
        if not self._quiet:
            self._note(text)

    def _note(self, text: str) -> None:
        print(f"{self._dim}({text}){self._plain}", file=sys.stderr)

    # ------------------------------------------------------------ commands

    def _reset(self, _: str) -> None:
        self._conversation.turns = []
        self._note("a new conversation")

    def _undo(self, _: str) -> None:
        self._note("taken back" if self._conversation.undo() else "there is nothing to take back")

    def _regenerate(self, _: str) -> None:
        if not self._conversation.unanswer():
            self._note("there is no answer yet")
            return
        if not self._conversation.temperature:
            self._note("at temperature 0 it is the same; --temperature 1 makes it another")
        self._show(self._conversation.answer())

    def _system(self, text: str) -> None:
        if text:
            self._conversation.system = text
        self._note(f"system: {self._conversation.system or 'none'}")

    def _think(self, text: str) -> None:
        on = _switch(text, self._conversation.thinking)
        if on is None:
            self._note("/think on or /think off")
            return
        self._conversation.thinking = on
        self._note(f"thinking is {'on' if on else 'off'}")

    def _stats(self, text: str) -> None:
        if not text:
            self._say_statistics()
            return
        on = _switch(text, False)
        if on is None:
            self._note("/stats on or /stats off")
        else:
            self._show_stats = on

    def _save(self, text: str) -> None:
        if not text:
            self._note("/save FILE")
            return
        self._conversation.save(Path(text))
        self._note(f"saved to {text}")

    def _load(self, text: str) -> None:
        if not text:
            self._note("/load FILE")
            return
        self._conversation.load(Path(text))
        self._note(f"{counted(len(self._conversation.turns), 'message')} from {text}")


def _switch(text: str, now: bool) -> bool | None:
    return {"on": True, "off": False, "": not now}.get(text)


def _as_json(reply: Reply, interrupted: bool) -> dict[str, Any]:
    return {
        "content": reply.content,
        "thinking": reply.thinking,
        "tool_calls": [asdict(call) for call in reply.tool_calls],
        "malformed_calls": reply.malformed_calls,
        "text": reply.text,
        "tokens": reply.tokens,
        "finish_reason": "interrupted" if interrupted else reply.finish_reason,
        "stats": asdict(reply.stats),
    }
