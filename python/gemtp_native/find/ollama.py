"""Models that Ollama has downloaded: files named by their hash, and manifests that list them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from ..base.input_file import read_input
from ..errors import ArgumentError, FileError
from . import check_name

_ROLES = {"target": "model", "drafter": "draft"}
_MOST_BYTES = 1 << 20


def model_of(name: str, role: str = "target") -> Path:
    """Returns the blob of "name", "name:tag", "namespace/name:tag" or "host/namespace/name:tag"."""
    manifest, root = _manifest(name)
    blobs = _blobs(manifest, root, _ROLES[role])
    if not blobs:
        raise FileError(f"ollama:{name} has no {_ROLES[role]} in a GGUF file.")
    if len(blobs) > 1:
        raise FileError(
            f"ollama:{name} is a model in {len(blobs)} files, whose names do not say their order; "
            f"fetch it as one file."
        )
    return blobs[0]


def drafter_of(name: str, target: object) -> Path:
    """Returns the drafter in the manifest, or else a model of Ollama with a drafter's name that
    fits."""
    from .beside import first_that_fits

    manifest, root = _manifest(name)
    found = _blobs(manifest, root, "draft")
    for path in sorted(root.glob("manifests/*/*/*/*")):
        if re.search(r"assistant|drafter|mtp", str(path.relative_to(root)), re.IGNORECASE):
            found += _blobs(_read(path), root, "model")
    if not found:
        raise FileError(f"ollama:{name} comes without a drafter; give the path of one.")
    return first_that_fits(str(target), found)


def _roots() -> list[Path]:
    given = os.environ.get("OLLAMA_MODELS")
    if given:
        return [Path(given)]
    return [Path.home() / ".ollama/models", Path("/usr/share/ollama/.ollama/models")]


def _manifest(name: str) -> tuple[dict[str, Any], Path]:
    model, colon, tag = name.partition(":") if "/" not in name.partition(":")[2] else (name, "", "")
    if colon and not tag:
        raise ArgumentError(f"ollama:{name} has an empty tag; leave the colon away for latest")
    tag = tag or "latest"
    pieces = check_name(model, "a model of Ollama's", model.count("/") + 1)
    check_name(tag, "a tag of Ollama's", 1)
    if len(pieces) > 3:
        raise ArgumentError(f"{model!r} does not name a model of Ollama's")
    roots = [r for r in _roots() if (r / "manifests").is_dir()]
    if not roots:
        raise FileError(
            f"Ollama has no models in {_roots()[0]}; set OLLAMA_MODELS if they are elsewhere."
        )
    where = {1: ["*", "library"], 2: ["*"], 3: []}[len(pieces)]
    for root in roots:
        # Only the registry is a wildcard; characters of the name are taken literally.
        hosts = sorted((root / "manifests").iterdir()) if where else [root / "manifests"]
        for host in hosts:
            path = host.joinpath(*where[1:], *pieces, tag)
            if path.is_file():
                return _read(path), root
    raise FileError(
        f"Ollama has no {model}:{tag}; it has {', '.join(_available(roots)) or 'none'}."
    )


def _available(roots: list[Path]) -> list[str]:
    names = []
    for root in roots:
        for path in sorted(root.glob("manifests/*/*/*/*")):
            _, namespace, model, tag = path.relative_to(root / "manifests").parts
            prefix = "" if namespace == "library" else f"{namespace}/"
            names.append(f"{prefix}{model}:{tag}")
    return names[:20]


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_input(path, _MOST_BYTES))
        if not isinstance(data, dict) or not isinstance(data.get("layers"), list):
            raise ValueError("it lists no layers")
    except (FileError, ValueError) as e:
        raise FileError(f"{path} is not a manifest of Ollama's: {e}") from None
    return data


def _blobs(manifest: dict[str, Any], root: Path, kind: str) -> list[Path]:
    found = []
    for layer in manifest["layers"]:
        if not isinstance(layer, dict):
            continue
        media, digest = str(layer.get("mediaType")), str(layer.get("digest"))
        match = re.fullmatch(r"sha256:([0-9a-f]{64})", digest)
        if not media.endswith(f".image.{kind}") or match is None:
            continue
        blob = root / "blobs" / f"sha256-{match[1]}"
        if not blob.is_file():
            raise FileError(f"{blob} is missing, which Ollama's manifest names; pull it again.")
        size = layer.get("size")
        if isinstance(size, int) and size != blob.stat().st_size:
            raise FileError(
                f"{blob} has {blob.stat().st_size:,} bytes and should have {size:,}: it is not "
                f"complete; pull it again."
            )
        found.append(blob)
    return found
