"""How well a model predicts a text.

from gemtp_native import evaluate

result = evaluate.perplexity("target.gguf", evaluate.read_text("book.txt"))
print(result.perplexity, result.uncertainty)
"""

from __future__ import annotations

from .chunks import read_text, split, token_ids
from .perplexity import Estimate, Result, Tally, perplexity

__all__ = ["Estimate", "Result", "Tally", "perplexity", "read_text", "split", "token_ids"]
