"""A progress bar on standard error, if that is a terminal."""

from __future__ import annotations

import sys
from typing import Any


class Bars:
    """Called with a name, the number done and the total; a new name begins a new bar."""

    def __init__(self, quiet: bool):
        self._off = quiet or not sys.stderr.isatty()
        self._bar: Any = None
        self._what = ""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        if self._off:
            return
        if self._bar is None or what != self._what:
            from tqdm import tqdm

            self.close()
            self._what = what
            self._bar = tqdm(total=total, desc=what, file=sys.stderr, leave=False)
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)
        self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
