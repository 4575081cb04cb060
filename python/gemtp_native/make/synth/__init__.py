"""Pairs of models with the shapes of the released ones, their cost, and a chosen acceptance.

Their layers cost what real ones cost and add nothing, because the weights of the norms behind them
are zero. Target and drafter know the next token all the same: walk.py says which token follows
which, content.py how embeddings and heads spell it.
"""

from .pair import EVERY, TYPES, SynthResult, plan_pair, write_drafter, write_pair
from .shapes import SHAPES

__all__ = ["EVERY", "SHAPES", "TYPES", "SynthResult", "plan_pair", "write_drafter", "write_pair"]
