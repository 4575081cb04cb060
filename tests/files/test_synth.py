"""gemtp synth: files of every shape load, walk their cycle, and are accepted as often as asked."""

from __future__ import annotations

import errno
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

import checkpoints
import gemtp_native as gemtp
from gemtp_native.cli import main
from gemtp_native.cli.model_file import ModelFile
from gemtp_native.errors import ArgumentError, FileError
from gemtp_native.gguf.types import TensorType
from gemtp_native.make.convert.tokenizer import NORMAL
from gemtp_native.make.synth import SHAPES, TYPES, pair, plan_pair, write_drafter, write_pair
from gemtp_native.make.synth.content import Codes, Noise, selection
from gemtp_native.make.synth.shapes import drafter_config, target_config
from gemtp_native.make.synth.vocabulary import made_vocabulary, ordinary_tokens
from gemtp_native.make.synth.walk import Acceptance, make_walk

VOCAB = 2048
PROMPT = [1000, 1500, 700]
SMALL = {"layers": 2, "vocab_size": VOCAB, "progress": False}


def made(folder, shape="e2b", **options):
    return write_pair(shape, folder, **{**SMALL, **options})


def opened(result, **options):
    return gemtp.Model(result.target, drafter=result.drafter, context=1024, threads=1, **options)


def walk_of(result):
    return make_walk(
        ordinary_tokens(made_vocabulary(result.vocab_size)),
        result.vocab_size,
        Acceptance(result.accept if result.every else (result.accept,), result.every),
        result.seed,
    )


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """An E2B pair whose drafter is right half of the time."""
    return made(tmp_path_factory.mktemp("half"), accept=0.5, seed=3)


# ---------------------------------------------------------------- what the pairs do


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_walks_its_cycle(tmp_path, shape):
    result = made(tmp_path, shape, accept=1.0)
    following = walk_of(result).following
    wanted = [int(following[PROMPT[-1]])]
    while len(wanted) < 16:
        wanted.append(int(following[wanted[-1]]))
    model = opened(result)
    out = model.generate(PROMPT, max_tokens=16, draft=3)
    assert out.tokens == wanted
    assert out.stats.accepted == out.stats.drafted
    logits = np.sort(model.logits(PROMPT)[-1])
    assert logits[-1] > 15 + logits[-2]  # nothing comes near the token that is chosen


@pytest.mark.parametrize("accept", [0.0, 0.5, 0.75, 1.0])
def test_acceptance_is_the_one_asked_for(tmp_path, accept):
    model = opened(made(tmp_path, accept=accept, seed=3))
    out = model.generate(PROMPT, max_tokens=400, draft=1)
    assert len(set(out.tokens)) == 400
    n = out.stats.drafted
    # Drawn without replacement, so a binomial's four sigmas are wide enough.
    assert abs(out.stats.accepted / n - accept) <= 4 * math.sqrt(accept * (1 - accept) / n)


def test_deeper_drafts_are_right_as_often_where_they_are_reached(half):
    stats = opened(half).generate(PROMPT, max_tokens=500, draft=4).stats
    reached = stats.drafted_at[0]
    for accepted in stats.accepted_at[:3]:
        assert abs(accepted / reached - 0.5) <= 4 * math.sqrt(0.25 / reached)
        reached = accepted


def test_the_drafter_proposes_what_the_walk_says(half):
    model, walk = opened(half), walk_of(half)
    rng = np.random.default_rng(0)
    for token in rng.integers(0, VOCAB, 40).tolist():
        assert model.draft([5, 6, token], 1) == [int(walk.proposed[token])]
        assert int(model.logits([5, 6, token])[-1].argmax()) == walk.following[token]


def test_the_plain_head_proposes_the_same(half, tmp_path):
    """The same file, with the ordered head's key out of sight."""
    data = Path(half.drafter).read_bytes()
    key = b"gemtp.ordered_head.num_centroids"
    assert data.count(key) == 1
    plain = tmp_path / "plain.gguf"
    plain.write_bytes(data.replace(key, key[:-1] + b"X"))
    ordered = opened(half)
    other = gemtp.Model(half.target, drafter=plain, context=1024, threads=1)
    for token in range(0, VOCAB, 41):
        assert ordered.draft([5, token], 4) == other.draft([5, token], 4)


@pytest.mark.parametrize("kind", TYPES)
def test_every_type(tmp_path, kind):
    model = opened(made(tmp_path, outtype=kind, accept=1.0))
    out = model.generate(PROMPT, max_tokens=40, draft=4)
    assert len(set(out.tokens)) == 40
    assert out.stats.accepted == out.stats.drafted


# ---------------------------------------------------------------- what is in the files


# DESIGN's table: layers, hidden, FFN (own, shared), heads, K/V heads (sliding, full), owners of
# K/V, per-layer input, experts (all, used, FFN), drafter's hidden and heads
TABLE = {
    "e2b": (35, 1536, 6144, 12288, 8, 1, 1, 15, 256, 0, 0, 0, 256, 4),
    "e4b": (42, 2560, 10240, 10240, 8, 2, 2, 24, 256, 0, 0, 0, 256, 4),
    "12b": (48, 3840, 15360, 0, 16, 8, 1, 48, 0, 0, 0, 0, 1024, 16),
    "26b-a4b": (30, 2816, 2112, 0, 16, 8, 2, 30, 0, 128, 8, 704, 1024, 16),
    "31b": (60, 5376, 21504, 0, 32, 16, 4, 60, 0, 0, 0, 0, 1024, 32),
}
PERIOD = {"e2b": 5}
VOCABULARY = 262_144


@pytest.mark.parametrize("shape", SHAPES)
def test_the_whole_shapes_have_the_weights_they_should(shape):
    """The figures of a plan against arithmetic of its own; q4_0 has 18 bytes for 32 weights."""
    n, h, ffn, wide, heads, kv_s, kv_f, owners, ple, experts, used, ef, dh, dheads = TABLE[shape]
    layers = experts_all = 0
    for i in range(n):
        full = (i + 1) % PERIOD.get(shape, 6) == 0
        dim, kv = (512, kv_f) if full else (256, kv_s)
        layers += 2 * h * heads * dim + 3 * h * (ffn if i < owners else wide) + 3 * h * ple
        if i < owners:
            layers += h * kv * dim * (1 if full and not ple else 2)
        experts_all += experts * 3 * h * ef
    read = layers + h * VOCABULARY + (experts_all * used // experts if experts else 0)
    stored = layers + experts_all + VOCABULARY * (2 * h + n * ple)
    plan = plan_pair(shape)
    router = n * 4 * h * experts
    assert plan.token_bytes == pytest.approx(read * 18 / 32 + router, rel=2e-3)
    assert plan.parameters == pytest.approx(stored, rel=1e-3)
    assert plan.layers == n

    drafter = 3 * 2 * dh * dheads * 256 + 2 * dh * dheads * 512 + 4 * 3 * dh * 8 * dh + 3 * dh * h
    head = 4096 * dh if dh == 256 else VOCABULARY * dh
    centroids = 2048 * dh * 4 if dh == 256 else 0
    assert plan.draft_bytes == pytest.approx((drafter + head) * 18 / 32 + centroids, rel=5e-3)
    assert plan.drafter_parameters == pytest.approx(drafter + VOCABULARY * dh, rel=1e-3)


def test_e2b_reads_as_much_as_the_real_one():
    norms = 1.14e6  # F32, all layers
    assert plan_pair("e2b").token_bytes == pytest.approx(2.280e9 * 18 / 32 + norms, rel=5e-4)
    c = target_config("e2b")
    assert [c.head_dim(i) for i in (3, 4)] == [256, 512]
    assert c.feed_forward == [6144] * 15 + [12288] * 20
    assert c.kv_heads == [1] * 35
    assert target_config("31b").kv_heads[4:6] == [16, 4]
    assert drafter_config("e2b", c).ordered_head.num_centroids == 2048


@pytest.mark.parametrize("shape", SHAPES)
def test_fewer_layers_keep_the_pattern_and_what_a_drafter_needs(shape):
    whole = target_config(shape)
    for n in range(2, whole.layers + 1):
        c = target_config(shape, layers=n)
        assert c.sliding[:-1] == whole.sliding[: n - 1]
        assert not c.sliding[-1]
        owners = n - c.shared_kv_layers
        assert set(c.sliding[:owners]) == {True, False}
        if n % PERIOD.get(shape, 6) == 0 and n > 12:
            share = whole.shared_kv_layers / whole.layers
            assert abs(c.shared_kv_layers - share * n) <= 1
        assert c.feed_forward[-1] == whole.feed_forward[-1] or not c.shared_kv_layers
    assert c == whole


def test_figures_are_those_of_the_files(tmp_path):
    for shape, kinds in (("e2b", ("q4_0", "q8_0")), ("26b-a4b", ("q4_0", "q4_0"))):
        options = dict(zip(("outtype", "drafter_type"), kinds, strict=True))
        result = made(tmp_path, shape, force=True, **options)
        planned = plan_pair(shape, tmp_path, layers=2, vocab_size=VOCAB, **options)
        assert {**vars(planned), "seconds": 0} == {**vars(result), "seconds": 0}
        for path, size, parameters, read in (
            (result.target, result.target_bytes, result.parameters, result.token_bytes),
            (result.drafter, result.drafter_bytes, result.drafter_parameters, result.draft_bytes),
        ):
            file = ModelFile(Path(path))
            assert file.problems == []
            assert size == Path(path).stat().st_size
            assert parameters == file.parameters
            assert read == file.read_per_token()


def test_same_arguments_same_bytes(half, tmp_path):
    again = made(tmp_path / "again", accept=0.5, seed=3)
    other = made(tmp_path / "other", accept=0.5, seed=4)
    for name in ("target", "drafter"):
        first, second, third = (Path(getattr(r, name)).read_bytes() for r in (half, again, other))
        assert first == second
        assert first != third


def test_values_are_what_they_should_be():
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    def values(chunks, kind, width):
        data = np.concatenate(list(chunks)).reshape(-1, width // 32 * sizes[kind])
        return dequantize(data, GGMLQuantizationType(int(kind)))

    sizes = {TensorType.Q4_0: 18, TensorType.Q8_0: 34}
    clusters = np.arange(64) % 4
    for kind in sizes:
        codes = Codes(1, clusters, 256)
        rows = values(codes.rows(np.arange(64), 256, 0.5, kind), kind, 256)
        assert np.abs(rows).min() > 0.4
        assert np.abs(rows).max() < 0.51
        assert (rows[3, :64] == rows[7, :64]).all()  # of one cluster
        assert (np.sign(rows[3, 64:]) != np.sign(rows[7, 64:])).any()
        beginning = values(codes.rows(np.arange(64), 128, 0.5, kind), kind, 128)
        assert (beginning == rows[:, :128]).all()
        scores = rows @ codes.centroids(4, 256).T
        assert (scores.argmax(axis=1) == clusters).all()

        noise = values(Noise(1).matrix(96 * 4096, 0.02, kind), kind, 96)
        assert noise.std() == pytest.approx(0.02, rel=0.01)
        assert abs(noise.mean()) < 1e-3
        assert (values(selection(32, 64, kind), kind, 64) == np.eye(32, 64)).mean() > 0.98
        assert np.allclose(values(selection(32, 64, kind), kind, 64), np.eye(32, 64), rtol=1e-3)


def test_matrices_do_not_repeat_each_other():
    noise = Noise(0)
    first, second = (b"".join(noise.matrix(1 << 16, 0.1, TensorType.Q4_0)) for _ in range(2))
    assert first != second


def test_the_walk_is_one_cycle_without_special_tokens():
    tokenizer = made_vocabulary(3000)
    ordinary = ordinary_tokens(tokenizer)
    assert ordinary.min() >= 300
    assert {tokenizer.types[i] for i in ordinary} == {NORMAL}
    walk = make_walk(ordinary, 3000, Acceptance((0.9,)), 5)
    seen, at = set(), 1  # <eos> leads in
    for _ in ordinary:
        at = int(walk.following[at])
        seen.add(at)
    assert seen == set(ordinary.tolist())
    wrong = walk.proposed[ordinary] != walk.following[ordinary]
    assert wrong.sum() == round(0.1 * len(ordinary))
    assert set(walk.proposed.tolist()) == seen
    alone = make_walk(ordinary, 3000, Acceptance((1 - 1 / len(ordinary),)), 5)
    assert (alone.proposed[ordinary] != alone.following[ordinary]).sum() == 2


@pytest.mark.parametrize(
    ("shares", "every"),
    [((0.9, 0.1), 64), ((0, 1), 7), ((1, 1), 5), ((0.5, 1, 0.25), 100), ((1, 0.999), 1024)],
)
def test_shares_take_turns_along_the_cycle(shares, every):
    ordinary = ordinary_tokens(made_vocabulary(3000))
    walk = make_walk(ordinary, 3000, Acceptance(shares, every), 5)
    plain = make_walk(ordinary, 3000, Acceptance((0.5,)), 5)
    assert (walk.cycle == plain.cycle).all()
    assert (walk.target_code == plain.target_code).all()  # the drafter alone knows of the shares
    assert sorted(walk.cycle) == sorted(ordinary)
    assert (walk.following[walk.cycle] == np.roll(walk.cycle, -1)).all()
    right = walk.proposed[walk.cycle] == walk.following[walk.cycle]
    turns = [[], [], []]
    for start in range(0, len(right), every):
        turns[start // every % len(shares)].extend(right[start : start + every])
    wrong = [len(turn) - sum(turn) for turn in turns]
    wanted = [round((1 - s) * len(turn)) for s, turn in zip(shares, turns, strict=False)]
    if sum(wanted) == 1:
        wanted[wanted.index(1)] = 2
    assert wrong[: len(shares)] == wanted
    assert sorted(walk.proposed[walk.cycle]) == sorted(ordinary)
    if shares == (0.9, 0.1):  # not the same number in each turn
        assert len({int(right[at : at + 128].sum()) for at in range(0, len(right) - 128, 128)}) > 1


def test_a_switching_drafter_beside_a_target_that_was_there(half, tmp_path):
    path = tmp_path / "switch.gguf"
    small = {**SMALL, "seed": 3}
    result = write_drafter("e2b", path, accept=(1, 0), every=50, **small)
    assert (result.target, result.drafter) == (None, str(path))
    assert (result.accept, result.every) == ((1, 0), 50)
    walk = walk_of(result)
    model = gemtp.Model(half.target, drafter=path, context=1024, threads=1)
    out = model.generate([int(walk.cycle[0])], max_tokens=200, draft=1)
    assert out.tokens == walk.cycle[1:201].tolist()
    # One draft a round: all right for 50 tokens, each of them two tokens a round, then none.
    assert abs(out.stats.accepted - 50) <= 2
    assert abs(out.stats.drafted - 150) <= 3
    for at in (0, 49, 50, 99, 100):
        proposed = model.draft([5, int(walk.cycle[at])], 1)
        assert (proposed == [int(walk.cycle[at + 1])]) == (at // 50 % 2 == 0)


def test_drafters_of_one_target(half, tmp_path):
    path = tmp_path / "drafter.gguf"
    small = {**SMALL, "seed": 3}
    write_drafter("e2b", path, accept=(0.5,), **small)
    assert path.read_bytes() == Path(half.drafter).read_bytes()
    other = made(tmp_path / "other", accept=0.25, seed=3)
    assert Path(other.target).read_bytes() == Path(half.target).read_bytes()
    with pytest.raises(FileError, match="exists already"):
        write_drafter("e2b", path, accept=0.25, **small)
    write_drafter("e2b", path, accept=0.25, force=True, **small)
    assert path.read_bytes() == Path(other.drafter).read_bytes()
    with pytest.raises(FileError, match="is a folder"):
        write_drafter("e2b", tmp_path, **small)


# ---------------------------------------------------------------- vocabularies


def test_a_made_vocabulary_spells_text(half):
    model = opened(half)
    text = "The quick\nbrown fox, 1999: <|turn> é"
    ids = model.tokenize(text, add_bos=False)
    assert model.detokenize(ids) == text
    assert len(model.tokenize("thethe", add_bos=False)) < 6  # merges join letters
    assert gemtp.Tokenizer(half.target).end_tokens == [1, 50, 106]


def test_a_vocabulary_can_be_lent(half, tmp_path):
    second = made(tmp_path, vocab=half.target, vocab_size=None, drafter_type="f16")
    assert second.vocab_size == VOCAB
    assert opened(second).tokenize("abc") == opened(half).tokenize("abc")


# ---------------------------------------------------------------- refusals and the command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--accept", "1.5"], "accept is 1.5"),
        (["--accept", "nan"], "accept is nan"),
        (["--accept", "0.5,-1"], "accept is -1"),
        (["--accept", "0.5,0.6", "--every", "0"], "every is 0"),
        (["--every", "64"], "accept is one number"),
        (["--accept", "0.5,0.6", "--every", "1000000"], "do not fit into a walk of"),
        (["--layers", "0"], "layers is 0"),
        (["--layers", "1"], "layers is 1"),
        (["--layers", "36"], "to 35"),
        (["--vocab-size", "0"], "0 tokens cannot be made"),
        (["--vocab-size", "1023"], "1,023 tokens cannot be made"),
        (["--vocab-size", "100000000000"], "cannot be made"),
        (["--vocab-size", "2049"], "not a multiple"),
        (["--vocab", "missing.gguf"], "missing.gguf"),
        (["--seed", "-1"], "seed is -1"),
        (["--seed", "1" + "0" * 30], "2^64 - 1"),
        (["--out", "none/pair"], "none does not exist"),
    ],
)
def test_refusals(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(["synth", "e2b", "--out", "pair", *arguments]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_refusals_in_python(tmp_path):
    for options, words in (
        ({"shape": "9b"}, "shape is '9b'; e2b, "),
        ({"outtype": "q3"}, "type is 'q3'; f32, "),
        ({"drafter_type": "q3"}, "type is 'q3'; f32, "),
        ({"vocab": "x.gguf"}, "choose one"),
        ({"accept": ()}, "accept is empty"),
    ):
        with pytest.raises(ArgumentError, match=words):
            made(tmp_path / "pair", **options)
    with pytest.raises(TypeError):
        plan_pair("e2b", colour="red")
    assert not list(tmp_path.iterdir())


def test_a_lent_vocabulary_must_have_tokens_to_walk_through(tmp_path):
    files = checkpoints.to_gguf(checkpoints.committed("31b", tmp_path), tmp_path / "out", "q8_0")
    with pytest.raises(ArgumentError, match=r"target-q8_0\.gguf has 0 ordinary tokens"):
        made(tmp_path / "pair", "31b", vocab=files.target, vocab_size=None)
    assert not (tmp_path / "pair").exists()


def test_existing_files_and_full_disks(tmp_path, monkeypatch, capsys):
    small = ["--layers", "2", "--vocab-size", str(VOCAB), "--quiet"]
    folder = tmp_path / "pair"
    command = ["synth", "e2b", "--out", str(folder), *small]
    usage = shutil.disk_usage(tmp_path)
    need = plan_pair("e2b", layers=2, vocab_size=VOCAB)
    total = need.target_bytes + need.drafter_bytes
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=total - 1))
        assert main(command) == 1
        error = capsys.readouterr().err
        assert f"not enough space for {folder}: {total:,} bytes are needed, {total - 1:,} " in error
        assert not folder.exists()
    assert main(command) == 0
    assert capsys.readouterr() == ("", "")
    before = [(folder / f"{name}.gguf").read_bytes() for name in ("target", "drafter")]
    assert main(command) == 1
    assert "--force" in capsys.readouterr().err

    write_file, calls = pair._write_file, []

    def fails_at_the_drafter(*args):
        calls.append(args)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_file(*args)

    with monkeypatch.context() as patch:
        patch.setattr(pair, "_write_file", fails_at_the_drafter)
        assert main([*command, "--force", "--seed", "1"]) == 1
    assert "not enough space for" in capsys.readouterr().err
    assert [(folder / f"{name}.gguf").read_bytes() for name in ("target", "drafter")] == before
    assert sorted(p.name for p in folder.iterdir()) == ["drafter.gguf", "target.gguf"]
    assert main([*command, "--force", "--seed", "1"]) == 0
    assert (folder / "target.gguf").read_bytes() != before[0]


def test_reports(tmp_path, capsys):
    arguments = ["synth", "e2b", "--out", str(tmp_path / "pair")]
    arguments += ["--layers", "2", "--vocab-size", str(VOCAB)]
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["target_bytes"] == (tmp_path / "pair" / "target.gguf").stat().st_size
    assert (report["layers"], report["vocabulary"], report["accept"]) == (2, "made", 0.75)
    assert main([*arguments, "--force"]) == 0
    out = capsys.readouterr().out
    assert "2 layers, q4_0, " in out
    assert "right 75% of the time" in out
    other = str(tmp_path / "pair" / "switch.gguf")
    switching = ["--accept", "0.9,0.1", "--layers", "2", "--vocab-size", str(VOCAB)]
    assert main(["synth", "e2b", "--drafter-only", other, *switching]) == 0
    out = capsys.readouterr().out
    assert out.startswith(other)
    assert "right 90%, 10% of the time, in turns of 64 tokens" in out
    assert main(["synth", "e2b", "--drafter-only", other, *switching, "--force", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["target"], report["accept"], report["every"]) == (None, [0.9, 0.1], 64)
    for wrong in (["--accept", "0.9,x"], ["--accept", ","], ["--out", "a"]):
        with pytest.raises(SystemExit) as e:
            main(["synth", "e2b", "--drafter-only", other, *wrong])
        assert e.value.code == 2
        capsys.readouterr()
