"""gemtp cluster: balanced clusters, fitted centroids, and the file that comes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import gemtp_native as gemtp
import tiny_files
from gemtp_native import _core
from gemtp_native.make.cluster import ClusterSettings, centroids, cluster
from gemtp_native.make.cluster.kmeans import balanced_kmeans, means, order_of
from gguf_bytes import F32, I32, U32, Gguf, read_array

DATA = Path(gemtp.__file__).parent / "data"
DRAFTER, TARGET = DATA / "drafter.gguf", DATA / "target.gguf"
HEAD = "gemtp.ordered_head."
TEXT = Path(json.__file__).read_text(encoding="utf-8")  # the shipped pair knows Python


def silent(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped drafter without its ordered head."""
    from gemtp_native.gguf.rewrite import rewrite

    def drop(metadata) -> None:
        for key in ("num_centroids", "top_k", "centroids", "token_order"):
            metadata.remove(HEAD + key)

    path = tmp_path_factory.mktemp("plain") / "plain.gguf"
    rewrite(DRAFTER, path, drop)
    return path


# ---------------------------------------------------------------- k-means


@pytest.mark.parametrize(("count", "clusters"), [(96, 8), (96, 2), (90, 9), (70, 7), (64, 32)])
def test_clusters_have_one_size(count: int, clusters: int) -> None:
    rows = np.random.default_rng(0).standard_normal((count, 5)).astype(np.float32)
    labels = balanced_kmeans(rows, clusters, 1, 20, silent)
    assert np.bincount(labels).tolist() == [count // clusters] * clusters


def test_clusters_are_found() -> None:
    rng = np.random.default_rng(2)
    centres = 20 * rng.standard_normal((16, 12))
    truth = np.repeat(np.arange(16), 32)[rng.permutation(512)]
    rows = (centres[truth] + rng.standard_normal((512, 12))).astype(np.float32)
    labels = balanced_kmeans(rows, 16, 0, 100, silent)
    assert len(set(zip(truth.tolist(), labels.tolist(), strict=True))) == 16
    own = rows[labels == labels[0]].mean(axis=0)
    np.testing.assert_allclose(means(rows, labels, 16)[labels[0]], own, rtol=1e-4, atol=1e-4)


def test_sweeps_make_it_better_and_a_seed_repeats_it() -> None:
    rows = np.random.default_rng(3).standard_normal((1024, 16)).astype(np.float32)

    def rest(labels: np.ndarray) -> float:
        return float(np.square(rows - means(rows, labels, 32)[labels]).sum())

    few, many = (balanced_kmeans(rows, 32, 5, sweeps, silent) for sweeps in (1, 60))
    assert rest(many) < rest(few)
    assert (balanced_kmeans(rows, 32, 5, 60, silent) == many).all()


def test_equal_rows_are_clustered_too() -> None:
    labels = balanced_kmeans(np.ones((64, 4), np.float32), 8, 0, 10, silent)
    assert np.bincount(labels).tolist() == [8] * 8


# ---------------------------------------------------------------- centroids


def test_ranks_count_better_clusters() -> None:
    rng = np.random.default_rng(4)
    rows, states = (rng.standard_normal((n, 6)).astype(np.float32) for n in (40, 30))
    labels = np.arange(40) % 8
    c = means(rows, labels, 8)
    expected = []
    for h in states:
        scores = c @ h
        expected.append(int((scores > scores[labels[(rows @ h).argmax()]]).sum()))
    found = centroids.ranks(states, rows, labels, c)
    assert found.tolist() == expected
    assert centroids.shares(found, [1, 8]) == {1: np.mean(np.array(expected) < 1), 8: 1.0}


def test_odds_are_those_of_the_head() -> None:
    rng = np.random.default_rng(5)
    rows, states = (rng.standard_normal((n, 6)).astype(np.float32) for n in (24, 10))
    labels = rng.permutation(24) % 4
    odds = np.exp(states @ rows.T)
    odds /= odds.sum(axis=1, keepdims=True)
    expected = np.stack([odds[:, labels == c].sum(axis=1) for c in range(4)], axis=1)
    found = centroids.cluster_odds(states, rows, order_of(labels), 4)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_fitting_finds_the_cluster_more_often() -> None:
    rng = np.random.default_rng(6)
    rows = rng.standard_normal((256, 16)).astype(np.float32)
    rows[::3] *= 2
    labels = balanced_kmeans(rows, 16, 0, 50, silent)
    states = (rows[rng.integers(0, 256, 4000)] + rng.standard_normal((4000, 16))).astype(np.float32)
    c = means(rows, labels, 16)
    odds = centroids.cluster_odds(states[:3000], rows, order_of(labels), 16)
    fitted = centroids.fit(c, states[:3000], odds, 0, 12, silent)
    before, after = (
        centroids.shares(centroids.ranks(states[3000:], rows, labels, x), [2])[2]
        for x in (c, fitted)
    )
    assert after > before + 0.05


# ---------------------------------------------------------------- features


def test_features_are_what_the_head_sees(plain: Path) -> None:
    """The plain head's rows times them are the drafter's logits, step by step."""
    model = gemtp.Model(TARGET, drafter=plain, threads=2, context=256)
    ids = model.tokenize("def load(path):\n    with open(path) as file:\n        return file.re")
    states = model._engine.draft_features(ids, 3)
    file = _core.GgufFile(plain)
    rows = file.rows("token_embd.weight", 0, 4096)
    assert states.shape == (len(ids) - 1, 3, rows.shape[1])
    for n in (2, 5, len(ids)):
        tokens, logits, _ = model._engine.draft(ids[:n], 3)
        made = states[n - 2] @ rows.T
        assert made.argmax(axis=1).tolist() == tokens
        assert np.abs(made - logits).max() < 0.05 * np.abs(logits).max()


def test_features_need_a_drafter_and_tokens() -> None:
    alone = gemtp.Model(TARGET, threads=1, context=64)
    with pytest.raises(gemtp.ArgumentError, match="no drafter is loaded"):
        alone._engine.draft_features([2, 5, 6], 1)
    pair = gemtp.Model(TARGET, drafter=DRAFTER, threads=1, context=64)
    for ids, steps in (([2], 1), ([2, 5], 0), ([2, 5], 16), ([2, 1 << 20], 1), ([2] * 65, 1)):
        with pytest.raises(gemtp.ArgumentError):
            pair._engine.draft_features(ids, steps)


# ---------------------------------------------------------------- the whole


def test_a_head_for_the_shipped_drafter(plain: Path, tmp_path: Path, gemtp_main) -> None:
    text = tmp_path / "text.py"
    text.write_text(TEXT, encoding="utf-8")
    out = tmp_path / "ordered.gguf"
    code, printed, err = gemtp_main(
        "cluster", plain, "-o", out, "--target", TARGET, "--text", text,
        "--centroids", 64, "--top-k", 8, "--positions", 3000, "--json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    report = json.loads(printed)
    assert report["states"] == "text"
    assert (report["centroids"], report["cluster_size"], report["top_k"]) == (64, 64, 8)
    assert list(report["same"]) == ["8", "16", "32"]
    assert 0.85 < report["same"]["8"] < report["same"]["16"] < report["same"]["32"] <= 1
    assert report["replaced"] is None
    assert report["read_after"] < 0.4 * report["read_before"]

    # Every tensor is the same, and the head is a sound one.
    before, after = _core.GgufFile(plain), _core.GgufFile(out)
    assert before.tensors == after.tensors
    for name, *_ in before.tensors[:3]:
        shape = next(t[2] for t in before.tensors if t[0] == name)
        if len(shape) == 2:
            assert (before.rows(name, 0, 9) == after.rows(name, 0, 9)).all()
    assert sorted(read_array(out, HEAD + "token_order")) == list(range(4096))
    keys = {"num_centroids", "top_k", "centroids", "token_order"}
    assert set(after.keys) - set(before.keys) == {HEAD + key for key in keys}

    # The share is that of the drafts of the two files.
    models = [gemtp.Model(TARGET, drafter=d, threads=2, context=2048) for d in (plain, out)]
    ids = models[0].tokenize(TEXT)[2000:2400]
    same = [models[0].draft(ids[:n], 1) == models[1].draft(ids[:n], 1) for n in range(2, 400, 4)]
    assert np.mean(same) > report["same"]["8"] - 0.1
    text = models[0].generate("import os\n", max_tokens=40).text
    assert models[1].generate("import os\n", max_tokens=40).text == text


def test_without_a_target(plain: Path, tmp_path: Path, gemtp_main) -> None:
    out = tmp_path / "a.gguf"
    code, printed, _ = gemtp_main("cluster", plain, "-o", out)
    assert code == 0
    assert "a guess from 4,096 rows of the head" in printed
    assert "256 clusters of 16 tokens, the best 32 are looked at" in printed
    again = tmp_path / "b.gguf"
    cluster(plain, again)
    assert out.read_bytes() == again.read_bytes()
    other = cluster(plain, again, settings=ClusterSettings(seed=1))
    assert other.seed == 1
    assert out.read_bytes() != again.read_bytes()


def test_replacing_compares_with_what_was_there(tmp_path: Path, gemtp_main) -> None:
    out = tmp_path / "new.gguf"
    code, _, err = gemtp_main("cluster", DRAFTER, "-o", out)
    assert code == 1
    assert "has an ordered head already; --replace" in err
    report = cluster(
        DRAFTER, out, TARGET, TEXT, ClusterSettings(centroids=64, positions=2000, replace=True)
    )
    assert report.replaced_centroids == 64
    assert report.replaced is not None
    assert report.replaced[8] > 0.95  # it was trained
    assert report.same[16] > 0.9


def test_tensors_of_an_old_head_go(tmp_path: Path) -> None:
    from test_dialects import underscore, write

    source = write(tmp_path / "sound.gguf", tiny_files.sound_drafter())
    g = tiny_files.sound_drafter()
    underscore(g, source)
    path, out = write(tmp_path / "theirs.gguf", g), tmp_path / "out.gguf"
    target = write(tmp_path / "target.gguf", tiny_files.sound_target())
    report = cluster(path, out, settings=ClusterSettings(replace=True, top_k=1))
    assert report.vocabulary % report.centroids == 0
    assert not any("centroids" in t[0] or "ordering" in t[0] for t in _core.GgufFile(out).tensors)
    assert len(gemtp.Model(target, drafter=out, threads=1, context=64).draft([2, 5, 6], 4)) == 4


def test_a_set_becomes_one_file(plain: Path, tmp_path: Path) -> None:
    from split_files import parts_of, write_parts

    g = tiny_files.sound_drafter()
    for key in ("num_centroids", "top_k", "centroids", "token_order"):
        g.drop(HEAD + key)
    paths = write_parts(tmp_path, "d", parts_of(g, 3))
    out = tmp_path / "out.gguf"
    cluster(paths[1], out)
    file = _core.GgufFile(out)
    assert len(file.parts) == 1
    assert file.value("split.count") is None
    assert len(file.tensors) == len(g.tensors)


# ---------------------------------------------------------------- what is refused


def refused(match: str, *args: object, error: type[Exception] = gemtp.Error, **options) -> None:
    out = Path(str(args[1]))
    with pytest.raises(error, match=match) as caught:
        cluster(*args, **options)
    assert "\n" not in str(caught.value)
    assert not out.is_file()
    assert list(out.parent.glob("*.tmp-*")) == []


def test_refusals(plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    refused("only drafters have ordered heads", TARGET, out, error=gemtp.ModelError)
    refused("100 centroids cannot share 4096 tokens equally; choose a divisor, like 128",
            plain, out, settings=ClusterSettings(centroids=100),
            error=gemtp.ArgumentError)  # fmt: skip
    refused("1 centroids", plain, out, settings=ClusterSettings(centroids=1))
    refused("top-k is 65; it must be between 1 and the 64", plain, out,
            settings=ClusterSettings(centroids=64, top_k=65))  # fmt: skip
    refused("a target and a text belong together", plain, out, TARGET)
    refused("a target and a text belong together", plain, out, None, "text")
    refused("the text has 3 tokens", plain, out, TARGET, "import os\n")
    refused("cannot be opened", tmp_path / "none.gguf", out)
    refused("its folder does not exist", plain, tmp_path / "no" / "folder" / "out.gguf")
    with pytest.raises(gemtp.ArgumentError, match="is one of the files to read"):
        cluster(plain, plain)


def test_a_target_that_does_not_fit(plain: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.gguf"
    target.write_bytes(tiny_files.sound_target().encode())
    refused("the drafter does not fit the target", plain, tmp_path / "out.gguf", target, TEXT)


def tiny_plain() -> Gguf:
    g = tiny_files.sound_drafter()
    for key in ("num_centroids", "top_k", "centroids", "token_order"):
        g.drop(HEAD + key)
    return g


def test_damaged_drafters(tmp_path: Path) -> None:
    out, path = tmp_path / "out.gguf", tmp_path / "in.gguf"

    def attempt(change, match: str) -> None:
        g = tiny_plain()
        change(g)
        path.write_bytes(g.encode())
        refused(match, path, out)

    def not_finite(g: Gguf) -> None:
        data = bytearray(g.tensor("token_embd.weight").data)
        data[:2] = np.array([np.nan], np.float16).tobytes()
        g.tensor("token_embd.weight").data = bytes(data)

    attempt(not_finite, "holds NaN or infinite values")
    attempt(lambda g: g.drop("token_embd.weight"), "has no head")
    attempt(lambda g: g.drop("output_norm.weight"), "output_norm.weight is missing")


def test_an_untied_head_is_the_one_that_is_clustered(tmp_path: Path) -> None:
    """output.weight, where there is one, makes the logits: also in clusters."""
    from gguf_bytes import T_Q8_0, random_tensor

    g = tiny_plain()
    vocab = len(tiny_files.TOKENS)
    g.tensors.append(
        random_tensor(np.random.default_rng(9), "output.weight", [tiny_files.HIDDEN, vocab], T_Q8_0)
    )
    path, out, target = (tmp_path / n for n in ("in.gguf", "out.gguf", "target.gguf"))
    path.write_bytes(g.encode())
    target.write_bytes(tiny_files.sound_target().encode())
    cluster(
        path, out, settings=ClusterSettings(centroids=4, top_k=4)
    )  # all clusters: the plain head
    plain, ordered = (
        gemtp.Model(target, drafter=d, threads=1, context=64)._engine for d in (path, out)
    )
    ids = [2, 5, 6, 7]
    assert ordered.draft(ids, 4)[0] == plain.draft(ids, 4)[0]
    assert (ordered.draft(ids, 4)[1] == plain.draft(ids, 4)[1]).all()


def test_metadata_types(plain: Path, tmp_path: Path) -> None:
    """As documented, so that other readers can skip them."""
    gguf = pytest.importorskip("gguf")
    out = tmp_path / "out.gguf"
    cluster(plain, out)
    fields = gguf.GGUFReader(out).fields
    kinds = {key.removeprefix(HEAD): [int(t) for t in f.types] for key, f in fields.items()
             if key.startswith(HEAD)}  # fmt: skip
    assert kinds == {
        "num_centroids": [U32],
        "top_k": [U32],
        "centroids": [9, F32],
        "token_order": [9, I32],
    }
