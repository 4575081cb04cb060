"""What a `limited_process` runs: requests come in, answers go out.

This file is run as a script, by itself: neither it nor the module that answers has anything of
gemtp around it, and they have no environment and no files.

A frame is 8 bytes of length (little endian) and as many bytes. The first, in marshal's form, is
(paths for imports, file of the module, arguments of its prepared(), bytes of memory or None, bytes
of stack or 0). prepared() returns the function that makes an answer of a request. An answer begins
with b"+" or b"-" for whether the process can be asked again, or is b"!" where its memory does not
suffice; the first says that it can be asked.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Any, BinaryIO


def _bound(memory: int | None) -> None:
    """Memory, and nothing at all of what only one who has broken out would ask for."""
    if sys.platform == "win32":
        return  # the job holds the bound
    import resource

    for name, most in {"AS": memory, "CORE": 0, "FSIZE": 0, "NPROC": 0}.items():
        with suppress(AttributeError, ValueError, OSError):  # not everywhere there are all
            if most is not None:
                kind = getattr(resource, f"RLIMIT_{name}")
                hard = resource.getrlimit(kind)[1]
                most = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.setrlimit(kind, (most, most))


def _read(requests: BinaryIO) -> bytes | None:
    """None: the other side has closed the pipe."""
    length = requests.read(8)
    return requests.read(int.from_bytes(length, "little")) if len(length) == 8 else None


def _send(answers: BinaryIO, sign: bytes, parts: list[bytes]) -> None:
    answers.write((1 + sum(map(len, parts))).to_bytes(8, "little"))
    for part in (sign, *parts):
        answers.write(part)
    answers.flush()


def _serve(answers: BinaryIO, file: str, settings: tuple[Any, ...], memory: int | None) -> None:
    spec = importlib.util.spec_from_file_location("served", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    answer = module.prepared(*settings)
    _bound(memory)
    _send(answers, b"+", [])
    sign = b"+"
    while sign == b"+":
        parts: list[bytes] = []
        try:
            if (request := _read(sys.stdin.buffer)) is None:
                break
            parts, reusable = answer(request)
            sign = b"+" if reusable else b"-"
        except MemoryError:
            sign = b"!"
        _send(answers, sign, parts)
    os._exit(0)


def main() -> None:
    """Answers until the other side closes the pipe."""
    answers = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # nothing else gets between the answers
    if sys.platform != "win32":  # what it has inherited; a module may set an alarm
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    paths, file, settings, memory, stack = marshal.loads(_read(sys.stdin.buffer) or b"")
    sys.path += [path for path in paths if path not in sys.path]
    if not stack:
        _serve(answers, file, settings, memory)
    threading.stack_size(stack)
    serving = threading.Thread(target=_serve, args=(answers, file, settings, memory))
    serving.start()
    serving.join()


if __name__ == "__main__":
    main()
