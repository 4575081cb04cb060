"""Reads, checks and writes gemtp.json."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..base.input_file import read_input
from ..base.json_text import json_text
from ..base.whole_file import check_output, write_whole
from ..errors import ArgumentError, FileError
from ..gguf.parts import first_of
from .schema import problem, schema

_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """One model in all its available forms. Paths are relative to the current folder."""

    hub: str | None = None
    gguf: str | None = None
    litertlm: str | None = None


@dataclass(frozen=True)
class Sampling:
    """The sampling options of Model.generate."""

    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Configuration:
    """The contents of a gemtp.json."""

    target: Source
    drafter: Source | None = None
    draft: int | Literal["auto"] = "auto"
    context: int = 4096
    threads: int | None = None
    kv_type: Literal["f16", "f32"] = "f16"
    sampling: Sampling = field(default_factory=Sampling)

    def as_json(self) -> dict[str, Any]:
        """Returns the JSON of a gemtp.json, with every value."""
        data = {"version": 1, **asdict(self)}
        for name in ("target", "drafter"):
            if data[name] is not None:
                data[name] = _without_none(data[name])
        return data


def parse(data: Any, name: str = "gemtp.json", folder: Path | None = None) -> Configuration:
    """Parses `data` as returned by json.load. name: for errors. folder: of the file, if paths are
    relative to it."""
    if (found := problem(data, schema())) is not None:
        raise FileError(f"{name}: {found}")
    drafter = data.get("drafter")
    configuration = Configuration(
        target=_source(data["target"], folder),
        drafter=None if drafter is None else _source(drafter, folder),
        sampling=Sampling(**_numbers(data.get("sampling", {}), schema()["properties"]["sampling"])),
        **_numbers(
            {k: data[k] for k in ("draft", "context", "threads", "kv_type") if k in data}, schema()
        ),
    )
    check(configuration, name)
    return configuration


def check(configuration: Configuration, name: str) -> None:
    """Checks conditions that a schema cannot express."""
    if configuration.drafter is None and configuration.draft not in ("auto", 0):
        raise FileError(
            f"{name}: draft is {configuration.draft}, but there is no drafter; add one, or make it "
            f'"auto" or 0.'
        )


def changed(
    configuration: Configuration, sampling: Mapping[str, Any], **values: Any
) -> Configuration:
    """Returns the configuration with other values; those that are None stay. Raises ArgumentError
    for values that do not fit."""
    of = schema()["properties"]
    given = {key: value for key, value in values.items() if value is not None}
    for key, value in given.items():
        shown = _without_none(asdict(value)) if isinstance(value, Source) else value
        _demand(problem(shown, of[key], key))
    chosen = _without_none(sampling)
    for key, value in chosen.items():
        _demand(problem(value, of["sampling"]["properties"][key], key))
    return replace(configuration, **given, sampling=replace(configuration.sampling, **chosen))


def _demand(found: str | None) -> None:
    if found is not None:
        raise ArgumentError(found)


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def load(path: str | os.PathLike[str]) -> Configuration:
    """Loads a gemtp.json. Raises FileError for anything that is wrong with it."""
    path = Path(path)
    data = read_input(path, _MOST_BYTES)
    try:
        parsed = json.loads(
            data.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except json.JSONDecodeError as e:
        raise FileError(
            f"{path} is not JSON: {e.msg} in line {e.lineno}, column {e.colno}."
        ) from None
    except UnicodeDecodeError:
        raise FileError(f"{path} is not JSON: it is not UTF-8.") from None
    except RecursionError:
        raise FileError(f"{path} is not a gemtp.json: it is too deep.") from None
    except ValueError as e:  # from a hook, or an integer with thousands of digits
        raise FileError(f"{path} is not a gemtp.json: {e}") from None
    return parse(parsed, str(path), path.parent)


def save(configuration: Configuration, path: str | os.PathLike[str], force: bool = False) -> None:
    """Writes the whole configuration. Its paths are relative to the current folder; in the file
    they are relative to the file's folder, if possible."""
    path = Path(path)
    check_output(path)
    if os.path.lexists(path) and not force:
        raise FileError(f"{path} exists already; remove it, or replace it with --force.")
    data = configuration.as_json()
    for name in ("target", "drafter"):
        for kind in ("gguf", "litertlm"):
            if data[name] is not None and kind in data[name]:
                data[name][kind] = _relative(data[name][kind], path.parent)
    write_whole(path, json_text(data, indent=2).encode("utf-8") + b"\n")


def source_of(names: list[str]) -> Source:
    """Distinguishes hub ids, folders, GGUF files and .litertlm files by their endings."""
    found: dict[str, str] = {}
    for name in names:
        ending = name.rpartition(".")[2].lower()
        kind = ending if ending in ("gguf", "litertlm") else "hub"
        if kind == "gguf":
            name = first_of(name)
        if kind in found:
            raise ArgumentError(f"{found[kind]} and {name} are of one kind; give one of them.")
        found[kind] = name
    return Source(**found)


def _source(data: Mapping[str, str], folder: Path | None) -> Source:
    def path(value: str | None) -> str | None:
        return value if folder is None or value is None else str(folder / value)

    hub = data.get("hub")
    if hub is not None and hub.startswith(("./", "../")):
        hub = path(hub)
    return Source(hub=hub, gguf=path(data.get("gguf")), litertlm=path(data.get("litertlm")))


def _relative(value: str, folder: Path) -> str:
    if os.path.isabs(value):
        return value
    try:
        return os.path.relpath(value, folder)
    except ValueError:  # another drive
        return os.path.abspath(value)


def _numbers(values: Mapping[str, Any], of: Mapping[str, Any]) -> dict[str, Any]:
    """Converts integers to int and numbers to float, however they were written."""
    out = dict(values)
    for name, value in out.items():
        kind = of["properties"][name].get("type")
        if kind == "number":
            out[name] = float(value)
        elif isinstance(value, float):
            out[name] = int(value)
    return out


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        twice = next(k for k, _ in pairs if sum(k == other for other, _ in pairs) > 1)
        raise ValueError(f"{ascii(twice[:60])} is there twice.")
    return data


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number that JSON knows.")
