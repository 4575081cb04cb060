"""What a model costs in memory: decoding's share of the file, not the file."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gemtp_native as gemtp
from gemtp_native import _core
from gguf_bytes import BLOCKS, BOOL, F32, STRING, T_F32, T_Q4_0, U32, Gguf, Tensor

VOCAB, HIDDEN, FFN, LAYERS, PER_LAYER = 65536, 512, 3072, 4, 1024
HEADS, DIM = 64, 128
MB = 1 << 20

reads_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads the resident set from Linux's /proc"
)


def architecture(kv_heads: int, context: int) -> Gguf:
    g = Gguf()
    g.put("general.architecture", STRING, "gemma4")
    for key, value in {
        "block_count": LAYERS,
        "context_length": context,
        "embedding_length": HIDDEN,
        "feed_forward_length": FFN,
        "attention.head_count": HEADS,
        "attention.head_count_kv": kv_heads,
        "attention.sliding_window": 64,
        "attention.shared_kv_layers": 0,
        "embedding_length_per_layer_input": PER_LAYER,
    }.items():
        g.put(f"gemma4.{key}", U32, value)
    for name in ("key_length", "value_length"):
        g.put(f"gemma4.attention.{name}", U32, DIM)
        g.put(f"gemma4.attention.{name}_swa", U32, DIM)
    g.put("gemma4.rope.freq_base", F32, 1e6)
    g.put("gemma4.rope.freq_base_swa", F32, 1e4)
    g.put("gemma4.attention.layer_norm_rms_epsilon", F32, 1e-6)
    g.put_array("gemma4.attention.sliding_window_pattern", BOOL, [i < 3 for i in range(LAYERS)])
    return g


def put_tensors(g: Gguf, kv_heads: int, vocab: int = VOCAB) -> None:
    """All zero, but for norms of 1."""

    def add(name: str, cols: int, rows: int) -> None:
        g.tensors.append(Tensor(name, [cols, rows], T_Q4_0, bytes(rows * cols // 32 * 18)))

    def vector(name: str, n: int) -> None:
        g.tensors.append(Tensor(name, [n], T_F32, np.ones(n, np.float32).tobytes()))

    add("token_embd.weight", HIDDEN, vocab)
    add("per_layer_token_embd.weight", LAYERS * PER_LAYER, vocab)
    add("per_layer_model_proj.weight", HIDDEN, LAYERS * PER_LAYER)
    vector("per_layer_proj_norm.weight", PER_LAYER)
    vector("output_norm.weight", HIDDEN)
    vector("rope_freqs.weight", DIM // 2)
    for i in range(LAYERS):
        p = f"blk.{i}."
        for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "post_norm"):
            vector(f"{p}{name}.weight", HIDDEN)
        for name in ("attn_q_norm", "attn_k_norm"):
            vector(f"{p}{name}.weight", DIM)
        for name, cols, rows in (
            ("attn_q", HIDDEN, HEADS * DIM),
            ("attn_k", HIDDEN, kv_heads * DIM),
            ("attn_v", HIDDEN, kv_heads * DIM),
            ("attn_output", HEADS * DIM, HIDDEN),
            ("ffn_gate", HIDDEN, FFN),
            ("ffn_up", HIDDEN, FFN),
            ("ffn_down", FFN, HIDDEN),
            ("inp_gate", HIDDEN, PER_LAYER),
            ("proj", PER_LAYER, HIDDEN),
        ):
            add(f"{p}{name}.weight", cols, rows)


@pytest.fixture(scope="module")
def table_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose per-layer table is most of the file, as in E2B."""
    g = architecture(kv_heads=1, context=256)
    put_tensors(g, kv_heads=1)
    path = tmp_path_factory.mktemp("memory") / "table.gguf"
    path.write_bytes(g.encode())
    return path


_PROBE = """
import json, re, sys
import gemtp_native as gemtp

def status():
    text = open("/proc/self/status").read()
    return {k: int(re.search(rf"^{k}:\\s+(\\d+)", text, re.M)[1]) << 10
            for k in ("VmHWM", "VmRSS", "RssAnon", "RssFile")}

gemtp.Model  # imports what it needs
before = status()
model = gemtp.Model(sys.argv[1], threads=2, context=256, mmap=sys.argv[2] == "map")
loaded = status()
model.generate(list(range(2, 60)), max_tokens=40, ignore_eos=True)
print(json.dumps([before, loaded, status()]))
"""


def measure(path: Path, how: str) -> list[dict[str, int]]:
    run = subprocess.run(
        [sys.executable, "-c", _PROBE, path, how], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


def packed_bytes() -> int:
    """Of every matrix that a token reads."""
    layer = HIDDEN * (2 * HEADS * DIM + 2 * DIM + 3 * FFN + 3 * PER_LAYER)
    return (LAYERS * layer + VOCAB * HIDDEN) // 32 * 18


@reads_proc
def test_resident_set_is_what_decoding_needs(table_file: Path) -> None:
    before, loaded, used = measure(table_file, "map")
    size = table_file.stat().st_size
    # Matrices in whole huge pages; the rest is the K/V cache and scratch of a small model.
    needed = packed_bytes() + 4 * MB
    grown = {name: loaded[name] - before[name] for name in loaded}
    assert grown["RssAnon"] < needed + 4 * MB
    assert grown["RssFile"] < 4 * MB  # the library itself; no page of the weights
    # The peak: a piece of the source beside what has been packed.
    assert loaded["VmHWM"] - before["VmRSS"] < needed + 8 * MB < size
    # Decoding adds scratch (16 rows of logits among it), and nothing of the rows looked up.
    scratch = 16 * VOCAB * 4 + 512 * (2 * FFN + 2 * HEADS * DIM + 8 * HIDDEN) * 4
    assert used["VmRSS"] - before["VmRSS"] < needed + 8 * MB + scratch
    assert used["RssFile"] - loaded["RssFile"] < 4 * MB
    assert used["VmRSS"] - before["VmRSS"] < size // 2


@reads_proc
def test_tables_in_memory_are_all_that_is_added(table_file: Path) -> None:
    before, loaded, _ = measure(table_file, "copy")
    size = table_file.stat().st_size
    tables = VOCAB * (LAYERS * PER_LAYER + HIDDEN) // 32 * 18
    assert loaded["VmRSS"] - before["VmRSS"] < tables + packed_bytes() + 12 * MB
    # The tied head is packed and is a table: that much more than the file.
    head = VOCAB * HIDDEN // 32 * 18
    assert loaded["VmHWM"] - before["VmRSS"] < size + head + 12 * MB


def test_estimate_is_what_gets_allocated(table_file: Path) -> None:
    estimate = gemtp.memory_estimate(table_file, context=100_000)
    norms = 4 * (LAYERS * (5 * HIDDEN + 2 * DIM) + PER_LAYER + HIDDEN)
    assert estimate["context"] == 256
    assert estimate["weights"] == packed_bytes() + norms
    assert estimate["tables"] == VOCAB * (LAYERS * PER_LAYER + HIDDEN) // 32 * 18
    assert estimate["kv"] == LAYERS * 2 * 256 * DIM * 2
    assert gemtp.memory_estimate(table_file, kv_type="f32")["kv"] == 2 * estimate["kv"]
    assert estimate["needed"] == sum(estimate[name] for name in ("weights", "kv", "scratch"))
    # Prompts are run in chunks of 512 rows: each row has its gate and up, queries and results.
    rows = 512 * 4 * (2 * FFN + 2 * HEADS * DIM)
    assert rows < estimate["scratch"] < 2 * rows + 16 * 4 * VOCAB
    short = gemtp.memory_estimate(table_file, prefill_chunk=16)
    assert short["scratch"] < estimate["scratch"] // 4


@pytest.fixture(scope="module")
def endless_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """K/V of 64 heads and 16 million positions in a full-attention layer: 0.5 TB."""
    g = architecture(kv_heads=HEADS, context=1 << 24)
    put_tensors(g, kv_heads=HEADS, vocab=64)
    path = tmp_path_factory.mktemp("memory") / "endless.gguf"
    path.write_bytes(g.encode())
    return path


def test_a_context_that_does_not_fit_is_refused_with_one_that_does(endless_file: Path) -> None:
    assert _core.available_memory() < 1 << 39, "a machine too large for this test"
    with pytest.raises(gemtp.OutOfMemoryError) as caught:
        gemtp.Model(endless_file, context=1 << 24)
    sentence = str(caught.value)
    assert "endless.gguf' needs 549." in sentence or "endless.gguf' needs 550." in sentence
    assert "K/V cache of 16777216 tokens 549." in sentence
    assert f"this process may use {_core.available_memory() / 1e9:.2f} GB" in sentence
    fitting = int(re.fullmatch(r".*; open it with a context of at most (\d+)", sentence)[1])
    needed = gemtp.memory_estimate(endless_file, context=fitting)["needed"]
    more = gemtp.memory_estimate(endless_file, context=fitting + 1025)["needed"]
    assert needed <= _core.available_memory() < more
    # The same sentence on the command line, and nothing else.
    command = [sys.executable, "-m", "gemtp_native", "generate", endless_file, "x"]
    run = subprocess.run(
        [*command, "--context", str(1 << 24)], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (1, "", f"gemtp: error: {sentence}\n")
    assert gemtp.Model(endless_file, context=64).generate([1, 2], max_tokens=2).tokens


def write_hole(path: Path, g: Gguf, dims: dict[int, int]) -> None:
    """The model with other dimensions in its shapes, and one hole in place of its data."""
    size = 0
    for t in g.tensors:
        t.shape = [dims.get(n, n) for n in t.shape]
        block, block_bytes = BLOCKS[t.kind]
        t.offset = -(-size // g.alignment) * g.alignment
        size = t.offset + math.prod(t.shape) // block * block_bytes
        if t.name != "rope_freqs.weight":  # must be positive
            t.data = b""
    factors = g.tensor("rope_freqs.weight")
    ones, factors.data = factors.data, b""
    header = g.encode()
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)
        file.seek(len(header) + (factors.offset or 0))
        file.write(ones)


sparse = pytest.mark.skipif(sys.platform != "linux", reason="needs a file larger than its disk")


@sparse
def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Matrices of 0.6 TB each."""
    g = architecture(kv_heads=1, context=256)
    put_tensors(g, kv_heads=1, vocab=64)
    wide = 1 << 20
    g.put("gemma4.feed_forward_length", U32, wide)
    g.put("gemma4.embedding_length", U32, wide)
    write_hole(tmp_path / "huge.gguf", g, {HIDDEN: wide, FFN: wide})
    started = time.monotonic()
    for mmap in (True, False):
        with pytest.raises(gemtp.OutOfMemoryError, match="; use a smaller quantization or a sm"):
            gemtp.Model(tmp_path / "huge.gguf", mmap=mmap)
    assert time.monotonic() - started < 10


@sparse
def test_tables_that_do_not_fit_may_stay_in_the_file(tmp_path: Path) -> None:
    """A per-layer table of 0.6 TB, and little else."""
    g = architecture(kv_heads=1, context=256)
    put_tensors(g, kv_heads=1, vocab=96)
    wide, vocab = 1 << 16, 1 << 22
    g.put("gemma4.embedding_length_per_layer_input", U32, wide)
    dims = {96: vocab, PER_LAYER: wide, LAYERS * PER_LAYER: LAYERS * wide}
    write_hole(tmp_path / "huge.gguf", g, dims)
    with pytest.raises(gemtp.OutOfMemoryError, match=r"tables 6\d\d\.\d\d GB; open it with mmap=T"):
        gemtp.Model(tmp_path / "huge.gguf", mmap=False)


_LIMITED = """
import resource, sys
import gemtp_native as gemtp

model = gemtp.Model(sys.argv[1], context=1 << 17, threads=1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), -1))
try:
    model.generate([1, 2])
except gemtp.OutOfMemoryError as e:
    print(e)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
assert model.generate([1, 2], max_tokens=3).tokens
"""


@reads_proc
def test_memory_that_runs_out_later_is_one_sentence(endless_file: Path) -> None:
    """The K/V cache of 131,072 tokens takes 4 GB, and the process gets 1 GB more than it has."""
    run = subprocess.run(
        [sys.executable, "-c", _LIMITED, endless_file], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert re.fullmatch(r"not enough memory; use a smaller context or .*\n", run.stdout)
