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
    "-p": "--prompt",
    "-r": "--stop",
    "--reverse-prompt": "--stop",
    "--parse-special": "--special",
    "-sp": "--special",
    "-ctk": "--kv-type",
    "--cache-type-k": "--kv-type",
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
# Names that arguments without an option have here.
_POSITIONAL = {
    "-m": "target",
    "--model": "target",
    "-p": "prompt",
    "--prompt": "prompt",
    "-f": "text",
    "--file": "text",
}
# Options whose value is a model on the hub.
_HUB = {
    "-hf": "--model",
    "-hfr": "--model",
    "--hf-repo": "--model",
    "-hfd": "--drafter",
    "-hfrd": "--drafter",
    "--hf-repo-draft": "--drafter",
}
_DEPTH = "the number of drafts adapts by itself, and --draft fixes it"
_READ = "files are read, not mapped, and rows of large tables only when they are used"
_BATCHES = "the size of passes needs no option"
_TEMPLATE = "the model's chat template is always rendered"
_ALWAYS = "the server always has that"
_SAMPLERS = "the order of samplers is fixed, and there are those that --help lists"
# Options of other programs that have no counterpart, and why.
_NEEDLESS = {
    **dict.fromkeys(("-fa", "--flash-attn"), "attention needs no switch"),
    **dict.fromkeys(("--mlock", "--mmap", "--no-mmap", "-dio", "--direct-io"), _READ),
    **dict.fromkeys(("-b", "--batch-size", "-ub", "--ubatch-size", "-tb"), _BATCHES),
    **dict.fromkeys(("--jinja", "--no-jinja", "--chat-template"), _TEMPLATE),
    **dict.fromkeys(
        ("--metrics", "--props", "--slots", "--webui", "-cb", "--cont-batching"), _ALWAYS
    ),
    **dict.fromkeys(("--samplers", "--sampling-seq", "--mirostat", "--typical"), _SAMPLERS),
    **dict.fromkeys(("--draft-min", "--draft-n-min", "--draft-p-min"), _DEPTH),
    **dict.fromkeys(("-ctv", "--cache-type-v"), "--kv-type is that of keys and values"),
    **dict.fromkeys(("-cnv", "-i", "--conversation", "--interactive"), "gemtp chat converses"),
    **dict.fromkeys(("-e", "--escape", "--no-escape"), "prompts are taken as they are"),
    **dict.fromkeys(("--warmup", "--no-warmup"), "nothing is warmed up"),
    **dict.fromkeys(("--color", "-co"), "colours are for terminals, unless NO_COLOR is set"),
    **dict.fromkeys(("--no-display-prompt", "--log-disable"), "only the answer is printed"),
    **dict.fromkeys(
        ("-p", "--prompt"), "gemtp generate takes a prompt, gemtp chat reads its input"
    ),
    "--vocab-only": "a vocabulary alone is not written",
    "--use-temp-file": "a file appears when it is complete, and memory stays small",
    "--pure": "a TYPE without _S, _M or _L is for all matrices",
    "--leave-output-tensor": "--keep-head does that",
    "--output-tensor-type": "--tensor-type output.weight=TYPE does that",
    "--token-embedding-type": "--tensor-type token_embd.weight=TYPE does that",
}
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
    "ps": "nothing runs in the background; gemtp serve runs until Ctrl-C",
    "rm": "models are files, or in the hub's cache; delete them there",
    "create": "gemtp convert makes a GGUF of a folder, gemtp quantize a smaller one of a GGUF",
}


def translated(args: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Returns the arguments with llama.cpp's options as those of the parser that mean the same.
    What the parser has itself, or has nothing for, stays as it is. Ends with an error of the parser
    for an option that has no counterpart here, for a known reason."""
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
        if option in _HUB and option not in known and (equals or left):
            value, equals = "hf:" + (value if equals else left.pop(0)), "="
            option = _HUB[option]
            word = option + equals + value
        place = _POSITIONAL.get(option)
        if option in known:
            out.append(word)
        elif place in places and place not in found and (equals or left):
            found[place] = value if equals else left.pop(0)
        elif _OPTIONS.get(option) in known:
            out.append(_OPTIONS[option] + equals + value)
        elif option in _NEEDLESS:
            parser.error(f"there is no option {option}: {_NEEDLESS[option]}")
        else:
            out.append(word)
    first = [found.pop(places[0])] if places and places[0] in found else []
    return [*first, *out, *found.values()]


def option_names() -> list[str]:
    """Returns the options of other programs that have a meaning here, or a reason to have none."""
    return [*_OPTIONS, *_POSITIONAL, *_NEEDLESS]


def command_hint(command: str) -> str:
    """Returns what to call instead of a command that other programs have; "" if that is unknown."""
    return _COMMANDS.get(command, "")
