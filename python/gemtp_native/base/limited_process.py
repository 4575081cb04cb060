"""Processes that do for strangers what cannot be foreseen, and their bounds on time and memory.

What runs there (`limited_main`) is used again and again until it breaks a bound. A process has its
own session, is given no files and next to no environment, and ends with the one that started it.
"""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import re
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from .ending import at_end, sleep_at_end, sleeping_at_end
from .forking import begins_anew_in_child

STARTING = 60.0
"""Seconds that a process may take to start, on a machine that is busy."""

_MAIN = Path(__file__).with_name("limited_main.py")
# What an interpreter needs of the environment to start and to know the time; nothing else is any
# business of what runs there.
_ENVIRONMENT = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")
# What the system lacks now and may have later.
_PASSING = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


@dataclass(frozen=True)
class Program:
    """What a process runs, and its bounds."""

    file: Path  # of a module with prepared(), for `limited_main`
    needs: str  # the package that it imports
    settings: tuple[Any, ...]  # arguments of prepared(), in marshal's form
    max_answer: int  # bytes
    memory: int | None = None  # bytes, the interpreter's among them; None: the module sees to it
    stack: int = 0  # bytes; 0: what the system gives


class StartError(Exception):
    """A process cannot be started; the end of a sentence."""


class MissingError(StartError):
    """There is nothing that could be started."""


class EndedError(Exception):
    """A process had to be ended, or has ended by itself, before it gave an answer."""

    def __init__(self, code: int, late: bool = False, large: bool = False):
        super().__init__(f"the process has ended with code {code}")
        self.code, self.late, self.large = code, late, large


class LimitedProcess:
    """For one thread at a time."""

    def __init__(self, program: Program):
        self._program = program
        self._interpreter = _interpreter()
        # Not in the terminal's group: Ctrl-C is not for it.
        apart: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            new = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
            apart = {"creationflags": new}
        try:
            self._popen = subprocess.Popen(
                [self._interpreter, "-I", "-S", str(_MAIN)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={k: os.environ[k] for k in _ENVIRONMENT if k in os.environ},
                cwd=os.path.abspath(os.sep),
                **apart,
            )
        except OSError as e:
            kind = StartError if e.errno in _PASSING else MissingError
            raise kind(f"{self._interpreter} does not start ({e.strerror})") from None
        self._requests = cast(BinaryIO, self._popen.stdin)
        self._answers = cast(BinaryIO, self._popen.stdout)
        self._unbound = _bound(self._popen, program.memory)
        self._close = weakref.finalize(self, _end, self._popen, self._unbound)
        self._close.atexit = False  # _end_all() sees to that
        _processes.add(self)
        begins_anew_in_child(self)
        self._started = False
        self.reusable = True
        """Not while it is asked, or once it has broken a bound."""
        paths = [os.path.abspath(path) for path in sys.path]
        given = (paths, str(program.file), program.settings, program.memory, program.stack)
        try:
            self._write(marshal.dumps(given, 4))
        except OSError:
            self.end()  # start() says so

    def start(self) -> None:
        """Waits for what is not the fault of what is asked."""
        if self._started:
            return
        answer, _ = self._exchange(None, STARTING)
        if not answer:
            raise StartError(f"{self._interpreter} does not run {self._program.needs} there")
        self._started = self.reusable = True

    def ask(self, request: bytes, seconds: float) -> memoryview:
        """Its answer."""
        answer, watch = self._exchange(request, seconds)
        if not answer.startswith((b"+", b"-")):
            raise EndedError(self.end(), watch.late, watch.large or answer == b"!")
        self.reusable = answer.startswith(b"+")
        return memoryview(answer)[1:]

    def _exchange(self, request: bytes | None, seconds: float) -> tuple[bytearray, _Watch]:
        """Empty if nothing comes back within the bounds."""
        self.reusable = False
        answer = bytearray()
        # ValueError: the interpreter ends and has closed the pipes.
        broken = contextlib.suppress(OSError, EOFError, ValueError)
        with _Watch(self._popen, seconds, self._program.memory) as watch, broken:
            if request is not None:
                self._write(request)
            answer = self._read()
        sleep_at_end()
        return answer, watch

    def _write(self, body: bytes) -> None:
        for part in (len(body).to_bytes(8, "little"), body):
            view = memoryview(part)
            while view:
                view = view[self._requests.write(view) :]

    def _read(self) -> bytearray:
        size = int.from_bytes(self._read_exactly(8), "little")
        if size > self._program.max_answer + 1:
            raise EOFError  # no answer of ours
        return self._read_exactly(size)

    def _read_exactly(self, size: int) -> bytearray:
        body = bytearray(size)
        view = memoryview(body)
        while view:
            count = self._answers.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            view = view[count:]
        return body

    def end(self) -> int:
        """Its exit code."""
        if self._close.detach():
            _end(self._popen, self._unbound)
        return int(self._popen.returncode)

    def begin_in_child(self) -> None:
        """It is another one's child, which must see its pipes close."""
        self._popen.returncode = 0
        self.end()


def _end(popen: subprocess.Popen[bytes], unbound: Callable[[], object]) -> None:
    popen.kill()
    popen.wait()
    for stream in (popen.stdin, popen.stdout):
        with contextlib.suppress(OSError):  # nobody reads what it could be about
            cast(BinaryIO, stream).close()
    unbound()


class _Watch:
    """Ends a process that is late or large."""

    def __init__(self, popen: subprocess.Popen[bytes], seconds: float, memory: int | None):
        self._popen = popen
        self._seconds = seconds
        self._memory = memory if _footprint is not None else None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gemtp-watch", daemon=True)
        self.late = self.large = False

    def __enter__(self) -> _Watch:
        try:
            with sleeping_at_end():
                self._thread.start()
        except RuntimeError as e:  # no more threads, or the interpreter is about to end
            raise StartError(f"nothing can watch it: {e}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        end = time.monotonic() + self._seconds
        step = threading.TIMEOUT_MAX if self._memory is None else 0.02
        while not self._done.wait(min(max(0, end - time.monotonic()), step)):
            self.late = time.monotonic() >= end
            if self._memory is not None and _footprint is not None:
                self.large = _footprint(self._popen.pid) > self._memory
            if self.late or self.large:
                self._popen.kill()
                return


class Pool:
    """As many processes as are asked at the same time, at most `most`. For any thread."""

    def __init__(self, program: Program, most: int):
        self._program = program
        self._most = most
        self.begin_in_child()
        begins_anew_in_child(self)

    def begin_in_child(self) -> None:
        self._room = threading.BoundedSemaphore(self._most)
        self._lock = threading.Lock()
        self._idle: list[LimitedProcess] = []

    @contextlib.contextmanager
    def process(self) -> Iterator[LimitedProcess]:
        with self._room:
            sleep_at_end()
            process = self._take() or LimitedProcess(self._program)
            try:
                process.start()
                yield process
            except BaseException:
                process.reusable = False
                raise
            finally:
                self._give(process)

    def _take(self) -> LimitedProcess | None:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process._popen.poll() is None:
                    return process
                process.end()
        return None

    def _give(self, process: LimitedProcess) -> None:
        if process.reusable:
            with self._lock:
                self._idle.append(process)
        else:
            process.end()


def _interpreter() -> str:
    """Of this Python: the program that runs may be another, which only has it in it."""
    version = "{}.{}".format(*sys.version_info[:2])
    name = "python.exe" if sys.platform == "win32" else f"bin/python{version}"
    in_prefix = Path(sys.base_exec_prefix, name)
    # That of an environment may be a small program that starts this one, out of our reach.
    for found in (getattr(sys, "_base_executable", None), sys.executable, in_prefix):
        path = Path(found or "")
        if re.fullmatch(r"(python|pypy)[\d.]*[twd]?(\.exe)?", path.name, re.I):
            with contextlib.suppress(OSError):
                if path.is_file():
                    return str(path)
    raise MissingError(
        f"there is no interpreter for it beside {sys.executable or 'this program'}, so set "
        f"sys.executable to the path of a Python {version}"
    )


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    class _JobLimits(ctypes.Structure):
        """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

        _fields_ = (
            ("times", ctypes.c_int64 * 2),
            ("flags", wintypes.DWORD),
            ("working_set", ctypes.c_size_t * 2),
            ("processes", wintypes.DWORD),
            ("affinity", ctypes.c_size_t),
            ("priority", wintypes.DWORD * 2),
            ("io", ctypes.c_uint64 * 6),
            ("process_memory", ctypes.c_size_t),
            ("others", ctypes.c_size_t * 3),
        )

    def _bound(popen: subprocess.Popen[bytes], memory: int | None) -> Callable[[], object]:
        """Holds it to its memory, and ends it with this one. Returns what gives the job back."""
        kernel = ctypes.WinDLL("kernel32")
        kernel.CreateJobObjectW.restype = wintypes.HANDLE
        job = wintypes.HANDLE(kernel.CreateJobObjectW(None, None))
        # JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION, ..._KILL_ON_JOB_CLOSE, ..._PROCESS_MEMORY
        flags = 0x400 | 0x2000 | (0x100 if memory else 0)
        limits = _JobLimits(flags=flags, process_memory=memory or 0)
        kernel.SetInformationJobObject(job, 9, ctypes.byref(limits), ctypes.sizeof(limits))
        process = wintypes.HANDLE(int(popen._handle))  # type: ignore[attr-defined]
        kernel.AssignProcessToJobObject(job, process)
        return partial(kernel.CloseHandle, job)

else:

    def _bound(popen: subprocess.Popen[bytes], memory: int | None) -> Callable[[], object]:
        """It holds itself to its bounds."""
        return lambda: None


_footprint: Callable[[int], int] | None = None
"""Bytes that a process has, for systems that do not hold it to its bound themselves."""

if sys.platform == "darwin":
    import ctypes

    def _footprint_of(pid: int) -> int:
        usage = ctypes.create_string_buffer(96)  # struct rusage_info_v0
        if ctypes.CDLL(None).proc_pid_rusage(pid, 0, usage) != 0:
            return 0
        return int.from_bytes(usage.raw[72:80], sys.byteorder)  # ri_phys_footprint

    _footprint = _footprint_of


_processes: weakref.WeakSet[LimitedProcess] = weakref.WeakSet()


def _end_all() -> None:
    for process in list(_processes):
        if process.reusable:
            process.end()
        else:  # whoever asks it sleeps then, and its pipes stay open
            process._popen.kill()


at_end(_end_all)
