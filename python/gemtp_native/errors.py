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


class Error(Exception):
    """Base class of all errors that gemtp raises deliberately."""


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
