"""Quantizes GGUF files, and reads and writes importance matrices, which say where precision
matters.

from gemtp_native.make.quantize import quantize

result = quantize("target-f16.gguf", "target-q4_k_m.gguf", "q4_k_m")
print(result.bits_per_weight, result.types)
"""

from __future__ import annotations

from .file import Quantized, has_type, plan, quantize
from .imatrix import ImportanceMatrix, read_imatrix, write_imatrix

__all__ = [
    "ImportanceMatrix",
    "Quantized",
    "has_type",
    "plan",
    "quantize",
    "read_imatrix",
    "write_imatrix",
]
