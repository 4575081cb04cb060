"""gemtp export: what the engines get is what gemtp.json says, in options that they have."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import checkpoints
from gemtp_native.cli import main
from gemtp_native.errors import ArgumentError
from gemtp_native.export import (
    DEFAULT_DEPTH,
    ENGINES,
    Configuration,
    Sampling,
    Source,
    export,
    load,
)

DOCS = Path(__file__).parent.parent.parent / "docs" / "export.md"

TARGET = Source("google/gemma-4-E2B-it", "e2b.gguf")
DRAFTER = Source("google/gemma-4-E2B-it-assistant", "e2b-drafter.gguf")
PAIR = Configuration(TARGET, DRAFTER, draft=4)
# Every value that has an "off" or a default has another one.
FULL = Configuration(
    TARGET,
    DRAFTER,
    draft="auto",
    context=8192,
    threads=6,
    kv_type="f32",
    sampling=Sampling(256, 0.7, 64, 0.95, 0.05, 1.1, 0.2, 0.3, 42),
)


@pytest.fixture(autouse=True)
def _no_saved_profiles(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GEMTP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


def option(result, name):
    """The value behind an option; None if it is not there."""
    command = list(result.command)
    assert command.count(name) <= 1
    return command[command.index(name) + 1] if name in command else None


def notes(result):
    return {note.key: note.text for note in result.notes}


# ---------------------------------------------------------------- what the engines get


def test_the_text_is_the_command_for_a_shell():
    awkward = Configuration(
        Source("a b/it's", "a b/it's $HOME;.gguf", "-m`x`.litertlm"),
        Source("c d", "-d.gguf"),
        draft=2,
        sampling=Sampling(temperature=0.5),
    )
    for engine in ENGINES:
        result = export(awkward, engine)
        if result.command is not None:
            assert tuple(shlex.split(result.text.replace("\\\n", ""))) == result.command
            assert "-d.gguf" not in result.command
            if shutil.which("sh"):
                script = f"printf '%s\\n' {result.text}"
                shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
                assert shown.stdout.splitlines() == list(result.command)


def test_vllm():
    result = export(PAIR, "vllm")
    assert result.command[:3] == ("vllm", "serve", TARGET.hub)
    assert json.loads(option(result, "--speculative-config")) == {
        "method": "mtp",
        "model": DRAFTER.hub,
        "num_speculative_tokens": 4,
    }
    assert json.loads(option(result, "--override-generation-config")) == {"temperature": 0}
    full = export(FULL, "vllm")
    assert option(full, "--max-model-len") == "8192"
    assert option(full, "--seed") == "42"
    assert json.loads(option(full, "--override-generation-config")) == {
        "temperature": 0.7,
        "top_k": 64,
        "top_p": 0.95,
        "repetition_penalty": 1.1,
    }
    plain = export(replace(FULL, draft=0), "vllm")
    assert option(plain, "--speculative-config") is None
    assert json.loads(option(plain, "--override-generation-config"))["min_p"] == 0.05
    assert "sampling.min_p" not in notes(plain)


def test_sglang():
    result = export(PAIR, "sglang")
    assert result.command[:4] == ("sglang", "serve", "--model-path", TARGET.hub)
    assert option(result, "--speculative-algorithm") == "NEXTN"
    assert option(result, "--speculative-draft-model-path") == DRAFTER.hub
    assert option(result, "--speculative-num-steps") == "4"
    assert option(result, "--speculative-num-draft-tokens") == "5"  # the pending token, too
    assert option(result, "--speculative-eagle-topk") == "1"
    full = export(FULL, "sglang")
    assert option(full, "--context-length") == "8192"
    sent = json.loads(re.search(r"\{.*\}", notes(full)["sampling"])[0])
    wanted = asdict(FULL.sampling)
    del wanted["max_tokens"], wanted["seed"]
    assert sent == wanted
    plain = export(replace(PAIR, draft=0), "sglang")
    assert not any(word.startswith("--speculative") for word in plain.command)


def test_llama_server():
    result = export(PAIR, "llama-server")
    assert option(result, "--model") == "e2b.gguf"
    assert option(result, "--spec-type") == "draft-mtp"
    assert option(result, "--spec-draft-model") == "e2b-drafter.gguf"
    assert option(result, "--spec-draft-n-max") == "4"
    assert option(result, "--temp") == "0"
    assert option(result, "--threads") is None
    assert option(result, "--repeat-last-n") is None
    full = export(FULL, "llama-server")
    for name, value in {
        "--ctx-size": "8192", "--parallel": "1", "--threads": "6", "--cache-type-k": "f32",
        "--cache-type-v": "f32", "--predict": "256", "--temp": "0.7", "--top-k": "64",
        "--top-p": "0.95", "--min-p": "0.05", "--repeat-penalty": "1.1", "--seed": "42",
        "--presence-penalty": "0.2", "--frequency-penalty": "0.3", "--repeat-last-n": "8192",
        "--samplers": "penalties;temperature;top_k;top_p;min_p",
    }.items():  # fmt: skip
        assert option(full, name) == value
    plain = export(replace(PAIR, draft=0), "llama-server")
    assert not any(word.startswith("--spec") for word in plain.command)


def _llama_server() -> str | None:
    return os.environ.get("GEMTP_LLAMA_SERVER") or shutil.which("llama-server")


@pytest.mark.skipif(_llama_server() is None, reason="no llama-server (GEMTP_LLAMA_SERVER)")
def test_llama_server_accepts_its_options():
    """It parses everything before it helps."""

    def accepts(arguments):
        command = [_llama_server(), *arguments, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done.returncode == 0 and "--spec-draft-n-max" in done.stdout + done.stderr

    assert not accepts(["--no-such-option"])
    assert not accepts(["--temp", "hot"])
    for configuration in (FULL, PAIR, replace(PAIR, drafter=None, draft="auto")):
        arguments = export(configuration, "llama-server").command[1:]
        assert accepts(arguments)
        spelled = subprocess.run(
            [_llama_server(), "--help"], capture_output=True, text=True, timeout=60
        )
        known = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", spelled.stdout + spelled.stderr))
        assert {word for word in arguments if word.startswith("--")} <= known


def test_litert_lm():
    result = export(PAIR, "litert-lm")
    assert result.command[:2] == ("litert-lm", "run")
    assert option(result, "--from-huggingface-repo") == "litert-community/gemma-4-E2B-it-litert-lm"
    assert "gemma-4-E2B-it.litertlm" in result.command
    assert option(result, "--enable-speculative-decoding") == "true"
    assert (option(result, "--temperature"), option(result, "--top-k")) == ("0", "1")
    assert (result.draft, result.draft_source) == (None, "engine")
    assert "target.hub" not in notes(result)
    full = export(FULL, "litert-lm")
    assert option(full, "--enable-speculative-decoding") == "auto"
    assert option(full, "--max-num-tokens") == "8192"
    assert option(full, "--cpu-thread-count") == "6"
    assert (option(full, "--top-k"), option(full, "--top-p")) == ("64", "0.95")
    other = replace(PAIR, target=Source("google/gemma-4-31B-it"), draft=0)
    assert option(export(other, "litert-lm"), "--enable-speculative-decoding") == "false"
    assert "target.hub" in notes(export(other, "litert-lm"))
    local = export(replace(PAIR, target=Source(litertlm="dir/m.litertlm")), "litert-lm")
    assert option(local, "--from-huggingface-repo") is None
    assert "dir/m.litertlm" in local.command


def test_gemtp_takes_its_own(monkeypatch):
    from gemtp_native.arguments import DEFAULTS
    from gemtp_native.cli import generate
    from gemtp_native.cli.options import sampling_options

    for configuration in (FULL, PAIR, replace(PAIR, drafter=None, draft="auto")):
        command = export(configuration, "gemtp").command
        assert command[:2] == ("gemtp", "generate")
        seen = []
        monkeypatch.setattr(generate, "run", lambda args, seen=seen: seen.append(args) or 0)
        assert main([*command[1:], "text"]) == 0
        (args,) = seen
        assert (args.target, args.prompt) == ("e2b.gguf", "text")
        assert args.drafter == (configuration.drafter and "e2b-drafter.gguf")
        for name in ("draft", "context", "threads", "kv_type"):
            assert getattr(args, name) == getattr(configuration, name)
        options = {**DEFAULTS, **sampling_options(args), "max_tokens": args.max_tokens}
        assert options.items() >= asdict(configuration.sampling).items()


def test_transformers():
    result = export(PAIR, "transformers")
    assert result.command is None
    ast.parse(result.text)
    assert "num_assistant_tokens = 4\n" in result.text
    assert "do_sample=False" in result.text
    assert "set_num_threads" not in result.text
    full = export(FULL, "transformers").text
    ast.parse(full)
    for part in (
        "torch.set_num_threads(6)", "do_sample=True", "temperature=0.7", "top_k=64", "top_p=0.95",
        "min_p=0.05", "repetition_penalty=1.1", "max_new_tokens=256", "torch.manual_seed(42)",
    ):  # fmt: skip
        assert part in full
    plain = export(replace(PAIR, draft=0), "transformers").text
    assert "assistant" not in plain
    hostile = replace(PAIR, target=Source("x'\"\\"), drafter=Source("y'''"))
    strings = [
        node.value
        for node in ast.walk(ast.parse(export(hostile, "transformers").text))
        if isinstance(node, ast.Constant)
    ]
    assert strings.count("x'\"\\") == 2
    assert strings.count("y'''") == 1


@pytest.mark.oracle
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_transformers_runs_the_script(tmp_path, temperature):
    pytest.importorskip("torch", reason="the [oracle] extra is not installed (torch)")
    pytest.importorskip("transformers", reason="the [oracle] extra is not installed")
    checkpoints.agreeing("e2b", tmp_path)
    configuration = Configuration(
        Source(str(tmp_path / "target")),
        Source(str(tmp_path / "drafter")),
        draft=3,
        threads=1,
        sampling=Sampling(max_tokens=24, temperature=temperature, min_p=0.05, top_k=40),
    )
    texts = []
    for draft in (3, 0):
        script = tmp_path / f"run{draft}.py"
        script.write_text(export(replace(configuration, draft=draft), "transformers").text)
        done = subprocess.run(
            [sys.executable, str(script), "the in the"], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        texts.append(done.stdout)
    assert len(texts[0]) > len("the in the")
    if temperature == 0:
        assert texts[0] == texts[1]


# ---------------------------------------------------------------- what they cannot express


def test_the_documentation_has_all_that_is_noted():
    """The keys in the table of docs/export.md, engine by engine, are those of the notes."""
    table = {}
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 2 and cells[0].strip("`") in ENGINES:
            table[cells[0].strip("`")] = set(re.findall(r"`([a-z_.]+)`", cells[1]))
    variants = (
        FULL,
        replace(FULL, draft=3),
        replace(FULL, drafter=None),
        replace(FULL, target=Source("a/b", "c.gguf")),
        replace(FULL, sampling=replace(FULL.sampling, top_k=0)),
    )
    for engine in ENGINES:
        noted = {key for c in variants for key in notes(export(c, engine))}
        assert table[engine] == noted, engine
        assert DOCS.read_text(encoding="utf-8").count(ENGINES[engine][0]) >= 1


def test_values_that_are_off_are_not_complained_about():
    assert set(notes(export(PAIR, "llama-server"))) == set()
    assert set(notes(export(PAIR, "vllm"))) == {"kv_type", "sampling.max_tokens"}
    assert set(notes(export(PAIR, "transformers"))) == {"context", "kv_type"}
    assert set(notes(export(PAIR, "gemtp"))) == set()


@pytest.mark.parametrize(
    ("configuration", "engine", "words"),
    [
        (replace(PAIR, target=Source(gguf="x.gguf")), "vllm", "target.hub is missing"),
        (replace(PAIR, drafter=Source(gguf="x.gguf")), "sglang", "drafter.hub is missing"),
        (replace(PAIR, drafter=Source(gguf="x.gguf")), "transformers", "drafter.hub is missing"),
        (replace(PAIR, target=Source("x")), "llama-server", "target.gguf is missing"),
        (replace(PAIR, drafter=Source("x")), "gemtp", "drafter.gguf is missing"),
        (replace(PAIR, target=Source(gguf="x.gguf")), "litert-lm", "neither target.litertlm nor"),
        (PAIR, "ollama", "the engine is 'ollama'; vllm, "),
    ],
)
def test_what_an_engine_needs(configuration, engine, words):
    with pytest.raises(ArgumentError, match=re.escape(words)):
        export(configuration, engine)


def test_acceptance_is_a_share():
    for acceptance in (-0.1, 1.1, float("nan")):
        with pytest.raises(ArgumentError, match="acceptance is"):
            export(PAIR, "vllm", acceptance)


# ---------------------------------------------------------------- the depth


def test_auto_is_the_default_depth_without_a_profile(tmp_path):
    for c in (FULL, replace(FULL, target=Source("a/b"))):
        result = export(c, "vllm")
        assert (result.draft, result.draft_source) == (DEFAULT_DEPTH, "default")
        speculative = json.loads(option(result, "--speculative-config"))
        assert speculative["num_speculative_tokens"] == DEFAULT_DEPTH
    result = export(PAIR, "vllm")
    assert (result.draft, result.draft_source) == (4, "configuration")
    assert "draft" not in notes(result)
    result = export(replace(FULL, drafter=None), "vllm")
    assert (result.draft, option(result, "--speculative-config")) == (0, None)
    assert "looks drafts up" in notes(result)["draft"]


def _save_profile(c: Configuration, seconds_of_rows):
    from gemtp_native.model import system_info

    profile = pytest.importorskip("gemtp_native.profile")
    info = system_info()
    threads = c.threads or info["threads"]
    saved = profile.Profile(
        created="2026-01-01T00:00:00+00:00",
        conditions=profile.conditions(
            c.target.gguf, c.drafter.gguf, threads, c.kv_type, info["isa"]
        ),
        costs=profile.Costs(
            [(rows, 0, seconds) for rows, seconds in seconds_of_rows.items()],
            [(0, 0, 1e-4), (1, 0, 1e-4)],
        ),
        bandwidth=None,
    )
    return profile.save(saved)


def test_auto_is_what_a_saved_profile_says(tmp_path):
    files = [tmp_path / "t.gguf", tmp_path / "d.gguf"]
    for file in files:
        file.write_bytes(b"of any kind")
    c = Configuration(Source("a/t", str(files[0])), Source("a/d", str(files[1])))
    path = _save_profile(c, {1: 0.1, 2: 0.1, 3: 0.1, 4: 0.1, 5: 0.1, 6: 9.0})
    for acceptance, depth in ((0.9, 4), (0.0, 0)):
        result = export(c, "vllm", acceptance)
        assert (result.draft, result.draft_source) == (depth, "profile")
        assert f"{depth}, which is best" in notes(result)["draft"]
        assert (option(result, "--speculative-config") is None) == (depth == 0)
        assert export(c, "llama-server", acceptance).draft == depth
    assert export(replace(c, kv_type="f32"), "vllm").draft_source == "default"
    path.write_text("{")
    result = export(c, "vllm")
    assert (result.draft, result.draft_source) == (DEFAULT_DEPTH, "default")
    assert "is ignored" in notes(result)["draft"]


# ---------------------------------------------------------------- the command


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    both = ["--target", "a/t", "--target", "t.gguf", "--drafter", "a/d", "--drafter", "d.gguf"]
    assert main(["export", "--init", *both, "--draft", "2", "--temperature", "0.5"]) == 0
    assert "gemtp.json is written" in capsys.readouterr().out
    wanted = Configuration(
        Source("a/t", "t.gguf"), Source("a/d", "d.gguf"), 2, sampling=Sampling(temperature=0.5)
    )
    assert load("gemtp.json") == wanted
    assert main(["export", "--init", *both]) == 1
    assert "exists already" in capsys.readouterr().err

    for engine in ENGINES:
        assert main(["export", "--to", engine]) == 0
        out, err = capsys.readouterr()
        assert out == export(wanted, engine).text
        assert err.startswith(f"# options of {ENGINES[engine][0]}\n")
        assert err.count("\n") == 1 + len(export(wanted, engine).notes)
        assert main(["export", "--to", engine, "--json"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert json.loads(out) == json.loads(json.dumps(asdict(export(wanted, engine))))
    assert main(["export", "--to", "vllm", "--quiet"]) == 0
    assert capsys.readouterr().err == ""

    changed = replace(wanted, draft=5, context=99, sampling=Sampling(temperature=0.5, top_k=7))
    options = ["--draft", "5", "--context", "99", "--top-k", "7", "--quiet"]
    assert main(["export", "gemtp.json", "--to", "llama-server", *options]) == 0
    assert capsys.readouterr().out == export(changed, "llama-server").text
    # Without a file the options say all; the file that lies there is not meant.
    assert main(["export", "--to", "vllm", "--target", "x/y", "--quiet"]) == 0
    assert capsys.readouterr().out == export(Configuration(Source("x/y")), "vllm").text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "vllm"], "gemtp.json cannot be read"),
        (["none.json", "--to", "vllm"], "none.json cannot be read"),
        (["--init"], "--init needs --target"),
        (["--init", "--target", "a.gguf", "--target", "b.gguf"], "are of one kind"),
        (["--to", "vllm", "--target", "x.gguf"], "target.hub is missing"),
        (["--to", "vllm", "--target", "x/y", "--draft", "3"], "there is no drafter"),
        (["--to", "vllm", "--target", "x/y", "--context", "0"], "context is 0"),
        (["--to", "vllm", "--target", "x/y", "--top-p", "2"], "top_p is 2.0"),
        (["--to", "vllm", "--target", "x/y", "--acceptance", "2"], "acceptance is 2"),
        (["--to", "vllm", "--target", ""], "target.hub"),
    ],
)
def test_refusals(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_usage(capsys):
    for arguments in ([], ["--to", "ollama"], ["--to", "vllm", "--init"], ["--draft", "16"]):
        with pytest.raises(SystemExit) as e:
            main(["export", *arguments])
        assert e.value.code == 2
    capsys.readouterr()
