"""Measures how well a model predicts a text.

from gemtp_native.measure import perplexity as evaluate

result = evaluate.perplexity("target.gguf", evaluate.read_text("book.txt"))
print(result.perplexity, result.uncertainty)
"""

from __future__ import annotations

from .chunks import read_text, split, token_ids
from .estimate import Estimate, Result, Tally, perplexity

__all__ = ["Estimate", "Result", "Tally", "perplexity", "read_text", "split", "token_ids"]
