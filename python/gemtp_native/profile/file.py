"""Saved profiles: costs of passes and draft steps on this machine, measured by `gemtp tune`.

A profile is valid for one pair of files, one number of threads, one type of K/V and one device with
so many layers on it, on the machine and with the build that it was measured with. Other profiles
are ignored with a notice: the costs are only the starting point of draft="auto", which learns them
by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from .. import __version__, _core
from ..arguments import integer
from ..base.input_file import open_input, reason
from ..base.log import logger
from ..errors import ArgumentError, Error, FileError
from ..gguf.parts import files_of, first_of
from ..options import MAX_DRAFT, MAX_ROWS

FORMAT = 2

_MAX_BYTES = 1 << 20  # of a profile; one takes about 4 kB
_MAX_COSTS = 4096
_MAX_NUMBER = 1e18  # a file may contain integers beyond doubles
_HASHED = 1 << 20  # bytes at either end of a model file: all metadata and shapes, some weights
_SAME_MEMORY = 0.05  # memory reserved by kernels differs between versions

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]
T = TypeVar("T")

_log = logger()


@dataclass(frozen=True)
class FileIdentity:
    path: str
    bytes: int
    modified_ns: int
    sha256: str
    """Hash of the first and the last MiB of each of its files."""


@dataclass(frozen=True)
class Conditions:
    """The conditions of a measurement; the costs are valid only under them."""

    version: str
    compiler: str
    isa: str
    threads: int
    kv_type: str
    device: str
    """"cpu", or the GPU, its driver and the layers that lie there."""
    machine: Mapping[str, Any]
    target: FileIdentity
    drafter: FileIdentity | None


@dataclass(frozen=True)
class Costs:
    """Measured costs in seconds."""

    verify: Sequence[tuple[int, int, float]]
    """(rows, context, seconds of one target pass)."""
    draft: Sequence[tuple[int, int, float]]
    """(0: a round's first draft step, 1: a later one; context; seconds of that step). Empty: drafts
    cost nothing, like those looked up in the text."""

    @property
    def contexts(self) -> list[int]:
        return sorted({context for _, context, _ in self.verify})


@dataclass(frozen=True)
class Profile:
    created: str
    """ISO 8601, UTC."""
    conditions: Conditions
    costs: Costs
    bandwidth: float | None
    """Bytes per second."""


# ---------------------------------------------------------------- what follows from costs


def round_seconds(costs: Costs, depth: int, context: int | None = None) -> float:
    """Seconds of a round with `depth` drafts and their verification: T(depth + 1) + first + (depth
    - 1) later, at the measured context nearest to `context` (None: the shortest)."""
    integer("depth", depth, 0, MAX_DRAFT)
    seconds = _nearest(costs.verify, depth + 1, context)
    if seconds is None:
        raise ArgumentError(f"the profile holds no pass over {depth + 1} rows")
    if depth and costs.draft:
        first, later = (_nearest(costs.draft, step, context) or 0.0 for step in (0, 1))
        seconds += first + (depth - 1) * later
    return seconds


def expected_tokens(acceptance: float, depth: int) -> float:
    """Expected tokens per round, 1 + sum of acceptance^k for k up to `depth`, if each draft is the
    target's choice with that probability and the first other draft ends the round."""
    if not 0 <= acceptance <= 1:  # also NaN
        raise ArgumentError(f"acceptance is {acceptance}; it must be between 0 and 1")
    return 1.0 + sum(acceptance**k for k in range(1, depth + 1))


def expected_speed(
    costs: Costs, acceptance: float, depth: int, context: int | None = None
) -> float:
    """Expected tokens per second."""
    return expected_tokens(acceptance, depth) / round_seconds(costs, depth, context)


def best_depth(profile: Profile | Costs, acceptance: float, context: int | None = None) -> int:
    """The depth, 0 (plain decoding) or more, with the highest expected speed; the lowest of
    equals."""
    costs = profile.costs if isinstance(profile, Profile) else profile
    measured = {rows for rows, _, _ in costs.verify}
    depths = [k for k in range(MAX_DRAFT + 1) if k + 1 in measured]
    return max(depths, key=lambda k: expected_speed(costs, acceptance, k, context))


def _nearest(
    entries: Iterable[tuple[int, int, float]], key: int, context: int | None
) -> float | None:
    at = 0 if context is None else context
    found = [(abs(c - at), c, seconds) for k, c, seconds in entries if k == key]
    return min(found)[2] if found else None


# ---------------------------------------------------------------- where profiles live


def folder() -> Path:
    """The folder of saved profiles, which need not exist. Raises FileError if the system has none
    for caches."""
    if own := os.environ.get("GEMTP_CACHE_DIR"):
        return Path(own).absolute() / "profiles"
    if sys.platform == "win32":
        place = os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
    elif sys.platform == "darwin":
        place = os.path.expanduser("~/Library/Caches")
    else:
        place = os.environ.get("XDG_CACHE_HOME", "")
        if not os.path.isabs(place):  # must be ignored, by the XDG specification
            place = os.path.expanduser("~/.cache")
    if not os.path.isabs(place):
        raise FileError("there is no home folder to keep profiles in; set GEMTP_CACHE_DIR")
    return Path(place) / "gemtp" / "profiles"


def path_of(
    target: PathLike, drafter: PathLike | None, threads: int, kv_type: str, device: str = "cpu"
) -> Path:
    """The path of the profile for these files: readable names, and a hash that makes it unique."""
    files = [_resolved(target), "" if drafter is None else _resolved(drafter)]
    key = "\0".join([*files, str(threads), kv_type, *([] if device == "cpu" else [device])])
    digest = hashlib.sha256(os.fsencode(key)).hexdigest()[:12]
    names = [re.sub(r"[^A-Za-z0-9._-]+", "_", Path(f).stem)[:40] for f in files if f]
    return folder() / f"{'+'.join(names)}-{threads}t-{kv_type}-{digest}.json"


def _resolved(path: PathLike) -> str:
    return os.path.realpath(first_of(path))


# ---------------------------------------------------------------- conditions


def conditions(
    target: PathLike,
    drafter: PathLike | None,
    threads: int,
    kv_type: str,
    isa: str,
    device: str = "cpu",
) -> Conditions:
    """Returns the current conditions. Raises OSError for files that cannot be read."""
    from .machine import describe_machine

    machine = describe_machine()
    return Conditions(
        version=__version__,
        compiler=_core.compiler(),
        isa=isa,
        threads=threads,
        kv_type=kv_type,
        device=device,
        machine={
            k: machine[k] for k in ("cpu", "cores", "usable_cores", "memory_bytes", "platform")
        },
        target=identify(target),
        drafter=None if drafter is None else identify(drafter),
    )


def identify(path: PathLike) -> FileIdentity:
    """Identifies a model; of several parts, by their total size, latest time, and the ends of
    each."""
    size, modified, digest = 0, 0, hashlib.sha256()
    for part in files_of(path):
        with open(part, "rb") as file:
            status = os.fstat(file.fileno())
            digest.update(file.read(_HASHED))
            if status.st_size > _HASHED:
                file.seek(max(_HASHED, status.st_size - _HASHED))
                digest.update(file.read(_HASHED))
        size += status.st_size
        modified = max(modified, status.st_mtime_ns)
    return FileIdentity(_resolved(path), size, modified, digest.hexdigest())


def difference(then: Conditions, now: Conditions) -> str | None:
    """Returns why costs of `then` do not apply to `now`, or None."""
    for name, what in (
        ("version", "gemtp"),
        ("compiler", "the compiler"),
        ("isa", "the instruction set"),
        ("threads", "the number of threads"),
        ("kv_type", "the K/V type"),
        ("device", "the device"),
    ):
        before, after = getattr(then, name), getattr(now, name)
        if before != after:
            return f"{what} was {_shown(before)} and is {_shown(after)}"
    for key in now.machine:
        before, after = then.machine.get(key), now.machine[key]
        if key == "memory_bytes" and _close(before, after):
            continue
        if before != after:
            return f"the machine's {key} was {_shown(before)} and is {_shown(after)}"
    for name in ("target", "drafter"):
        if getattr(then, name) != getattr(now, name):
            return f"the {name}'s file has changed"
    return None


def _close(a: Any, b: Any) -> bool:
    sizes = all(isinstance(v, (int, float)) and 0 <= v < _MAX_NUMBER for v in (a, b))
    return sizes and abs(a - b) <= _SAME_MEMORY * max(a, b)


# ---------------------------------------------------------------- saving


def save(profile: Profile) -> Path:
    """Saves a profile, completely or not at all. Raises FileError if it cannot be written."""
    at = profile.conditions
    drafter = at.drafter.path if at.drafter else None
    path = path_of(at.target.path, drafter, at.threads, at.kv_type, at.device)
    data = {"format": FORMAT, **asdict(profile)}
    _write(path, json.dumps(data, indent=1, allow_nan=False) + "\n")
    return path


def check_folder() -> None:
    """Raises the FileError that save() would raise, before there is anything to save."""
    import tempfile  # here, for it is nothing that opening a model needs

    path = folder()
    with _saying_where(path):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path, prefix=".gemtp.tmp-"):
            pass


def _write(path: Path, text: str) -> None:
    from ..base.whole_file import write_whole  # here, for it is nothing that opening a model needs

    with _saying_where(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode("ascii"))


@contextlib.contextmanager
def _saying_where(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, FileError) as e:
        why = reason(e.__cause__ if isinstance(e.__cause__, OSError) else e).rstrip(".")
        raise FileError(
            f"the profile cannot be saved in {path}: {why}; "
            "set GEMTP_CACHE_DIR to a folder that can be written"
        ) from None


# ---------------------------------------------------------------- loading


class _Unusable(Exception):
    """The reason why a profile is unusable, as the rest of a sentence."""


def load(
    target: PathLike,
    drafter: PathLike | None,
    threads: int,
    kv_type: str,
    isa: str,
    device: str = "cpu",
) -> tuple[Profile | None, str | None]:
    """Returns the saved profile, or None if there is none; or None and a sentence that says why the
    saved profile is unusable. Never raises because of the file's contents."""
    try:
        path = path_of(target, drafter, threads, kv_type, device)
        status = path.stat()
    except (OSError, ValueError, FileError):
        return None, None  # no profile can be found
    try:
        profile = _parse(_read(path, status))
        now = conditions(target, drafter, threads, kv_type, isa, device)
        why = difference(profile.conditions, now)
    except _Unusable as e:
        why = str(e)
    except (OSError, FileError) as e:
        why = f"reading failed: {reason(e)}"
    if why is None:
        return profile, None
    return None, f"the saved profile {path} is ignored: {why}; `gemtp tune` makes a new one"


def use(engine: _core.Engine, target: PathLike, drafter: PathLike | None, kv_type: str) -> bool:
    """Starts the engine's depth control from the saved profile, if there is one; logs a notice
    through the logger "gemtp_native" if it is unusable. Returns whether a profile is used."""
    profile, why = load(target, drafter, engine.threads, kv_type, engine.isa, engine.identity)
    if profile:
        try:
            engine.set_costs(list(profile.costs.verify), list(profile.costs.draft))
        except Error as e:
            why = f"the saved profile is ignored: {e}; `gemtp tune` makes a new one"
    if why:
        _log.warning("%s", why)
    return profile is not None and why is None


def _read(path: Path, status: os.stat_result) -> Any:
    if not stat.S_ISREG(status.st_mode):
        raise _Unusable("it is not a file")
    with open_input(path) as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise _Unusable("it is damaged (no profile is that large)")
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _Unusable("it is damaged (not JSON)") from None


def _parse(data: Any) -> Profile:
    if not isinstance(data, dict):
        raise _Unusable("it is damaged (not a JSON object)")
    if data.get("format") != FORMAT or isinstance(data["format"], bool):
        raise _Unusable(f"its format is {_shown(data.get('format'))}, this gemtp reads {FORMAT}")
    costs = _get(data, "costs", dict)
    bandwidth = data.get("bandwidth")
    profile = Profile(
        created=_get(data, "created", str),
        conditions=_parse_conditions(_get(data, "conditions", dict)),
        costs=Costs(_parse_costs(costs, "verify", 1, MAX_ROWS), _parse_costs(costs, "draft", 0, 1)),
        bandwidth=None if bandwidth is None else _seconds("bandwidth", bandwidth),
    )
    if not any(rows == 1 for rows, _, _ in profile.costs.verify):
        raise _Unusable("it is damaged (it lacks the pass over one row)")
    return profile


def _parse_conditions(data: dict[str, Any]) -> Conditions:
    drafter = None if data.get("drafter") is None else _get(data, "drafter", dict)
    return Conditions(
        version=_get(data, "version", str),
        compiler=_get(data, "compiler", str),
        isa=_get(data, "isa", str),
        threads=_get(data, "threads", int),
        kv_type=_get(data, "kv_type", str),
        device=_get(data, "device", str),
        machine=_get(data, "machine", dict),
        target=_parse_identity(_get(data, "target", dict)),
        drafter=None if drafter is None else _parse_identity(drafter),
    )


def _parse_identity(data: dict[str, Any]) -> FileIdentity:
    return FileIdentity(
        path=_get(data, "path", str),
        bytes=_get(data, "bytes", int),
        modified_ns=_get(data, "modified_ns", int),
        sha256=_get(data, "sha256", str),
    )


def _parse_costs(
    data: dict[str, Any], name: str, low: int, high: int
) -> list[tuple[int, int, float]]:
    entries = _get(data, name, list)
    if len(entries) > _MAX_COSTS:
        raise _Unusable(f"it is damaged ({name} has {len(entries)} entries)")
    costs = []
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 3:
            raise _Unusable(f"it is damaged (an entry of {name} is {_shown(entry)})")
        key, context, seconds = entry
        if type(key) is not int or not low <= key <= high:
            raise _Unusable(f"it is damaged ({name} has an entry for {_shown(key)})")
        if type(context) is not int or not 0 <= context < 1 << 31:
            raise _Unusable(f"it is damaged ({name} has an entry for context {_shown(context)})")
        costs.append((key, context, _seconds(name, seconds)))
    return costs


def _seconds(name: str, value: Any) -> float:
    """Parses seconds or another positive, finite quantity."""
    if type(value) not in (int, float) or not 0 < value < _MAX_NUMBER:  # NaN, too
        raise _Unusable(f"it is damaged ({name} holds {_shown(value)})")
    return float(value)


def _get(data: dict[str, Any], name: str, kind: type[T]) -> T:
    value = data.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _Unusable(f"it is damaged ({name} is {_shown(value)})")
    return value


def _shown(value: Any) -> str:
    """Formats a value for a sentence: short, on one line."""
    try:
        text = value if isinstance(value, str) and value.isprintable() else repr(value)
    except ValueError:  # int refuses to print thousands of digits
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 60 else f"{text[:57]}..."
