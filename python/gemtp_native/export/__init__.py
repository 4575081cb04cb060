"""Converts gemtp.json, one description of a pair, to the forms of other engines."""

from .configuration import Configuration, Sampling, Source, load, parse, save
from .depth import DEFAULT_ACCEPTANCE, DEFAULT_DEPTH
from .engines import ENGINES, Export, Note, export

__all__ = [
    "DEFAULT_ACCEPTANCE",
    "DEFAULT_DEPTH",
    "ENGINES",
    "Configuration",
    "Export",
    "Note",
    "Sampling",
    "Source",
    "export",
    "load",
    "parse",
    "save",
]
