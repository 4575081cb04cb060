"""Gemma 4 with its multi-token-prediction drafter, on CPUs.

    import gemtp_native as gemtp

    model = gemtp.Model("target.gguf", drafter="drafter.gguf")
    print(model.generate("Once upon a time", max_tokens=64).text)

The text depends on weights, prompt, sampling parameters and seed, and on nothing else: not on the
drafter, its depth, the number of threads or the instruction set.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import (
    ArgumentError,
    ContextError,
    Error,
    FileError,
    ModelError,
    OutOfMemoryError,
)

if TYPE_CHECKING:
    from .chat.reply import Reply, ReplyPiece, ReplyStream, ToolCall
    from .model import (
        Comparison,
        Model,
        Output,
        Stats,
        TextStream,
        Token,
        Tokenizer,
        demo_models,
        memory_estimate,
        system_info,
    )

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "Comparison",
    "ContextError",
    "Error",
    "FileError",
    "Model",
    "ModelError",
    "OutOfMemoryError",
    "Output",
    "Reply",
    "ReplyPiece",
    "ReplyStream",
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
    "Comparison": "model",
    "Model": "model",
    "Output": "model",
    "Reply": "chat.reply",
    "ReplyPiece": "chat.reply",
    "ReplyStream": "chat.reply",
    "Stats": "model",
    "TextStream": "model",
    "Token": "model",
    "Tokenizer": "model",
    "ToolCall": "chat.reply",
    "demo_models": "model",
    "memory_estimate": "model",
    "system_info": "model",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
