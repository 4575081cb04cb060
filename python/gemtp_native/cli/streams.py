"""Standard input, output and error, whatever state the caller left them in."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from typing import IO, Any, TextIO, cast

# Streams by number. A stream that the caller has closed is replaced, because otherwise the next
# opened file would take its number. Reading closed input or printing to closed output is an error,
# like a full disk; messages to closed standard error are lost.
_CLOSED = (
    ("stdin", os.O_WRONLY, "r"),
    ("stdout", os.O_RDONLY, "w"),
    ("stderr", os.O_WRONLY, "w"),
)


# Errors of outputs that cannot be written: closed, full, over quota, a device or terminal gone.
LOST = {errno.EBADF, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG, errno.EIO}


def prepare() -> None:
    for number, (name, flags, mode) in enumerate(_CLOSED):
        if getattr(sys, name) is None:
            setattr(sys, name, _filled(number, flags, mode))
    # Text is UTF-8 in every locale, newlines are not changed, and paths keep their bytes.
    _set(sys.stdout, encoding="utf-8", errors="surrogateescape", newline="")
    _set(sys.stderr, errors="backslashreplace")
    sys.stderr = cast(TextIO, _Lossy(sys.stderr))


class _Lossy:
    """Standard error whose messages are lost if it cannot be written: they are not what a command
    is called for. A pipe that is read no more is an error here, too."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, call: Callable[..., Any], *args: Any) -> None:
        try:
            call(*args)
        except OSError as e:
            if e.errno not in LOST:
                raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _filled(number: int, flags: int, mode: str) -> IO[Any]:
    descriptor = os.open(os.devnull, flags)
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)
    return open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115  to the very end


def _set(stream: Any, **settings: str) -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):  # a replaced stream
        stream.reconfigure(**settings)


def has_colours() -> bool:
    """Whether standard output shows colours and the user wants them."""
    dumb = os.environ.get("TERM") == "dumb" or os.environ.get("NO_COLOR")
    return sys.stdout.isatty() and not dumb


def say(line: str) -> None:
    """Prints a line on standard error, if it still exists."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def settle() -> None:
    """Prevents the interpreter from complaining at exit about an output that cannot be written."""
    if isinstance(sys.stderr, _Lossy):
        sys.stderr = sys.stderr.stream
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
