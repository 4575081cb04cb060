"""Importance matrices: sums that numpy finds too, files that read back, in both of llama.cpp's
formats, and what gemtp imatrix prints and refuses."""

from __future__ import annotations

import json
import struct
from functools import partial
from pathlib import Path

import gguf
import numpy as np
import pytest

import gemtp_native as gemtp
import shipped
import tiny_files
from gemtp_native import _core
from gemtp_native.make.quantize import plan, quantize, read_imatrix, write_imatrix
from gemtp_native.make.quantize.imatrix import Sums

TARGET, DRAFTER = shipped.in_q8_0()
TEXT = "def mean(values):\n    return sum(values) / len(values)\n\n\n" * 40


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def call(gemtp_main):
    return partial(gemtp_main, "imatrix")


def gemtp_quantize(call, tmp_path: Path, matrix: Path, out: Path) -> tuple[int, str, str]:
    """gemtp quantize --imatrix, by the fixture behind `call`."""
    source = tmp_path / "source.gguf"
    source.write_bytes(tiny_files.sound_target().encode())
    return call.func(
        "quantize", source, out, "q4_0", "--allow-requantize", "--imatrix", matrix, "--quiet"
    )


def write(tmp_path: Path, g) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(g.encode())
    return path


def test_control_tokens_of_a_text(call, tmp_path):
    target = gemtp.demo_models()[0]
    turns = tmp_path / "turns.txt"
    turns.write_text("<|turn>user\nhi<turn|>\n" * 60)
    few = ["--context", 16, "--chunks", 4, "-o", tmp_path / "i.gguf"]
    code, _, err = call(target, turns, *few)
    assert (code, "spells the control token <|turn>, which counts as text" in err) == (0, True)
    text = (tmp_path / "i.gguf").read_bytes()
    code, _, err = call(target, turns, *few, "--special")
    assert (code, err) == (0, "")
    assert (tmp_path / "i.gguf").read_bytes() != text


# ---------------------------------------------------------------- sums


def test_sums_of_a_first_layer_are_what_numpy_finds(tmp_path):
    """What meets attn_q is the scaled embedding, normed."""
    g = tiny_files.sound_target()
    path = write(tmp_path, g)
    ids = [2, *range(270, 290)]
    sums = _core.ActivationSums(path, 1, 32)
    sums.add(ids)
    sums.add(ids[:7])
    found = {name: (counts, squares) for name, counts, squares in sums.entries()}
    table = g.tensor("token_embd.weight")
    rows = gguf.quants.dequantize(
        np.frombuffer(table.data, np.uint8).reshape(-1, 34), gguf.GGMLQuantizationType.Q8_0
    ).reshape(-1, tiny_files.HIDDEN)
    x = rows[ids + ids[:7]] * tiny_files.HIDDEN**0.5
    x = x / np.sqrt(np.mean(x**2, axis=1, keepdims=True) + 1e-6)
    x *= np.frombuffer(g.tensor("blk.0.attn_norm.weight").data, np.float32)
    for name in ("attn_q", "attn_k", "attn_v"):
        counts, squares = found[f"blk.0.{name}.weight"]
        assert counts.tolist() == [len(x)]
        np.testing.assert_allclose(squares, np.square(x).sum(axis=0)[None], rtol=1e-4)
    # Every matrix of every layer, those without keys of their own too; every row reached them all.
    kinds = {n: s for n, _, s, *_ in _core.GgufFile(path).tensors if n.startswith("blk.")}
    matrices = {n: s for n, s in kinds.items() if len(s) == 2}
    assert set(found) == set(matrices)
    for name, (counts, squares) in found.items():
        assert counts.tolist() == [len(x)]
        assert squares.shape == (1, matrices[name][0])
        assert np.all(squares > 0)


def test_sums_are_the_same_for_any_threads(tmp_path):
    path = write(tmp_path, tiny_files.sound_target())
    results = []
    for threads in (1, 2):
        sums = _core.ActivationSums(path, threads, 64)
        sums.add([2, *range(7, 60)])
        results.append([(name, squares.tobytes()) for name, _, squares in sums.entries()])
    assert results[0] == results[1]


def test_experts_are_counted_one_by_one(tmp_path):
    path = write(tmp_path, tiny_files.sound_experts())
    sums = _core.ActivationSums(path, 1, 32)
    sums.add([2, *range(270, 290)])
    found = {name: (counts, squares) for name, counts, squares in sums.entries()}
    for i in range(len(tiny_files.PATTERN)):
        up, down = (found[f"blk.{i}.ffn_{n}_exps.weight"] for n in ("gate_up", "down"))
        assert up[0].tolist() == down[0].tolist()
        assert up[0].sum() == 21 * 2  # two experts a token
        assert up[1].shape == down[1].shape == (tiny_files.EXPERTS, 32)
        assert np.all((up[1] > 0).any(axis=1) == (up[0] > 0))
        assert found[f"blk.{i}.ffn_gate_inp.weight"][0].tolist() == [21]


def test_a_fused_matrix_counts_its_input_once(tmp_path):
    g = tiny_files.sound_target()
    random = np.random.default_rng(1)
    q, kv = tiny_files.HEADS * 16, 2 * tiny_files.KV_HEADS[True] * 16
    for name in ("attn_q", "attn_k", "attn_v"):
        g.drop(f"blk.0.{name}.weight")
    g.tensors.append(tiny_files.random_tensor(random, "blk.0.attn_qkv.weight", [32, q + kv], 0))
    sums = _core.ActivationSums(write(tmp_path, g), 1, 32)
    sums.add([2, 270, 271])
    found = {name: counts.tolist() for name, counts, _ in sums.entries()}
    assert found["blk.0.attn_qkv.weight"] == [3]


# ---------------------------------------------------------------- files


def test_what_is_written_reads_back(call, text, tmp_path):
    out = tmp_path / "imatrix.gguf"
    code, printed, err = call(TARGET, text, "-o", out, "--context", 128, "--chunks", 3, "--json")
    assert (code, err) == (0, "")
    report = json.loads(printed)
    assert report["chunks"] == 3
    assert report["tokens"] == 384
    assert report["bytes"] == out.stat().st_size
    matrix = read_imatrix(out)
    assert len(matrix.entries) == report["entries"]
    assert (matrix.datasets, matrix.chunks) == ([str(text)], 3)
    assert all(e.counts.tolist() == [384] for e in matrix.entries.values())
    # As llama.cpp writes it.
    reader = gguf.GGUFReader(out)
    fields = {name: f.contents() for name, f in reader.fields.items() if "." in name}
    assert fields["general.type"] == "imatrix"
    assert fields["imatrix.datasets"] == [str(text)]
    assert (fields["imatrix.chunk_count"], fields["imatrix.chunk_size"]) == (3, 128)
    tensors = {t.name: t for t in reader.tensors}
    assert tensors["blk.0.ffn_down.weight.in_sum2"].shape.tolist() == [768, 1]
    assert tensors["blk.0.ffn_down.weight.counts"].shape.tolist() == [1, 1]
    assert list(tensors) == sorted(tensors, key=lambda n: (n.rpartition(".")[0], n[-1] != "2"))
    # The sums are those of the core.
    model = gemtp.Model(TARGET, context=128)
    sums = _core.ActivationSums(TARGET, 1, 128)
    ids = model.tokenize(TEXT.removesuffix("\n"))
    for i in range(3):
        sums.add([2, *ids[i * 128 + 1 : (i + 1) * 128]])
    for name, _, squares in sums.entries():
        assert np.array_equal(matrix.entries[name].squares, squares.astype(np.float32))
    # And quantize takes it.
    made = plan(TARGET, "q4_0", imatrix=matrix, allow_requantize=True)
    assert made.weighted == len([n for n in made.tensors if n.startswith("blk.")])


def legacy(entries: dict[str, tuple[int, list[float]]], tail: bytes = b"") -> bytes:
    out = struct.pack("<i", len(entries))
    for name, (calls, values) in entries.items():
        out += struct.pack("<i", len(name)) + name.encode()
        out += struct.pack("<ii", calls, len(values)) + np.float32(values).tobytes()
    return out + tail


def test_older_files(tmp_path):
    path = tmp_path / "imatrix.dat"
    entries = {"blk.0.attn_q.weight": (2, [2.0, 4.0]), "blk.0.exps.weight": (1, [1.0, 2, 3, 4])}
    for tail, chunks, names in (
        (b"", 0, []),
        (struct.pack("<i", 7), 7, []),
        (struct.pack("<ii", 7, 4) + b"text", 7, ["text"]),
    ):
        path.write_bytes(legacy(entries, tail))
        matrix = read_imatrix(path)
        assert (matrix.chunks, matrix.datasets) == (chunks, names)
        assert matrix.importance("blk.0.attn_q.weight", (9, 2)).tolist() == [[1, 2]]
        assert matrix.importance("blk.0.exps.weight", (2, 9, 2)).tolist() == [[1, 2], [3, 4]]
        assert matrix.importance("blk.1.attn_q.weight", (9, 2)) is None
    # Cut anywhere, it is refused.
    data = legacy(entries)
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        with pytest.raises(gemtp.FileError, match="no importance matrix"):
            read_imatrix(path)


def test_damaged_files(tmp_path):
    path = tmp_path / "imatrix.gguf"

    def refused(match: str, data: bytes | None = None) -> None:
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(gemtp.FileError, match=match):
            read_imatrix(path)

    one = np.ones((1, 4), np.float32)
    write_imatrix(path, {"a": Sums(one, one[0, :1])}, ["text"], 1, 512)
    good = path.read_bytes()
    assert read_imatrix(path).entries["a"].squares.tolist() == [[1, 1, 1, 1]]
    for cut in range(4, len(good) - 28, 7):  # behind that there is padding
        refused(r"well-formed|not complete", good[:cut])
    refused("no importance matrix", Path(TARGET).read_bytes())
    write_imatrix(path, {"a": Sums(one * np.nan, one[0, :1])}, [], 1, 512)
    refused("values that no sum can have")
    write_imatrix(path, {"a": Sums(-one, one[0, :1])}, [], 1, 512)
    refused("values that no sum can have")
    write_imatrix(path, {"a": Sums(one, np.ones(3, np.float32))}, [], 1, 512)
    refused("does not fit")
    refused("without a.counts", good.replace(b"a.counts", b"b.counts"))
    path.unlink()
    refused("cannot be read")


def test_refusals(call, text, tmp_path):
    out = tmp_path / "out.gguf"

    def refused(match: str, *args: object, status: int = 1) -> None:
        code, printed, err = call(*args)
        assert (code, printed) == (status, "")
        assert match in err
        assert "Traceback" not in err
        assert not out.exists()

    refused("holds a drafter", DRAFTER, text, "-o", out)
    refused("fewer than a chunk of 2048", TARGET, text, "-o", out, "--context", 2048)
    refused("must be at least 2", TARGET, text, "-o", out, "--context", 1)
    refused("between 1 and 2048", TARGET, text, "-o", out, "--context", 1 << 22)
    refused("must be at least 1", TARGET, text, "-o", out, "--chunks", 0)
    refused("does not exist", TARGET, text, "-o", tmp_path / "none" / "x.gguf")
    refused("not UTF-8", TARGET, TARGET, "-o", out)
    refused("cannot be read", TARGET, tmp_path / "none.txt", "-o", out)
    refused("required", TARGET, text, status=2)
    g = tiny_files.sound_target()
    for key in [k.name for k in g.keys if k.name.startswith("tokenizer.")]:
        g.drop(key)
    refused("no tokenizer", write(tmp_path, g), text, "-o", out, "--context", 16)


def test_importance_of_use(text, call, tmp_path):
    """Where precision is short, weights chosen by the text's activations predict it better."""
    matrix = tmp_path / "m.gguf"
    assert call(TARGET, text, "-o", matrix, "--context", 128, "--quiet") == (0, "", "")
    plain, weighted = tmp_path / "plain.gguf", tmp_path / "weighted.gguf"
    options = {"allow_requantize": True, "progress": False}
    quantize(TARGET, plain, "q3_k_m", **options)
    made = quantize(TARGET, weighted, "q3_k_m", imatrix=read_imatrix(matrix), **options)
    assert made.weighted > 0
    exact = gemtp.Model(TARGET, context=256)
    ids = exact.tokenize(TEXT)[:200]
    divergence = [
        float(exact.compare(gemtp.Model(path, context=256), ids).divergence.mean())
        for path in (plain, weighted)
    ]
    assert divergence[1] < divergence[0]


def test_importance_that_is_no_number(call, tmp_path):
    """Finite sums over counts that make no finite means; counts of chunks that no text has."""
    path, out = tmp_path / "m.gguf", tmp_path / "out.gguf"
    one = np.ones((1, 4), np.float32)
    for squares, counts in (
        (one * np.float32(1e38), np.float32([1e-30])),
        (one, np.float32([1e-45])),
        (one * np.float32(-1), np.float32([1])),
        (one, np.float32([-1])),
        (one, np.float32([np.nan])),
        (one * np.float32(np.inf), np.float32([1])),
        (one, np.float32([np.inf])),
    ):
        write_imatrix(path, {"blk.0.attn_q.weight": Sums(squares, counts)}, ["x"], 1, 512)
        with pytest.raises(gemtp.FileError, match=r"entry of blk\.0\.attn_q\.weight holds values"):
            read_imatrix(path)
    for kind, value in ((10, 2**63), (10, 2**32), (11, -1)):
        write_imatrix(path, {"a": Sums(one, np.float32([1]))}, ["x"], 1, 512)
        data = path.read_bytes()
        key = b"imatrix.chunk_count"
        old = key + struct.pack("<II", 4, 1)
        assert old in data
        fmt = "<IQ" if kind == 10 else "<Iq"
        data = data.replace(old, key + struct.pack(fmt, kind, value))
        path.write_bytes(data + bytes(64))  # the tensors lie further back
        with pytest.raises(gemtp.FileError, match=f"number of chunks is {value}, which no text"):
            read_imatrix(path)
        status, printed, err = gemtp_quantize(call, tmp_path, path, out)
        assert (status, printed, out.exists()) == (1, "", False)
        assert err.count("\n") == 1
    path.write_bytes(legacy({"blk.0.attn_q.weight": (-1, [1.0])}))
    with pytest.raises(gemtp.FileError, match="counts -1 calls"):
        read_imatrix(path)
    # The largest that can be are fine.
    write_imatrix(path, {"a": Sums(one * np.float32(3e38), np.float32([1]))}, ["x"], 2**32 - 1, 512)
    assert read_imatrix(path).entries["a"].means().max() == np.float32(3e38)
    assert read_imatrix(path).chunks == 2**32 - 1


def test_activations_beyond_all_bounds(call, text, tmp_path):
    g = tiny_files.sound_target()
    norm = g.tensor("blk.0.attn_norm.weight")
    norm.data = np.full(tiny_files.HIDDEN, 1e25, np.float32).tobytes()
    path, out = write(tmp_path, g), tmp_path / "m.gguf"
    text.write_text("the hand and the other hand " * 20)
    status, printed, err = call(path, text, "-o", out, "--context", 16)
    assert (status, printed, out.exists()) == (1, "", False)
    assert "are beyond all bounds" in err


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that fails to be read")
def test_a_file_that_fails_to_be_read_is_named():
    with pytest.raises(gemtp.FileError, match="/proc/self/mem cannot be read: "):
        read_imatrix("/proc/self/mem")
