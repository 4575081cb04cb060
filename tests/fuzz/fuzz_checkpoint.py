"""Hugging Face folders: config.json, the header of safetensors, tokenizer.json and
generation_config.json of a stranger, edited from sound ones, and converted as a whole.
"""

from __future__ import annotations

import json
import shutil
import struct
from functools import cache
from pathlib import Path
from typing import Any

import checkpoints
from gemtp_native.gguf.file import read_contents
from gemtp_native.make.convert import convert
from gemtp_native.make.convert.sentencepiece_model import read_sentencepiece
from harness import Choices, folder, refused

ARCHITECTURES = ["e2b", "26b-a4b"]
_JSON = ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]


@cache
def _sound(arch: str) -> Path:
    return checkpoints.committed(arch, folder() / f"sound-{arch}")


def one_input(data: bytes) -> None:
    c = Choices(data)
    part = c.one_of(["target", "drafter"])
    sound = _sound(c.one_of(ARCHITECTURES)) / part
    edited, out = folder() / "edited", folder() / "out.gguf"
    shutil.rmtree(edited, ignore_errors=True)
    shutil.copytree(sound, edited)
    out.unlink(missing_ok=True)
    if c.below(8) == 0:
        (edited / "tokenizer.model").write_bytes(c.rest())
        refused(lambda: read_sentencepiece(edited / "tokenizer.model"))
        (edited / "tokenizer.json").unlink(missing_ok=True)
    elif c.below(3) == 0:
        _edit_weights(edited / "model.safetensors", c)
    else:
        _edit_json(edited / c.one_of(_JSON), c)
    if refused(lambda: convert(edited, out, "q8_0", progress=False)):
        assert not out.exists(), "a file was left behind"
    else:
        assert read_contents(out).tensors
    assert not [p for p in folder().iterdir() if p.suffix == ".part" or ".tmp" in p.name]


def _edit_json(path: Path, c: Choices) -> None:
    if c.below(8) == 0:
        path.write_bytes(c.rest())
        return
    sound = json.loads(path.read_bytes()) if path.exists() else {}
    path.write_text(json.dumps(c.edited(sound, 1 + c.below(3))), encoding="utf-8")


def _edit_weights(path: Path, c: Choices) -> None:
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", data)
    header: Any = json.loads(data[8 : 8 + length])
    kind = c.below(4)
    if kind == 0:  # bytes of the header and of what stands before it
        for _ in range(1 + c.below(4)):
            data[c.below(8 + min(length, 60000))] = c.byte()
    elif kind == 1:
        del data[c.below(min(len(data), 65536)) :]
    elif kind == 2:  # values: NaN, infinity and whatever else bytes can be
        for _ in range(1 + c.below(4)):
            at = 8 + length + 4 * c.below(min(len(data) - 8 - length, 65536) // 4)
            data[at : at + 4] = bytes(c.byte() for _ in range(4))
    else:
        text = json.dumps(c.edited(header, 1 + c.below(3))).encode()
        data[: 8 + length] = struct.pack("<Q", len(text)) + text
    path.write_bytes(data)
