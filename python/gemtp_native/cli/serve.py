"""`gemtp serve`: serves a model with OpenAI's protocol, and a web page for talking to it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import integer
from ..base.counted import counted
from ..base.input_file import read_text_input
from ..errors import ArgumentError, FileError
from ..options import INT32_MAX, NONE
from .options import (
    add_model_options,
    add_pair_options,
    add_sampling_options,
    add_target,
    open_model,
    sampling_options,
)
from .text import options_text

if TYPE_CHECKING:
    from ..model import Model
    from ..serve import ServerSettings

MODELS = ("target", "drafter")  # arguments that may name a model by where it comes from
KEY = "GEMTP_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Answers OpenAI's protocol (/v1/chat/completions, /v1/completions), and has a page to chat "
        "at /. Ends on Ctrl-C or SIGTERM, after what is running. See docs/serve.md."
    )
    add_target(parser)
    add_pair_options(parser)
    server = parser.add_argument_group("server")
    server.add_argument("--host", default="127.0.0.1", help="(default: 127.0.0.1, this machine)")
    server.add_argument(
        "--port", type=int, default=8080, metavar="N", help="0: any that is free (default: 8080)"
    )
    server.add_argument("--alias", metavar="NAME", help="what the model is called (default: file)")
    server.add_argument(
        "--parallel", type=int, default=4, metavar="N", help="sequences at once (default: 4)"
    )
    server.add_argument(
        "--queue", type=int, default=64, metavar="N", help="sequences that may wait (default: 64)"
    )
    server.add_argument(
        "--timeout", type=float, default=600, metavar="SECONDS", help="of an answer (default: 600)"
    )
    server.add_argument(
        "--drain", type=float, default=30, metavar="SECONDS",
        help="for running answers when the server is to end (default: 30)",
    )  # fmt: skip
    server.add_argument(
        "--max-tokens", type=int, metavar="N", help="the most of an answer (default: the context)"
    )
    server.add_argument(
        "--max-body", type=int, default=4 << 20, metavar="BYTES", help="(default: 4 MiB)"
    )
    server.add_argument(
        "--lenient", action="store_true", help="ignore members of requests that are not known"
    )
    server.add_argument("--quiet", action="store_true", help="say errors only")
    access = parser.add_argument_group("access")
    access.add_argument(
        "--api-key", metavar="KEY", help=f"ask for it; better in {KEY} or a file: ps shows options"
    )
    access.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="ask for one of its keys, one a line"
    )
    access.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="a name by which this machine may be asked; may repeat",
    )  # fmt: skip
    access.add_argument(
        "--cors", action="append", default=[], metavar="ORIGIN",
        help="let pages of https://example.org use it, or * all; may repeat",
    )  # fmt: skip
    add_sampling_options(parser, recommended=True, seed="a new one for each request")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    settings = _settings(args)
    try:
        from ..serve.guard import is_loopback
        from ..serve.server import listen, serve
    except ModuleNotFoundError as e:
        if e.name not in ("uvicorn", "h11", "click"):
            raise
        raise ArgumentError(
            "gemtp serve needs its extra; pip install 'gemtp-native[serve]'"
        ) from None

    def say(line: str) -> None:
        if not args.quiet:
            print(f"gemtp: {line}", file=sys.stderr, flush=True)

    sock = listen(settings.host, settings.port)
    try:
        model = open_model(args)
        settings = _fitting(settings, args, model, say)
        taken = {k: v for k, v in model.sampling.items() if k not in settings.sampling}
        if taken:
            say(f"as the model recommends: {options_text(taken)}")
        if not is_loopback(settings.host) and not settings.keys:
            say(
                f"note: whoever reaches {settings.host} may use this server; --api-key asks for one"
            )
        say(_served(model, settings, args))
        serve(model, settings, sock, say)
    finally:
        sock.close()
    return 0


def _served(model: Model, settings: ServerSettings, args: argparse.Namespace) -> str:
    drafter = f"with {_name(args.drafter)}" if args.drafter else "without a drafter"
    made = "completes texts" if model.completes else "chats"
    return (
        f"{settings.name} {drafter}, which {made}: {counted(settings.parallel, 'answer')} at once, "
        f"each of up to {model.context} tokens, {model.device}, {counted(model.threads, 'thread')}"
    )


def _fitting(
    settings: ServerSettings, args: argparse.Namespace, model: Model, say: Callable[[str], None]
) -> ServerSettings:
    """Limits the number of parallel sequences to the memory for their keys and values."""
    from ..model import memory_estimate

    each = memory_estimate(args.target, None, model.context, args.kv_type)["kv"]
    most = max(1, model._engine.kv_budget // each)
    if settings.parallel <= most:
        return settings
    say(
        f"note: there is memory for {most} sequences of {model.context} tokens at once, not "
        f"{settings.parallel}; --context makes them smaller"
    )
    return replace(settings, parallel=most)


def _settings(args: argparse.Namespace) -> ServerSettings:
    from ..serve import ServerSettings

    for name, low, high in (
        ("port", 0, 65535),
        ("parallel", 1, 256),
        ("queue", 0, 1 << 20),
        ("max_body", 1024, 1 << 30),
        ("max_tokens", 1 if args.max_tokens != NONE else NONE, INT32_MAX),
    ):
        if (value := getattr(args, name)) is not None:
            integer(f"--{name.replace('_', '-')}", value, low, high)
    for name in ("timeout", "drain"):
        value = getattr(args, name)
        if not 0 <= value <= 1e9:
            raise ArgumentError(f"--{name} is {value}; it must be a number of seconds from 0 on")
    sampling: dict[str, Any] = sampling_options(args)
    return ServerSettings(
        host=args.host,
        port=args.port,
        name=_utf8(args.alias) if args.alias else _name(args.target),
        parallel=args.parallel,
        queue=args.queue,
        timeout=args.timeout,
        drain=args.drain,
        keys=_keys(args),
        origins=tuple(args.cors),
        hosts=tuple(args.allow_host),
        lenient=args.lenient,
        max_tokens=args.max_tokens,
        max_body=args.max_body,
        sampling=sampling,
        draft=args.draft,
    )


def _name(target: Any) -> str:
    return _utf8(Path(os.fsdecode(target)).stem)


def _utf8(name: str) -> str:
    """Returns a name that can stand in JSON."""
    return name.encode("utf-8", "replace").decode()


def _keys(args: argparse.Namespace) -> tuple[str, ...]:
    """The option overrides the environment; keys of the file are added."""
    key = args.api_key if args.api_key is not None else os.environ.get(KEY) or None
    given = [] if key is None else [key]
    if args.api_key_file is not None:
        lines = read_text_input(args.api_key_file).splitlines()
        found = [line.strip() for line in lines if line.strip()]
        if not found:
            raise FileError(f"{args.api_key_file} has no key; write one a line")
        given += found
    if not all(key.strip() and key.isascii() and key.isprintable() for key in given):
        raise ArgumentError("an API key must be visible ASCII characters, at least one")
    return tuple(given)
