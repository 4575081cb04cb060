"""The same bytes in a process whose processor flushes subnormal numbers to zero.

GPUs do that, and so does a process that has loaded a library built with -ffast-math. A preloaded
library (tests/support/flush_to_zero.c) switches it on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import checkpoints

COMPILER = shutil.which("cc")
LIBRARY = Path(checkpoints.__file__).parent / "flush_to_zero.c"
OUTTYPES = ("f32", "bf16", "q4_0")

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="it is preloaded as Linux does it"),
    pytest.mark.skipif(COMPILER is None, reason="there is no C compiler"),
]

# Prints {"flushes": whether subnormal numbers are, name: hash of what a pair computes}. The prompt
# is longer than one chunk of the sums over positions.
PROGRAM = """
import hashlib, json, pathlib, sys, tempfile
import gemtp_native as gemtp

def digest(*parts):
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part if isinstance(part, bytes) else json.dumps(part).encode())
    return hashed.hexdigest()

out = {"flushes": float.fromhex("0x1p-1022") * 0.5 == 0}
for target, drafter in json.loads(sys.argv[1]):
    ids = [2, *(5 + i * i % 200 for i in range(699))]
    for kv_type in ("f16", "f32"):
        model = gemtp.Model(target, drafter=drafter, context=1024, threads=2, kv_type=kv_type)
        tokens, logits, hidden = model.draft_trace(ids, 4)
        texts = [
            model.generate(ids, max_tokens=32, ignore_eos=True, draft=4, **sampling).tokens
            for sampling in (
                {},
                {"temperature": 1.0, "seed": 1},
                {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.2, "seed": 2},
                {"temperature": 1e-40, "seed": 3},
            )
        ]
        with tempfile.TemporaryDirectory() as folder, model.session() as session:
            session.append(ids)
            session.generate(max_tokens=4, ignore_eos=True)
            session.save(path := pathlib.Path(folder) / "text.session")
            saved = path.read_bytes()
        computed = {
            "logits": digest(model.logits(ids).tobytes()),
            "drafts": digest(tokens, logits.tobytes(), hidden.tobytes()),
            "texts": digest(texts),
            "session": digest(saved),
        }
        out |= {f"{target} {kv_type} {name}": value for name, value in computed.items()}
print(json.dumps(out))
"""


def computed(pairs: list[checkpoints.Pair], preload: Path | None) -> dict[str, object]:
    files = json.dumps([[str(pair.target), str(pair.drafter)] for pair in pairs])
    env = os.environ | ({"LD_PRELOAD": str(preload)} if preload else {})
    command = [sys.executable, "-c", PROGRAM, files]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("make", [checkpoints.committed, checkpoints.with_tiny_weights])
def test_bytes_where_subnormal_numbers_are_flushed(make, tmp_path):
    library = tmp_path / "flush_to_zero.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", LIBRARY, "-o", library], check=True)
    pairs = []
    for arch in checkpoints.ARCHITECTURES:
        folder = make(arch, tmp_path / arch)
        pairs += [checkpoints.to_gguf(folder, folder / "gguf", type_) for type_ in OUTTYPES]
    kept, flushed = computed(pairs, None), computed(pairs, library)
    assert kept.pop("flushes") is False
    assert flushed.pop("flushes") is True
    assert flushed == kept
    assert len({value for name, value in kept.items() if name.endswith("logits")}) > len(pairs)
