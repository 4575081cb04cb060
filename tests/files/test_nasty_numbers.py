"""Every number of a file replaced by a nasty one, one at a time: the file is refused by a sentence,
or opens and generates. An assertion of ours ("internal error") is neither."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gemtp_native as gemtp
import gguf_bytes as gb
import tiny_files
from gemtp_native.cli.model_file import ModelFile
from gguf_bytes import Gguf

PROMPT = [2, 105, 263, 264, 270]
FLOATS = [0.0, -1.0, 1e-45, 1e-40, 1e-30, 1e30, 3e38, -3e38, float("inf"), float("nan")]
HALVES = [0.0, -1.0, 6e-8, 65504.0, -65504.0, float("inf"), float("nan")]
INTEGERS = [0, 1, 2, 7, 255, 2**16, 2**31 - 1, 2**32 - 1]
SOUND: dict[str, Callable[[], Gguf]] = {
    "target": tiny_files.sound_target,
    "experts": tiny_files.sound_experts,
    "drafter": tiny_files.sound_drafter,
}


def of_metadata(g: Gguf) -> Iterator[tuple[str, Gguf]]:
    for i, key in enumerate(g.keys):
        if str(key.name).startswith("tokenizer."):
            continue
        array = key.kind == gb.ARRAY
        kind = struct.unpack_from("<I", key.payload)[0] if array else key.kind
        values = {gb.F32: FLOATS, gb.U32: INTEGERS, gb.I32: [-1, *INTEGERS[:-1]]}.get(kind, [])
        for value in values:
            changed = g.copy()
            raw = gb.encode_scalar(kind, value)
            # Of an array the last one.
            changed.keys[i].payload = key.payload[: -len(raw)] + raw
            yield f"{key.name} = {value}", changed


def of_tensors(g: Gguf) -> Iterator[tuple[str, Gguf]]:
    for i, tensor in enumerate(g.tensors):
        block, size = gb.BLOCKS[tensor.kind]
        step, fmt, values = (4, "<f", FLOATS) if block == 1 else (size, "<e", HALVES)
        for value in values:
            raw = struct.pack(fmt, value)
            count = len(tensor.data) // step
            for what, places in (("one", [count // 2]), ("all", range(count))):
                data = bytearray(tensor.data)
                for at in places:
                    data[at * step : at * step + len(raw)] = raw
                changed = g.copy()
                changed.tensors[i].data = bytes(data)
                yield f"{what} of {tensor.name} = {value}", changed


def attempt(path: Path, target: Path | None) -> str | None:
    """The sentence of a refusal, None for a file that works."""
    try:
        model = gemtp.Model(
            target or path, drafter=path if target else None, threads=1, context=64, profile=False
        )
        for temperature in (0.0, 1.0):
            model.generate(
                PROMPT, max_tokens=4, ignore_eos=True, temperature=temperature,
                draft=3 if target else 0,
            )  # fmt: skip
    except gemtp.Error as e:
        return str(e)
    return None


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("numbers", [of_metadata, of_tensors])
def test_every_nasty_number_is_refused_or_works(
    numbers: Callable[[Gguf], Iterator[tuple[str, Gguf]]], name: str, tmp_path: Path
) -> None:
    g = SOUND[name]()
    path, target = tmp_path / "nasty.gguf", None
    if name == "drafter":
        target = tmp_path / "target.gguf"
        target.write_bytes(tiny_files.sound_target().encode())
    path.write_bytes(g.encode())
    assert attempt(path, target) is None
    outcomes = []
    for what, changed in numbers(g):
        path.write_bytes(changed.encode())
        sentence = attempt(path, target)
        outcomes.append(sentence is None)
        problems = ModelFile(path).problems
        assert not problems or problems[0] in (sentence or ""), what
        if sentence is not None:
            assert "internal error" not in sentence, what
            assert sentence.isprintable(), what
    assert any(outcomes)
    assert not all(outcomes)


def test_values_that_are_no_numbers_never_open(tmp_path: Path) -> None:
    path = tmp_path / "nasty.gguf"
    for what, changed in of_tensors(tiny_files.sound_experts()):
        if what.endswith(("nan", "inf")):
            path.write_bytes(changed.encode())
            sentence = attempt(path, None)
            # A table shows its damage where a row of it is used.
            assert sentence is not None or what.startswith("one of token_embd") or (
                what.startswith("one of per_layer_token_embd")
            ), what  # fmt: skip
