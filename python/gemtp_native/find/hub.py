"""Models on the Hugging Face hub, through huggingface_hub, with its cache, tokens and settings
(HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN)."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import _core
from ..base.input_file import read_text_input
from ..base.log import logger
from ..errors import ArgumentError, Error, FileError
from . import check_name
from .choose import Candidate, candidates, check_wish, choose

_log = logger()

_MOST_BYTES = 1 << 16  # size limit of a file with the name of a revision

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]


@dataclass(frozen=True)
class Name:
    """A repository, owner/name, and one of its models."""

    repo: str
    wanted: str | None = None

    def __str__(self) -> str:
        return f"hf:{self.repo}" + (f":{self.wanted}" if self.wanted else "")


@dataclass(frozen=True)
class Pulled:
    """A model in the cache."""

    path: Path
    """The path to open: the file, or the first part."""
    files: tuple[Path, ...]
    bytes: int


@dataclass(frozen=True)
class Place:
    """Locations of hub and cache; None: the default of huggingface_hub."""

    endpoint: str | None = None
    cache: Path | None = None


class _Unreachable(FileError):
    """Raised if the hub does not answer, as opposed to a negative answer."""


def parse(name: str) -> Name:
    """Parses "owner/name", "owner/name:Q4_0" or "owner/name:folder/file.gguf"."""
    repo, colon, wanted = name.partition(":")
    check_name(repo, "a model on the hub (hf:owner/name, or hf:owner/name:Q4_0)", 2)
    return Name(repo, check_wish(wanted) if colon else None)


def pull(
    name: Name, role: str = "target", progress: bool = True, place: Place | None = None
) -> Pulled:
    """Downloads all parts of the model unless they are in the cache. A cached model is used if the
    hub cannot be reached. Interrupted downloads are resumed. Every failure raises FileError with
    one sentence; an incomplete file never gets its final name."""
    place = place or Place()
    try:
        listed = _listing(name.repo, place)
    except _Unreachable as e:
        return _from_cache(name, role, place, e)
    chosen = choose(candidates(listed), name.wanted, role, f"hf:{name.repo}")
    missing = [f for f in chosen.files if f not in listed]
    if missing:
        raise FileError(f"hf:{name.repo} lacks {missing[0]}, a part of the model {chosen}.")
    _check_space(name.repo, chosen, listed, place)
    paths = tuple(_fetch(name.repo, file, progress, place) for file in chosen.files)
    _check_file(paths[0])
    return Pulled(paths[0], paths, sum(p.stat().st_size for p in paths))


def files(name: Name, place: Place | None = None) -> list[Candidate]:
    """Returns the models in the repository."""
    return candidates(_listing(name.repo, place or Place()))


def drafter_of(
    target: Name, path: PathLike, progress: bool = True, place: Place | None = None
) -> Path:
    """Returns the drafter in the target's repository, or in another one of its owner with a
    matching name."""
    from .beside import check, drafter_beside

    place = place or Place()
    tried = []
    for repo in _drafter_repos(target.repo):
        try:
            listed = candidates(_listing(repo, place))
        except _Unreachable:
            return drafter_beside(path)
        except FileError:
            tried.append(repo)
            continue
        if repo == target.repo:
            listed = [c for c in listed if c.role == "drafter"]
        if not listed:
            tried.append(repo)
            continue
        wanted = choose(listed, None, "drafter", f"hf:{repo}").name
        found = pull(Name(repo, wanted), "drafter", progress, place).path
        check(path, found)
        _log.info("the drafter is %s of hf:%s", wanted, repo)
        return found
    raise FileError(
        f"no drafter was found for {target}: neither in it nor as {', '.join(tried[1:])}; give its "
        f"name or path."
    )


def _drafter_repos(repo: str) -> list[str]:
    """Maps gemma-4-E2B-it-GGUF to gemma-4-E2B-it-assistant-GGUF and the like."""
    owner, name = repo.split("/")
    ending = re.search(r"-(?:gguf)$", name, re.IGNORECASE)
    base = name[: ending.start()] if ending else name
    plain = re.sub(r"-qat(?:-q4_0)?(?:-unquantized)?$|-q4_0$", "", base, flags=re.IGNORECASE)
    tail = ending.group() if ending else "-GGUF"
    names = [f"{base}-assistant{tail}", f"{plain}-assistant{tail}", f"{plain}-assistant"]
    if base != plain:
        names.insert(1, f"{plain}-assistant{base[len(plain) :]}{tail}")
    return list(dict.fromkeys([repo, *(f"{owner}/{n}" for n in names)]))


# ---------------------------------------------------------------- the library


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise ArgumentError(
            "hf: names need the package huggingface_hub: pip install 'gemtp-native[hub]'"
        ) from None
    return huggingface_hub


def _listing(repo: str, place: Place) -> dict[str, int | None]:
    """Returns the sizes in bytes of the repository's files by name."""
    hub = _library()
    with _explained(f"hf:{repo}"):
        info = hub.HfApi(endpoint=place.endpoint).model_info(repo, files_metadata=True, timeout=30)
    return {f.rfilename: f.size for f in info.siblings or []}


def _fetch(repo: str, file: str, progress: bool, place: Place) -> Path:
    hub = _library()
    with _explained(f"{file} of hf:{repo}"), _bars(hub, progress):
        return Path(hub.hf_hub_download(repo, file, endpoint=place.endpoint, cache_dir=place.cache))


@contextlib.contextmanager
def _bars(hub: Any, wanted: bool) -> Iterator[None]:
    """Enables the library's own progress bars if wanted and on a terminal."""
    off = (not wanted or not sys.stderr.isatty()) and not hub.utils.are_progress_bars_disabled()
    if off:
        hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        if off:
            hub.utils.enable_progress_bars()


def _cache(place: Place) -> Path:
    from huggingface_hub import constants

    return Path(place.cache or constants.HF_HUB_CACHE)


def _snapshot(repo: str, place: Place) -> Path | None:
    """Returns the folder of the latest revision in the cache."""
    folder = _cache(place) / f"models--{repo.replace('/', '--')}"
    try:
        revision = read_text_input(folder / "refs" / "main", _MOST_BYTES, pipe=False).strip()
    except FileError:
        return None
    snapshot = folder / "snapshots" / revision
    return snapshot if re.fullmatch(r"[0-9A-Za-z]+", revision) and snapshot.is_dir() else None


def _from_cache(name: Name, role: str, place: Place, unreachable: FileError) -> Pulled:
    snapshot = _snapshot(name.repo, place)
    have: dict[str, int | None] = {}
    if snapshot is not None:
        have = {
            p.relative_to(snapshot).as_posix(): p.stat().st_size
            for p in sorted(snapshot.rglob("*"))
            if p.is_file()
        }
    found = [c for c in candidates(have) if all(f in have for f in c.files)]
    if snapshot is None or not found:
        raise unreachable
    try:
        chosen = choose(found, name.wanted, role, f"hf:{name.repo}")
    except Error:
        raise unreachable from None
    _log.info("hf:%s cannot be reached; its copy in the cache is used", name.repo)
    paths = tuple(snapshot / f for f in chosen.files)
    return Pulled(paths[0], paths, sum(p.stat().st_size for p in paths))


def _check_space(repo: str, chosen: Candidate, listed: dict[str, int | None], place: Place) -> None:
    snapshot, cache = _snapshot(repo, place), _cache(place)
    needed = sum(
        listed[f] or 0 for f in chosen.files if snapshot is None or not (snapshot / f).exists()
    )
    folder = next(p for p in (cache, *cache.absolute().parents) if p.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FileError(
            f"{chosen.name} of hf:{repo} needs {needed / 1e9:.2f} GB in {cache} and "
            f"{free / 1e9:.2f} GB are free; make room, or set HF_HOME to a folder on another disk."
        )


def _check_file(path: Path) -> None:
    """Checks that the downloaded file is a GGUF file."""
    try:
        _core.GgufFile(path)
    except Error as e:
        raise FileError(
            f"{e}; it came so from the hub, or has been changed since: {path}"
        ) from None


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Converts errors of huggingface_hub and of its dependencies to one sentence."""
    import huggingface_hub.errors as known

    def instance(e: BaseException, *names: str) -> bool:
        kinds = tuple(k for k in (getattr(known, n, None) for n in names) if k is not None)
        return isinstance(e, kinds)

    try:
        yield
    except Error:
        raise
    except Exception as e:
        status = getattr(getattr(e, "response", None), "status_code", None)
        if instance(e, "GatedRepoError"):
            raise FileError(
                f"{what} is for those who have agreed to its terms: do that on its page, and log "
                f"in with 'hf auth login' or set HF_TOKEN."
            ) from None
        if instance(e, "RepositoryNotFoundError"):
            raise FileError(
                f"{what} is not on the hub, or is private: check its name, and log in with "
                f"'hf auth login' if it is yours."
            ) from None
        if instance(e, "EntryNotFoundError", "RevisionNotFoundError") and not instance(
            e, "LocalEntryNotFoundError"
        ):
            raise FileError(f"{what} is not on the hub; check its name.") from None
        if instance(e, "HFValidationError"):
            raise ArgumentError(f"{what} is no name on the hub: {_first_line(e)}") from None
        if status in (401, 403):
            raise FileError(
                f"{what} may not be read: log in with 'hf auth login' or set HF_TOKEN."
            ) from None
        if isinstance(e, OSError) and e.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", -1)):
            raise FileError(
                f"the disk is full, {what} is not complete and is not kept; make room and fetch it "
                f"again."
            ) from None
        if status is not None:
            raise _Unreachable(f"{what} cannot be fetched: the hub answers {status}.") from None
        if instance(e, "OfflineModeIsEnabled"):
            raise _Unreachable(
                f"{what} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it."
            ) from None
        if "onsistency check" in str(e):
            raise FileError(
                f"{what} came shorter than the hub says it is; it is not used: fetch it again."
            ) from None
        raise _Unreachable(
            f"{what} cannot be fetched: {_first_line(e)}; is the hub reachable from here?"
        ) from None


def _first_line(e: BaseException) -> str:
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    text = lines[0] if lines else type(e).__name__
    return (text if len(text) < 200 else text[:200] + "…").rstrip(".;")
