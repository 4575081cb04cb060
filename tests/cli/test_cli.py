"""The command line: exit codes, messages, output that parses, and what Ctrl-C does."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import checkpoints
import gemtp_native as gemtp
from gemtp_native.cli import main

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and pipes")


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "gemtp_native", *map(str, args)]


def run(*args: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command(*args), capture_output=True, timeout=120, **options)


def start(*args: object) -> subprocess.Popen:
    """A command with its own pipes; Ctrl-C reaches it even if our own parent ignores it."""
    return subprocess.Popen(
        command(*args),
        bufsize=0,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )


@pytest.fixture
def call(gemtp_main):
    return gemtp_main


def is_one_error(err: str) -> bool:
    return err.startswith("gemtp: error: ") and err.count("\n") == 1 and "Traceback" not in err


# ---------------------------------------------------------------- start


def test_help_and_version():
    start = time.monotonic()
    done = run("--help")
    seconds = time.monotonic() - start
    assert done.returncode == 0
    for name in ("generate", "chat", "convert", "inspect", "info", "bench", "demo"):
        assert name in done.stdout.decode()
    assert seconds < 3  # generous: the machine may be busy
    assert run("--version").stdout.decode() == f"gemtp {gemtp.__version__}\n"


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from gemtp_native.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'gemtp_native._core')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    "name", ["generate", "chat", "convert", "inspect", "info", "bench", "tune", "demo"]
)
def test_help_of_commands(call, name):
    code, out, err = call(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: gemtp {name}")


@pytest.mark.parametrize(
    "args",
    [
        ["fly"],
        ["--nonsense"],
        ["generate"],
        ["generate", "t.gguf", "a", "--file", "b"],
        ["generate", "t.gguf", "a", "--draft", "16"],
        ["generate", "t.gguf", "a", "--draft", "-1"],
        ["generate", "t.gguf", "a", "--draft", "many"],
        ["generate", "t.gguf", "a", "--max-tokens", "x"],
        ["generate", "t.gguf", "a", "--logit-bias", "5"],
        ["generate", "t.gguf", "a", "--logit-bias", "a=1"],
        ["generate", "t.gguf", "a", "--kv-type", "q8"],
        ["generate", "t.gguf", "a", "--nonsense"],
        ["chat"],
        ["chat", "t.gguf", "extra"],
        ["chat", "t.gguf", "--suppress", "x"],
        ["inspect"],
        ["info", "extra"],
        ["demo", "--runs", "0"],
        ["demo", "--target", "t.gguf"],
    ],
    ids=" ".join,
)
def test_wrong_usage(call, args):
    code, out, err = call(*args)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"gemtp[a-z ]*: error: [^\n]+\n", err)


def test_a_context_that_is_cut_is_noted(call, pair):
    context = gemtp.Model(pair.target, context=10**6).context
    args = ("generate", pair.target, "the", "--max-tokens", 2)
    said = (
        f"note: the context is {context} tokens, the most that the model was made for, not 999999"
    )
    assert said in call(*args, "--context", 999999)[2]
    assert call(*args, "--context", 999999, "--quiet")[2] == ""
    assert call(*args)[2] == call(*args, "--context", 20)[2] == ""


def test_gemtp_alone_helps(call):
    code, out, err = call()
    assert (code, out) == (2, "")
    assert err.startswith("usage: gemtp")
    assert "complete a prompt" in err


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["genrate", "t.gguf"], "no command 'genrate', did you mean generate?"),
        (["fly"], "no command 'fly'; gemtp --help"),
        (["run", "demo"], "gemtp chat converses"),
        (["list"], "gemtp pull NAME --list"),
        (["generate", "t.gguf", "x", "--temprature", "1"], "did you mean --temperature?"),
        (["generate", "t.gguf", "x", "-ngl", "some"], "'some' is neither auto nor a number of"),
        (["generate", "t.gguf", "x", "--tmep", "1"], "no option --tmep, did you mean --temp?"),
        (["generate", "t.gguf", "x", "--top_k", "1"], "did you mean --top-k?"),
        (["quantize", "a", "b", "q4_0", "--pure"], "no option --pure: a TYPE without _S, _M or _L"),
        (["serve", "t.gguf", "--jinja"], "no option --jinja: the model's chat template is always"),
        (
            ["generate", "t.gguf", "-fa", "on", "-p", "x"],
            "no option -fa: attention needs no switch",
        ),
        (["chat", "t.gguf", "--no-mmap"], "no option --no-mmap: files are read, not mapped, and"),
        (["chat", "t.gguf", "-p", "x"], "no option -p: gemtp generate takes a prompt, gemtp chat"),
        (["chat", "t.gguf", "hello you"], "there is no place for 'hello you'"),
        (["quantize", "a", "b", "q4_0", "8"], "there is no place for '8'"),
        (["ps"], "no command 'ps': nothing runs in the background"),
        (["--hlep"], "no option --hlep, did you mean --help?"),
        (["-m", "t.gguf", "-p", "x"], "no option -m before the command; gemtp --help"),
    ],
    ids=str,
)
def test_what_was_meant(call, args, hint):
    code, _, err = call(*args)
    assert code == 2
    assert hint in err


@pytest.mark.parametrize(
    "args",
    [
        ["-m", "TARGET", "-p", "the in", "-n", 5, "-c", 64, "-t", 1, "--temp", 0.5, "-s", 3],
        ["-p", "the in", "--model=TARGET", "--n-predict=5", "--ctx-size=64", "--temp=0.5", "-s", 3],
        ["TARGET", "-n", 5, "--prompt", "the in", "--temp", 0.5, "--seed", 3],
        ["-md", "DRAFTER", "-m", "TARGET", "--draft-max", 2, "--repeat-penalty", 1, "-s", 3,
         "--temp", 0.5, "-n", 5, "-p", "the in"],
    ],
    ids=str,
)  # fmt: skip
def test_the_words_of_llama_cpp(call, pair, args):
    files = {"TARGET": pair.target, "DRAFTER": pair.drafter, "--model=TARGET": "--model={}"}
    given = [str(files.get(arg, arg)).format(pair.target) for arg in args]
    expected = call(
        "generate", pair.target, "the in", "--max-tokens", 5, "--temperature", 0.5, "--seed", 3
    )
    assert call("generate", *given)[:2] == expected[:2]
    assert expected[0] == 0


@pytest.mark.parametrize(
    ("given", "same"),
    [
        (["help"], ["--help"]),
        (["help", "tune"], ["tune", "--help"]),
        (["version"], ["--version"]),
        (["-V"], ["--version"]),
    ],
)
def test_words_for_help_and_version(call, given, same):
    expected = call(*same)
    assert expected[0] == 0
    assert call(*given) == expected


def test_a_repository_by_llama_cpps_option(call, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # read from the environment but once
    for option in (["-hf", "owner/none"], ["--hf-repo=owner/none"]):
        expected = call("generate", "hf:owner/none", "x")
        assert expected[0] == 1
        assert call("generate", *option, "-p", "x") == expected
    code, _, err = call("generate", "demo", "x", "-hfd", "owner/none")
    assert (code, "owner/none" in err) == (1, True)


def test_a_text_by_llama_cpps_option(call, pair, tmp_path):
    (tmp_path / "text").write_text("the in " * 100)
    few = ["--chunks", 1, "-c", 16, "-t", 1]
    for command in (["perplexity"], ["imatrix", "-o", tmp_path / "i.gguf"]):
        expected = call(*command, pair.target, tmp_path / "text", *few, "--json")
        assert expected[0] == 0
        assert call(*command, "-m", pair.target, "-f", tmp_path / "text", *few, "--json")[0] == 0


@pytest.mark.parametrize("text", ['start: "ab"', "%ignore / /\nstart: /ab/", 'root ::= "ab"'])
def test_a_grammar_on_the_command_line(call, pair, text):
    pytest.importorskip("llguidance")
    code, out, err = call("generate", pair.target, "the", "--max-tokens", 8, "--grammar", text)
    if "::=" in text:
        assert (code, "grammar is in GBNF" in err) == (1, True)
    else:
        assert (code, out) == (0, "ab\n")


def test_words_behind_two_dashes_are_the_prompt(call, pair):
    code, out, _ = call("generate", pair.target, "--max-tokens", 2, "--", "-n")
    assert code == 0
    assert out == call("generate", pair.target, "--max-tokens", 2, "--", "-n")[1]


@pytest.mark.parametrize(("given", "code"), [(b"", 2), (b"the in", 0)])
def test_a_prompt_from_a_pipe(call, pair, monkeypatch, given, code):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    found, out, _ = call("generate", pair.target, "--max-tokens", 5)
    assert found == code
    assert not given or out == call("generate", pair.target, "the in", "--max-tokens", 5)[1]


# ---------------------------------------------------------------- generate


def test_generate(call, pair):
    expected = gemtp.Model(pair.target).generate("the in", max_tokens=20)
    code, out, err = call("generate", pair.target, "the in", "--max-tokens", 20)
    assert (code, err) == (0, "")
    assert out == expected.text + ("" if expected.text.endswith("\n") else "\n")


def test_one_of_a_kind_is_singular(call, pair):
    code, _, err = call("generate", pair.target, "the", "-n", 1, "-t", 1, "--stats", "--verbose")
    assert code == 0
    assert "1 thread, context" in err
    assert "; 1 token in " in err
    assert re.search(r"^decode   1 token, ", err, re.M)
    assert not re.search(r"(?<![\d.])1 (tokens|threads|rounds)\b", err)


def test_the_prompt_may_stand_behind_the_options(call, pair):
    _, plain, _ = call("generate", pair.target, "the", "--max-tokens", 5)
    code, text, _ = call(
        "generate", pair.target, "--drafter", pair.drafter, "the", "--max-tokens", 5
    )
    assert (code, text) == (0, plain)


def test_generate_is_the_same_with_a_drafter(call, pair):
    for sampling in ([], ["--temperature", 1, "--seed", 7, "--top-k", 50, "--top-p", 0.9]):
        texts = set()
        for more in ([], ["--drafter", pair.drafter], ["--drafter", pair.drafter, "--draft", 15]):
            code, out, _ = call(
                "generate", pair.target, "the in", "--max-tokens", 40, *sampling, *more
            )
            assert code == 0
            texts.add(out)
        assert len(texts) == 1


def test_generate_json_and_options(call, pair):
    options = {
        "temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1,
        "presence_penalty": 0.1, "frequency_penalty": 0.2, "seed": -3, "max_tokens": 30,
    }  # fmt: skip
    expected = gemtp.Model(pair.target).generate(
        "the in", logit_bias={5: -1.5, 6: float("-inf")}, stop=["\u03b1\u03b2", "!"], **options
    )
    args: list[object] = ["--logit-bias", "5=-1.5", "--logit-bias", "6=-inf"]
    args += ["--stop", "\u03b1\u03b2", "--stop", "!", "--drafter", pair.drafter, "--json"]
    for name, value in options.items():
        args += [f"--{name.replace('_', '-')}", value]
    code, out, err = call("generate", pair.target, "the in", *args)
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result["text"] == expected.text
    assert result["tokens"] == expected.tokens
    assert result["finish_reason"] == expected.finish_reason
    assert result["stats"]["drafted"] > 0


def test_prompt_from_file_and_standard_input(call, pair, tmp_path, monkeypatch):
    prompt = "the in\n\u00e9"
    (tmp_path / "prompt").write_bytes(prompt.encode())
    _, expected, _ = call("generate", pair.target, prompt, "--max-tokens", 9)
    assert call("generate", pair.target, "--file", tmp_path / "prompt", "--max-tokens", 9)[1] == (
        expected
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(prompt.encode())))
    assert call("generate", pair.target, "-", "--max-tokens", 9)[1] == expected


def test_control_tokens_in_the_prompt(call, pair):
    model = gemtp.Model(pair.target)
    for more, special in ([], False), (["--special"], True):
        ids = model.tokenize("in<eos>the", special=special)
        code, out, err = call(
            "generate", pair.target, "in<eos>the", "--max-tokens", 9, "--json", *more
        )
        assert code == 0
        assert json.loads(out)["tokens"] == model.generate(ids, max_tokens=9).tokens
        assert ("note: the prompt spells the control token <eos>" in err) == (not special)


def test_statistics_go_to_standard_error(call, pair):
    code, out, err = call(
        "generate", pair.target, "the", "--drafter", pair.drafter, "--max-tokens", 30, "--stats"
    )
    assert code == 0
    assert "tokens/s" not in out
    assert "tokens/s" in err
    assert "accepted" in err


def test_full_context_is_noted(call, pair):
    args = ("generate", pair.target, "the", "--context", 20, "--max-tokens", 50, "--ignore-eos")
    code, _, err = call(*args)
    assert code == 0
    assert "the context of 20 tokens is full" in err
    assert call(*args, "--quiet")[2] == ""


def test_words_of_other_engines_for_none(call, pair):
    base = ("generate", pair.target, "the in", "--ignore-eos", "--context", 40)
    whole = call(*base, "--max-tokens", -1)
    assert whole[0] == 0
    assert "the context of 40 tokens is full" in whole[2]
    assert call(*base, "--max-tokens", -1, "--top-k", -1, "--stop", "", "--seed", 0) == whole
    code, text, err = call(*base, "--seed", -1, "--temperature", 1, "--max-tokens", 20)
    seed = re.fullmatch(r"gemtp: note: the seed was (\d+)\n", err)
    assert (code, bool(seed)) == (0, True)
    again = call(*base, "--seed", seed[1], "--temperature", 1, "--max-tokens", 20, "--stats")
    assert again[1] == text
    assert f"seed     {seed[1]}\n" in again[2]


@pytest.mark.parametrize(
    "args",
    [
        ["--temperature", "nan"],
        ["--temperature", "-1"],
        ["--top-p", "-0.1"],
        ["--top-k", "-4"],
        ["--max-tokens", "-2"],
        ["--logit-bias", "99999999=1"],
        ["--stop", "\udcff"],
        ["--threads", "0"],
        ["--context", "1"],
        ["--context", "3"],
        ["--draft", "2"],  # without a drafter
        ["--drafter", "missing.gguf"],
        ["--drafter", ""],
    ],
    ids=ascii,
)
def test_wrong_values(call, pair, args):
    code, out, err = call("generate", pair.target, "the in", *args)
    assert (code, out) == (1, "")
    assert is_one_error(err)


def test_wrong_prompts(call, pair, tmp_path):
    (tmp_path / "latin1").write_bytes(b"caf\xe9")
    for args in (["--file", tmp_path / "latin1"], ["a\udce9"]):
        code, _, err = call("generate", pair.target, *args)
        assert code == 1
        assert is_one_error(err)
        assert "not valid UTF-8" in err
    for path in (tmp_path / "missing", tmp_path):
        code, _, err = call("generate", pair.target, "--file", path)
        assert code == 1
        assert is_one_error(err)
        assert str(path) in err


def test_wrong_files(call, pair, other_pair, tmp_path):
    (tmp_path / "cut.gguf").write_bytes(pair.target.read_bytes()[:5000])
    for path in (tmp_path / "missing.gguf", tmp_path, tmp_path / "cut.gguf", pair.drafter):
        for args in (["generate", path, "the"], ["demo", "--target", path, "--drafter", path]):
            code, _, err = call(*args)
            assert code == 1
            assert is_one_error(err)
    code, _, err = call("generate", pair.target, "the", "--drafter", other_pair.drafter)
    assert code == 1
    assert "does not fit the target" in err


def test_unknown_instruction_set(call, pair, monkeypatch):
    monkeypatch.setenv("GEMTP_ISA", "mmx")
    for args in (["info"], ["generate", pair.target, "the"]):
        code, _, err = call(*args)
        assert code == 1
        assert is_one_error(err)


TEXT = Path(__file__)


@pytest.mark.parametrize(
    "args",
    [
        ("generate", "TARGET", "a"),
        ("chat", "TARGET"),
        ("serve", "TARGET", "--port", 0),
        ("imatrix", "TARGET", TEXT, "-o", "made"),
        ("cluster", "DRAFTER", "-o", "made", "--target", "TARGET", "--text", TEXT, "--replace"),
        ("bench", "TARGET"),
        ("tune", "TARGET", "--no-save"),
        ("perplexity", "TARGET", TEXT),
        ("sweep", "TARGET", "DRAFTER", "--scratch", "."),
        ("demo",),
    ],
    ids=lambda args: args[0],
)
@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("metal", "the device 'metal' is not here; there is: cpu"),
        (
            "cuda:12",
            ("the device 'cuda:12' is not", "no driver for CUDA", "this build of gemtp"),
        ),
        ("gpu", "the device 'gpu' is unknown; it must be auto, cpu, cuda, cuda:N, metal or"),
        ("", "device is ''; it must be a name"),
    ],
)
def test_wrong_devices(call, tmp_path, monkeypatch, args, device, sentence):
    """Every command that opens a model takes a device, and checks it before it makes anything."""
    monkeypatch.chdir(tmp_path)
    files = dict(zip(("TARGET", "DRAFTER"), gemtp.demo_models(), strict=True))
    before = dict(os.environ)
    code, out, err = call(*(files.get(arg, arg) for arg in args), "--device", device)
    assert (code, out) == (1, "")
    assert is_one_error(err)
    assert err.removeprefix("gemtp: error: ").startswith(sentence)
    assert list(tmp_path.iterdir()) == []
    assert os.environ == before


@pytest.mark.parametrize("name", ["chat", "serve"])
@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--top-k", -7), "top_k is -7 but must be"),
        (("--temperature", "nan"), "temperature is nan but must be"),
        (("--seed", 2**64), f"seed is {2**64} but must be"),
        (("--logit-bias", "99999=1"), "logit_bias names token 99999"),
        (("--suppress", 99999), "suppress_tokens names token 99999"),
        (("--draft", 3), "draft is 3 but no drafter is loaded"),
        (("--context", 2**40), f"context is {2**40}; it must be between 2 and 16777216"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_wrong_defaults_of_a_conversation_or_a_server(call, monkeypatch, name, args, sentence):
    """They are found at the start, not by every question or request."""
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    code, out, err = call(
        name, gemtp.demo_models()[0], *args, *(("--port", 0, "--quiet") if name == "serve" else ())
    )
    assert (code, out) == (1, "")
    assert is_one_error(err)
    assert err.startswith(f"gemtp: error: {sentence}")


def test_unexpected_errors_are_one_line(call, monkeypatch):
    def broken() -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(gemtp.model, "system_info", broken)
    code, _, err = call("info")
    assert code == 1
    assert is_one_error(err)
    assert "RuntimeError: first line second line" in err
    assert "GEMTP_DEBUG=1" in err
    monkeypatch.setenv("GEMTP_DEBUG", "1")
    with pytest.raises(RuntimeError):
        main(["info"])


# ---------------------------------------------------------------- the terminal


def endless(pair: checkpoints.Pair) -> list[object]:
    return [
        "generate", pair.target, "the in", "--drafter", pair.drafter, "--ignore-eos",
        "--max-tokens", 100_000, "--context", 100_000,
    ]  # fmt: skip


@posix
def test_interrupt(pair):
    """The text so far stays, a newline follows, the exit code is 130."""
    process = start(*endless(pair), "--stats")
    begin = process.stdout.read(40)
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=60)
    assert process.returncode == 130
    text = (begin + rest).decode("utf-8")  # no half characters
    assert text.endswith("\n")
    assert "Traceback" not in err.decode()
    assert "tokens/s" in err.decode()
    expected = gemtp.Model(pair.target, context=4096).generate(
        "the in", max_tokens=200, ignore_eos=True
    )
    shown = text.removesuffix("\n")
    assert shown.startswith(expected.text) or expected.text.startswith(shown)


@posix
def test_interrupt_with_json(pair):
    process = start(*endless(pair), "--json")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == b""
    if out:  # nothing when the signal met the opening of the model
        assert json.loads(out)["finish_reason"] == "interrupted"


@posix
def test_closed_pipe(pair):
    """`gemtp generate ... | head -c 10` says nothing."""
    # Greedily this model soon repeats a token without text, and writes nothing that could fail.
    process = start(*endless(pair), "--temperature", 1)
    process.stdout.read(10)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141
    assert err == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk(pair):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("generate", pair.target, "the"), stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert is_one_error(done.stderr.decode())


def test_text_is_utf8_in_any_locale(pair):
    args = ("generate", pair.target, "the in", "--max-tokens", 30)
    expected = run(*args).stdout
    assert not expected.isascii()
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    assert run(*args, env=environment).stdout == expected


# ---------------------------------------------------------------- info, inspect, demo, convert


def test_info(call):
    code, out, _ = call("info", "--json")
    info = json.loads(out)
    assert code == 0
    assert info["isa"] in info["isas"]
    assert {"version", "threads", "backends", "memory_bytes", "platform"} <= set(info)
    assert info["device"] in (*info["backends"], "auto")
    code, out, _ = call("info")
    assert code == 0
    assert info["isa"] in out


@pytest.fixture(scope="module", params=checkpoints.ARCHITECTURES)
def any_pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, checkpoints.to_gguf(
        checkpoints.committed(request.param, folder), folder, "q8_0"
    )


def test_inspect(call, any_pair):
    arch, files = any_pair
    code, out, _ = call("inspect", files.target, files.drafter, "--json")
    result = json.loads(out)
    assert code == 0
    assert result["pair"] == {"compatible": True, "reasons": []}
    target, drafter = result["files"]
    assert target["problems"] == drafter["problems"] == []
    assert (target["kind"], drafter["kind"]) == ("target", "drafter")
    config = checkpoints.read_config(checkpoints.GOLDEN / arch / "target")
    config = config.get("text_config", config)
    layers = target["layers"]
    assert layers["count"] == config["num_hidden_layers"]
    assert layers["shared_kv"] == config["num_kv_shared_layers"]
    assert target["hidden"] == drafter["backbone"] == config["hidden_size"]
    assert target["window"] == config["sliding_window"]
    assert target["vocabulary"] == config["vocab_size"]
    assert target["bytes"] == files.target.stat().st_size
    assert bool(target["experts"]) == (arch == "26b-a4b")
    assert drafter["head"]["type"] == ("ordered" if arch in ("e2b", "e4b") else "plain")
    stored = sum(x["bytes"] for x in target["types"].values())
    assert stored <= target["bytes"]
    assert 0 < target["read_per_token_bytes"] <= stored
    assert target["tokenizer"]["end_tokens"] == [1]
    code, out, _ = call("inspect", files.target)
    assert code == 0
    assert "problem" not in out


def test_inspect_lists(call, pair):
    code, out, _ = call("inspect", pair.target, "--tensors", "--metadata", "--json")
    assert code == 0
    (facts,) = json.loads(out)["files"]
    names = {tensor["name"]: tensor for tensor in facts["tensor_list"]}
    assert names["token_embd.weight"]["shape"] == [facts["hidden"], facts["vocabulary"]]
    assert facts["metadata"]["general.architecture"] == "gemma4"
    code, out, _ = call("inspect", pair.target, "--tensors", "--metadata")
    assert code == 0
    assert "token_embd.weight  F32" in out
    assert "general.architecture = gemma4" in out


def test_inspect_agrees_with_opening_about_pairs(call, pair, other_pair):
    for target in (pair.target, other_pair.target):
        for drafter in (pair.drafter, other_pair.drafter):
            code, out, _ = call("inspect", drafter, target, "--json")
            verdict = json.loads(out)["pair"]
            if verdict["compatible"]:
                assert code == 0
                gemtp.Model(target, drafter=drafter, threads=1, context=32)
            else:
                assert code == 1
                with pytest.raises(gemtp.ModelError, match=re.escape(verdict["reasons"][0])):
                    gemtp.Model(target, drafter=drafter, threads=1, context=32)
    code, out, _ = call("inspect", pair.target, pair.target)
    assert code == 1
    assert "a target and a drafter are needed" in out


@pytest.fixture
def odd_file(tmp_path):
    """Writes GGUF files with gguf-py."""
    import gguf
    import numpy as np

    def write(arch: str, fill) -> Path:
        path = tmp_path / "odd.gguf"
        writer = gguf.GGUFWriter(path, arch)
        fill(writer, gguf, np)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def test_inspect_lists_problems(call, odd_file):
    def fill(writer, gguf, np) -> None:
        writer.add_block_count(2)
        writer.add_embedding_length(256)
        data = np.zeros((4, 54), np.uint8)
        writer.add_tensor("token_embd.weight", data, raw_dtype=gguf.GGMLQuantizationType.TQ1_0)

    code, out, _ = call("inspect", odd_file("gemma4", fill), "--json")
    (facts,) = json.loads(out)["files"]
    assert code == 0
    (kind,) = facts["types"].items()
    assert kind[0] == "TQ1_0"
    assert (kind[1]["tensors"], kind[1]["bytes"]) == (1, 4 * 54)
    assert kind[1]["packed_as"] is None
    problems = " / ".join(facts["problems"])
    assert "tensor token_embd.weight is TQ1_0, a type that" in problems
    for key in ("context_length", "feed_forward_length", "attention.key_length"):
        assert f"gemma4.{key} is missing" in problems
    assert "tensor output_norm.weight is missing" in problems


def test_inspect_says_what_rare_types_become(call, odd_file):
    def fill(writer, gguf, np) -> None:
        for name, size in (("Q2_K", 84), ("Q4_K", 144)):
            kind = gguf.GGMLQuantizationType[name]
            writer.add_tensor(f"{name}.weight", np.zeros((4, size), np.uint8), raw_dtype=kind)

    file = odd_file("gemma4", fill)
    _, out, _ = call("inspect", file, "--json")
    types = json.loads(out)["files"][0]["types"]
    assert (types["Q2_K"]["bits"], types["Q2_K"]["packed_bits"]) == (2.625, 5.25)
    assert (types["Q4_K"]["bits"], types["Q4_K"]["packed_bits"]) == (4.5, 4.625)
    _, out, _ = call("inspect", file)
    lines = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert "matrices become nibbles of 5.25 bits, with the same values" in lines["Q2_K"]
    assert "become" not in lines["Q4_K"]


def test_inspect_other_architectures_and_vocabularies(call, odd_file):
    def fill(writer, gguf, np) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_token_list(["a", "b"])

    code, out, _ = call("inspect", odd_file("llama", fill), "--json")
    (facts,) = json.loads(out)["files"]
    assert code == 0
    assert facts["kind"] == "vocabulary"
    assert facts["tokenizer"]["tokens"] == 2
    assert facts["problems"]
    assert call("inspect", odd_file("llama", fill))[0] == 0


def test_inspect_bad_files(call, tmp_path, pair):
    (tmp_path / "cut.gguf").write_bytes(pair.target.read_bytes()[:200])
    for path in (tmp_path, tmp_path / "missing.gguf", tmp_path / "cut.gguf"):
        code, out, err = call("inspect", path)
        assert (code, out) == (1, "")
        assert is_one_error(err)


def demo_args(pair: checkpoints.Pair) -> list[object]:
    return [
        "demo", "--target", pair.target, "--drafter", pair.drafter, "--runs", 2, "--max-tokens", 30,
        "--prompt", "the in",
    ]  # fmt: skip


def test_demo_of_the_shipped_pair(call):
    code, out, _ = call("demo", "--json", "--runs", 1, "--max-tokens", 60)
    result = json.loads(out)
    assert code == 0
    assert result["identical"] is True
    assert result["acceptance"][0]["accepted"] > 0
    code, out, _ = call("inspect", *gemtp.demo_models(), "--json")
    assert code == 0
    assert [file["problems"] for file in json.loads(out)["files"]] == [[], []]


def test_demo(call, pair):
    code, out, _ = call(*demo_args(pair))
    assert code == 0
    assert "\x1b" not in out
    assert "‹" in out
    for word in ("plain", "drafted", "tokens/s", "proposed", "the same bytes"):
        assert word in out


def test_demo_json(call, pair):
    code, out, _ = call(*demo_args(pair), "--json", "--draft", 3)
    result = json.loads(out)
    assert code == 0
    assert result["identical"] is True
    assert result["tokens"] == 30
    assert len(result["plain"]["runs"]) == len(result["drafted"]["runs"]) == 2
    assert result["speedup"] > 0
    assert [row["draft"] for row in result["acceptance"]] == [1, 2, 3]
    assert all(0 <= row["accepted"] <= row["proposed"] for row in result["acceptance"])
    expected = gemtp.Model(pair.target).generate("the in", max_tokens=30, temperature=0.7, seed=1)
    assert result["text"] == expected.text


def test_demo_fails_when_texts_differ(call, pair, monkeypatch):
    generate = gemtp.Model.generate

    def drifting(self, prompt, **options):
        return generate(self, prompt, **{**options, "temperature": options["draft"]})

    monkeypatch.setattr(gemtp.Model, "generate", drifting)
    code, out, _ = call(*demo_args(pair), "--draft", 2)
    assert code == 1
    assert "DIFFER" in out
    code, out, _ = call(*demo_args(pair), "--draft", 2, "--json")
    assert code == 1
    assert json.loads(out)["identical"] is False


def test_convert(call, tmp_path):
    folder = checkpoints.committed("12b", tmp_path / "hf")
    out_file = tmp_path / "out.gguf"
    code, out, _ = call("convert", folder / "target", out_file, "--outtype", "q8_0", "--json")
    assert code == 0
    assert json.loads(out)["path"] == str(out_file)
    assert call("inspect", out_file)[0] == 0
    code, _, err = call("convert", tmp_path / "missing", out_file)
    assert code == 1
    assert is_one_error(err)
    code, _, err = call("convert", folder / "target", out_file, "--target-dir", folder / "target")
    assert code == 2
    assert is_one_error(err)


@pytest.mark.parametrize(
    ("raised", "code", "sentence"),
    [
        (MemoryError(), 1, "gemtp: error: not enough memory for the conversion.\n"),
        (KeyboardInterrupt(), 130, "interrupted: nothing was written.\n"),
        (OSError(5, "Input/output error", "in"), 1, "gemtp: error: in: Input/output error\n"),
    ],
)
def test_a_conversion_that_is_cut_short(call, tmp_path, monkeypatch, raised, code, sentence):
    def convert(*args, **options):
        raise raised

    monkeypatch.setattr("gemtp_native.cli.convert.convert", convert)
    assert call("convert", tmp_path, tmp_path / "out.gguf") == (code, "", sentence)
