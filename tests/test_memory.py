"""What a model costs in memory: decoding's share of the file, not the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gguf_bytes import BOOL, F32, STRING, T_F32, T_Q4_0, U32, Gguf, Tensor

VOCAB, HIDDEN, FFN, LAYERS, PER_LAYER = 65536, 512, 4096, 4, 1024
MB = 1 << 20

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads the resident set from Linux's /proc"
)


@pytest.fixture(scope="module")
def table_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose per-layer table is most of the file, as in E2B. Weights are all zero."""
    g = Gguf()
    g.put("general.architecture", STRING, "gemma4")
    for key, value in {
        "block_count": LAYERS,
        "context_length": 256,
        "embedding_length": HIDDEN,
        "feed_forward_length": FFN,
        "attention.head_count": 4,
        "attention.head_count_kv": 1,
        "attention.sliding_window": 64,
        "attention.shared_kv_layers": 0,
        "embedding_length_per_layer_input": PER_LAYER,
    }.items():
        g.put(f"gemma4.{key}", U32, value)
    for name in ("key_length", "value_length"):
        g.put(f"gemma4.attention.{name}", U32, 128)
        g.put(f"gemma4.attention.{name}_swa", U32, 128)
    g.put("gemma4.rope.freq_base", F32, 1e6)
    g.put("gemma4.rope.freq_base_swa", F32, 1e4)
    g.put("gemma4.attention.layer_norm_rms_epsilon", F32, 1e-6)
    g.put_array("gemma4.attention.sliding_window_pattern", BOOL, [i < 3 for i in range(LAYERS)])

    def add(name: str, cols: int, rows: int) -> None:
        g.tensors.append(Tensor(name, [cols, rows], T_Q4_0, bytes(rows * cols // 32 * 18)))

    def vector(name: str, n: int) -> None:
        g.tensors.append(Tensor(name, [n], T_F32, np.ones(n, np.float32).tobytes()))

    add("token_embd.weight", HIDDEN, VOCAB)
    add("per_layer_token_embd.weight", LAYERS * PER_LAYER, VOCAB)
    add("per_layer_model_proj.weight", HIDDEN, LAYERS * PER_LAYER)
    vector("per_layer_proj_norm.weight", PER_LAYER)
    vector("output_norm.weight", HIDDEN)
    vector("rope_freqs.weight", 64)
    for i in range(LAYERS):
        p = f"blk.{i}."
        for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "post_norm"):
            vector(f"{p}{name}.weight", HIDDEN)
        for name in ("attn_q_norm", "attn_k_norm"):
            vector(f"{p}{name}.weight", 128)
        for name, cols, rows in (
            ("attn_q", HIDDEN, 512),
            ("attn_k", HIDDEN, 128),
            ("attn_v", HIDDEN, 128),
            ("attn_output", 512, HIDDEN),
            ("ffn_gate", HIDDEN, FFN),
            ("ffn_up", HIDDEN, FFN),
            ("ffn_down", FFN, HIDDEN),
            ("inp_gate", HIDDEN, PER_LAYER),
            ("proj", PER_LAYER, HIDDEN),
        ):
            add(f"{p}{name}.weight", cols, rows)
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
    layer = HIDDEN * (512 + 128 + 128 + 512 + 3 * FFN + 3 * PER_LAYER)
    return (LAYERS * layer + VOCAB * HIDDEN) // 32 * 18


def test_resident_set_is_what_decoding_needs(table_file: Path) -> None:
    before, loaded, used = measure(table_file, "map")
    size = table_file.stat().st_size
    # Matrices in whole huge pages; the rest is the K/V cache and scratch of a small model.
    needed = packed_bytes() + 4 * MB
    grown = {name: loaded[name] - before[name] for name in loaded}
    assert grown["RssAnon"] < needed + 4 * MB
    assert grown["RssFile"] < 4 * MB  # the library itself; no page of the weights
    # The peak: at most one window of the source beside what has been packed.
    assert loaded["VmHWM"] - before["VmRSS"] < needed + 2 * 16 * MB + 8 * MB < size
    # Decoding adds scratch (16 rows of logits among it) and the pages of the rows looked up: 64 KB
    # around each of 100 tokens, in two tables.
    scratch = 16 * VOCAB * 4 + 512 * (2 * FFN + 8 * HIDDEN) * 4
    assert used["VmRSS"] - before["VmRSS"] < needed + 8 * MB + scratch + 100 * 2 * 65536
    assert used["VmRSS"] - before["VmRSS"] < size // 2


def test_a_copy_in_memory_gives_back_what_was_packed(table_file: Path) -> None:
    before, loaded, _ = measure(table_file, "copy")
    size = table_file.stat().st_size
    tables = VOCAB * (LAYERS * PER_LAYER + HIDDEN) // 32 * 18
    assert loaded["VmRSS"] - before["VmRSS"] < tables + packed_bytes() + 12 * MB
    # The tied head is packed and stays a table: that much more than the file.
    head = VOCAB * HIDDEN // 32 * 18
    assert loaded["VmHWM"] - before["VmRSS"] < size + head + 12 * MB
