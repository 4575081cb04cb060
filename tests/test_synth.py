"""gemtp synth: files of every shape load, walk their cycle, and are accepted as often as asked."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest

import gemtp_native as gemtp
from gemtp_native.cli import main
from gemtp_native.synth import SHAPES, TYPES, write_pair
from gemtp_native.synth.codes import code_rows, make_codes, selection
from gemtp_native.synth.shapes import drafter_config, target_config
from gemtp_native.synth.vocabulary import made_vocabulary

VOCAB = 2048
PROMPT = [1000, 1500, 700]


def pair(folder, shape="e2b", **options):
    options = {"layers": 4, "vocab_size": VOCAB, "progress": False, **options}
    return write_pair(shape, folder, **options)


def opened(result, **options):
    return gemtp.Model(result.target, drafter=result.drafter, context=1024, threads=1, **options)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_walks_its_cycle(tmp_path, shape):
    result = pair(tmp_path / "pair", shape, accept=1.0)
    tokenizer = made_vocabulary(VOCAB)
    t = target_config(shape, VOCAB, 4)
    d = drafter_config(shape, t)
    clusters = d.ordered_head.num_centroids if d.ordered_head else 0
    rng = np.random.Generator(np.random.Philox(0))
    following = make_codes(tokenizer, t.hidden, d.hidden, clusters, 1.0, rng).following
    wanted = [int(following[PROMPT[-1]])]
    while len(wanted) < 24:
        wanted.append(int(following[wanted[-1]]))
    with_drafts = opened(result).generate(PROMPT, max_tokens=24, draft=3, ignore_eos=True)
    assert with_drafts.tokens == wanted
    assert with_drafts.stats.accepted == with_drafts.stats.drafted


@pytest.mark.parametrize(
    ("shape", "accept"), [("e2b", 0.0), ("e2b", 0.5), ("e2b", 0.75), ("e2b", 1.0), ("12b", 0.75)]
)
def test_acceptance_is_the_one_asked_for(tmp_path, shape, accept):
    model = opened(pair(tmp_path / "pair", shape, accept=accept, layers=4))
    out = model.generate(PROMPT, max_tokens=500, draft=1, ignore_eos=True)
    assert len(set(out.tokens)) == 500
    n = out.stats.drafted
    # Drawn without replacement, so a binomial's four sigmas are wide enough.
    assert abs(out.stats.accepted / n - accept) <= 4 * math.sqrt(accept * (1 - accept) / n)


@pytest.mark.parametrize("kind", TYPES)
def test_every_type(tmp_path, kind):
    model = opened(pair(tmp_path / "pair", outtype=kind, accept=1.0))
    out = model.generate(PROMPT, max_tokens=40, draft=4, ignore_eos=True)
    assert len(set(out.tokens)) == 40
    assert out.stats.accepted == out.stats.drafted


def test_types_may_differ_and_a_vocabulary_can_be_lent(tmp_path):
    first = pair(tmp_path / "first", outtype="q8_0", drafter_type="f16")
    second = pair(tmp_path / "second", vocab=first.target, vocab_size=None)
    assert opened(second).tokenize("abc") == opened(first).tokenize("abc")
    assert opened(second).detokenize(opened(second).tokenize("abc\nde", add_bos=False)) == "abc\nde"


def test_same_arguments_same_bytes(tmp_path):
    for name in ("a", "b"):
        pair(tmp_path / name, seed=7)
    pair(tmp_path / "c", seed=8)
    for file in ("target.gguf", "drafter.gguf"):
        a, b, c = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert a == b
        assert a != c


def test_the_real_shape_of_e2b():
    c = target_config("e2b")
    assert [c.head_dim(i) for i in (3, 4)] == [256, 512]
    assert c.feed_forward == [6144] * 15 + [12288] * 20
    assert sum(map(c.has_own_kv, range(35))) == 15
    assert target_config("31b").kv_heads[4:6] == [16, 4]
    assert drafter_config("e2b", c).ordered_head.num_centroids == 2048
    assert drafter_config("31b", target_config("31b")).heads == 32


def test_code_rows_and_selection_decode_to_what_they_say():
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    from gemtp_native.convert.encode import TensorType

    rng = np.random.default_rng(1)
    bits = rng.integers(0, 256, (5, 12), dtype=np.uint8)
    signs = np.where(np.unpackbits(bits, axis=1), 1.0, -1.0)
    for kind in (TensorType.Q4_0, TensorType.Q8_0):
        q = GGMLQuantizationType(int(kind))
        rows = code_rows(bits, 96, np.full(5, 0.5, np.float32), kind)
        assert np.allclose(dequantize(rows, q), signs / 2, rtol=1e-3)
        eye = dequantize(selection(32, 64, kind).reshape(32, -1), q)
        assert np.allclose(eye, np.eye(32, 64), rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--accept", "1.5"], "accept is 1.5"),
        (["--accept", "nan"], "accept is nan"),
        (["--layers", "0"], "layers is 0"),
        (["--layers", "36"], "4 to 35"),
        (["--vocab-size", "100"], "at least 1024"),
        (["--vocab-size", "2049"], "not a multiple"),
        (["--vocab", "missing.gguf"], "missing.gguf"),
        (["--seed", "-1"], "seed is -1"),
    ],
)
def test_refusals(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(["synth", "e2b", "--out", "pair", *arguments]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("*.gguf*"))


def test_existing_files_and_full_disks(tmp_path, monkeypatch, capsys):
    small = ["--layers", "4", "--vocab-size", str(VOCAB), "--quiet"]
    command = ["synth", "e2b", "--out", str(tmp_path / "pair"), *small]
    assert main(command) == 0
    before = (tmp_path / "pair" / "target.gguf").read_bytes()
    assert main(command) == 1
    assert "--force" in capsys.readouterr().err
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert main([*command, "--force", "--seed", "1"]) == 1
    assert "not enough space" in capsys.readouterr().err
    assert (tmp_path / "pair" / "target.gguf").read_bytes() == before


def test_report(tmp_path, capsys):
    out = str(tmp_path / "pair")
    arguments = ["--layers", "4", "--vocab-size", str(VOCAB), "--json"]
    assert main(["synth", "26b-a4b", "--out", out, *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    target = tmp_path / "pair" / "target.gguf"
    assert report["target_bytes"] == target.stat().st_size
    # Of 128 experts, 8 are read.
    assert report["token_bytes"] < report["target_bytes"] / 4
