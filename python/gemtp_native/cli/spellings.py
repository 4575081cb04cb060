"""Options as they are spelled for llama.cpp's programs, in the words of this one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

_OPTIONS = {
    "-n": "--max-tokens",
    "--n-predict": "--max-tokens",
    "--predict": "--max-tokens",
    "-c": "--context",
    "--ctx-size": "--context",
    "-t": "--threads",
    "--temp": "--temperature",
    "-s": "--seed",
    "-f": "--file",
    "-j": "--json-schema",
    "--grammar-file": "--grammar",
    "-sys": "--system",
    "--system-prompt": "--system",
    "--chat-template-file": "--template",
    "-md": "--drafter",
    "--model-draft": "--drafter",
    "--draft-max": "--draft",
    "--draft-n": "--draft",
    "--repeat-penalty": "--repetition-penalty",
    "--repeat-last-n": "--penalty-last-n",
    "-np": "--parallel",
    "-ngl": "--gpu-layers",
    "--n-gpu-layers": "--gpu-layers",
    "-a": "--alias",
    "-v": "--verbose",
    "--log-verbose": "--verbose",
    "-lv": "--verbose",
}
_POSITIONAL = {"-m": "target", "--model": "target", "-p": "prompt", "--prompt": "prompt"}
# Commands of other programs, and what does that here.
_COMMANDS = {
    "run": "gemtp chat converses, gemtp generate completes a text",
    "cli": "gemtp chat converses, gemtp generate completes a text",
    "complete": "gemtp generate completes a text",
    "server": "gemtp serve does that",
    "list": "gemtp pull NAME --list shows what a repository has; models stay where they lie",
    "ls": "gemtp pull NAME --list shows what a repository has; models stay where they lie",
    "show": "gemtp inspect does that",
    "download": "gemtp pull does that",
    "create": "gemtp convert makes a GGUF of a folder, gemtp quantize a smaller one of a GGUF",
}


def translated(args: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Returns the arguments with llama.cpp's options as those of the parser that mean the same.
    What the parser has itself, or has nothing for, stays as it is."""
    known = parser._option_string_actions
    places = [action.dest for action in parser._get_positional_actions()]
    found: dict[str, str] = {}
    out: list[str] = []
    left = list(args)
    while left:
        word = left.pop(0)
        if word == "--":
            out += [word, *left]
            break
        option, equals, value = word.partition("=")
        place = _POSITIONAL.get(option)
        if option in known:
            out.append(word)
        elif place in places and place not in found and (equals or left):
            found[place] = value if equals else left.pop(0)
        elif _OPTIONS.get(option) in known:
            out.append(_OPTIONS[option] + equals + value)
        else:
            out.append(word)
    first = [found.pop(places[0])] if places and places[0] in found else []
    return [*first, *out, *found.values()]


def command_hint(command: str) -> str:
    """Returns what to call instead of a command that other programs have; "" if that is unknown."""
    return _COMMANDS.get(command, "")
