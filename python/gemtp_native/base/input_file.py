"""The way files are read: never a device or a folder, never more than fits, and a pipe only where
that makes sense (a text that another program writes)."""

from __future__ import annotations

import io
import os
import stat
import sys
from typing import Any, BinaryIO

from ..errors import FileError

PathLike = str | os.PathLike[str]

MOST = 256 << 20  # bytes of a text or of a file of JSON; vocabularies have 30 MB
MOST_PROMPT = 16 << 20  # bytes; no context holds so much
_PIECE = 1 << 20

# Non-blocking, so that a pipe is refused instead of waited for.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_READ |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class _Input(io.FileIO):
    """What cannot be read is a FileError: an OSError of reading has no name in it, and would pass
    for one of the output."""

    def __init__(self, descriptor: int, path: PathLike):
        super().__init__(descriptor)
        self.path = path

    def readinto(self, buffer: Any) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as e:
            raise _unreadable(self.path, e) from None

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as e:
            raise _unreadable(self.path, e) from None


def open_input(path: PathLike, pipe: bool = False) -> BinaryIO:
    """FileError for what cannot be opened or read and for what is no file; pipe=True takes a pipe
    too."""
    try:
        descriptor = os.open(path, _READ)
    except (OSError, ValueError) as e:
        raise _unreadable(path, e) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) and not (pipe and stat.S_ISFIFO(mode)):
            raise FileError(
                f"{os.fspath(path)} is not a file but {kind_of(mode)}; give the name of a file."
            )
        if os.name == "posix":
            os.set_blocking(descriptor, True)
        return io.BufferedReader(_Input(descriptor, path))
    except BaseException:
        os.close(descriptor)
        raise


def read_input(path: PathLike, most: int = MOST, pipe: bool = False) -> bytes:
    """All of a file. FileError for one of more than `most` bytes, too."""
    with open_input(path, pipe) as file:
        data = _read(file, most)
    if len(data) > most:
        raise FileError(f"{os.fspath(path)} is too large: it has more than {most:,} bytes.")
    return data


def read_text_input(path: PathLike, most: int = MOST, pipe: bool = True) -> str:
    """Of a file in UTF-8."""
    data = read_input(path, most, pipe)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise FileError(
            f"{os.fspath(path)} is not valid UTF-8: byte {e.start} is 0x{data[e.start]:02X}."
        ) from None


def read_standard_input(most: int = MOST_PROMPT) -> bytes:
    """To its end. FileError for more than `most` bytes."""
    try:
        data = _read(sys.stdin.buffer, most)
    except OSError as e:
        raise FileError(f"standard input cannot be read: {reason(e)}.") from None
    if len(data) > most:
        raise FileError(f"standard input is too large: it has more than {most:,} bytes.")
    return data


def _read(file: BinaryIO, most: int) -> bytes:
    """More than `most` bytes if there are more."""
    pieces: list[bytes] = []
    while sum(map(len, pieces)) <= most and (piece := file.read(_PIECE)):
        pieces.append(piece)
    return b"".join(pieces)


def kind_of(mode: int) -> str:
    """What a mode of stat is, in a sentence."""
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def reason(e: Exception) -> str:
    return (isinstance(e, OSError) and e.strerror) or str(e)


def _unreadable(path: PathLike, e: Exception) -> FileError:
    return FileError(f"{os.fspath(path)} cannot be read: {reason(e)}.")
