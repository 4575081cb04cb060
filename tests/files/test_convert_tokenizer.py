"""Tokenizers of tokenizer.json, tokenizer.model and of another model, and bad ones."""

from __future__ import annotations

import copy
import json
import struct
from pathlib import Path

import pytest

from convert_folders import (
    CONFIGS,
    PIECES,
    SPECIAL,
    VOCAB,
    add_tokenizer,
    gguf,
    keys_of,
    make_folder,
    run,
    tokenizer_json,
)
from gemtp_native.errors import ArgumentError, Error, FileError, ModelError
from gemtp_native.make.convert import convert
from gemtp_native.make.convert.sentencepiece_model import merges_of, read_sentencepiece


def tokenizer_keys(reader) -> dict:
    return {k: v for k, v in keys_of(reader).items() if k.startswith("tokenizer.")}


@pytest.mark.parametrize("pairs", [True, False])
def test_tokenizer_json(tmp_path, pairs):
    folder = add_tokenizer(
        make_folder(tmp_path, CONFIGS["31b"]), tokenizer_json(pairs), eos_token="<turn|>"
    )
    (folder / "chat_template.jinja").write_text("{{ 'ü' }}", "utf-8")
    (folder / "generation_config.json").write_text('{"suppress_tokens": [7, 8]}')
    result, reader = run(folder, tokenizer=True)
    keys = tokenizer_keys(reader)
    known = SPECIAL + ["<0x00>", "<0x0A>"] + PIECES
    padding = [f"[PAD{i}]" for i in range(len(known), VOCAB)]
    assert keys.pop("tokenizer.ggml.tokens") == known + padding
    types = [3] * 7 + [4, 3] + [6, 6] + [1] * 7 + [4] + [5] * len(padding)
    assert keys.pop("tokenizer.ggml.token_type") == types
    assert keys.pop("tokenizer.ggml.scores") == [-1000.0] * VOCAB
    assert keys == {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.merges": ["a b", "▁ ab", "\n \n"],
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 6,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.mask_token_id": 4,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.suppress_tokens": [7, 8],
        "tokenizer.chat_template": "{{ 'ü' }}",
    }
    assert result.notes == [f"vocabulary padded with {len(padding)} unused tokens to {VOCAB}"]


@pytest.mark.parametrize(
    "template", ["T", [{"name": "tool", "template": "X"}, {"name": "default", "template": "T"}]]
)
def test_chat_template_from_the_tokenizer_config(tmp_path, template):
    folder = add_tokenizer(make_folder(tmp_path, CONFIGS["31b"]), chat_template=template)
    _, reader = run(folder, tokenizer=True)
    assert keys_of(reader)["tokenizer.chat_template"] == "T"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, None), (1, None), ([1, 6], None), ([1, 6, 5], [1, 6, 5]), (5, [5]), ([], None),
    ],
)  # fmt: skip
def test_other_tokens_that_end_a_generation(tmp_path, value, written):
    """<eos> and <turn|> are found by their names."""
    folder = add_tokenizer(make_folder(tmp_path, CONFIGS["31b"]))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    _, reader = run(folder, tokenizer=True)
    assert keys_of(reader).get("tokenizer.ggml.eos_token_ids") == written
    for wrong in ("x", -1, [1, True], [10_000]):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": wrong}))
        with pytest.raises(FileError, match="'eos_token_id' must be token ids"):
            run(folder, tokenizer=True)


def test_added_tokens_that_strip_are_noted(tmp_path):
    data = tokenizer_json()
    data["added_tokens"][4]["lstrip"] = True
    data["added_tokens"][5]["rstrip"] = False
    result, _ = run(add_tokenizer(make_folder(tmp_path, CONFIGS["31b"]), data), tokenizer=True)
    (note,) = [n for n in result.notes if "strip" in n]
    assert note.endswith("not followed: '<mask>'")


@pytest.mark.parametrize("template", [5, {}, [5, {"name": []}], [{"name": "default"}]])
def test_what_is_no_chat_template_is_none(tmp_path, template):
    folder = add_tokenizer(make_folder(tmp_path, CONFIGS["31b"]), chat_template=template)
    result, reader = run(folder, tokenizer=True)
    assert any("no chat template written" in n for n in result.notes) == bool(template)
    assert "tokenizer.chat_template" not in keys_of(reader)


def test_a_drafter_borrows_the_tokenizer_of_its_target(tmp_path):
    target = add_tokenizer(make_folder(tmp_path, CONFIGS["31b"], name="target"))
    (target / "chat_template.jinja").write_text("T")
    drafter = make_folder(tmp_path, CONFIGS["draft"], name="drafter")
    convert(target, tmp_path / "target.gguf", progress=False)
    expected = tokenizer_keys(gguf.GGUFReader(tmp_path / "target.gguf"))
    assert len(expected) > 10
    for lender in (target, tmp_path / "target.gguf"):
        result, reader = run(drafter, tokenizer=True, target=lender)
        assert tokenizer_keys(reader) == expected
        assert result.tokenizer.startswith(str(lender))
    result, reader = run(drafter, tokenizer=True)
    assert tokenizer_keys(reader) == {}
    assert "no tokenizer" in result.notes[0]
    assert result.tokenizer is None


def test_a_lender_that_does_not_fit(tmp_path):
    drafter = make_folder(tmp_path, CONFIGS["draft"], name="drafter")

    def refused(target: Path, kind: type, match: str):
        with pytest.raises(kind, match=match):
            run(drafter, tokenizer=True, target=target)

    wide = copy.deepcopy(CONFIGS["31b"])
    wide["hidden_size"] = 96
    target = add_tokenizer(make_folder(tmp_path, wide, name="wide"))
    refused(target, ModelError, "hidden size 64, .* has 96")
    convert(target, tmp_path / "wide.gguf", progress=False)
    refused(tmp_path / "wide.gguf", ModelError, "hidden size 64, .* has 96")
    small = copy.deepcopy(CONFIGS["31b"])
    small["vocab_size"] = 32
    target = add_tokenizer(make_folder(tmp_path, small, name="small"))
    refused(target, ModelError, "64 tokens, .* one of 32")
    refused(drafter, FileError, "holds neither tokenizer.json nor tokenizer.model")
    refused(add_tokenizer(drafter), ModelError, "no Gemma 4 target")
    refused(tmp_path / "none", FileError, "neither a folder nor a GGUF")
    (tmp_path / "bad.gguf").write_bytes(b"GGML" + bytes(100))
    refused(tmp_path / "bad.gguf", FileError, "not a well-formed GGUF")
    data = (tmp_path / "wide.gguf").read_bytes()
    for size in (0, 3, 8, 20, 100, 1000, 3000):
        (tmp_path / "bad.gguf").write_bytes(data[:size])
        refused(tmp_path / "bad.gguf", FileError, "bad.gguf")
    with pytest.raises(ArgumentError, match="only a drafter"):
        run(target, tokenizer=True, target=target)


def change(**parts):
    def apply(data: dict) -> dict:
        data["model"] = {**data["model"], **parts}
        return data

    return apply


def merged(**parts):
    return lambda data: {**data, **parts}


def more_tokens(data: dict) -> dict:
    data["model"]["vocab"] |= {f"t{i}": i + 19 for i in range(60)}
    return data


BAD_TOKENIZERS = [
    (change(type="Unigram"), ModelError, "not a BPE"),
    (change(byte_fallback=False), ModelError, "byte_fallback"),
    (change(vocab=[1]), FileError, "'vocab' object"),
    (change(merges=["a b c"]), FileError, "merge 0 .* not a pair"),
    (change(merges=[["a", "zz"]]), FileError, "merge 0 uses 'zz'"),
    (change(vocab={"a": -1}), FileError, "id of token 'a' is -1"),
    (change(vocab={"a": 0, "b": 0}, merges=[]), FileError, "id 0 is given"),
    (change(vocab={"a": 1 << 25}, merges=[]), FileError, "ids go up to"),
    (change(vocab={"\ud800": 30}, merges=[]), FileError, "not valid Unicode"),
    (more_tokens, ModelError, "only 64"),
    (merged(normalizer={"type": "Prepend", "prepend": "▁"}), ModelError, "'Prepend'"),
    (merged(pre_tokenizer={"type": "ByteLevel"}), ModelError, "'ByteLevel'"),
    (merged(normalizer=None, pre_tokenizer=None), ModelError, "no step .* turns spaces"),
    (
        merged(normalizer={"type": "Metaspace", "prepend_scheme": "never", "replacement": "_"}),
        ModelError,
        "'Metaspace'",
    ),
    (change(ignore_merges=True), ModelError, "'ignore_merges' is true"),
    (change(dropout=0.1), ModelError, "'dropout' is 0.1"),
    (change(end_of_word_suffix="</w>"), ModelError, "'end_of_word_suffix' is \"</w>\""),
    (change(continuing_subword_prefix="##"), ModelError, "'continuing_subword_prefix'"),
    (merged(added_tokens=[{"id": 1, "content": "<bos>"}]), FileError, "two ids"),
    (merged(added_tokens=["x"]), FileError, "no 'content'"),
    (
        lambda d: merged(added_tokens=[])(change(vocab={"a": 0}, merges=[])(d)),
        ModelError,
        "no begin-of-sequence",
    ),
]


@pytest.mark.parametrize(("spoil", "kind", "match"), BAD_TOKENIZERS)
def test_bad_tokenizer_json(tmp_path, spoil, kind, match):
    folder = add_tokenizer(make_folder(tmp_path, CONFIGS["31b"]), spoil(tokenizer_json()))
    with pytest.raises(kind, match=match):
        run(folder, tokenizer=True)
    assert not (tmp_path / "out.gguf").exists()


def varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out + bytes([n]))


def message(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def sentencepiece_model(pieces, bpe=True, prefix=False, squeeze=False) -> bytes:
    out = b""
    for text, score, kind in pieces:
        body = message(1, text.encode()) + b"\x15" + struct.pack("<f", score)
        out += message(1, body + (b"" if kind == 1 else b"\x18" + varint(kind)))
    out += message(2, b"\x18" + varint(2 if bpe else 1))
    return out + message(3, b"\x18" + varint(prefix) + b"\x20" + varint(squeeze))


SPM = [
    ("<pad>", 0, 3),
    ("<eos>", 0, 3),
    ("<bos>", 0, 3),
    ("<unk>", 0, 2),
    ("<|turn>", 0, 4),
    ("▁▁", 0, 4),
    ("<0x00>", 0, 6),
    ("ab", -1, 1),
    ("▁ab", -2, 1),
    ("▁a", -3, 1),
    ("▁", -4, 1),
    ("a", -5, 1),
    ("b", -6, 1),
]


def test_sentencepiece_model(tmp_path):
    folder = make_folder(tmp_path, CONFIGS["31b"])
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(SPM))
    _, reader = run(folder, tokenizer=True)
    keys = tokenizer_keys(reader)
    assert keys["tokenizer.ggml.tokens"][: len(SPM)] == [text for text, _, _ in SPM]
    assert keys["tokenizer.ggml.token_type"][: len(SPM)] == [3, 3, 3, 2, 4, 1, 6] + [1] * 6
    # By score of the result, then the longer left part first.
    assert keys["tokenizer.ggml.merges"] == ["▁ ▁", "a b", "▁a b", "▁ ab", "▁ a"]
    assert keys["tokenizer.ggml.unknown_token_id"] == 3
    # tokenizer_config.json may mark tokens as special.
    added = {"4": {"content": "<|turn>", "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    _, reader = run(folder, tokenizer=True)
    assert keys_of(reader)["tokenizer.ggml.token_type"][4] == 3


def test_sentencepiece_models_that_split_otherwise(tmp_path):
    path = tmp_path / "tokenizer.model"
    good = sentencepiece_model(SPM)
    for data, kind, match in (
        (sentencepiece_model(SPM, bpe=False), ModelError, "not a BPE"),
        (sentencepiece_model(SPM, prefix=True), ModelError, "add_dummy_prefix"),
        (sentencepiece_model(SPM, squeeze=True), ModelError, "remove_extra_whitespaces"),
        (b"", FileError, "holds no pieces"),
        (b"\xff" * 40, FileError, "not a complete"),
    ):
        path.write_bytes(data)
        with pytest.raises(kind, match=match):
            read_sentencepiece(path)
    for size in range(len(good)):  # settings come last, so every prefix lacks something
        path.write_bytes(good[:size])
        with pytest.raises(Error):
            read_sentencepiece(path)


def test_merges_build_what_sentencepiece_builds(tmp_path):
    """Against the library, where it is there: the same tokens for every line of a module."""
    spm = pytest.importorskip("sentencepiece")
    tokenizers = pytest.importorskip("tokenizers")
    source = Path(json.__file__).with_name("decoder.py")
    spm.SentencePieceTrainer.train(
        input=str(source),
        model_prefix=str(tmp_path / "m"),
        vocab_size=600,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=["▁▁", "▁▁▁▁"],
        minloglevel=2,
    )
    pieces = read_sentencepiece(tmp_path / "m.model")
    processor = spm.SentencePieceProcessor(str(tmp_path / "m.model"))
    bpe = tokenizers.models.BPE(
        vocab={p.text: i for i, p in enumerate(pieces)},
        merges=merges_of(pieces),
        byte_fallback=True,
        fuse_unk=True,
        unk_token="<unk>",
    )
    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    for line in source.read_text().splitlines():
        assert tokenizer.encode(line).ids == processor.encode(line), line
