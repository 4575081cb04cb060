"""Random blocks of every quantized type of GGUF, including types that gguf-py cannot quantize."""

from __future__ import annotations

import gguf
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

# Offset of the f16 scale in a block; a minimum follows it. IQ1_M splits the scale into four parts,
# MXFP4 has one byte, NVFP4 four.
F16_AT = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
    "IQ3_S": [0],
    "IQ3_XXS": [0],
    "IQ2_XXS": [0],
    "IQ2_XS": [0],
    "IQ2_S": [0],
    "IQ1_S": [0],
    "IQ1_M": [],
    "MXFP4": [],
    "NVFP4": [],
}
OF_BYTES = ("MXFP4", "NVFP4")  # scales that are no f16
TYPES = tuple(F16_AT)

# The minimum, in units of the scale, for which a block of random quants is centred on zero.
CENTRE = {"Q4_1": -7.5, "Q5_1": -15.5, "Q2_K": 1.5, "Q4_K": 7.5, "Q5_K": 15.5}


def number(name: str) -> gguf.GGMLQuantizationType:
    """Returns the type's number in files."""
    return gguf.GGMLQuantizationType[name]


def block_size(name: str) -> tuple[int, int]:
    """Returns (elements, bytes) of a block."""
    return gguf.GGML_QUANT_SIZES[number(name)]


def set_scale(name: str, blocks: Bytes, which: int, halves: NDArray[np.uint16]) -> None:
    """Sets scale number `which` of each block, given as the bits of an f16 (not those OF_BYTES)."""
    if name == "IQ1_M":
        words = blocks[:, 48:56].copy().view(np.uint16)
        quarters = halves[:, None] >> np.array([0, 4, 8, 12], np.uint16) & 15
        blocks[:, 48:56] = (words & 0x0FFF | quarters << 12).astype(np.uint16).view(np.uint8)
    else:
        at = F16_AT[name][which]
        blocks[:, at : at + 2] = halves[:, None].view(np.uint8)


def set_scales(name: str, blocks: Bytes, scales: NDArray[np.float32]) -> None:
    """Sets each block's scale to about `scales`, and its minimum so that random quants are
    centred."""
    if name == "MXFP4":  # a power of two without a sign
        blocks[:, 0] = np.clip(np.round(np.log2(np.abs(scales))) + 128, 0, 254)
        return
    if name == "NVFP4":
        blocks[:, :4] = gguf.quants.NVFP4.fp32_to_ue4m3(np.abs(scales))[:, None]
        return
    values = [scales, scales * CENTRE[name]] if name in CENTRE else [scales]
    for which, value in enumerate(values):
        set_scale(name, blocks, which, value.astype(np.float16).view(np.uint16))


def random_weights(
    random: np.random.Generator, name: str, count: int, deviation: float
) -> tuple[Bytes, NDArray[np.float32]]:
    """Returns `count` random elements of about this standard deviation as (bytes, values)."""
    elements, size = block_size(name)
    blocks = random.integers(0, 256, (count // elements, size), np.uint8)
    scales = random.uniform(0.5, 1.5, len(blocks)) * random.choice([-1, 1], len(blocks))
    set_scales(name, blocks, scales)
    at_one = gguf.quants.dequantize(blocks, number(name)).std()
    set_scales(name, blocks, scales * (deviation / at_one))
    return blocks, gguf.quants.dequantize(blocks, number(name)).ravel()
