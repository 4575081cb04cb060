"""gemtp.json, one description of a pair, as other engines want it."""

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
