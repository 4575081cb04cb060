"""Encoders: the bytes of gguf-py where it has an encoder, elsewhere no more error than llama.cpp's;
and blocks that are hard to encode."""

from __future__ import annotations

import sys

import gguf
import numpy as np
import pytest

import gemtp_native as gemtp
from gemtp_native import _core
from gemtp_native.gguf import encode as module
from gemtp_native.gguf.encode import LARGEST, decode, encode
from gemtp_native.gguf.types import BLOCKS, FILE_TYPES, FLOATS, TensorType, block_values

DIRECT = [TensorType[n] for n in ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4")]
WRITTEN = sorted({t.kind for t in FILE_TYPES.values()})
SEARCHED = [k for k in WRITTEN if k not in DIRECT and k not in FLOATS]
WEIGHTED = [k for k in WRITTEN if k not in (*FLOATS, TensorType.Q8_0, TensorType.MXFP4)]


def gguf_type(kind: TensorType) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType(int(kind))


def reference(x: np.ndarray, kind: TensorType) -> np.ndarray:
    return gguf.quants.quantize(x, gguf_type(kind)).reshape(-1)


def decoded(data: np.ndarray, kind: TensorType) -> np.ndarray:
    """By gguf-py, which has no part in encoding."""
    return gguf.quants.dequantize(data, gguf_type(kind)).reshape(-1).astype(np.float32)


def rows_of_all_kinds(rows: int = 256, width: int = 512) -> np.ndarray:
    """Magnitudes from 1e-6 to 1e3, zeros, ties, outliers, values of one sign, powers of two."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, width)) * 10.0 ** rng.uniform(-6, 3, (rows, 1))
    x[rng.random(x.shape) < 0.05] = 0
    x[0] = 0
    x[1] = np.linspace(-8, 8, width)
    x[2] = 2.0 ** rng.integers(-9, 9, width)
    x[3] = np.nextafter(np.float32(2.0) ** rng.integers(1, 9, width), 0)
    x[4, ::31] *= 1e4
    x[5:9] = np.abs(x[5:9])
    x[9:13] = -np.abs(x[9:13])
    x[13] = 0.75
    x[14] = -0.75
    x[15] = rng.standard_t(2, width)
    return x.astype(np.float32)


def test_block_sizes_are_those_of_gguf_py():
    for kind in TensorType:
        assert gguf.constants.GGML_QUANT_SIZES[gguf_type(kind)] == BLOCKS[kind]


# ---------------------------------------------------------------- equal to gguf-py


@pytest.mark.parametrize("kind", DIRECT)
def test_the_bytes_are_gguf_py_s(kind):
    x = rows_of_all_kinds()
    expected = reference(x, kind)
    flat = x.reshape(-1)
    assert encode(flat, kind).tobytes() == expected.tobytes()
    parts = [encode(flat[i : i + 1024], kind) for i in range(0, flat.size, 1024)]
    assert np.concatenate(parts).tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", DIRECT)
def test_random_magnitudes_and_the_encoder_without_a_build(kind):
    rng = np.random.default_rng(int(kind))
    bits = rng.integers(0, 2**32, 1 << 16, dtype=np.uint64).astype(np.uint32)
    exponents = rng.integers(60, 140, bits.size, dtype=np.uint32)  # 2^-67 to 2^13
    x = ((bits & 0x807FFFFF) | exponents << 23).view(np.float32)
    x[::5] *= np.float32(2.0**-40)  # below what f16 scales hold
    assert encode(x, kind).tobytes() == module._encode_without_core(x, kind).tobytes()


def test_types_that_need_the_build(monkeypatch):
    monkeypatch.setattr(module, "_core", None)
    x = np.ones(256, np.float32)
    assert encode(x, TensorType.Q4_0).size == 144
    with pytest.raises(gemtp.ArgumentError, match="Q4_K takes the compiled core"):
        encode(x, TensorType.Q4_K)
    monkeypatch.setitem(sys.modules, "gguf.quants", None)  # importing it fails
    with pytest.raises(gemtp.ArgumentError, match="takes the package gguf"):
        encode(x, TensorType.Q4_0)


# ---------------------------------------------------------------- by search

# Root mean square error that llama.cpp's encoders (build 11434) leave on sample(), in thousandths;
# tools/encoding_error.py compares with those of another build.
LLAMA_CPP = {
    "IQ4_NL": 76.007,
    "IQ4_XS": 76.597,
    "Q2_K": 296.040,
    "Q3_K": 150.456,
    "Q4_K": 71.276,
    "Q5_K": 36.080,
    "Q6_K": 17.703,
}


def sample() -> np.ndarray:
    """Standard normal, what trained matrices look like but for their outliers."""
    return np.random.default_rng(7).standard_normal(1 << 18).astype(np.float32)


@pytest.fixture(scope="module")
def normal() -> np.ndarray:
    return sample()


@pytest.mark.parametrize("kind", SEARCHED)
def test_no_more_error_than_llama_cpp(kind, normal):
    error = decoded(encode(normal, kind), kind) - normal
    assert 1000 * np.sqrt(np.mean(error**2)) <= LLAMA_CPP[kind.name]


def importance(columns: int) -> np.ndarray:
    """Of the shape that activations give it: most small, a few large."""
    return np.random.default_rng(3).lognormal(0, 2, columns).astype(np.float32)


@pytest.mark.parametrize("kind", WEIGHTED)
def test_importance_moves_the_error(kind, normal):
    w = np.tile(importance(1024), normal.size // 1024)
    plain, weighted = (
        decoded(data, kind) - normal for data in (encode(normal, kind), encode(normal, kind, w))
    )
    assert np.average(weighted**2, weights=w) < 0.95 * np.average(plain**2, weights=w)
    # In no unit but their own.
    assert (
        encode(normal, kind, w * np.float32(2**20)).tobytes() == encode(normal, kind, w).tobytes()
    )
    # Nothing known is the same as everything alike.
    zero = np.zeros_like(normal)
    assert encode(normal, kind, zero).tobytes() == encode(normal, kind, zero + 1).tobytes()


@pytest.mark.parametrize("kind", [TensorType.Q8_0, TensorType.MXFP4])
def test_types_that_importance_does_not_change(kind, normal):
    w = np.tile(importance(1024), normal.size // 1024)
    assert encode(normal, kind, w).tobytes() == encode(normal, kind).tobytes()


@pytest.mark.parametrize("kind", WEIGHTED)
def test_hard_blocks(kind):
    """The error is within half a step of what the block spans, whatever its shape and size."""
    x = rows_of_all_kinds().reshape(-1, 256)
    for weights in (None, np.tile(importance(256), len(x))):
        data = encode(x.reshape(-1), kind, weights)
        y = decoded(data, kind).reshape(x.shape)
        assert np.all(np.isfinite(y))
        if weights is not None:
            continue
        spread = np.maximum(x.max(axis=1), 0) - np.minimum(x.min(axis=1), 0)
        levels = 2 ** int(kind.name.removeprefix("I")[1]) - 1
        rms = np.sqrt(np.mean((x - y) ** 2, axis=1))
        # Scales are f16, whose own step is 2^-24 where they are small; levels are up to 127.
        slack = 2.0**-24 if block_values(kind) == 256 else 2.0**-25 * 128
        assert np.all(rms <= 0.5 * spread / levels + slack)
    zeros = np.zeros(512, np.float32)
    assert not np.any(decoded(encode(zeros, kind), kind))
    assert np.array_equal(decoded(encode(zeros + np.float32(1e-35), kind), kind), zeros)


@pytest.mark.parametrize("kind", WEIGHTED)
def test_the_largest_values(kind):
    x = np.random.default_rng(1).uniform(-1, 1, 1024).astype(np.float32)
    x[::7] = -1
    y = decoded(encode(x * np.float32(LARGEST[kind] / 2), kind), kind)
    assert np.all(np.isfinite(y))
    assert np.corrcoef(x, y)[0, 1] > 0.9


@pytest.mark.parametrize("kind", WRITTEN)
def test_decode_is_gguf_py_s(kind, normal):
    data = encode(normal, kind)
    if kind in FLOATS:
        expected = encode(decode(data, kind), kind)
        assert expected.tobytes() == data.tobytes()
    else:
        assert decode(data, kind).tobytes() == decoded(data, kind).tobytes()


def test_a_scale_that_is_no_number():
    data = encode(np.ones(32, np.float32), TensorType.Q5_1).copy()
    data[:2] = (0, 0x7E)
    with pytest.raises(gemtp.FileError, match="scale of block 0 is not finite"):
        decode(data, TensorType.Q5_1)


def test_the_core_refuses_what_it_cannot_do():
    x = np.zeros(40, np.float32)
    with pytest.raises(gemtp.ArgumentError, match="no whole blocks of Q8_0"):
        _core.encode(8, x)
    with pytest.raises(gemtp.ArgumentError, match="IQ1_S"):
        _core.encode(19, x)
    with pytest.raises(gemtp.ArgumentError, match="unknown"):
        _core.encode(99, x)
    with pytest.raises(gemtp.ArgumentError, match="importance"):
        _core.encode(2, np.zeros(32, np.float32), np.zeros(64, np.float32))


def test_block_values():
    assert {block_values(k) for k in TensorType} == {1, 32, 64, 256}


@pytest.mark.parametrize("kind", [k for k in WRITTEN if k not in FLOATS])
def test_blocks_that_no_scale_reaches(kind):
    """Whatever the caller has checked, a scale that is no number is never given out."""
    for value in (1e12, 3e38, -3e38):
        x = np.ones(512, np.float32)
        x[300] = value
        try:
            data = encode(x, kind)
        except gemtp.ModelError:
            continue
        assert np.all(np.isfinite(decoded(data, kind)))
    with pytest.raises(gemtp.ModelError, match=f"2 blocks .* no scale of {DIRECT[1].name} reaches"):
        encode(np.float32([1e9, *[0] * 31] * 2), DIRECT[1])


@pytest.mark.parametrize("kind", WEIGHTED)
@pytest.mark.parametrize("spike", [1e-38, 1.0, 3e38])
def test_one_weight_among_nothing(kind, spike):
    rng = np.random.default_rng(5)
    for scale in (1e-30, 1e-6, 1.0, LARGEST[kind] * 0.999):
        x = rng.choice([-1, 1, 0.5], 1024).astype(np.float32) * np.float32(scale)
        w = np.zeros(1024, np.float32)
        w[::37] = spike
        y = decoded(encode(x, kind, w), kind)
        assert np.all(np.isfinite(y))


def test_importance_that_is_none():
    x = np.ones(32, np.float32)
    for bad in (np.nan, np.inf, -1):
        w = np.ones(32, np.float32)
        w[7] = bad
        with pytest.raises(gemtp.ArgumentError, match="importance is negative or no finite"):
            _core.encode(2, x, w)
