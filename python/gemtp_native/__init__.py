"""Gemma 4 with its multi-token-prediction drafter, on CPUs.

    import gemtp_native as gemtp

    model = gemtp.Model("target.gguf", drafter="drafter.gguf")
    print(model.generate("Once upon a time", max_tokens=64).text)

The text depends on weights, prompt, sampling parameters and seed, and on nothing else: not on the
drafter, its depth, the number of threads or the instruction set.
"""

from __future__ import annotations

from .errors import (
    ArgumentError,
    CancelledError,
    ContextError,
    DeviceError,
    Error,
    FileError,
    ModelError,
    OutOfMemoryError,
)

TYPE_CHECKING = False  # typing's constant, without its slow import
if TYPE_CHECKING:
    from typing import Any

    from .chat.reply import Reply, ReplyPiece, ReplyStream, ToolCall
    from .model import Comparison, Model, demo_models, memory_estimate, system_info
    from .options import ChatOptions, GenerationOptions
    from .results import Output, Stats, Token
    from .session import Session
    from .stream import TextStream
    from .tokenizer import Tokenizer

__version__ = "0.2.0"

__all__ = [
    "ArgumentError",
    "CancelledError",
    "ChatOptions",
    "Comparison",
    "ContextError",
    "DeviceError",
    "Error",
    "FileError",
    "GenerationOptions",
    "Model",
    "ModelError",
    "OutOfMemoryError",
    "Output",
    "Reply",
    "ReplyPiece",
    "ReplyStream",
    "Session",
    "Stats",
    "TextStream",
    "Token",
    "Tokenizer",
    "ToolCall",
    "demo_models",
    "memory_estimate",
    "system_info",
]

# Loaded on first use, so that the converter also runs from a checkout without the native core.
_LAZY = {
    "ChatOptions": "options",
    "Comparison": "model",
    "GenerationOptions": "options",
    "Model": "model",
    "Output": "results",
    "Reply": "chat.reply",
    "ReplyPiece": "chat.reply",
    "ReplyStream": "chat.reply",
    "Session": "session",
    "Stats": "results",
    "TextStream": "stream",
    "Token": "results",
    "Tokenizer": "tokenizer",
    "ToolCall": "chat.reply",
    "demo_models": "model",
    "memory_estimate": "model",
    "system_info": "model",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    import sys

    # With the module, because Python then asks whether a name close to it was meant.
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__]
    )
