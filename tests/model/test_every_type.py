"""Models whose matrices and tables are all of one type, in every type that a file may have.

The shapes are those of tiny_files, eight times as wide: K-quants need rows of 256 elements. Weights
are random blocks, whether or not gguf-py can quantize to the type.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import block_bytes
import gemtp_native as gemtp
import tiny_files
from gguf_bytes import F32, T_F32, U32, Gguf, Tensor, encode_scalar

WIDER = 8
WIDTHS = (
    "embedding_length",
    "embedding_length_out",
    "embedding_length_per_layer_input",
    "feed_forward_length",
    "expert_feed_forward_length",
    "attention.key_length",
    "attention.key_length_swa",
    "attention.value_length",
    "attention.value_length_swa",
    "rope.dimension_count",
    "rope.dimension_count_swa",
)
VOCAB = len(tiny_files.TOKENS)
NOT_WIDTHS = (1, VOCAB, tiny_files.EXPERTS)
MODELS = {"e2b": tiny_files.sound_target, "experts": tiny_files.sound_experts}
PROMPT = [2, *np.random.default_rng(5).integers(263, VOCAB, 27).tolist()]

# How far logits may be from those of the same weights as floats. A quantized activation is off by
# up to half a step, at random, so by step / sqrt(12) on average; the step is 1/127 of the largest
# of 32 values, which among normal values is 2.2 deviations: 0.5% of the deviation. A product with
# random weights is off by the same share of its length. The logits lie behind DEEP products, one
# after the other, and random errors add up as squares. Norms, softmax, gelu and products of two
# branches between them may magnify what they get: twofold.
DEEP = 6 * len(tiny_files.PATTERN) + 1  # q/k/v, output, gate/up, down, per-layer gate, projection
BOUND = 2 * DEEP**0.5 * 2.2 / 127 / 12**0.5


def widen(g: Gguf) -> None:
    """Multiplies every width by WIDER. Matrices and norms are left without values."""
    for key in g.keys:
        if str(key.name).split(".", 1)[1] in WIDTHS:
            (width,) = struct.unpack("<I", key.payload)
            key.payload = encode_scalar(U32, width * WIDER)
    for tensor in g.tensors:
        tensor.shape = [n if n in NOT_WIDTHS else n * WIDER for n in tensor.shape]


def stays_f32(tensor: Tensor) -> bool:
    """Norms and scales, and the router: no converter quantizes them."""
    return len(tensor.shape) == 1 or "ffn_gate_inp" in str(tensor.name)


def fill(g: Gguf, name: str, seed: int) -> Gguf:
    """Gives all tensors of a widened file values of type `name`; returns the same file in F32."""
    random = np.random.default_rng(seed)
    floats = g.copy()
    for tensor, as_floats in zip(g.tensors, floats.tensors, strict=True):
        count = int(np.prod(tensor.shape))
        as_floats.kind = T_F32
        if tensor.name == "rope_freqs.weight":
            values = np.full(count, 1e30, np.float32)
            values[: count // 4] = 1
            tensor.data = as_floats.data = values.tobytes()
        elif stays_f32(tensor):
            mean = float(len(tensor.shape) == 1)
            if "_q_norm" in str(tensor.name) or "_k_norm" in str(tensor.name):
                mean = count**-0.25  # scores of attention around 1: no token decides alone
            values = random.normal(mean, 0.05 * mean if mean else tensor.shape[0] ** -0.5, count)
            tensor.data = as_floats.data = values.astype(np.float32).tobytes()
        else:
            blocks, values = block_bytes.random_weights(
                random, name, count, tensor.shape[0] ** -0.5
            )
            tensor.kind, tensor.data = int(block_bytes.number(name)), blocks.tobytes()
            as_floats.data = values.astype(np.float32).tobytes()
    return floats


@dataclass(frozen=True)
class Files:
    typed: Path
    floats: Path  # the same weights in F32
    drafter: Path


@pytest.fixture(scope="module", params=itertools.product(MODELS, block_bytes.TYPES), ids="-".join)
def files(request, tmp_path_factory) -> Files:
    kind, name = request.param
    folder = tmp_path_factory.mktemp(name)
    target, drafter = MODELS[kind](), tiny_files.sound_drafter()
    if kind == "experts":  # all of them, so that no near-tie decides which
        target.put("gemma4.expert_used_count", U32, tiny_files.EXPERTS)
    centroids = np.random.default_rng(1).normal(
        size=tiny_files.CENTROIDS * tiny_files.HIDDEN * WIDER
    )
    drafter.put_array("gemtp.ordered_head.centroids", F32, centroids.tolist())
    widen(target)
    widen(drafter)
    floats = fill(target, name, 1)
    fill(drafter, name, 2)
    made = Files(folder / "typed.gguf", folder / "floats.gguf", folder / "drafter.gguf")
    made.typed.write_bytes(target.encode())
    made.floats.write_bytes(floats.encode())
    made.drafter.write_bytes(drafter.encode())
    return made


def test_logits_are_those_of_the_dequantized_weights(files):
    ours = gemtp.Model(files.typed, threads=1, context=64, kv_type="f32").logits(PROMPT)
    exact = gemtp.Model(files.floats, threads=1, context=64, kv_type="f32").logits(PROMPT)
    assert (exact.std(axis=1) > 0.3).all()
    error = np.linalg.norm(ours - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert error.max() <= BOUND


def test_bits_depend_on_nothing_else(files, monkeypatch):
    """Logits and tokens over instruction sets, threads, chunks of the prompt and draft depth."""
    expected = None
    for isa, threads in itertools.product(gemtp.system_info()["isas"], (1, 2)):
        if (isa, threads) == ("scalar", 2):
            continue
        monkeypatch.setenv("GEMTP_ISA", isa)
        model = gemtp.Model(
            files.typed, drafter=files.drafter, threads=threads, context=64, prefill_chunk=19
        )
        assert model.isa == isa
        depths = (3,) if isa == "scalar" else (0, 3, 7, "auto")
        outputs = [
            model.generate(PROMPT, max_tokens=5, temperature=1.0, seed=3, draft=d, ignore_eos=True)
            for d in depths
        ]
        tokens = [tuple(out.tokens) for out in outputs]
        assert len(set(tokens)) == 1
        trace = model.draft_trace(PROMPT[:7], 2)
        logits = model.logits(PROMPT[: 11 if isa == "scalar" else None])
        got = (tokens[0], logits[:11].tobytes(), trace[0], trace[1].tobytes())
        expected = expected or got
        assert got == expected, f"{isa}, threads {threads}"
        if isa != "scalar":
            alone = [model.logits(PROMPT[:n])[-1] for n in (1, 2, 5)]
            assert np.array(alone).tobytes() == logits[[0, 1, 4]].tobytes()
