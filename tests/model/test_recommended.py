"""The sampling that a model's file recommends: who takes it, and what goes before it."""

from __future__ import annotations

import io
import json
import math
import sys

import pytest

import gemtp_native as gemtp
from convert_folders import CONFIGS, keys_of, make_folder, run
from gemtp_native.errors import FileError
from gguf_bytes import F32, F64, I32, STRING, U32
from serving import serving
from tiny_files import sound_drafter, sound_target

ASK = [{"role": "user", "content": "the hand"}]
RECOMMENDED = {"temperature": 1.0, "top_k": 64, "top_p": 0.95}
LONG = {"max_tokens": 40, "ignore_eos": True}
KEYS = {"temp": (F32, 1.0), "top_k": (I32, 64), "top_p": (F32, 0.95)}


@pytest.fixture
def target(tmp_path):
    """Writes a tiny target with keys general.sampling.*, and gives its path."""

    def write(**keys):
        g = sound_target()
        for name, (kind, value) in keys.items():
            g.put(f"general.sampling.{name}", kind, value)
        path = tmp_path / f"target-{len(list(tmp_path.iterdir()))}.gguf"
        path.write_bytes(g.encode())
        return path

    return write


def test_chats_take_it_and_completions_do_not(target, tmp_path):
    (tmp_path / "drafter.gguf").write_bytes(sound_drafter().encode())
    model = gemtp.Model(target(**KEYS), drafter=tmp_path / "drafter.gguf", threads=1)
    assert model.sampling == RECOMMENDED
    assert list(map(type, model.sampling.values())) == [float, int, float]
    plain = gemtp.Model(target(), threads=1)
    assert plain.sampling == {}
    expected = plain.chat(ASK, **RECOMMENDED, **LONG).tokens
    greedy = plain.chat(ASK, **LONG).tokens
    assert expected != greedy
    assert model.chat(ASK, **LONG).tokens == expected
    assert model.chat(ASK, draft=3, temperature=None, top_k=None, **LONG).tokens == expected
    assert model.chat(ASK, temperature=0, **LONG).tokens == greedy
    changed = model.chat(ASK, top_k=3, min_p=0.2, seed=4, **LONG).tokens
    options = {**RECOMMENDED, "top_k": 3, "min_p": 0.2, "seed": 4}
    assert changed == plain.chat(ASK, **options, **LONG).tokens
    assert model.chat(ASK, seed=None, **LONG).stats.seed != 0
    assert model.generate("the hand", **LONG).tokens == plain.generate("the hand", **LONG).tokens
    with model.session() as session:
        session.append("the hand")
        assert session.generate(**LONG).tokens == plain.generate("the hand", **LONG).tokens


def test_every_key(target):
    keys = {
        **KEYS, "min_p": (F64, 0.05), "penalty_repeat": (F32, 1.1), "penalty_last_n": (U32, 64),
        "mirostat": (I32, 2), "sequence": (STRING, "kpt"),
    }  # fmt: skip
    model = gemtp.Model(target(**keys), threads=1)
    assert model.sampling == {
        **RECOMMENDED, "min_p": 0.05, "repetition_penalty": 1.1, "penalty_last_n": 64
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "kind", "value", "said"),
    [
        ("temp", F32, math.nan, "is nan but must be 0 (greedy) or a finite number above 0"),
        ("temp", F32, -1.0, "is -1 but must be"),
        ("temp", F64, 1e300, "is 1e+300, beyond single precision, but must be"),
        ("top_k", I32, -2, "is -2 but must be"),
        ("top_k", U32, 2**32 - 1, "is 4294967295 but must be"),
        ("top_p", F32, 1.5, "is 1.5 but must be at least 0"),
        ("min_p", F32, 1.0, "is 1 but must be at least 0 (off) and below 1"),
        ("penalty_repeat", F32, 0.0, "is 0 but must be"),
        ("penalty_last_n", I32, -9, "is -9 but must be"),
        ("top_p", STRING, "much", "a float"),
        ("top_k", F32, 64.0, "an integer"),
    ],
)
def test_wrong_values_are_said_when_the_file_is_opened(target, gemtp_main, key, kind, value, said):
    path = target(**{key: (kind, value)})
    with pytest.raises(gemtp.FileError) as error:
        gemtp.Model(path)
    assert f"key 'general.sampling.{key}'" in str(error.value)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    code, out, _ = gemtp_main("inspect", path)
    assert code == 0
    assert "general.sampling." in out
    assert out.count("problem") == 1


def test_the_command_line(target, gemtp_main, monkeypatch):
    path, plain = target(**KEYS), gemtp.Model(target(), threads=1)

    def chat(*more):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the hand")))
        code, out, _ = gemtp_main(
            "chat", path, "--chat", "--json", "--max-tokens", 20, "--threads", 1, *more
        )
        assert code == 0
        return json.loads(out)["tokens"]

    assert chat() == plain.chat(ASK, max_tokens=20, **RECOMMENDED).tokens
    assert chat("--temperature", 0) == plain.chat(ASK, max_tokens=20).tokens
    code, out, _ = gemtp_main("generate", path, "the hand", "--json", "--max-tokens", 20)
    assert json.loads(out)["tokens"] == plain.generate("the hand", max_tokens=20).tokens
    assert "  sampling    temperature 1, top_k 64, top_p 0.95; " in gemtp_main("inspect", path)[1]
    facts = json.loads(gemtp_main("inspect", path, "--json")[1])["files"][0]
    assert facts["sampling"] == RECOMMENDED
    for command in ("chat", "serve"):
        assert "what the model's file recommends" in gemtp_main(command, "--help")[1]


def test_the_server(target, tmp_path):
    plain = gemtp.Model(target(), threads=1)
    prompt = {"prompt": "the hand", "max_tokens": 30, "seed": 3, "ignore_eos": True}
    options = {"max_tokens": 30, "seed": 3, "ignore_eos": True}

    def text(**more):
        return plain.generate("the hand", **options, **more).text

    with serving(tmp_path, target(**KEYS), "--top-k", 9) as server:
        props = server.ask("/props").json
        assert props["model_sampling"] == RECOMMENDED
        defaults = props["default_generation_settings"]
        assert defaults.items() >= {**RECOMMENDED, "top_k": 9, "min_p": 0.0}.items()
        assert "as the model recommends: temperature 1, top_p 0.95" in server.log.read_text()
        chosen = {**RECOMMENDED, "top_k": 9}
        assert server.complete(**prompt)["choices"][0]["text"] == text(**chosen)
        assert server.complete(**prompt, temperature=0)["choices"][0]["text"] == text()
        asked = server.complete(**prompt, top_p=0.5, temperature=None)["choices"][0]["text"]
        assert asked == text(**{**chosen, "top_p": 0.5})
        reply = plain.chat(ASK, **options, **chosen)
        assert server.chat(ASK, **options)["choices"][0]["message"]["content"] == reply.content


def test_the_converter_takes_it_along(tmp_path):
    folder = make_folder(tmp_path, CONFIGS["31b"])
    file = folder / "generation_config.json"
    given = {"temperature": 1, "top_k": 64, "top_p": 0.95, "min_p": None, "do_sample": True}
    file.write_text(json.dumps({**given, "repetition_penalty": 1.05, "num_beams": 1}))

    def keys():
        found = keys_of(run(folder)[1])
        return {k: v for k, v in found.items() if k.startswith("general.sampling.")}

    assert keys() == {
        "general.sampling.temp": 1.0,
        "general.sampling.top_k": 64,
        "general.sampling.top_p": pytest.approx(0.95),
        "general.sampling.penalty_repeat": pytest.approx(1.05),
    }
    file.write_text(json.dumps({**given, "do_sample": False}))
    assert keys() == {}
    for key, value in (
        ("temperature", -1), ("temperature", True), ("temperature", "1"), ("top_k", 1.5),
        ("top_k", -2), ("top_p", 1.1), ("min_p", 1), ("repetition_penalty", 0), ("do_sample", 1),
        ("temperature", math.nan), ("temperature", [1]),
    ):  # fmt: skip
        file.write_text(json.dumps({**given, key: value}))
        with pytest.raises(FileError, match=f"generation_config.json: '{key}' is "):
            run(folder)
    file.unlink()
    assert keys() == {}


def test_a_drafter_has_none(tmp_path):
    folder = make_folder(tmp_path, CONFIGS["draft12b"])
    (folder / "generation_config.json").write_text('{"temperature": 1}')
    assert not [k for k in keys_of(run(folder)[1]) if "sampling" in k]
