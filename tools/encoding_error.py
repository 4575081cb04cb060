#!/usr/bin/env python3
"""The error that encoders leave, ours and llama.cpp's, on the same weights.

    python tools/encoding_error.py --ggml LIB/libggml-base.so [MODEL.gguf]

Weights are standard normal ones and, with a model, those of its feed-forward. Figures are root mean
squares over the standard deviation of the weights, in thousandths; "weighted" is weighed by an
importance of columns (lognormal, sigma 2), which both encoders are given.
"""

from __future__ import annotations

import argparse
import ctypes
import re
from pathlib import Path

import numpy as np

from gemtp_native.gguf.encode import decode, encode
from gemtp_native.gguf.file import read_contents
from gemtp_native.gguf.types import BLOCKS, TensorType, encoded_size

NAMES = "Q4_0 Q4_1 Q5_0 Q5_1 IQ4_NL IQ4_XS Q2_K Q3_K Q4_K Q5_K Q6_K"
COLUMNS = 1024
MOST = 1 << 18  # values


class Ggml:
    """ggml_quantize_chunk() of a library of llama.cpp."""

    def __init__(self, path: Path):
        self._library = ctypes.CDLL(str(path))
        quantize = self._library.ggml_quantize_chunk
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        quantize.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
        quantize.restype = ctypes.c_size_t
        self._quantize = quantize

    def encode(self, x: np.ndarray, kind: TensorType, importance: np.ndarray | None) -> np.ndarray:
        values, size = BLOCKS[kind]
        out = np.empty(x.size // values * size, np.uint8)
        weights = None if importance is None else importance.ctypes.data
        rows = x.size // COLUMNS
        self._quantize(int(kind), x.ctypes.data, out.ctypes.data, 0, rows, COLUMNS, weights)
        return out


def feed_forward(path: Path) -> np.ndarray:
    data = path.read_bytes()
    parts = []
    for tensor in read_contents(path).tensors:
        if re.search(r"ffn_(gate|up|down)\.weight$", tensor.name):
            kind = TensorType(tensor.kind)
            size = encoded_size(tensor.count, kind)
            parts.append(decode(np.frombuffer(data, np.uint8, size, tensor.offset), kind))
    x = np.concatenate(parts)[:MOST].astype(np.float32)
    # Noise hides the steps of an already quantized model, which would favour one encoder.
    noise = np.random.default_rng(7).standard_normal(x.size).astype(np.float32)
    x += noise * x.std() * np.float32(0.003)
    return np.ascontiguousarray(x[: x.size // COLUMNS * COLUMNS])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", metavar="MODEL.gguf")
    parser.add_argument("--ggml", type=Path, required=True, metavar="libggml-base.so")
    args = parser.parse_args()
    ggml = Ggml(args.ggml)
    sets = {"standard normal": np.random.default_rng(7).standard_normal(MOST).astype(np.float32)}
    if args.model is not None:
        sets[f"the feed-forward of {args.model.name}"] = feed_forward(args.model)
    columns = np.random.default_rng(3).lognormal(0, 2, COLUMNS).astype(np.float32)
    for name, x in sets.items():
        weights = np.tile(columns, x.size // COLUMNS)
        print(f"\n{name}\n\n| type | ours | llama.cpp | weighted, ours | weighted, llama.cpp |")
        print("|---|---|---|---|---|")
        for kind in (TensorType[n] for n in NAMES.split()):
            cells = []
            for importance in (None, weights):
                for data in (
                    encode(x, kind, importance),
                    ggml.encode(x, kind, None if importance is None else columns),
                ):
                    error = np.square(x - decode(data, kind))
                    mean = np.average(error, weights=importance)
                    cells.append(f"{1000 * np.sqrt(mean) / x.std():.2f}")
            print(f"| {kind.name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
