"""The exceptions of gemtp. Each carries one sentence: what is wrong, where, what to do."""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "CancelledError",
    "ContextError",
    "DeviceError",
    "Error",
    "FileError",
    "ModelError",
    "OutOfMemoryError",
]


_LONGEST = 2000  # characters


def in_one_line(message: str, longest: int = _LONGEST) -> str:
    """Returns a sentence as a terminal can show it: on one line, with whatever is not printable,
    such as the control characters of a stranger's name, as an escape; its middle left out if it is
    long."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)
    if len(line) <= longest:
        return line
    return f"{line[: longest // 2]} ... {line[-longest // 3 :]}"


class Error(Exception):
    """Base class of all errors that gemtp raises deliberately."""

    def __init__(self, message: str):
        super().__init__(in_one_line(message))


class FileError(Error):
    """A file that is missing, unreadable, damaged or not of the expected format."""


class ModelError(Error):
    """Parts that do not fit: config and tensors, target and drafter, tokenizer and model."""


class ArgumentError(Error, ValueError):
    """An argument outside what a function or option accepts."""


class ContextError(ArgumentError):
    """More tokens than the context holds."""


class CancelledError(Error):
    """A generation that was stopped, by its caller."""


class OutOfMemoryError(ModelError, MemoryError):
    """A model, with its context, that needs more memory than this process may use."""


class DeviceError(Error):
    """A GPU, or its driver, that fails or is too old. A model on it must be opened again."""
