"""tools/compare_texts.py: what it says of texts that agree, part at a near-tie, or without one.
The other side is one of gemtp's own texts, changed."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import pytest

import gemtp_native as gemtp

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import compare_texts  # noqa: E402
from peers import Completion  # noqa: E402

TARGET, DRAFTER = gemtp.demo_models()
TEXT = ROOT / "python" / "gemtp_native" / "model.py"
BIAS = 0.01  # added to every log-probability of the other side


class Other:
    """A server that is the same model with log-probabilities that are off, or other tokens."""

    version = "a copy"

    def __init__(self, change):
        self.change = change
        self.model = gemtp.Model(TARGET, context=256)
        self.requests = 0

    @contextlib.contextmanager
    def start(self, target, threads, context, drafter=None, depth=0):
        assert target == TARGET
        yield self

    def complete(self, prompt, tokens, depth=None, log_probs=False):
        assert log_probs
        ids = self.model.generate(prompt, max_tokens=tokens, ignore_eos=True).tokens
        scores = self.model.score([*prompt, *ids])[len(prompt) - 1 :]
        ids = self.change(self.requests, self.model, list(prompt), ids)
        self.requests += 1
        return Completion(ids, len(prompt), 1.0, 1.0, 0, 0, [float(s) + BIAS for s in scores])


@pytest.fixture
def report(monkeypatch, capsys):
    def run(change, *args: str) -> tuple[int, dict, str]:
        monkeypatch.setattr(compare_texts, "LlamaServer", lambda program: Other(change))
        command = [
            str(TARGET), *args, "--text", str(TEXT), "--prompts", "3", "--prompt-tokens", "20",
            "--tokens", "12", "--llama-server", "x",
        ]  # fmt: skip
        code = compare_texts.main([*command, "--json"])
        text = capsys.readouterr().out
        compare_texts.main(command)
        return code, json.loads(text), capsys.readouterr().out

    return run


def test_equal_texts(report):
    code, facts, text = report(lambda n, model, prompt, ids: ids, str(DRAFTER))
    assert code == 0
    assert (facts["equal"], facts["near_ties"], facts["compared_tokens"]) == (3, 0, 36)
    assert facts["rms_difference"] == pytest.approx(BIAS, abs=1e-5)
    assert facts["drafting_changed"] == 0
    assert "3 of 3 texts equal" in text


def test_a_token_that_is_far_from_the_best_is_no_tie(report):
    def change(n, model, prompt, ids):
        if n % 3 != 1:
            return ids
        worst = int(model.logits([*prompt, *ids[:5]])[-1].argmin())
        return [*ids[:5], worst, *ids[6:]]

    code, facts, text = report(change)
    assert code == 0
    row = facts["prompts"][1]
    assert (facts["equal"], facts["near_ties"], row["same_tokens"]) == (2, 0, 5)
    assert row["margin"] > 1
    assert not row["near_tie"]
    assert "prompt 2: 5 tokens equal" in text
    assert "NOT a near-tie" in text


def test_a_token_as_good_as_the_best_is_a_tie(report, monkeypatch):
    def change(n, model, prompt, ids):
        second = int(model.logits([*prompt, *ids[:5]])[-1].argsort()[-2])
        return [*ids[:5], second, *ids[6:]]

    monkeypatch.setattr(compare_texts, "NEAR", 1e9)
    _, facts, text = report(change)
    assert (facts["equal"], facts["near_ties"]) == (0, 3)
    assert "3 part at a near-tie" in text


def test_mistakes_are_one_sentence(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    text = tmp_path / "t.txt"
    text.write_text("short")
    for args in (
        ["nothing.gguf", "--text", str(TEXT), "--llama-server", "x"],
        [str(TARGET), "--text", str(TEXT)],
        [str(TARGET), "--text", str(tmp_path / "none"), "--llama-server", sys.executable],
    ):
        assert compare_texts.main(args) == 1
        err = capsys.readouterr().err
        assert err.startswith("compare_texts: error: ")
        assert err.count("\n") == 1
