"""gemtp.json: what is saved is what is loaded, and every mistake is one sentence with its key."""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemtp_native.errors import ArgumentError, FileError
from gemtp_native.export import (
    ENGINES,
    Configuration,
    Sampling,
    Source,
    export,
    load,
    parse,
    save,
)
from gemtp_native.export.schema import problem, schema

TARGET = Source("google/gemma-4-E2B-it", "e2b.gguf")
DRAFTER = Source("google/gemma-4-E2B-it-assistant", "e2b-drafter.gguf")
PAIR = Configuration(TARGET, DRAFTER, draft=4)
FULL = Configuration(
    TARGET, DRAFTER, "auto", 8192, 6, "f32", Sampling(256, 0.7, 64, 0.95, 0.05, 1.1, 0.2, 0.3, 42)
)


def test_what_is_saved_is_what_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    for c in (FULL, PAIR, Configuration(Source(gguf="/abs/x.gguf", litertlm="y.litertlm"))):
        save(c, "gemtp.json", force=True)
        assert load("gemtp.json") == c
        save(c, "conf/gemtp.json", force=True)
        data = json.loads((tmp_path / "conf" / "gemtp.json").read_text(encoding="utf-8"))
        if c is FULL:
            assert data["target"]["gguf"] == os.path.join("..", "e2b.gguf")
        assert set(data) == set(schema()["properties"]) - {"$schema"}
        again = load(Path("conf", "gemtp.json"))
        for part in (again.target, again.drafter):
            if part is not None and part.gguf is not None:
                here = c.target.gguf if part is again.target else c.drafter.gguf
                assert os.path.normpath(part.gguf) == here
    with pytest.raises(FileError, match="exists already"):
        save(PAIR, "gemtp.json")
    with pytest.raises(FileError, match="is a folder"):
        save(PAIR, "conf", force=True)
    with pytest.raises(FileError, match="cannot be written"):
        save(PAIR, "none/gemtp.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["conf", "gemtp.json"]


def test_paths_are_relative_to_the_file(tmp_path):
    data = {
        "target": {"hub": "./hf", "gguf": "t.gguf", "litertlm": "/abs/t.litertlm"},
        "drafter": {"hub": "google/x", "gguf": "sub/d.gguf"},
    }
    c = parse(data, folder=Path("models"))
    assert c.target == Source(
        os.path.join("models", "hf"), os.path.join("models", "t.gguf"), "/abs/t.litertlm"
    )
    assert c.drafter == Source("google/x", os.path.join("models", "sub", "d.gguf"))


def test_defaults_of_the_schema_are_those_of_python():
    c = asdict(parse({"target": {"hub": "a/b"}}))
    for name, inner in schema()["properties"].items():
        if "default" in inner and name not in ("sampling", "version"):
            assert c[name] == inner["default"], name
    for name, inner in schema()["properties"]["sampling"]["properties"].items():
        assert c["sampling"][name] == inner["default"], name


T = {"target": {"hub": "a/b"}}
GOOD = (
    T,
    {**T, "$schema": "gemtp.schema.json", "version": 1},
    {**T, "drafter": None, "threads": None, "draft": 0},
    {**T, "drafter": {"gguf": "d.gguf"}, "draft": 15, "context": 4096.0},
    {**T, "sampling": {}},
    {**T, "sampling": {"temperature": 1, "top_p": 0.5, "seed": 2**32 - 2}},
)
BAD = (
    ([], "it is []; it must be an object with $schema, version, target"),
    ({}, "target is missing"),
    ({"target": "a/b"}, 'target is "a/b"; it must be an object with hub, gguf, litertlm'),
    ({"target": {}}, "target is empty; it must have one of hub, gguf, litertlm"),
    ({"target": {"hub": ""}}, 'target.hub is ""; it must be a string'),
    ({"target": {"hub": "-x"}}, 'target.hub is "-x"; it must be a string that does not begin'),
    ({"target": {"gguf": "a\nb"}}, "target.gguf is"),
    ({"target": {"gguf": "a\n"}}, "target.gguf is"),
    ({"target": {"gguf": 3}}, "target.gguf is 3; it must be a string"),
    ({"target": {"guff": "x"}}, "target.guff is not a key; did you mean gguf?"),
    ({**T, "drafter": {"hub": 1}}, "drafter.hub is 1"),
    (
        {**T, "drafter": "x"},
        'drafter is "x"; it must be an object with hub, gguf, litertlm or null',
    ),
    ({**T, "darft": 3}, "darft is not a key; did you mean draft?"),
    ({**T, "zzz": 3}, "zzz is not a key; possible are $schema, version,"),
    ({**T, "draft": 16}, 'draft is 16; it must be "auto" or an integer from 0 to 15'),
    ({**T, "draft": True}, "draft is true"),
    ({**T, "draft": 2.5}, "draft is 2.5"),
    ({**T, "draft": "3"}, 'draft is "3"'),
    ({**T, "version": 2}, "version is 2; it must be 1"),
    ({**T, "version": True}, "version is true; it must be 1"),
    ({**T, "context": 0}, "context is 0; it must be an integer from 1 to"),
    ({**T, "threads": 0}, "threads is 0; it must be an integer from 1 to 1024 or null"),
    ({**T, "kv_type": "q8_0"}, 'kv_type is "q8_0"; it must be "f16" or "f32"'),
    ({**T, "sampling": None}, "sampling is null"),
    (
        {**T, "sampling": {"top_p": 0}},
        "sampling.top_p is 0; it must be a number above 0, at most 1",
    ),
    (
        {**T, "sampling": {"temperature": -1}},
        "sampling.temperature is -1; it must be a number from",
    ),
    ({**T, "sampling": {"temprature": 1}}, "temprature is not a key; did you mean temperature?"),
    ({**T, "sampling": {"seed": 2**64}}, "sampling.seed is 18446744073709551616"),
    ({**T, "sampling": {"min_p": "x" * 200}}, "..."),
)


@pytest.mark.parametrize("data", GOOD)
def test_good_files(data):
    assert parse(data).target == Source("a/b")
    assert type(parse(data).context) is int


@pytest.mark.parametrize(("data", "words"), BAD)
def test_bad_files(data, words):
    with pytest.raises(FileError) as e:
        parse(data)
    sentence = str(e.value)
    assert sentence.startswith("gemtp.json: ")
    assert words in sentence
    assert "\n" not in sentence
    assert len(sentence) < 300


def test_a_depth_needs_a_drafter():
    with pytest.raises(FileError, match="draft is 3, but there is no drafter"):
        parse({**T, "draft": 3})


def test_our_checker_agrees_with_jsonschema():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema())
    validator.check_schema(schema())
    for data in (*GOOD, *(data for data, _ in BAD)):
        assert validator.is_valid(data) == (problem(data, schema()) is None), data


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON"),
        (b'{"target": ', "is not JSON: Expecting value in line 1, column 12"),
        (b"\xff\xfe{", "it is not UTF-8"),
        (b'{"target": {"hub": "a"}, "target": {"hub": "b"}}', "'target' is there twice"),
        (b'{"target": {"hub": "a"}, "sampling": {"temperature": NaN}}', "NaN is not a number"),
        (b'{"target": {"hub": "a"}, "sampling": {"temperature": 1e999}}', "Infinity"),
        (b'{"target": {"hub": "a"}, "context": 1' + b"0" * 5000 + b"}", "gemtp.json"),
        (b"[" * 100_000, "too deep"),
        (b" " * (2 << 20), "too large"),
        (b"GGUF\x03\x00\x00\x00", "is not JSON"),
    ],
)
def test_unreadable_files(tmp_path, content, words):
    path = tmp_path / "gemtp.json"
    path.write_bytes(content)
    with pytest.raises(FileError, match=re.escape(words)) as e:
        load(path)
    assert "\n" not in str(e.value)


def test_files_that_are_none(tmp_path):
    for path, words in ((tmp_path / "none.json", "cannot be read"), (tmp_path, "is not a file")):
        with pytest.raises(FileError, match=words):
            load(path)


def test_a_byte_order_mark_is_no_trouble(tmp_path):
    path = tmp_path / "gemtp.json"
    path.write_text(json.dumps(T), encoding="utf-8-sig")
    assert load(path).target == Source("a/b")


_KEYS = st.sampled_from(
    [*schema()["properties"], *schema()["properties"]["sampling"]["properties"], "hub", "gguf", "x"]
)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["auto", "f32", 0, 1, 3]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(_KEYS, _VALUES), st.booleans())
def test_whatever_is_in_the_file(data, valid_target):
    """It is refused in one sentence, or every engine gets something or says what it needs."""
    if valid_target:
        data["target"] = {"hub": "a/b", "gguf": "c.gguf"}
    found = problem(data, schema())
    if found is not None:
        assert "\n" not in found
        with pytest.raises(FileError, match=re.escape(found)):
            parse(data)
        return
    with contextlib.suppress(FileError):  # a depth without a drafter
        configuration = parse(data)
        for engine in ENGINES:
            with contextlib.suppress(ArgumentError):
                export(configuration, engine)
