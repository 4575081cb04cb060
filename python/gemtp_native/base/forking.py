"""What a forked child begins anew: locks that other threads had when it was forked."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["begins_anew_in_child"]


class _BeginsAnew(Protocol):
    def begin_in_child(self) -> None: ...


_all: weakref.WeakSet[_BeginsAnew] = weakref.WeakSet()


def begins_anew_in_child(thing: _BeginsAnew) -> None:
    """``thing.begin_in_child()`` will be called in children, as long as it lives."""
    _all.add(thing)


def _begin_in_child() -> None:
    for thing in list(_all):
        thing.begin_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
