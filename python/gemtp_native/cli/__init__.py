"""The `gemtp` command. Each subcommand is a module with add_arguments(parser) and run(args). If it
defines WRONG_USAGE, exceptions of that type end with the exit code of wrong usage."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from .. import __version__, chat
from ..errors import Error
from . import streams
from .signals import orderly_end
from .spellings import command_hint, option_names, translated

__all__ = ["main"]

INTERRUPTED = 130  # 128 + SIGINT
BROKEN_PIPE = 141  # 128 + SIGPIPE

# name: (module, one line of help)
_COMMANDS = {
    "generate": (".generate", "complete a prompt"),
    "chat": (".chat", "a conversation with a model"),
    "serve": (".serve", "a server that speaks OpenAI's protocol, and a page to chat"),
    "convert": (".convert", "Hugging Face folder to GGUF"),
    "pull": (".pull", "fetch a model from the Hugging Face hub, and its drafter"),
    "quantize": (".quantize", "write a GGUF in another type: smaller, if less exact"),
    "imatrix": (".imatrix", "measure on a text where the precision of weights counts"),
    "cluster": (".cluster", "build an ordered head for a drafter that has a plain one"),
    "inspect": (".inspect", "show what is in a GGUF, and whether a drafter fits its target"),
    "info": (".info", "show what this machine and build can run"),
    "synth": (".synth", "write a pair with the shapes of a released one, for measuring speed"),
    "bench": (".bench", "measure what a model costs on this machine"),
    "tune": (".tune", "measure what draft=auto starts from, and how many tokens to draft"),
    "perplexity": (".perplexity", "how well a model predicts a text, as llama.cpp measures it"),
    "sweep": (".sweep", "what quantizing a pair does to acceptance, speed and quality"),
    "export": (".export", "print how other engines run the same pair"),
    "demo": (".demo", "run the shipped pair, with and without its drafter"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0: done; 1: an error, reported in one line; 2: wrong usage; 130:
    interrupted; 143 and 129: ended by SIGTERM and SIGHUP."""
    streams.prepare()
    try:
        with orderly_end():
            return _ended(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader has closed the pipe
        return BROKEN_PIPE
    except Exception as e:
        if os.environ.get("GEMTP_DEBUG"):
            raise
        streams.say(f"gemtp: error: {_sentence(e)}")
        return 1
    finally:
        streams.settle()


def _ended(argv: list[str]) -> int:
    """Runs the command and flushes its output, or raises an exception. This also covers --help and
    wrong usage, for which argparse raises SystemExit, as a signal does."""
    try:
        return _dispatch(argv)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _dispatch(argv: list[str]) -> int:
    overview = _overview()
    if not argv:
        overview.print_help(sys.stderr)
        return 2
    argv = _in_words(argv)
    if argv[0] not in _COMMANDS:
        if not argv[0].startswith("-"):
            meant = command_hint(argv[0])
            meant = f": {meant}" if meant else _closest(argv[0], _COMMANDS)
            overview.error(f"there is no command {argv[0]!r}{meant}")
        if argv[0] not in overview._option_string_actions:
            close = _closest(argv[0], overview._option_string_actions)
            overview.error(f"there is no option {argv[0]}{close or ' before the command'}")
        overview.parse_args(argv)  # prints help or the version, and exits
    # Only the module of the called command is imported: numpy alone takes 0.1 s.
    module, line = _COMMANDS[argv[0]]
    implementation = import_module(module, __name__)
    parser = _Parser(prog=f"gemtp {argv[0]}", description=_sentence_case(line), allow_abbrev=False)
    implementation.add_arguments(parser)
    # Intermixed, because "generate TARGET --drafter DRAFTER PROMPT" has an optional positional
    # after an option, which parse_args(), and therefore subparsers, would reject.
    args = parser.parse_intermixed_args(translated(argv[1:], parser))
    chat.expected = argv[0] in ("chat", "serve")
    from .notes import notes

    with notes(getattr(args, "quiet", False), getattr(args, "verbose", False)):
        _find_models(args, getattr(implementation, "MODELS", ()))
        try:
            status: int = implementation.run(args)
        except getattr(implementation, "WRONG_USAGE", ()) as e:
            streams.say(f"gemtp: error: {_sentence(e)}")
            status = 2
    return status


def _in_words(argv: list[str]) -> list[str]:
    """Returns "help COMMAND" and "version" as the options of that meaning."""
    if argv[0] == "version":
        return ["--version"]
    if argv[0] == "help":
        return [*argv[1:2], "--help"]
    return argv


def _find_models(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Replaces the user's model names by paths; the first name is the target's."""
    from ..find import drafter_path, model_path

    given = dict(vars(args))
    for name in names:
        value = given[name]
        if value is None:
            continue
        role = "drafter" if name.startswith("drafter") else "target"
        if isinstance(value, list):
            found: object = [model_path(v, role) for v in value]
        elif name == "drafter" and given[names[0]] is not None:
            found = drafter_path(value, getattr(args, names[0]), given[names[0]])
        else:
            found = model_path(value, role)
        setattr(args, name, found)


class _Parser(argparse.ArgumentParser):
    """A parser that reports errors in one line, without listing all options."""

    def _print_message(self, message: str, file: Any = None) -> None:
        """Prints a message; an output that cannot be written is an error here, too."""
        if message:
            (file or sys.stderr).write(message)

    def error(self, message: str) -> NoReturn:
        unknown = re.fullmatch(r"unrecognized arguments: (-\S*?)(=.*| .*)?", message, re.DOTALL)
        if unknown:
            option = unknown[1]
            close = _closest(option, self._option_string_actions, option_names())
            message = f"there is no option {option}{close}"
        elif extra := re.fullmatch(r"unrecognized arguments: ([^-].*)", message, re.DOTALL):
            message = f"there is no place for {extra[1][:80]!r}"
        message += " " if message.endswith("?") else "; "
        self.exit(2, f"{self.prog}: error: {message}{self.prog} --help lists what there is\n")


def _closest(word: str, known: Iterable[str], others: Iterable[str] = ()) -> str:
    """Asks whether a word was meant that is close to it. others: words of other programs, which
    count if none of the known ones is close."""
    for words in (known, others):
        names = {name.lstrip("-"): name for name in words if len(name.lstrip("-")) > 1}
        close = difflib.get_close_matches(word.lstrip("-").replace("_", "-"), list(names), 1)
        if close:
            return f", did you mean {names[close[0]]}?"
    return ""


def _overview() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gemtp",
        description="Gemma 4 with its multi-token-prediction drafter, on CPUs.",
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"gemtp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (_, line) in _COMMANDS.items():
        commands.add_parser(name, help=line, add_help=False)
    return parser


def _sentence_case(line: str) -> str:
    return f"{line[0].upper()}{line[1:]}."


def _sentence(e: Exception) -> str:
    if isinstance(e, Error):
        return str(e)
    if isinstance(e, OSError) and e.strerror:
        if e.filename is None and e.errno in streams.LOST:
            return f"standard output cannot be written: {e.strerror}"
        return f"{e.filename}: {e.strerror}" if e.filename is not None else e.strerror
    if isinstance(e, MemoryError):
        return "not enough memory; use a smaller context or a smaller model"
    what = " ".join(f"{type(e).__name__}: {e}".split())
    return f"unexpected {what}; set GEMTP_DEBUG=1 for the traceback"
