"""Compiles grammars of strangers in a process of its own, where they can do no harm.

llguidance's limits leave gaps: some kilobytes of schema take it minutes, gigabytes, or the stack.
So a grammar is compiled here first, within the bounds below, and only then where the model is.

`base.limited_process` starts the process and ends it. A request is a grammar; an answer says, in
JSON, what is wrong with it and its size.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

SECONDS = 2.0
"""Seconds of processor time for one grammar."""
MEMORY = 128 << 20
"""Bytes of memory for one grammar."""
STACK = 16 << 20
"""Bytes of stack for a grammar here. Compiled for use afterwards, it gets twice as many."""
STEP_SECONDS = 0.25
"""Seconds of processor time for the tokens allowed at one position."""
IDLE = 60.0
"""Seconds without a grammar, after which the process ends."""

TOO_SLOW, TOO_LARGE = 3, 4
"""Exit codes. All others except 0 mean that the process ran out of stack."""

_STEPS = 32
_WALK = 0.2  # seconds of processor time
_GROWN = 16 << 20  # bytes of growth after which the process is not reused


class _Wrapper:
    """A vocabulary of single bytes and the control tokens: grammars may name those."""

    def __init__(self, about: dict[str, Any]):
        self.is_tokenizer_wrapper = True
        self.eos_token_id = about["end"][0]
        self.bos_token_id = None
        self.tokens = [b""] * (about["size"] + 256)
        for token, text in about["special"]:
            self.tokens[token] = text
        self.special_token_ids = [token for token, _ in about["special"]]
        self._first = about["size"]
        for byte in range(256):
            self.tokens[self._first + byte] = bytes([byte])

    def __call__(self, text: str | bytes) -> list[int]:
        data = text.encode() if isinstance(text, str) else text
        return [self._first + byte for byte in data]


class _Watch:
    """Ends the process when a grammar takes too much: llguidance itself cannot be interrupted."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._idle_since = time.monotonic()
        self._before = memory()
        threading.Thread(target=self._run, daemon=True).start()

    def begin(self) -> None:
        self._before = memory()
        self._since = time.process_time()

    def end(self) -> int:
        """Returns the bytes by which the process has grown."""
        self._since = None
        self._idle_since = time.monotonic()
        return max(memory() - self._before, 0)

    def _run(self) -> None:
        while True:
            time.sleep(0.005 if self._since is not None else 0.05)
            since = self._since
            if since is not None:
                if time.process_time() - since > SECONDS:
                    os._exit(TOO_SLOW)
                if memory() - self._before > MEMORY:
                    os._exit(TOO_LARGE)
            elif time.monotonic() - self._idle_since > IDLE:
                os._exit(0)


def memory() -> int:
    """Returns the resident bytes of this process, or the peak if the system does not tell."""
    if sys.platform == "win32":
        return _windows_memory()
    if sys.platform.startswith("linux"):
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def _windows_memory() -> int:
    import ctypes
    from ctypes import wintypes

    class Counters(ctypes.Structure):
        _fields_ = [
            ("size", wintypes.DWORD),
            ("faults", wintypes.DWORD),
            *[(f"value{i}", ctypes.c_size_t) for i in range(8)],
        ]

    counters = Counters(size=ctypes.sizeof(Counters))
    kernel: Any = ctypes.windll.kernel32  # type: ignore[attr-defined, unused-ignore]
    kernel.GetCurrentProcess.restype = wintypes.HANDLE
    found = kernel.K32GetProcessMemoryInfo
    found.argtypes = [wintypes.HANDLE, ctypes.POINTER(Counters), wintypes.DWORD]
    found(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.size)
    return int(counters.value1)  # the working set


def prepared(
    about: dict[str, Any], limits: dict[str, Any]
) -> Callable[[bytes], tuple[list[bytes], bool]]:
    """Called by `limited_main`. about: a description of the vocabulary."""
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

    wrapper: Any = _Wrapper(about)
    tokenizer = LLTokenizer(wrapper, n_vocab=len(wrapper.tokens), eos_token=about["end"], slices=[])
    parser_limits = LLParserLimits(**limits)
    watch = _Watch()

    def answer(request: bytes) -> tuple[list[bytes], bool]:
        watch.begin()
        matcher = LLMatcher(tokenizer, request.decode(), log_level=0, limits=parser_limits)
        error = matcher.get_error() or _walk(matcher)
        grown = watch.end()
        return [json.dumps({"error": error, "bytes": grown}).encode()], grown <= _GROWN

    return answer


def _walk(matcher: Any) -> str:
    """Returns what is wrong with the grammar at the first positions of a text; "": nothing."""
    begin = time.process_time()
    for step in range(_STEPS):
        before = time.process_time()
        mask = matcher.compute_bitmask()
        took = time.process_time() - before
        if matcher.is_error():
            return _step_error(matcher.get_error(), step)
        if took > STEP_SECONDS:
            return "what may come next takes too long to find out; make it simpler"
        if matcher.is_stopped() or before - begin > _WALK:
            break
        allowed = [i for i, byte in enumerate(mask) if byte]
        if not allowed:
            break
        byte = allowed[step * 7919 % len(allowed)]
        token = 8 * byte + (mask[byte] & -mask[byte]).bit_length() - 1
        if not matcher.consume_token(token):
            break
    return ""


def _step_error(error: str, step: int) -> str:
    first = error.splitlines()[0]
    if step == 0 and "NoExtension" in first:
        return "no text follows it; it refers to itself, or excludes everything"
    return f"its texts cannot be followed: {first}"
