"""What bench, tune, sweep and perplexity refuse: figures that cannot be, and wrong usage."""

from __future__ import annotations

from pathlib import Path

import pytest

import gemtp_native as gemtp
from one_error import assert_one_error

TARGET, DRAFTER = map(str, gemtp.demo_models())
TEXT = "TEXT"  # in a command: the path of a short text

SOUND: dict[str, list[str]] = {
    "bench": [TARGET],
    "tune": [TARGET],
    "sweep": [
        *("--targets", TARGET, "--drafters", DRAFTER, "--prompts", "3", "--prompt-tokens", "24"),
        *("--tokens", "12", "--runs", "1", "--context", "64", "--chunks", "2", "--depth", "3"),
    ],
    "perplexity": [TARGET, TEXT, "--context", "16"],
}  # fmt: skip
"""Commands; the options of REFUSED follow."""

REFUSED: dict[str, dict[str, list[str]]] = {
    "bench": {
        "--prompt 2049": ["2049", "2048"],
        "--context 0,2048": ["2049", "2048"],
        "--at 2040": ["2056", "2048"],
        "--at 0": ["at is 0"],
        "--tokens 2048": ["2048"],
        "--tokens 1": ["tokens is 1"],
        "--rows 0": ["rows", "between 1 and 16"],
        "--rows 17": ["rows", "between 1 and 16"],
        "--prompt 0": ["prompts", "between 1 and"],
        "--runs 0": ["runs is 0"],
        "--budget nan": ["budget"],
        "--budget -1": ["budget"],
        "--threads 0": ["threads"],
    },
    "tune": {
        "--context 2033": ["2049", "2048"],
        "--context -1": ["context is -1"],
        "--budget nan": ["budget is nan"],
        "--budget -1": ["budget"],
        "--threads 0": ["threads"],
        f"--drafter {TARGET}": [],
        "--drafter missing.gguf": ["missing.gguf"],
        "--plot no/such/folder.png": ["its folder does not exist"],
    },
    "sweep": {
        "--depth 0": ["depth is 0", "between 1 and 15"],
        "--depth 16": ["depth is 16"],
        "--prompts 0": ["prompts is 0"],
        "--tokens 1": ["tokens is 1"],
        "--runs 0": ["runs is 0"],
        "--context 2": ["context is 2"],
        "--context 2000": ["the text has", "4000"],
        "--chunks 0": ["chunks is 0"],
        "--prompts 200": ["200 prompts of 24 need 4800"],
        "--tokens 2040": ["holds 2048 tokens and 2065 are asked for"],
        "--threads 0": ["threads"],
        "--text /nowhere/a.txt": ["/nowhere/a.txt cannot be read"],
        "--csv /nowhere/a.csv": ["/nowhere/a.csv cannot be written: its folder does not exist"],
        "--plot a.gif": ["must end in"],
    },
    "perplexity": {
        "--context 4096": ["context is 4096", "2048"],
        "--context 2": ["context is 2", "between 3"],
        "--context 0": ["context is 0"],
        "--context -5": ["context is -5"],
        "--context 512": ["the text has", "1024", "longer text or a smaller context"],
        "--chunks 0": ["chunks is 0"],
        "--threads 0": ["threads"],
    },
}

WRONG_USAGE: dict[str, list[str]] = {
    "bench": [
        "",
        "t.gguf --only decode,speed",
        "t.gguf --only decode --skip rows",
        "t.gguf --prompt x",
        "t.gguf --prompt 1,,2",
        "t.gguf --rows 4-1",
        "t.gguf --rows 1-99999999",
        "t.gguf --context -1",
        "t.gguf --depths 16",
        "t.gguf --depths most",
        "t.gguf --json --csv -",
        "t.gguf --runs many",
    ],
    "tune": ["", "t.gguf --context x", "t.gguf --kv-type q8", "t.gguf more"],
    "sweep": [
        "",
        "t.gguf",
        "--targets t.gguf",
        "--drafters t.gguf",
        "t.gguf d.gguf --targets t.gguf",
        "--targets t.gguf --drafters d.gguf --target-types f16",
        "t.gguf d.gguf --json --csv -",
        "t.gguf d.gguf --runs many",
    ],
    "perplexity": ["", "t.gguf", "t.gguf a b", "a b --chunks x"],
}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.py"
    path.write_text("def mean(values):\n    return sum(values) / len(values)\n\n\n" * 16)
    return path


@pytest.mark.parametrize(
    ("command", "options"), [(name, options) for name in REFUSED for options in REFUSED[name]]
)
def test_refusals(gemtp_main, text: Path, command: str, options: str) -> None:
    sound = [str(text) if arg is TEXT else arg for arg in SOUND[command]]
    words = REFUSED[command][options]
    assert_one_error(gemtp_main(command, *sound, *options.split()), *words)


@pytest.mark.parametrize(
    ("command", "args"), [(name, args) for name in WRONG_USAGE for args in WRONG_USAGE[name]]
)
def test_wrong_usage(gemtp_main, command: str, args: str) -> None:
    code, out, err = gemtp_main(command, *args.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"gemtp {command}: error: ")
    assert err.count("\n") == 1
