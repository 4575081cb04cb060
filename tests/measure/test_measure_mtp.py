"""tools/measure_mtp.py: figures against their theory and against the engine's own counts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import measure_mtp  # noqa: E402


@pytest.fixture
def code_file(tmp_path) -> Path:
    """Python that comes with the project."""
    path = tmp_path / "code.py"
    path.write_text(Path(measure_mtp.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    return path


def report(capsys, *args: object) -> dict:
    assert measure_mtp.main([*map(str, args), "--json", "--threads", "1"]) == 0
    return json.loads(capsys.readouterr().out)


def test_agreement_with_shared_noise_is_what_sampling_finds():
    rng = np.random.default_rng(1)
    p, q = rng.dirichlet([0.4] * 12), rng.dirichlet([0.4] * 12)
    q[:3] = 0
    q /= q.sum()
    noise = rng.gumbel(size=(200_000, 12))
    with np.errstate(divide="ignore"):
        same = (np.log(p) + noise).argmax(1) == (np.log(q) + noise).argmax(1)
    expected = measure_mtp.shared_noise_agreement(p, q)
    assert abs(same.mean() - expected) < 4 * (expected * (1 - expected) / 200_000) ** 0.5
    assert p @ q < expected < np.minimum(p, q).sum()
    assert measure_mtp.shared_noise_agreement(p, p) == pytest.approx(1)
    assert measure_mtp.shared_noise_agreement(np.eye(2)[0], np.eye(2)[1]) == 0


def test_rounds_of_one_draft():
    # Places 0 (accepted, 1 comes with it), 2 (not), 3; the last one has nothing left to gain.
    assert measure_mtp.rounds_of_one_draft(np.array([1, 0, 0, 1, 1, 1])) == (3, 2)
    assert measure_mtp.rounds_of_one_draft(np.array([0])) == (0, 0)


def test_error_of_a_mean_over_texts():
    mean, error = measure_mtp.mean_and_error([1, 3], [2, 4])
    assert (mean, error) == (4 / 6, pytest.approx((2 * (1 / 3) ** 2 * 2) ** 0.5 / 6))


def test_noise(capsys, code_file):
    found = report(
        capsys, "noise", "--text", code_file, "--prompts", 24, "--tokens", 32, "--prompt-tokens", 48
    )
    assert found["contexts"] == 24 * 31
    assert found["target_choices_reproduced"]
    assert found["engine_counts_reproduced"]
    rows = found["acceptance"]
    for name in ("shared", "other"):
        (mean, error), (theory, spread) = rows[name], rows[f"{name} theory"]
        assert abs(mean - theory) < 4 * max(error, spread)
    difference, error = rows["shared less other"]
    assert difference > 4 * error > 0
    assert rows["shared"][0] < rows["rejection theory"][0] + 4 * rows["shared"][1]
    assert abs(rows["engine, draft=1"][0] - rows["shared"][0]) < 4 * rows["shared"][1]


def test_texts(capsys, code_file):
    found = report(
        capsys, "texts", "--text", code_file, "--prompts", 3, "--tokens", 24, "--prompt-tokens", 40
    )
    assert len(found["parts"]) == 4
    for part in found["parts"]:
        assert part["identical"]
        ways = part["ways"]
        assert list(ways) == ["plain", "auto", *(f"draft={k}" for k in range(1, 6))]
        assert ways["plain"]["over_plain"] == 1
        assert ways["plain"]["drafted"] == ways["draft=5"]["lookup_drafted"] == 0
        assert ways["plain"]["rounds"] == 3 * 23 > ways["draft=5"]["rounds"]
        assert 0 < ways["draft=2"]["accepted"] <= ways["draft=2"]["drafted"]


def test_edits_become_a_walk():
    old, new = measure_mtp.as_walk([7, 8, 9, 8, 5], [7, 8, 4, 8], list(range(100, 120)))
    assert new == [100, 101, 102, 103]
    assert old == [100, 101, 104, 103, 105]


def test_edited():
    code = "def total(value):\n    # sums\n    value += total(value)\n"
    assert measure_mtp.edited(code) == (
        "def new_total(new_value):\n    new_value += new_total(new_value)\n"
    )


def test_rewrite(capsys, code_file):
    found = report(
        capsys, "rewrite", "--text", code_file, "--layers", 2, "--tokens", 96, "--prompts", 1
    )
    assert found["output_is_the_edited_copy"]
    assert found["identical"]
    assert 0 < found["changed"] < 0.5
    alone = found["ways"]["auto, look-up alone"]
    assert alone["drafted"] == alone["lookup_drafted"]
    assert alone["lookup_accepted"] > 30
    assert alone["rounds"] < 65


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["noise", "--temperature", "0"], "no noise"),
        (["noise", "--text", "/nowhere/a.py"], "/nowhere/a.py"),
        (["rewrite", "--target", "a.gguf"], "both"),
        (["texts", "--target", "/nowhere/a.gguf"], "/nowhere/a.gguf"),
    ],
)
def test_refusals(capsys, args, words):
    assert measure_mtp.main(args) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1
