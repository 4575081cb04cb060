"""The shipped pair in other types, each made once."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

import gemtp_native as gemtp
from gemtp_native.gguf.encode import decode
from gemtp_native.gguf.file import Layout, read_contents
from gemtp_native.gguf.types import TensorType, encoded_size
from gemtp_native.make.quantize import quantize


@cache
def in_f32() -> tuple[Path, Path]:
    """Returns target and drafter with exactly the same values."""
    return _pair("f32", lambda source, path: path.write_bytes(_all_f32(source)))


@cache
def in_q8_0() -> tuple[Path, Path]:
    """Returns target and drafter in a type that can be quantized further."""
    wide = dict(zip(gemtp.demo_models(), in_f32(), strict=True))
    return _pair("q8_0", lambda source, path: quantize(wide[source], path, "q8_0", progress=False))


@cache
def without_template() -> tuple[Path, Path]:
    """Returns target and drafter without a chat template: chats have Gemma 4's format."""
    return _changed("plain", b".chat_template", b".xhat_template")


@cache
def with_unknown_template() -> tuple[Path, Path]:
    """Returns target and drafter with a template of the same meaning and another text."""
    return _changed("unknown", b"{{- bos_token -}}", b"{{-  bos_token-}}")


def _changed(name: str, before: bytes, after: bytes) -> tuple[Path, Path]:
    def write(source: str | Path, path: Path) -> None:
        path.write_bytes(Path(source).read_bytes().replace(before, after))

    return _pair(name, write)


def _pair(name: str, make) -> tuple[Path, Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"shipped-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    target, drafter = gemtp.demo_models()
    for source in (target, drafter):
        make(source, folder / Path(source).name)
    return folder / Path(target).name, folder / Path(drafter).name


def _all_f32(source: str | Path) -> bytes:
    contents = read_contents(Path(source))
    data = Path(source).read_bytes()
    layout, parts = Layout(), []
    for t in contents.tensors:
        kind = TensorType(t.kind)
        raw = np.frombuffer(data, np.uint8, encoded_size(t.count, kind), t.offset)
        parts.append(decode(raw, kind).astype("<f4").tobytes())
        layout.add(t.name, t.shape, TensorType.F32)
    out = layout.header(contents.metadata)
    for part in parts:
        out += part + bytes(-len(part) % 32)
    return out
