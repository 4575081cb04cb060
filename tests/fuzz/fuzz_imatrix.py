"""Importance matrices of both formats: what is read can be used as weights of errors."""

from __future__ import annotations

import numpy as np

from gemtp_native.errors import FileError, ModelError
from gemtp_native.make.quantize.imatrix import read_imatrix
from harness import folder, refused


def one_input(data: bytes) -> None:
    path = folder() / "imatrix"
    path.write_bytes(data)
    refused(lambda: _use(path), FileError)


def _use(path) -> None:
    found = read_imatrix(path)
    assert 0 <= found.chunks < 1 << 32
    assert found.entries
    for name, sums in found.entries.items():
        matrices, columns = len(sums.counts), sums.squares.shape[-1]
        shape = (matrices, 3, columns) if matrices > 1 else (3, columns)
        weights = found.importance(name, shape)
        assert weights.shape == (matrices, columns)
        assert weights.dtype == np.float32
        assert np.all(np.isfinite(weights))
        assert np.all(weights >= 0)
        other = (*shape[:-1], columns + 1)
        assert refused(lambda n=name, s=other: found.importance(n, s), ModelError)
