"""Synthetic pairs with the shapes and cost of released models, and a chosen acceptance.

Their layers cost as much as real ones but add nothing, because the weights of the norms after them
are zero. Target and drafter still know the next token: walk.py defines which token follows which,
content.py how embeddings and heads encode it.
"""

from .pair import EVERY, TYPES, SynthResult, plan_pair, write_drafter, write_pair
from .shapes import SHAPES

__all__ = ["EVERY", "SHAPES", "TYPES", "SynthResult", "plan_pair", "write_drafter", "write_pair"]
