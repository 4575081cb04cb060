"""Finds the drafter that belongs to a target among the files near it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from .. import _core
from ..base.log import logger
from ..errors import Error, FileError, ModelError
from ..gguf import parts
from .choose import Candidate, candidates

_log = logger()

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_NAMES = ("assistant", "draft", "mtp")
_MOST = 64  # files that are examined


def check(target: PathLike, drafter: PathLike) -> None:
    """Raises the ModelError or FileError of opening both, if they are not a pair."""
    _core.memory_estimate(target, drafter, 512, 64, True)


def drafter_beside(target: PathLike) -> Path:
    """Finds a drafter in the target's folder or beside that, or in a folder with a drafter's name
    inside it or beside it, where repositories (MTP/, or the target in a folder of its type),
    downloads, LM Studio and the hub's cache have it."""
    place = Path(os.path.abspath(parts.first_of(target)))
    found = list(dict.fromkeys(_near(place)))[:_MOST]
    if not found:
        raise FileError(
            f"no drafter is beside {place}: none of the files in its folder, and no folder in or "
            f"beside that, is called like one (assistant, draft, mtp); give its path."
        )
    return first_that_fits(target, found)


def first_that_fits(target: PathLike, found: Iterable[Path]) -> Path:
    """Returns the first that fits, those with an ordered head first, then smaller ones first."""
    fitting, reasons = [], []
    for path in found:
        try:
            check(target, path)
        except Error as e:
            reasons.append(str(e).replace(f"'{path}'", path.name))
            continue
        file = _core.GgufFile(path)
        ordered = any("ordered_head" in k for k in file.keys) or any(
            "centroids" in t[0] for t in file.tensors
        )
        fitting.append((not ordered, file.size, str(path)))
    if not fitting:
        raise ModelError(
            f"no drafter that fits {os.fsdecode(target)} was found: {'; '.join(reasons[:3])}"
            + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
        )
    path = Path(min(fitting)[2])
    _log.info("the drafter is %s", path)
    return path


def _near(target: Path) -> Iterator[Path]:
    for c in _models(target.parent):
        if c.role == "drafter" and target.parent / c.name != target:
            yield target.parent / c.name
    for folder in _relatives(target.parent):
        for place in (folder, *_folders(folder)):
            yield from (place / c.name for c in _models(place))
    for c in _models(target.parent.parent):
        if c.role == "drafter":
            yield target.parent.parent / c.name


def _relatives(folder: Path) -> Iterator[Path]:
    """Yields folders with a drafter's name in the folder and beside it; in the hub's cache, also
    snapshots of other repositories."""
    yield from _named(folder)
    yield from _named(folder.parent, folder)
    for snapshots in folder.parents:
        if snapshots.name == "snapshots":
            for repository in _named(snapshots.parent.parent, snapshots.parent):
                for snapshot in sorted(p for p in repository.glob("snapshots/*") if p.is_dir()):
                    yield snapshot
                    yield from _named(snapshot)
            return


def _named(folder: Path, but: Path | None = None) -> list[Path]:
    """Returns the folders in a folder that have a drafter's name."""
    return [
        p for p in _folders(folder) if p != but and any(name in p.name.lower() for name in _NAMES)
    ]


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir())
    except OSError:
        return []


def _models(folder: Path) -> list[Candidate]:
    try:
        return candidates({p.name: None for p in folder.iterdir()})
    except OSError:
        return []
