"""Our logits and drafts against those of Hugging Face transformers on the committed checkpoints.

tools/make_vectors.py made the checkpoints and the vectors; neither torch nor transformers is needed
here. test_oracle.py makes the same comparisons live.
"""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

import checkpoints
import gemtp_native as gemtp

BOUND = 1e-5  # relative error of a row, float32 against float32
CASES = ("start", "short", "long")  # two tokens; inside the sliding window; three windows long


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """[rows]: |ours - theirs| / |theirs| of each row."""
    theirs = theirs.astype(np.float64)
    return np.linalg.norm(ours - theirs, axis=-1) / np.linalg.norm(theirs, axis=-1)


@pytest.fixture(scope="module", params=checkpoints.ARCHITECTURES)
def vectors(request, tmp_path_factory):
    """(F32 pair, oracle's tensors by name) of one architecture."""
    folder = tmp_path_factory.mktemp(request.param)
    pair = checkpoints.to_gguf(checkpoints.committed(request.param, folder), folder, "f32")
    return pair, load_file(checkpoints.GOLDEN / request.param / "oracle.safetensors")


@pytest.fixture(params=gemtp.system_info()["isas"])
def model(request, vectors, monkeypatch):
    monkeypatch.setenv("GEMTP_ISA", request.param)
    pair, _ = vectors
    made = gemtp.Model(pair.target, drafter=pair.drafter, threads=1, context=256, kv_type="f32")
    assert made.isa == request.param
    return made


@pytest.mark.parametrize("case", CASES)
def test_target_logits(model, vectors, case):
    oracle = vectors[1]
    logits = model.logits(oracle[f"{case}.ids"].tolist())
    ours = logits[oracle[f"{case}.rows"]]
    assert ours.shape == oracle[f"{case}.logits"].shape
    assert relative_error(ours, oracle[f"{case}.logits"]).max() <= BOUND


@pytest.mark.parametrize("case", CASES)
def test_draft(model, vectors, case):
    oracle = vectors[1]
    ids = oracle[f"{case}.ids"].tolist()
    theirs = oracle[f"{case}.draft_logits"]
    steps = len(theirs)
    tokens, logits, hidden = model.draft_trace(ids, steps)
    assert tokens == oracle[f"{case}.draft_tokens"].tolist()
    assert model.draft(ids, steps) == tokens
    assert logits.shape == theirs.shape
    # An ordered head scores the tokens of its best clusters only.
    np.testing.assert_array_equal(np.isneginf(logits), np.isneginf(theirs))
    for ours_row, their_row in zip(logits, theirs, strict=True):
        running = np.isfinite(their_row)
        assert relative_error(ours_row[running], their_row[running]) <= BOUND
    assert relative_error(hidden, oracle[f"{case}.draft_hidden"]).max() <= BOUND


def test_both_kinds_of_head_are_covered():
    ordered = {
        arch: checkpoints.read_config(checkpoints.GOLDEN / arch / "drafter")[
            "use_ordered_embeddings"
        ]
        for arch in checkpoints.ARCHITECTURES
    }
    assert ordered == {"e2b": True, "e4b": True, "12b": False, "26b-a4b": False, "31b": False}
