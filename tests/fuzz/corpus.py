"""Makes what the fuzz targets start from: small sound models and, for each target, a folder of
inputs.

    python tests/fuzz/corpus.py build/fuzz

writes build/fuzz/models and build/fuzz/corpus/TARGET. What is there stays, for a corpus grows.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tests/fuzz")]

import numpy as np  # noqa: E402

import checkpoints  # noqa: E402
import tiny_files  # noqa: E402
from gemtp_native.make.quantize.imatrix import Sums, write_imatrix  # noqa: E402
from harness import TARGETS  # noqa: E402

CORE_TARGETS = [
    "choose",
    "chat",
    "depth",
    "encode",
    "gguf",
    "model",
    "parts",
    "reply",
    "session",
    "tokenizer",
]
CONVERTED = [("e2b", "q4_0"), ("12b", "q4_k_m"), ("12b", "iq4_xs"), ("26b-a4b", "q8_0")]
TEXTS = [
    "def mean(values):\n    return sum(values) / len(values)\n",
    "call:f{a:1,b:\"x\",c:[true,null,-1.5e3],d:{e:'y'}}",
    "<|turn>user\nhello <turn|> \u00e4\u4e2d\U0001f600\u2581<0x41>",
]


def main(out: Path) -> None:
    models = out / "models"
    if not models.exists():
        with tempfile.TemporaryDirectory(dir=out) as folder:
            make_models(Path(folder) / "models")
            (Path(folder) / "models").rename(models)
    for target in [*CORE_TARGETS, *TARGETS]:
        folder = out / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in inputs(target, models):
            (folder / name).write_bytes(data)


def make_models(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("target", "drafter", "experts"):
        make: Callable[[], tiny_files.Gguf] = getattr(tiny_files, f"sound_{name}")
        (folder / f"sound-{name}.gguf").write_bytes(make().encode())
    for arch, kind in CONVERTED:
        with tempfile.TemporaryDirectory() as made:
            pair = checkpoints.to_gguf(checkpoints.committed(arch, Path(made)), Path(made), kind)
            for part in ("target", "drafter"):
                data = getattr(pair, part).read_bytes()
                (folder / f"{arch}-{part}-{kind}.gguf").write_bytes(data)


def inputs(target: str, models: Path) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the bytes of each input."""
    chosen = random.Random(target)
    for size in (16, 64, 256, 1024):
        yield f"random-{size}", chosen.randbytes(size)
    if target in ("tokenizer", "chat", "reply", "grammar"):
        for i, text in enumerate(TEXTS):
            yield f"text-{i}", bytes([i]) + text.encode()
    if target == "gguf":
        for path in sorted(models.glob("sound-*.gguf")):
            yield path.stem, path.read_bytes()
    if target == "imatrix":
        yield from _imatrices()
    if target in ("messages", "profile"):
        for edits in range(4):
            yield f"edited-{edits}", bytes([1, edits]) + chosen.randbytes(40)
    if target == "requests":
        for i in range(12):
            yield f"path-{i}", bytes([i, 1, 1, 1, 1, 2, i % 4]) + chosen.randbytes(60)
        yield "raw", bytes([0, 1, 1, 1, 1, 0]) + json.dumps({"messages": []}).encode()


def _imatrices() -> Iterator[tuple[str, bytes]]:
    squares = np.ones((1, 8), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "imatrix.gguf"
        sums = {"blk.0.attn_q.weight": Sums(squares, np.array([3], np.float32))}
        write_imatrix(path, sums, ["text"], 1, 512)
        yield "gguf", path.read_bytes()
    name = b"blk.0.attn_q.weight"
    numbers = [1, len(name)], [2, 8], [5, 4]
    first, second, last = (np.array(n, "<i4").tobytes() for n in numbers)
    yield "legacy", first + name + second + squares.tobytes() + last + b"text"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
