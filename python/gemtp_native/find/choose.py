"""Chooses between GGUF files by the quantization and role in their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..errors import ArgumentError, FileError
from ..gguf import parts

# A label in a file's name, as converters write it: Q4_K_M, UD-Q4_K_XL, IQ4_NL, MXFP4, BF16.
_LABEL = re.compile(
    r"(?:^|[-._])((?:UD-)?(?:T?I?Q[1-8](?:_(?:K|NL|XXS|XS|S|M|L|XL|XXL|[0-9]))*"
    r"|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32))(?=$|[-._])",
    re.IGNORECASE,
)
_DRAFTER = re.compile(r"(?:^|[-._ ])(?:assistant|drafter|draft|mtp)(?=$|[-._ ])", re.IGNORECASE)
_OTHER = re.compile(r"mmproj|imatrix|\bvocab\b|lora", re.IGNORECASE)

# Order of preference without a wish: small and good types. Google's own files are trained for Q4_0.
_TARGETS = ("Q4_K_M", "UD-Q4_K_XL", "Q4_0", "Q4_K_S", "IQ4_NL", "IQ4_XS", "Q5_K_M", "Q6_K", "Q8_0")
_TRAINED = ("Q4_0", *_TARGETS)
# A drafter is small, and imprecise weights cost accepted drafts.
_DRAFTERS = ("Q8_0", "F16", "BF16", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0")


@dataclass(frozen=True)
class Candidate:
    """A model in one file or in several parts."""

    name: str
    """Name of the file, or of the first part, in the folder or repository."""
    files: tuple[str, ...]
    bytes: int | None
    label: str | None
    """The quantization in its name, in capitals."""
    role: str
    """"target" or "drafter"."""

    def __str__(self) -> str:
        size = "" if self.bytes is None else f" ({self.bytes / 1e9:.2f} GB)"
        return f"{self.label or self.name}{size}"


def candidates(files: Mapping[str, int | None]) -> list[Candidate]:
    """Returns the models among `files` (name -> bytes), sorted by name, without projectors,
    vocabularies and the like. The first part stands for all parts of a model."""
    found = []
    for name in sorted(files):
        path = PurePosixPath(name)
        if path.suffix.lower() != ".gguf" or _OTHER.search(path.name):
            continue
        whole = parts.names(name)
        if whole is not None and whole[0] != name and whole[0] in files:
            continue
        of = tuple(whole) if whole is not None else (name,)
        sizes = [files.get(f) for f in of]
        total = None if None in sizes else sum(s for s in sizes if s is not None)
        named = [_stem(path), *(folder.name for folder in path.parents)]
        role = "drafter" if any(map(_DRAFTER.search, named)) else "target"
        found.append(Candidate(name, of, total, label(name), role))
    return found


def label(name: str) -> str | None:
    """Returns "Q4_0" for "gemma-4-E2B-it-q4_0.gguf"; the folder's label if the file has none."""
    path = PurePosixPath(name)
    for text in (_stem(path), *(p.name for p in path.parents)):
        found = _LABEL.findall(text)
        if found:
            return str(found[-1]).upper().replace("FP16", "F16").replace("FP32", "F32")
    return None


def choose(found: Iterable[Candidate], wanted: str | None, role: str, where: str) -> Candidate:
    """Returns the candidate with that label or file name; without a wish the usual one. Raises
    FileError, listing the candidates, if none or several match."""
    found = list(found)
    if not found:
        raise FileError(f"{where} has no GGUF models.")
    if wanted is not None and wanted.lower().endswith(".gguf"):
        same = [c for c in found if wanted in (*c.files, *(PurePosixPath(f).name for f in c.files))]
        if len(same) != 1:
            raise FileError(f"{where} has no file {wanted}; it has {_listed(found)}.")
        return same[0]
    # A repository that has only drafters, or a target with a drafter's name, has no other role.
    fitting = [c for c in found if c.role == role] or found
    if wanted is not None:
        return _labelled(fitting, wanted.upper(), where)
    if len(fitting) == 1:
        return fitting[0]
    trained = any("qat" in text.lower() for text in (where, *(c.name for c in fitting)))
    for preferred in _DRAFTERS if role == "drafter" else _TRAINED if trained else _TARGETS:
        same = [c for c in fitting if c.label == preferred]
        if len(same) == 1:
            return same[0]
        if same:
            raise _ambiguous(where, same)
    raise _ambiguous(where, fitting)


def _labelled(found: list[Candidate], wanted: str, where: str) -> Candidate:
    same = [c for c in found if c.label == wanted]
    same = same or [c for c in found if c.label == f"UD-{wanted}"]
    if not same:
        raise FileError(f"{where} has no {wanted}; it has {_listed(found)}.")
    if len(same) > 1:
        raise _ambiguous(where, same)
    return same[0]


def _ambiguous(where: str, found: list[Candidate]) -> FileError:
    labels = [c.label for c in found]
    names = labels if None not in labels and len(set(labels)) == len(labels) else None
    example = found[0].label if names else found[0].name
    return FileError(
        f"{where} has several models; say which, like {where}:{example}: it has "
        f"{_listed(found) if names else ', '.join(c.name for c in found)}."
    )


def _listed(found: list[Candidate]) -> str:
    shown = ", ".join(str(c) for c in found[:20])
    return shown + (f" and {len(found) - 20} more" if len(found) > 20 else "")


def _stem(path: PurePosixPath) -> str:
    name = path.name[: -len(path.suffix)] if path.suffix else path.name
    return re.sub(r"-\d{5}-of-\d{5}$", "", name)


def check_wish(wanted: str) -> str:
    if not wanted:
        raise ArgumentError("the part behind the colon is empty: give a type like Q4_0, or a file")
    return wanted
