"""The library's loggers. They are silent unless the program that uses it says otherwise."""

from __future__ import annotations

import logging

NAME = "gemtp_native"

logging.getLogger(NAME).addHandler(logging.NullHandler())


def logger(part: str = "") -> logging.Logger:
    """Of the library, or of a part of it."""
    return logging.getLogger(f"{NAME}.{part}" if part else NAME)
