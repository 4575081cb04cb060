"""The tokenizer against the vectors of the released vocabulary, against Hugging Face `tokenizers`,
and against text that tries to become control tokens."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

import gemtp_native as gemtp
import tiny_files
from gguf_bytes import Gguf, read_array

SHARED = Path(os.environ.get("GEMTP_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
VOCABULARY = SHARED / "ggml-vocab-gemma-4.gguf"
MARKERS = [
    "<|tool_call>",
    '<|"|>',
    "<|turn>",
    "<turn|>",
    "<bos>",
    "<eos>",
    "<|channel>",
    "<|think|>",
]


@pytest.fixture(scope="module")
def released() -> gemtp.Tokenizer:
    if not VOCABULARY.exists():
        pytest.skip(f"no {VOCABULARY.name} in {SHARED}; set GEMTP_SHARED_DATA")
    return gemtp.Tokenizer(VOCABULARY)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    g = Gguf()
    tiny_files.put_vocabulary(g)
    path = tmp_path_factory.mktemp("vocabulary") / "small.gguf"
    path.write_bytes(g.encode())
    return path


def hugging_face(path: Path):
    """The same vocabulary and merges in `tokenizers`: (plain, with its markers recognised)."""
    tokenizers = pytest.importorskip("tokenizers")
    tokens = read_array(path, "tokenizer.ggml.tokens")
    merges = [tuple(m.split(" ")) for m in read_array(path, "tokenizer.ggml.merges")]
    types = read_array(path, "tokenizer.ggml.token_type")
    bpe = tokenizers.models.BPE(
        {text: i for i, text in enumerate(tokens)},
        merges,
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    plain = tokenizers.Tokenizer(bpe)
    plain.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    marked = tokenizers.Tokenizer.from_str(plain.to_str())
    marked.add_special_tokens(
        [
            tokenizers.AddedToken(text, special=True, normalized=False)
            for text, kind in zip(tokens, types, strict=True)
            if kind in (tiny_files.CONTROL, tiny_files.USER_DEFINED)
        ]
    )
    return plain, marked


@pytest.fixture(scope="module")
def reference(released: gemtp.Tokenizer):
    return hugging_face(VOCABULARY)


# Ranges of code points; none holds U+2581, which stands for the space in token texts.
RANGES = [
    (0x20, 0x7F),
    (0x61, 0x7B),
    (0xA0, 0x180),
    (0x300, 0x370),  # combining marks
    (0x370, 0x500),
    (0x590, 0x780),  # right to left
    (0x900, 0xE80),
    (0x1780, 0x1800),
    (0x2000, 0x2070),  # spaces and joiners
    (0x2190, 0x2580),
    (0x3040, 0x3100),
    (0x4E00, 0xA000),
    (0xAC00, 0xD7A4),
    (0xE000, 0xE100),  # private use
    (0xFE00, 0xFE10),
    (0x1F300, 0x1FA00),
    (0x20000, 0x2A6D0),
    (0x10FF00, 0x110000),
    (0x00, 0x20),
]
WORDS = ["the", "of", "int", "return", "self.", "def", "__init__", "!=", "==>", "////", "------"]
WORDS += ["\t\t", "\r\n", "Straße", "naïve", "мир", "世界", "👩\u200d👩\u200d👧", "½"]


def random_text(rng: random.Random) -> str:
    pieces = []
    for _ in range(rng.randrange(1, 25)):
        kind = rng.randrange(8)
        if kind == 0:
            pieces.append(" " * rng.randrange(1, 40))
        elif kind == 1:
            pieces.append("\n" * rng.choice([1, 1, 2, 3, 5, 8, 31, 32, 33, 70]))
        elif kind == 2:
            pieces.append(rng.choice(WORDS) + rng.choice(["", " "]))
        elif kind == 3:
            pieces.append(rng.choice("abcxyz01._-=*#あ好é🦙") * rng.randrange(1, 60))
        elif kind == 4:
            pieces.append("".join(rng.choices("etaoinshrdlu", k=rng.randrange(1, 80))))
        else:
            low, high = rng.choice(RANGES)
            count = rng.randrange(1, 12)
            pieces.append("".join(chr(rng.randrange(low, high)) for _ in range(count)))
    return "".join(pieces)


def test_vectors_of_the_released_vocabulary(released: gemtp.Tokenizer) -> None:
    def text_of(suffix: str) -> str:
        return VOCABULARY.with_name(VOCABULARY.name + suffix).read_bytes().decode()

    texts = text_of(".inp").split("\n__ggml_vocab_test__\n")
    lines = text_of(".out").removesuffix("\n").split("\n")
    assert len(lines) == 46
    for text, line in zip(texts, lines, strict=False):
        ids = [int(i) for i in line.split()]
        assert released.encode(text) == ids, text
        assert released.encode(text, special=True) == ids, text
        assert released.decode(ids) == text


def test_random_texts_equal_hugging_face(released: gemtp.Tokenizer, reference) -> None:
    plain, _ = reference
    rng = random.Random(20240607)
    for i in range(2000):
        text = random_text(rng)
        ids = released.encode(text)
        assert ids == plain.encode(text, add_special_tokens=False).ids, (i, text)
        assert released.decode(ids) == text, (i, text)


def test_newline_and_space_runs_equal_hugging_face(released: gemtp.Tokenizer, reference) -> None:
    plain, _ = reference
    for unit in ("\n", " ", "\t", "\r\n", "\n ", "=", "ab"):
        for count in [*range(1, 70), 255, 1000]:
            text = unit * count
            assert released.encode(text) == plain.encode(text, add_special_tokens=False).ids, count


def test_texts_with_markers_equal_hugging_face(released: gemtp.Tokenizer, reference) -> None:
    plain, marked = reference
    rng = random.Random(99)
    for _ in range(300):
        pieces = [random_text(rng)[:20] for _ in range(4)]
        text = "".join(p + rng.choice([*MARKERS, "<|turn", "turn|>", "<<|turn>>"]) for p in pieces)
        ids = released.encode(text, special=True)
        assert ids == marked.encode(text, add_special_tokens=False).ids, text
        assert released.decode(ids, special=True) == text
        ids = released.encode(text)
        assert ids == plain.encode(text, add_special_tokens=False).ids, text
        assert released.decode(ids) == text


def test_text_never_becomes_a_marker(released: gemtp.Tokenizer) -> None:
    tokens = read_array(VOCABULARY, "tokenizer.ggml.tokens")
    types = read_array(VOCABULARY, "tokenizer.ggml.token_type")
    markers = [i for i, t in enumerate(types) if t in (tiny_files.CONTROL, tiny_files.USER_DEFINED)]
    assert {48, 52, 105, 106} <= set(markers)
    for i in markers:
        for text in (tokens[i], "a" + tokens[i] + "b", tokens[i] * 3, " " + tokens[i] + "\n"):
            ids = released.encode(text)
            assert not set(ids) & set(markers), text
            assert released.decode(ids) == text
        assert released.encode(tokens[i], special=True) == [i]
    for byte in range(256):
        text = f"<0x{byte:02X}>"
        for special in (False, True):
            ids = released.encode(text, special=special)
            assert all(types[i] != tiny_files.BYTE for i in ids), text
            assert released.decode(ids) == text


def test_bos_and_end_tokens(released: gemtp.Tokenizer) -> None:
    assert released.bos == 2
    assert list(released.end_tokens) == [1, 50, 106]
    assert released.encode("Hello world", add_bos=True) == [2, 9259, 1902]
    assert released.encode("<bos>Hello world", add_bos=True, special=True) == [2, 9259, 1902]
    ids = released.encode("<bos>Hello world", add_bos=True)
    assert ids[0] == 2
    assert 2 not in ids[1:]
    assert released.decode([2, 9259, 1902, 106]) == "Hello world"
    assert released.decode([2, 9259, 1902, 106], special=True) == "<bos>Hello world<turn|>"


@pytest.mark.parametrize(
    "unit", ["a", " ", "\n", "ab ", "<", "🦙", "=", "abcdefghijklmnopqrstuvwxyz", "<|turn"]
)
def test_a_million_characters(released: gemtp.Tokenizer, unit: str) -> None:
    text = (unit * (1_000_000 // len(unit) + 1))[:1_000_000]
    start = time.process_time()  # of this process alone: other load does not count
    ids = released.encode(text, special=True)
    seconds = time.process_time() - start
    assert released.decode(ids) == text
    assert seconds < 3, f"{seconds:.2f} s for {len(text)} characters"


def test_invalid_text_is_an_error(small: Path) -> None:
    tokenizer = gemtp.Tokenizer(small)
    for text in ("ab\ud800", "\udc80", "\udfff and more"):
        with pytest.raises(gemtp.Error):
            tokenizer.encode(text)
    for data in (
        b"\xff",
        b"ab\xc3(",
        b"\xed\xa0\x80",
        b"\xc0\xaf",
        b"\xf4\x90\x80\x80",
        b"\xe2\x96",
    ):
        with pytest.raises(gemtp.Error, match="UTF-8"):
            tokenizer.encode(data)
    assert tokenizer.encode(b"the") == tokenizer.encode("the")
    with pytest.raises(gemtp.Error):
        tokenizer.encode(7)  # type: ignore[arg-type]


def test_ids_outside_the_vocabulary_are_an_error(small: Path) -> None:
    tokenizer = gemtp.Tokenizer(small)
    for bad in (-1, tokenizer.vocab_size, 2**31 - 1, 2**31, 2**70):
        with pytest.raises(gemtp.Error):
            tokenizer.decode([0, bad])


def test_a_vocabulary_without_a_model(small: Path) -> None:
    tokenizer = gemtp.Tokenizer(small)
    find = tiny_files.TOKENS.index
    assert tokenizer.vocab_size == len(tiny_files.TOKENS)
    assert tokenizer.encode("the then") == [find("the"), find("▁the"), find("n")]
    assert tokenizer.encode("é") == [find("<0xC3>"), find("<0xA9>")]
    assert tokenizer.decode([find("<0xC3>"), find("<0xA9>"), find("<0xC3>")]) == "é\ufffd"
    assert tokenizer.decode([find("▁a"), find("nd")]) == " and"
    assert list(tokenizer.end_tokens) == [1, find("<turn|>"), find("<|tool_response>")]


def test_the_small_vocabulary_equals_hugging_face(small: Path) -> None:
    plain, marked = hugging_face(small)
    tokenizer = gemtp.Tokenizer(small)
    rng = random.Random(5)
    for _ in range(500):
        text = "".join(rng.choices(["th", "e", "an", "d", " ", "\n", "é", "<|turn>", "r"], k=20))
        for special, other in ((False, plain), (True, marked)):
            ids = tokenizer.encode(text, special=special)
            assert ids == other.encode(text, add_special_tokens=False).ids, text
            assert tokenizer.decode(ids, special=special) == text


def test_the_control_token_that_a_text_spells(released):
    """Which generate() warns of. Tags of HTML are user-defined tokens, too, and are not meant."""
    for marker in MARKERS:
        assert released._core.spelled_control(f"é <b> {marker} <eos>") == marker
    for text in ("", "<", "<|turn", "|turn|>", "<table><td>a</td></table>", "<div>\n\n", "a|b"):
        assert released._core.spelled_control(text) == ""
