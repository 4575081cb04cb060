"""Every quantized block type, decoded by the core, against gguf-py's reference: the same floats,
down to the sign of a zero."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

import block_bytes
from block_bytes import F16_AT, OF_BYTES, TYPES, Bytes
from gemtp_native import _core
from gemtp_native.errors import FileError

SCALES = {
    "zero": 0x0000,
    "negative zero": 0x8000,
    "smallest": 0x0001,
    "smallest, negative": 0x8001,
    "largest subnormal": 0x03FF,
    "smallest normal": 0x0400,
    "one": 0x3C00,
    "largest": 0x7BFF,
    "largest, negative": 0xFBFF,
}
MXFP4_SCALES = [0, 1, 2, 3, 126, 127, 128, 253, 254]
NOT_FINITE = {"infinity": 0x7C00, "-infinity": 0xFC00, "NaN": 0x7E00, "signalling NaN": 0x7C01}


def scales_of(name: str) -> range:
    """Numbers of the f16 scales and minimums that can be set."""
    return range(0 if name in OF_BYTES else len(F16_AT[name]) or 1)


def random_blocks(name: str, n: int, seed: int) -> Bytes:
    """Random bytes; scales of either sign between 2^-14 and 2."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (n, block_bytes.block_size(name)[1]), np.uint8)
    for which in scales_of(name):
        halves = rng.integers(0x0400, 0x4000, n) | rng.integers(0, 2, n) << 15
        block_bytes.set_scale(name, blocks, which, halves.astype(np.uint16))
    if name == "MXFP4":
        blocks[:, 0] = rng.integers(0, 250, n)
    return blocks


def check(name: str, blocks: Bytes) -> None:
    kind = block_bytes.number(name)
    with np.errstate(over="ignore"):  # MXFP4's largest scale times 12
        expected = gguf.quants.dequantize(blocks, kind).ravel()
    got = _core.decode(int(kind), blocks.ravel())
    assert got.shape == expected.shape
    differ = np.flatnonzero(got.view(np.uint32) != expected.view(np.uint32))
    assert not differ.size, (differ[:5], got[differ[:5]], expected[differ[:5]])


def test_every_type_is_here():
    """All that gguf-py can decode but ternary and 1-bit types, which no Gemma uses."""
    names = {t.name for t in gguf.quants._type_traits}
    assert set(TYPES) == {n for n in names if not n.startswith(("TQ", "Q1", "BF"))}


@pytest.mark.parametrize("name", TYPES)
def test_random_blocks(name):
    """So many that every point of a grid and every value of a table comes up."""
    check(name, random_blocks(name, 1000, 1))


@pytest.mark.parametrize("name", TYPES)
def test_edge_blocks(name):
    """All quants zero, all ones, the same; with every pair of a scale and a minimum."""
    halves = np.array(list(SCALES.values()), np.uint16)
    for fill in (None, 0x00, 0xFF, 0x88, 0x77):
        blocks = random_blocks(name, len(halves), 2)
        if fill is not None:
            blocks[:] = fill
        if name == "MXFP4":
            blocks[:, 0] = MXFP4_SCALES
            check(name, blocks)
        for which in scales_of(name):
            for shift in range(len(halves)):
                for i in scales_of(name):
                    rolled = np.roll(halves, shift if i == which else 0)
                    block_bytes.set_scale(name, blocks, i, rolled)
                check(name, blocks)


@pytest.mark.parametrize("value", NOT_FINITE.values(), ids=NOT_FINITE)
@pytest.mark.parametrize("name", [n for n in TYPES if n not in OF_BYTES])
def test_scales_that_are_not_finite(name, value):
    for which in scales_of(name):
        blocks = random_blocks(name, 5, 3)
        block_bytes.set_scale(name, blocks[3:4], which, np.array([value], np.uint16))
        with pytest.raises(FileError, match="block 3 is not finite"):
            _core.decode(int(block_bytes.number(name)), blocks.ravel())


def test_every_scale_of_nvfp4():
    blocks = random_blocks("NVFP4", 256, 4)
    blocks[:, :4] = np.arange(256)[:, None]
    check("NVFP4", blocks)


def test_the_scale_of_mxfp4_that_is_not_a_number():
    blocks = random_blocks("MXFP4", 5, 3)
    blocks[3, 0] = 255
    with pytest.raises(FileError, match="block 3 is not finite"):
        _core.decode(int(block_bytes.number("MXFP4")), blocks.ravel())
