"""Hugging Face safetensors → GGUF, for Gemma 4 targets and their drafters."""

from .command import add_arguments, main, run
from .pipeline import ConvertResult, convert

__all__ = ["ConvertResult", "add_arguments", "convert", "main", "run"]
