"""A file that appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import FileError

_DISK_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def check_space(path: Path, size: int) -> None:
    """FileError when the disk lacks `size` bytes for `path`, a file to be or an existing folder."""
    if shutil.disk_usage(path if path.is_dir() else path.parent).free < size:
        raise _full(path, size)


def _full(path: Path, size: int) -> FileError:
    free = shutil.disk_usage(path if path.is_dir() else path.parent).free
    return FileError(
        f"not enough space for {path}: {size:,} bytes are needed, {free:,} are free; make room or "
        f"choose a smaller type."
    )


@contextlib.contextmanager
def replacing(path: Path, size: int) -> Iterator[BinaryIO]:
    """A new file of `size` bytes beside `path`, which takes its place when the block ends well.

    Whatever else happens, it is removed and an existing `path` stays as it is. FileError when the
    disk is, or becomes, too full.
    """

    check_space(path, size)
    temporary = path.with_name(f"{path.name}.tmp-{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as e:
        if e.errno in _DISK_FULL:
            raise _full(path, size) from e
        raise FileError(f"{path} cannot be written: {e.strerror or e}.") from e
    finally:
        # After the rename there is nothing under this name any more.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
