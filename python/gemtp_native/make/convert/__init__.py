"""Hugging Face safetensors → GGUF, for Gemma 4 targets and their drafters."""

from .pipeline import ConvertResult, convert

__all__ = ["ConvertResult", "convert"]
