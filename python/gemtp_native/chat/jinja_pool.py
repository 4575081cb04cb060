"""Processes that run Jinja templates, `jinja_process`, and their bounds on time and memory.

What a template does cannot be foreseen; what its process takes is bounded from outside. A process
is used again and again until a template breaks a bound, and ends with the one that started it.
"""

from __future__ import annotations

import atexit
import contextlib
import marshal
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

MEMORY = 512 << 20
"""Bytes that a process may take, the interpreter's own among them."""
MAX_OUTPUT = 16_000_000
"""Characters of one rendering."""
STARTING = 60.0
"""Seconds that a process may take to start, on a machine that is busy."""
PROCESSES = 4

# What an interpreter needs of the environment to start and to know the time; nothing else is any
# business of a template's.
_ENVIRONMENT = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")

_BOOT = """\
import marshal, sys
requests = sys.stdin.buffer
size = int.from_bytes(requests.read(8), "little")
paths, here, memory, max_output = marshal.loads(requests.read(size))
sys.path += [path for path in paths if path not in sys.path]
sys.path.insert(0, here)
import jinja_process
del sys.path[0]
jinja_process.main(requests, memory, max_output)
"""


class StartError(Exception):
    """A process cannot be started; the end of a sentence."""


class BoundError(Exception):
    """A template has broken a bound; the end of a sentence."""


class Clock:
    """The seconds that renderings may take which belong together; waiting for others is free."""

    def __init__(self, seconds: float):
        self.seconds = self.left = seconds

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.left -= time.monotonic() - start


class _Process:
    def __init__(self) -> None:
        self._interpreter = _interpreter()
        command = [self._interpreter, "-I", "-S", "-c", _BOOT]
        environment = {k: os.environ[k] for k in _ENVIRONMENT if k in os.environ}
        # Not in the terminal's group: Ctrl-C is not for it.
        apart: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            new = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
            apart = {"creationflags": new}
        try:
            self._popen = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd=os.path.abspath(os.sep),
                **apart,
            )
        except OSError as e:
            raise StartError(f"{self._interpreter} does not start ({e.strerror})") from None
        self._requests = cast(BinaryIO, self._popen.stdin)
        self._answers = cast(BinaryIO, self._popen.stdout)
        self._job = _Job(self._popen)
        self._started = False
        self.reusable = True
        paths = [os.path.abspath(path) for path in sys.path]
        here = str(Path(__file__).parent)
        with contextlib.suppress(OSError):  # it has ended: start() says so
            self._write(marshal.dumps((paths, here, MEMORY, MAX_OUTPUT), 4))

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def start(self) -> None:
        """Waits for what is not the template's fault."""
        if self._started:
            return
        with _Watch(self._popen, STARTING, None):
            try:
                self._read()
            except (OSError, EOFError):
                raise StartError(f"{self._interpreter} does not run jinja2 there") from None
        self._started = True

    def ask(self, request: bytes, clock: Clock) -> tuple[bytes, str]:
        """The kind of the answer, and its text."""
        self.reusable = False  # unless all goes well
        with clock.running(), _Watch(self._popen, clock.left, MEMORY) as watch:
            try:
                self._write(request)
                body = self._read()
                text = str(memoryview(body)[2:], "utf-8", "surrogatepass")
            except (OSError, EOFError, UnicodeDecodeError):
                body = bytearray()
        if watch.late:
            raise BoundError(f"takes longer than {clock.seconds:g} seconds")
        if watch.large:
            raise BoundError(f"needs more than {MEMORY >> 20} MB of memory")
        if len(body) < 2:
            raise BoundError(
                f"brings the process down that renders it, which may take {MEMORY >> 20} MB"
            )
        self.reusable = body[1:2] == b"+"
        return bytes(body[:1]), text

    def _write(self, body: bytes) -> None:
        for part in (len(body).to_bytes(8, "little"), body):
            view = memoryview(part)
            while view:
                view = view[self._requests.write(view) :]

    def _read(self) -> bytearray:
        size = int.from_bytes(self._read_exactly(8), "little")
        if size > 4 * MAX_OUTPUT + 1000:
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

    def end(self) -> None:
        self._popen.kill()
        self.close()
        self._popen.wait()

    def close(self) -> None:
        self._requests.close()
        self._answers.close()
        self._job.close()

    def forget(self) -> None:
        """In a fork: it is another one's child, which must see its pipes close."""
        self.close()
        self._popen.returncode = 0


class _Watch:
    """Ends a process that is late or large."""

    def __init__(self, popen: subprocess.Popen[bytes], seconds: float, memory: int | None):
        self._popen = popen
        self._seconds = seconds
        self._memory = memory if _footprint is not None else None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gemtp-template", daemon=True)
        self.late = self.large = False

    def __enter__(self) -> _Watch:
        try:
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


class _Pool:
    """As many processes as there are renderings at the same time, at most PROCESSES."""

    def __init__(self) -> None:
        self._room = threading.BoundedSemaphore(PROCESSES)
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()

    def start_early(self) -> None:
        """For whom a first rendering is to find a process at work."""
        with contextlib.suppress(StartError):  # whoever needs it will hear
            process = self._new()
            with self._lock:
                self._idle.append(process)

    def _new(self) -> _Process:
        process = _Process()
        self._all.add(process)
        return process

    @contextlib.contextmanager
    def process(self) -> Iterator[_Process]:
        with self._room:
            process = self._take()
            try:
                process.start()
                yield process
            except BaseException:
                process.reusable = False
                raise
            finally:
                self._give(process)

    def _take(self) -> _Process:
        while True:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            if process is None:
                return self._new()
            if process.alive:
                return process
            self._end(process)

    def _give(self, process: _Process) -> None:
        if process.reusable:
            with self._lock:
                self._idle.append(process)
        else:
            self._end(process)

    def _end(self, process: _Process) -> None:
        process.end()
        self._all.discard(process)

    def end(self) -> None:
        while self._all:
            self._end(next(iter(self._all)))

    def forget(self) -> None:
        for process in self._all:
            process.forget()


def _interpreter() -> str:
    """Of this Python: the program that runs may be another, which only has it in it."""
    version = "{}.{}".format(*sys.version_info[:2])
    base = Path(sys.base_exec_prefix)
    windows = sys.platform == "win32"
    in_prefix = base / "python.exe" if windows else base / "bin" / f"python{version}"
    # That of an environment may be a small program that starts this one, out of our reach.
    for found in (getattr(sys, "_base_executable", None), sys.executable, in_prefix):
        path = Path(found or "")
        if re.fullmatch(r"(python|pypy)[\d.]*[twd]?(\.exe)?", path.name, re.I) and path.is_file():
            return str(path)
    raise StartError(
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

    class _Job:
        """Holds a process to MEMORY, and ends it with this one."""

        def __init__(self, popen: subprocess.Popen[bytes]):
            kernel = ctypes.WinDLL("kernel32")
            kernel.CreateJobObjectW.restype = wintypes.HANDLE
            self._close = kernel.CloseHandle
            self._handle = wintypes.HANDLE(kernel.CreateJobObjectW(None, None))
            # JOB_OBJECT_LIMIT_PROCESS_MEMORY, ..._DIE_ON_UNHANDLED_EXCEPTION, ..._KILL_ON_JOB_CLOSE
            limits = _JobLimits(flags=0x100 | 0x400 | 0x2000, process_memory=MEMORY)
            size = ctypes.sizeof(limits)
            kernel.SetInformationJobObject(self._handle, 9, ctypes.byref(limits), size)
            process = wintypes.HANDLE(int(popen._handle))  # type: ignore[attr-defined]
            kernel.AssignProcessToJobObject(self._handle, process)

        def close(self) -> None:
            self._close(self._handle)

else:

    class _Job:
        """The process holds itself to its bounds."""

        def __init__(self, popen: subprocess.Popen[bytes]):
            pass

        def close(self) -> None:
            pass


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


pool = _Pool()
atexit.register(lambda: pool.end())


def _forget() -> None:
    global pool
    pool.forget()
    pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
