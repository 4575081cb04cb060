"""The way every file is written: it appears whole or not at all.

A file is written under a name of its own beside the one it is to have, and takes that when it is
complete and on the disk. Links are followed: the file they lead to is replaced, or comes to be.
What is no file (a folder, a pipe, a device) is refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from ..errors import ArgumentError, FileError
from .input_file import kind_of, reason

PathLike = str | os.PathLike[str]

_DISK_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
_NEW |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_PRIVATE, _USUAL = 0o600, 0o666  # before the user's mask
_TRIES, _PAUSE = 20, 0.05  # of a rename that Windows refuses; seconds between them


def check_output(path: PathLike, *sources: PathLike) -> None:
    """FileError where no file could be written, ArgumentError for one of the `sources`, that are
    still to be read: to be asked before hours of work."""
    _Destination(path, sources)


def check_space(path: PathLike, size: int) -> None:
    """FileError when the disk lacks `size` bytes for `path`, a file to be or an existing folder."""
    path = Path(path)
    if _free(path) < size:
        raise _full(path, size)


@contextlib.contextmanager
def replacing(path: PathLike, size: int | None = None, private: bool = False) -> Iterator[BinaryIO]:
    """A new file, which becomes `path` when the block ends well.

    Whatever else happens, it is removed and an existing `path` stays as it is. size: bytes that it
    will have, if known. private: its owner's alone to read. FileError when the disk is, or becomes,
    too full, and where it cannot be written.
    """
    with replacing_all([(path, size)], private) as (handle,):
        yield handle


@contextlib.contextmanager
def replacing_all(
    files: Sequence[tuple[PathLike, int | None]], private: bool = False
) -> Iterator[list[BinaryIO]]:
    """As replacing(), of several files: all of them appear, or none."""
    wanted = [_Destination(path) for path, _ in files]
    sizes = [size for _, size in files]
    for destination, size in zip(wanted, sizes, strict=True):
        if size is not None:
            check_space(destination.real, size)
    made: list[_Unfinished] = []
    try:
        for destination in wanted:
            made.append(_Unfinished(destination))
            made[-1].create(private)
        yield [file.handle for file in made]
        for file in made:
            file.finish()
        _put_in_place(made)
    except OSError as e:
        if e.errno in _DISK_FULL:
            raise _full(wanted[0].path, sum(size or 0 for size in sizes)) from e
        shown = " and ".join(str(destination.path) for destination in wanted)
        raise FileError(f"{shown} cannot be written: {reason(e)}.") from e
    finally:
        for file in made:
            file.discard()


def write_whole(path: PathLike, data: bytes, private: bool = False) -> None:
    with replacing(path, len(data), private) as handle:
        handle.write(data)


def refuse_printed(path: PathLike) -> None:
    """FileError for a file that standard output or standard error goes to: what is printed later
    would be lost with it."""
    for output in (1, 2):
        with contextlib.suppress(OSError, ValueError):  # there is no such file, or stream
            status = os.stat(path)
            if stat.S_ISREG(status.st_mode) and _same(status, output):
                raise FileError(
                    f"{os.fsdecode(path)} is where what is printed goes already; choose another "
                    f"output."
                )


class _Destination:
    """Where a file is to be, and what is there."""

    def __init__(self, path: PathLike, sources: Sequence[PathLike] = ()):
        self.path = Path(path)
        try:
            if not self.path.name:
                raise FileError(f"{self.path} is a folder; give the name of a file.")
            self.real = Path(os.path.realpath(self.path))
            self.status = self._examined()
            if self.status is not None:
                self._check_existing(self.status, sources)
            elif not self.real.parent.is_dir():
                raise FileError(
                    f"{self.path} cannot be written: its folder does not exist; create it first."
                )
        except (OSError, ValueError) as e:
            if isinstance(e, ArgumentError):
                raise
            raise FileError(f"{self.path} cannot be written: {reason(e)}.") from None

    def _examined(self) -> os.stat_result | None:
        try:
            return os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _check_existing(self, status: os.stat_result, sources: Sequence[PathLike]) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise FileError(
                f"{self.path} is {kind_of(status.st_mode)}, which is never replaced; give the name "
                f"of a file."
            )
        if not os.access(self.real, os.W_OK):
            raise FileError(f"{self.path} cannot be written: it is write-protected.")
        refuse_printed(self.path)
        for source in sources:
            if _same(status, source):
                raise ArgumentError(
                    f"{self.path} is one of the files to read; choose another output."
                )


def _same(status: os.stat_result, other: PathLike | int) -> bool:
    try:
        return os.path.samestat(status, os.stat(other))
    except (OSError, ValueError):
        return False


class _Unfinished:
    """A file that has its name still to get."""

    def __init__(self, destination: _Destination):
        self.destination = destination
        # Short, so that it is a name wherever the destination's is one, and not to be guessed, so
        # that nobody has put a link there.
        self.temporary = _beside(destination.real)
        self.handle: BinaryIO

    def create(self, private: bool) -> None:
        descriptor = os.open(self.temporary, _NEW, _PRIVATE if private else _USUAL)
        self.handle = os.fdopen(descriptor, "wb")
        status = self.destination.status
        if status is not None and not private and os.name == "posix":
            with contextlib.suppress(OSError):  # not every file system has modes
                os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & 0o777)

    def finish(self) -> None:
        self.handle.flush()
        os.fsync(self.handle.fileno())
        self.handle.close()

    def discard(self) -> None:
        """Nothing is there any more when it has been put in its place."""
        with contextlib.suppress(OSError, AttributeError):
            self.handle.close()
        with contextlib.suppress(OSError):
            os.unlink(self.temporary)


def _beside(path: Path) -> Path:
    return path.with_name(f".gemtp.tmp-{os.urandom(8).hex()}")


def _put_in_place(made: list[_Unfinished]) -> None:
    """All or none. A single file never lacks its name; of several the old ones step aside."""
    if len(made) == 1:
        _rename(made[0].temporary, made[0].destination.real)
    else:
        _exchange(made)
    for folder in {file.destination.real.parent for file in made}:
        _sync_folder(folder)


def _exchange(made: list[_Unfinished]) -> None:
    aside: list[tuple[Path, Path | None]] = []
    try:
        for file in made:
            real = file.destination.real
            old = _beside(real) if file.destination.status is not None else None
            if old is not None:
                _rename(real, old)
            aside.append((real, old))
            _rename(file.temporary, real)
    except BaseException:
        for real, old in reversed(aside):
            with contextlib.suppress(OSError):
                os.unlink(real) if old is None else _rename(old, real)
        raise
    for _, old in aside:
        if old is not None:
            with contextlib.suppress(OSError):
                os.unlink(old)


def _rename(source: Path, destination: Path) -> None:
    for _ in range(_TRIES if os.name == "nt" else 0):
        with contextlib.suppress(PermissionError):  # virus scanners open new files for a moment
            os.replace(source, destination)
            return
        time.sleep(_PAUSE)
    os.replace(source, destination)


def _sync_folder(folder: Path) -> None:
    """So that new names are still there after a power cut. Not every file system can."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _free(path: Path) -> int:
    return shutil.disk_usage(path if path.is_dir() else path.absolute().parent).free


def _full(path: Path, size: int) -> FileError:
    try:
        free = f"{_free(path):,} are free"
    except OSError:
        free = "fewer are free"
    needed = f"{size:,} bytes are needed, {free}" if size else "the disk is full"
    return FileError(
        f"not enough space for {path}: {needed}; make room there or choose another folder."
    )
