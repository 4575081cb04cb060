"""Building blocks of attacks: functions that damage one part of a valid file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import gguf_bytes as gb
from gguf_bytes import Gguf

U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1

Change = Callable[[Gguf], bytes | None]


def assign(**fields: object) -> Change:
    """Sets attributes of the file."""

    def change(g: Gguf) -> None:
        for name, value in fields.items():
            setattr(g, name, value)

    return change


def put(name: str | bytes, kind: int, value: object) -> Change:
    return lambda g: g.put(name, kind, value)


def put_array(name: str, element: int, values: list) -> Change:
    return lambda g: g.put_array(name, element, values)


def put_raw(name: str, kind: int, payload: bytes) -> Change:
    return lambda g: g.put_raw(name, kind, payload)


def drop(name: str) -> Change:
    return lambda g: g.drop(name)


def resize(name: str, shape: list[int], size: int) -> Change:
    """Gives a tensor another shape with ``size`` bytes of data: valid, but not the required one."""

    def change(g: Gguf) -> None:
        t = g.tensor(name)
        t.shape, t.data = shape, (t.data + bytes(size))[:size]

    return change


def swap_shape(name: str) -> Change:
    return lambda g: g.tensor(name).shape.reverse()


def flatten(name: str) -> Change:
    def change(g: Gguf) -> None:
        t = g.tensor(name)
        t.shape = [int(np.prod(t.shape))]

    return change


def retype(name: str, kind: int) -> Change:
    def change(g: Gguf) -> None:
        t = g.tensor(name)
        block, size = gb.BLOCKS[kind]
        t.kind, t.data = kind, bytes(int(np.prod(t.shape)) // block * size)

    return change
