"""Tensor types of GGUF, and the file types that can be written, with the type of each matrix."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import ArgumentError


class TensorType(enum.IntEnum):
    """Tensor types that hold weights, by their number in GGUF."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    IQ1_M = 29
    BF16 = 30
    MXFP4 = 39
    NVFP4 = 40


# type -> (values per block, bytes per block)
BLOCKS = {
    TensorType.F32: (1, 4),
    TensorType.F16: (1, 2),
    TensorType.Q4_0: (32, 18),
    TensorType.Q4_1: (32, 20),
    TensorType.Q5_0: (32, 22),
    TensorType.Q5_1: (32, 24),
    TensorType.Q8_0: (32, 34),
    TensorType.Q2_K: (256, 84),
    TensorType.Q3_K: (256, 110),
    TensorType.Q4_K: (256, 144),
    TensorType.Q5_K: (256, 176),
    TensorType.Q6_K: (256, 210),
    TensorType.IQ2_XXS: (256, 66),
    TensorType.IQ2_XS: (256, 74),
    TensorType.IQ3_XXS: (256, 98),
    TensorType.IQ1_S: (256, 50),
    TensorType.IQ4_NL: (32, 18),
    TensorType.IQ3_S: (256, 110),
    TensorType.IQ2_S: (256, 82),
    TensorType.IQ4_XS: (256, 136),
    TensorType.IQ1_M: (256, 56),
    TensorType.BF16: (1, 2),
    TensorType.MXFP4: (32, 17),
    TensorType.NVFP4: (64, 36),
}

FLOATS = (TensorType.F32, TensorType.F16, TensorType.BF16)

# Replacement types for matrices whose row width is not a multiple of 256.
_NARROW = {
    TensorType.Q2_K: TensorType.Q4_0,
    TensorType.Q3_K: TensorType.Q4_0,
    TensorType.Q4_K: TensorType.Q5_0,
    TensorType.Q5_K: TensorType.Q5_1,
    TensorType.Q6_K: TensorType.Q8_0,
    TensorType.IQ4_XS: TensorType.IQ4_NL,
}


def block_values(kind: TensorType) -> int:
    return BLOCKS[kind][0]


def encoded_size(count: int, kind: TensorType) -> int:
    values, size = BLOCKS[kind]
    return count // values * size


def bits(kind: TensorType) -> int:
    """Returns the bits of a value without its share of the scales, as a measure of precision."""
    values, size = BLOCKS[kind]
    return 8 * size // values


def fitting(kind: TensorType, width: int) -> TensorType:
    """Returns `kind`, or its replacement for rows of `width` values: a type with smaller blocks and
    more bits, or F16 if the width is not a multiple of 32."""
    if width % block_values(kind) == 0:
        return kind
    kind = _NARROW.get(kind, kind)
    return kind if width % block_values(kind) == 0 else TensorType.F16


@dataclass(frozen=True)
class FileType:
    """A type of file: one type for all matrices, or a mix."""

    name: str
    kind: TensorType  # type of all matrices; in a mix, of those without a rule
    number: int  # general.file_type
    mix: bool = False


def _uniform(kind: TensorType, number: int) -> FileType:
    return FileType(kind.name.lower(), kind, number)


def _mix(name: str, kind: TensorType, number: int) -> FileType:
    return FileType(name, kind, number, mix=True)


# llama.cpp has numbers for mixes and none for files of a single K type; those use the number of the
# most similar mix.
FILE_TYPES = {
    t.name: t
    for t in (
        _uniform(TensorType.F32, 0),
        _uniform(TensorType.F16, 1),
        _uniform(TensorType.BF16, 32),
        _uniform(TensorType.Q8_0, 7),
        _uniform(TensorType.Q6_K, 18),
        _mix("q5_k_m", TensorType.Q5_K, 17),
        _mix("q5_k_s", TensorType.Q5_K, 16),
        _uniform(TensorType.Q5_K, 16),
        _uniform(TensorType.Q5_1, 9),
        _uniform(TensorType.Q5_0, 8),
        _mix("q4_k_m", TensorType.Q4_K, 15),
        _mix("q4_k_s", TensorType.Q4_K, 14),
        _uniform(TensorType.Q4_K, 14),
        _uniform(TensorType.Q4_1, 3),
        _uniform(TensorType.Q4_0, 2),
        _uniform(TensorType.IQ4_NL, 25),
        _uniform(TensorType.IQ4_XS, 30),
        _uniform(TensorType.MXFP4, 38),
        _mix("q3_k_l", TensorType.Q3_K, 13),
        _mix("q3_k_m", TensorType.Q3_K, 12),
        _mix("q3_k_s", TensorType.Q3_K, 11),
        _uniform(TensorType.Q3_K, 11),
        _uniform(TensorType.Q2_K, 10),
    )
}


def file_type(name: str) -> FileType:
    """Returns the file type of this name, in any case. Raises ArgumentError for an unknown name."""
    found = FILE_TYPES.get(name.lower())
    if found is None:
        raise ArgumentError(f"the type is {name!r}; {', '.join(FILE_TYPES)} are possible.")
    return found


def tensor_type(name: str) -> TensorType:
    """Returns a writable tensor type by name, in any case. Raises ArgumentError for others."""
    kinds = {t.kind.name: t.kind for t in FILE_TYPES.values()}
    found = kinds.get(name.upper())
    if found is None:
        raise ArgumentError(f"the type of a tensor is {name!r}; {', '.join(kinds)} are possible.")
    return found


def is_matrix(name: str, dimensions: int) -> bool:
    """Whether a tensor may have a type other than F32. Routers and the centroids of an ordered head
    stay F32, because they are small and have a large influence."""
    small = ("ffn_gate_inp.weight", "_centroids.weight", ".centroids.weight")
    return dimensions > 1 and name.endswith(".weight") and not name.endswith(small)


class Rules:
    """The type of each matrix of a model in a file of some type.

    Mixes follow the rules of llama.cpp's quantizer as they apply to Gemma 4: a table that is also
    the head gets six bits; attn_v and ffn_down get more bits in the first and last layers and in
    every third layer between; per_layer_model_proj is unchanged.
    """

    def __init__(
        self,
        wanted: FileType,
        names: Iterable[str],
        layers: int,
        overrides: Sequence[tuple[str, TensorType]] = (),
        keep_head: bool = False,
    ):
        """names: names of all tensors; overrides: pattern of a name -> type, of which the first
        match applies; keep_head: the tensors that compute the logits keep their type."""
        self._wanted = wanted
        self._layers = layers
        self._overrides = [(_pattern(text), kind) for text, kind in overrides]
        self._keep_head = keep_head
        names = list(names)
        self._tied = "output.weight" not in names
        self._values = sorted(
            _layer(n) for n in names if n.endswith((".attn_v.weight", ".attn_qkv.weight"))
        )
        for pattern, _ in self._overrides:
            if not any(pattern.search(n) for n in names):
                raise ArgumentError(f"no tensor has a name that matches {pattern.pattern!r}.")

    def kind(self, name: str, width: int, now: TensorType) -> TensorType:
        """Returns the type for a matrix with rows of `width` values that now has type `now`."""
        for pattern, kind in self._overrides:
            if pattern.search(name):
                return fitting(kind, width)
        if self._keep_head and name == ("token_embd.weight" if self._tied else "output.weight"):
            return now
        kind = self._mixed(name, now) if self._wanted.mix else self._wanted.kind
        return fitting(kind, width)

    def _mixed(self, name: str, now: TensorType) -> TensorType:
        mix, kind = self._wanted.name, self._wanted.kind
        tables = ("token_embd.weight", "per_layer_token_embd.weight")
        if name == "per_layer_model_proj.weight":
            return now
        if name == "output.weight" or (self._tied and name in tables):
            return TensorType.Q6_K
        if name.endswith((".attn_v.weight", ".attn_qkv.weight")):
            return self._value_type(mix, self._values.index(_layer(name)))
        if ".ffn_down" in name:
            return self._down_type(mix, _layer(name))
        if name.endswith(".attn_output.weight"):
            return {"q3_k_m": TensorType.Q4_K, "q3_k_l": TensorType.Q5_K}.get(mix, kind)
        return kind

    def _value_type(self, mix: str, index: int) -> TensorType:
        if mix == "q3_k_m":
            return TensorType.Q5_K if index < 2 else TensorType.Q4_K
        if mix == "q3_k_l" or (mix == "q4_k_s" and index < 4):
            return TensorType.Q5_K
        if mix in ("q4_k_m", "q5_k_m") and _more_bits(index, len(self._values)):
            return TensorType.Q6_K
        return self._wanted.kind

    def _down_type(self, mix: str, layer: int) -> TensorType:
        if mix == "q3_k_m":
            return TensorType.Q5_K if layer < self._layers // 16 else TensorType.Q4_K
        if mix == "q3_k_l" or (mix == "q4_k_s" and layer < self._layers // 8):
            return TensorType.Q5_K
        if mix in ("q4_k_m", "q5_k_m") and _more_bits(layer, self._layers):
            return TensorType.Q6_K
        return self._wanted.kind


def _more_bits(layer: int, layers: int) -> bool:
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _layer(name: str) -> int:
    match = re.match(r"blk\.(\d+)\.", name)
    return int(match[1]) if match else 0


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as e:
        raise ArgumentError(f"{text!r} is no pattern of tensor names: {e}.") from None
