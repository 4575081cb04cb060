"""Corpus and tokenizer of the demo pair.

The corpus is the Python standard library of the interpreter that runs this file, and the sources of
any packages given as wheels. Only the library has a held-out part, for measurements. The tokenizer
is a SentencePiece BPE model in Gemma's style, written in the two forms a Gemma folder has
(`tokenizer.model` and `tokenizer.json`).
"""

from __future__ import annotations

import hashlib
import json
import lzma
import sysconfig
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gemtp_native.base.whole_file import replacing

# Directories that are data rather than code, or that are not part of the library.
SKIPPED_DIRS = {"site-packages", "dist-packages", "__pycache__", "encodings", "pydoc_data"}
# Written at build time, with the paths of the machine that built the interpreter.
SKIPPED_PREFIXES = ("_sysconfigdata", "_sysconfig_vars")
HELD_OUT_PERCENT = 3
PACKAGES = "packages/"  # prefix of the names of files from wheels
MAX_FILE = 200_000  # characters; longer files of packages are tables

RESERVED = ["<pad>", "<eos>", "<bos>", "<unk>"]  # ids 0, 1, 2, 3
CONTROL = [
    "<mask>",  # id 4
    "<|tool>",
    "<tool|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    '<|"|>',
    "<|think>",
    "<|channel>",
    "<channel|>",
    "<|turn>",
    "<turn|>",
]
SPACE = "\u2581"
# Runs of white space that are one token each. Nothing else contains a newline, so that text may be
# split at newlines before encoding without a change of the result.
RUNS = (
    ["\n" * n for n in range(1, 9)]
    + ["\t" * n for n in range(1, 5)]
    + [SPACE * n for n in range(2, 33)]
)

# <bos> always comes first; a turn is `<|turn>role\ncontent<turn|>\n`; tool results are input for
# the model and therefore inside its turn.
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{{- '<|turn>' + role + '\\n' + (message['content'] | trim) + '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|turn>model\\n' -}}
{%- endif -%}
"""


@dataclass(frozen=True)
class Document:
    """One source file."""

    name: str  # path relative to the library's root, or PACKAGES and the path in a wheel
    text: str

    @property
    def held_out(self) -> bool:
        """Whether the file is held out: about 3% of the library's files, chosen by a hash of the
        name."""
        if self.name.startswith(PACKAGES):
            return False
        digest = hashlib.sha256(self.name.encode()).digest()
        return int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT

    @property
    def is_test(self) -> bool:
        """Whether the file is one of the library's tests, which outweigh the library itself."""
        return any(part in ("test", "tests") for part in self.name.split("/")[:-1])


def read_corpus(root: Path | None = None) -> list[Document]:
    """Return the library's sources sorted by name; files that are not plain UTF-8 are left out."""
    root = root or Path(sysconfig.get_path("stdlib"))
    documents = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if relative.name.startswith(SKIPPED_PREFIXES):
            continue
        if any(part in SKIPPED_DIRS or part.startswith("config-") for part in relative.parts[:-1]):
            continue
        try:
            text = plain_text(path.read_bytes())
        except OSError:
            continue
        if text is not None:
            documents.append(Document(relative.as_posix(), text))
    if not documents:
        raise SystemExit(f"No Python sources found in {root}: the demo is trained on them.")
    return documents


def plain_text(content: bytes) -> str | None:
    """The text of a source file, or None if it isn't plain, mostly ASCII text."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    ascii_share = sum(c < "\x80" for c in text) / max(1, len(text))
    if "\r" in text or "\0" in text or not text.strip() or ascii_share < 0.95:
        return None
    return text


def read_packages(wheels: Iterable[Path], library: list[Document]) -> list[Document]:
    """The sources in wheels, without their tests, duplicates, and copies of held-out files.

    A file counts as a copy if more than a fifth of its longer lines stand in held-out files too:
    packages carry backports of the library's modules.
    """

    def long_lines(text: str) -> list[str]:
        return [line for raw in text.split("\n") if len(line := raw.strip()) > 30]

    held_out = {line for d in library if d.held_out for line in long_lines(d.text)}
    seen, documents = set(), []
    for wheel in sorted(wheels):
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                document = Document(PACKAGES + name, "")
                if not name.endswith(".py") or document.is_test:
                    continue
                text = plain_text(archive.read(name))
                if text is None or len(text) > MAX_FILE or text in seen:
                    continue
                lines = long_lines(text)
                if 5 * sum(line in held_out for line in lines) > len(lines):
                    continue
                seen.add(text)
                documents.append(Document(document.name, text))
    return documents


def save_corpus(documents: list[Document], path: Path) -> None:
    """Write the corpus to one file, for stages that run elsewhere."""
    with replacing(path) as whole, lzma.open(whole, "wt", encoding="utf-8", preset=4) as file:
        json.dump([[d.name, d.text] for d in documents], file, ensure_ascii=False)


def load_corpus(path: Path) -> list[Document]:
    """Read what `save_corpus` wrote."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [Document(name, text) for name, text in json.load(file)]


def corpus_digest(documents: list[Document]) -> str:
    """Short fingerprint that shows whether two runs used the same sources."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.name.encode() + b"\0" + document.text.encode() + b"\0")
    return digest.hexdigest()[:16]


def train_sentencepiece(documents: list[Document], vocab_size: int, prefix: Path) -> Path:
    """Train the BPE model on the lines of the training files and return the path of the .model."""
    import sentencepiece

    # Lines, not files: a newline is then never inside a learnt piece.
    lines = [
        line
        for document in documents
        if not (document.held_out or document.name.startswith(PACKAGES))
        for line in document.text.split("\n")
        if line.strip()
    ]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(prefix),
        model_type="bpe",
        vocab_size=vocab_size,
        character_coverage=0.9998,
        byte_fallback=True,
        split_digits=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece=RESERVED[0],
        eos_piece=RESERVED[1],
        bos_piece=RESERVED[2],
        unk_piece=RESERVED[3],
        control_symbols=CONTROL,
        user_defined_symbols=RUNS,
        num_threads=2,
        minloglevel=2,
    )
    return prefix.with_suffix(".model")


def merges_of(pieces: dict[str, int], user_defined: set[str]) -> list[tuple[str, str]]:
    """Recover BPE merges from a piece table whose ids are in the order in which they were learnt.

    A piece may come about by any split into two pieces. Splits are ranked by their product, as
    SentencePiece does, with the runs of white space first, since it matches those before all else.
    """
    merges = []
    for piece, rank in pieces.items():
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        splits = [(a, b) for a, b in splits if a in pieces and b in pieces]
        splits.sort(key=lambda pair: (pieces[pair[0]], pieces[pair[1]]))
        product_order = (piece not in user_defined, len(piece) if piece in user_defined else rank)
        merges.extend((product_order, pair) for pair in splits)
    merges.sort(key=lambda entry: entry[0])  # stable: the order of splits stays
    return [pair for _, pair in merges]


def write_tokenizer(model_file: Path, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and the chat template for a .model file."""
    import sentencepiece
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    sp = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    vocab = {sp.id_to_piece(i): i for i in range(sp.get_piece_size())}
    user_defined = set(RUNS)
    mergeable = {
        piece: i
        for piece, i in vocab.items()
        if not (sp.is_control(i) or sp.is_unknown(i) or sp.is_byte(i))
    }
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=merges_of(mergeable, user_defined),
            byte_fallback=True,
            unk_token="<unk>",
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    specials = [AddedToken(t, special=True, normalized=False) for t in RESERVED + CONTROL]
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    settings = {
        "tokenizer_class": "GemmaTokenizer",
        "pad_token": "<pad>",
        "eos_token": "<eos>",
        "bos_token": "<bos>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def build_tokenizer(documents: list[Document], vocab_size: int, folder: Path) -> None:
    """Train the tokenizer into `folder`, unless an earlier run has left one there."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "tokenizer.json").exists():
        return
    model_file = train_sentencepiece(documents, vocab_size, folder / "tokenizer")
    (folder / "tokenizer.vocab").unlink(missing_ok=True)
    write_tokenizer(model_file, folder)


def compare_tokenizers(documents: list[Document], folder: Path) -> dict[str, float]:
    """Count how often tokenizer.json and tokenizer.model agree on held-out lines."""
    import sentencepiece
    from tokenizers import Tokenizer

    sp = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    hf = Tokenizer.from_file(str(folder / "tokenizer.json"))
    held_out = [d for d in documents if d.held_out]
    lines = [line for d in held_out for line in d.text.splitlines(keepends=True)]
    encoded = [e.ids for e in hf.encode_batch(lines, add_special_tokens=False)]
    same = sum(a == b for a, b in zip(encoded, sp.encode(lines), strict=True))
    tokens = sum(map(len, encoded))
    return {
        "held_out_lines": len(lines),
        "equal_lines": same,
        "held_out_files": len(held_out),
        "equal_files": sum(
            hf.encode(d.text, add_special_tokens=False).ids == sp.encode(d.text) for d in held_out
        ),
        "characters_per_token": sum(map(len, lines)) / tokens,
    }


@dataclass
class TokenStream:
    """Token ids of many files in a row, each ended by <eos>.

    `starts` holds the positions at which a line begins, which is where training windows start,
    as a user's prompt does.
    """

    ids: np.ndarray  # [n] int64
    starts: np.ndarray  # [lines] int64

    def window(self, start: int, length: int) -> np.ndarray:
        """Return <bos> and the `length` - 1 tokens from `start` on: [length] int64."""
        return np.concatenate([[2], self.ids[start : start + length - 1]])


def encode_stream(documents: list[Document], folder: Path) -> TokenStream:
    """Encode documents with tokenizer.json (the form that the runtime follows)."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    newlines = [tokenizer.token_to_id("\n" * n) for n in range(1, 9)]
    parts = []
    for first in range(0, len(documents), 256):
        texts = [d.text for d in documents[first : first + 256]]
        encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        parts += [np.asarray([*e.ids, 1], dtype=np.int64) for e in encoded]
    ids = np.concatenate(parts)
    begins_line = np.isin(ids, [*newlines, 1])
    starts = np.concatenate([[0], np.flatnonzero(begins_line)[:-1] + 1])
    return TokenStream(ids, starts)


def training_stream(documents: list[Document], folder: Path) -> TokenStream:
    """Training files: the library's modules twice, so that its tests don't rule; the rest once."""
    train = [d for d in documents if not d.held_out]
    modules = [d for d in train if not (d.is_test or d.name.startswith(PACKAGES))]
    return encode_stream(train + modules, folder)


def held_out_stream(documents: list[Document], folder: Path) -> TokenStream:
    """The files kept out of training."""
    return encode_stream([d for d in documents if d.held_out], folder)
