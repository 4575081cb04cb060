"""Measures the memory of this process and its children."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def children() -> list[int]:
    """Returns the child processes of this process (Linux)."""
    return [int(p.name) for p in Path("/proc").glob("[0-9]*") if _parent(p) == os.getpid()]


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended
        return 0


def _resident(pid: int) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Peak:
    """Samples the memory of all processes. `growth`: largest growth in bytes; 0 if unknown."""

    def __enter__(self) -> Peak:
        self.growth = 0
        self._before = self._taken()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _taken(self) -> int:
        return sum(map(_resident, [os.getpid(), *children()]))

    def _sample(self) -> None:
        while not self._done.wait(0.01):
            self.growth = max(self.growth, self._taken() - self._before)
