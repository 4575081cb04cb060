"""Standard input, output and error, whatever the caller made of them."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import IO, Any

# Streams by their numbers. One that the caller has closed is filled, for else the next file that is
# opened would be taken for it. What is read from closed input or printed to closed output is an
# error, as that of a disk that is full; what is said on closed standard error is not heard.
_CLOSED = (
    ("stdin", os.O_WRONLY, "r"),
    ("stdout", os.O_RDONLY, "w"),
    ("stderr", os.O_WRONLY, "w"),
)


# What writing to an output fails with: closed, full, over its limit, a device or terminal gone.
LOST = {errno.EBADF, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG, errno.EIO}


def prepare() -> None:
    for number, (name, flags, mode) in enumerate(_CLOSED):
        if getattr(sys, name) is None:
            setattr(sys, name, _filled(number, flags, mode))
    # Text is UTF-8 whatever the locale, its newlines stay as they are, and paths keep their bytes.
    _set(sys.stdout, encoding="utf-8", errors="surrogateescape", newline="")
    _set(sys.stderr, errors="backslashreplace")


def _filled(number: int, flags: int, mode: str) -> IO[Any]:
    descriptor = os.open(os.devnull, flags)
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)
    return open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115  to the very end


def _set(stream: Any, **settings: str) -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):  # replaced by one that cannot
        stream.reconfigure(**settings)


def say(line: str) -> None:
    """On standard error, if that is still there."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def settle() -> None:
    """Keeps the interpreter from complaining at its exit of an output that cannot be written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
