"""The `gemma4` tokenizer of a model folder or of another GGUF, as GGUF metadata.

Conventions are those of llama.cpp's files: all scores are -1000 (merges rank by position), tokens
that a chat parser must see are user-defined, other special tokens are control.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...base.input_file import read_text_input
from ...base.whole_number import whole_number
from ...errors import FileError, ModelError
from ...gguf.file import Metadata, read_metadata
from ...gguf.impostor import refuse_impostor
from . import sentencepiece_model as sp
from .config import read_json_object

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

# Special tokens that stay visible in decoded text, so that it can be parsed.
_VISIBLE = frozenset(
    (
        "<|channel>",
        "<channel|>",
        "<|tool_call>",
        "<tool_call|>",
        "<|tool_response>",
        "<tool_response|>",
        '<|"|>',
    )
)
_ENDS = (b"<turn|>", b"<|tool_response>")
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_SCORE = -1000.0

# role -> (GGUF key, usual text)
_ROLES = {
    "bos": ("tokenizer.ggml.bos_token_id", "<bos>"),
    "eos": ("tokenizer.ggml.eos_token_id", "<eos>"),
    "unk": ("tokenizer.ggml.unknown_token_id", "<unk>"),
    "pad": ("tokenizer.ggml.padding_token_id", "<pad>"),
    "mask": ("tokenizer.ggml.mask_token_id", "<mask>"),
}
FILES = ("tokenizer.json", "tokenizer.model")


@dataclass
class Tokenizer:
    source: Path
    tokens: list[bytes]
    types: list[int]
    merges: list[bytes]  # "left right"
    ids: dict[str, int] = field(default_factory=dict)  # role -> id
    chat_template: bytes | None = None
    suppress: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)  # ids that end a generation, beside eos
    notes: list[str] = field(default_factory=list)

    def fit(self, vocab: int) -> int:
        """Pads to `vocab` tokens; returns how many were added. ModelError if there are too many."""
        count = len(self.tokens)
        if count > vocab:
            raise ModelError(
                f"{self.source} has {count} tokens, the model only {vocab}: the tokenizer belongs "
                f"to another model."
            )
        known = set(self.tokens)
        for i in range(count, vocab):
            text = b"[PAD%d]" % i
            if text in known:
                raise ModelError(f"{self.source} has a token {text.decode()}, a name for padding.")
            self.tokens.append(text)
            self.types.append(UNUSED)
        return vocab - count

    def write(self, out: Metadata) -> None:
        out.string("tokenizer.ggml.model", "gemma4")
        out.string_array("tokenizer.ggml.tokens", self.tokens)
        out.f32_array("tokenizer.ggml.scores", [_SCORE] * len(self.tokens))
        out.i32_array("tokenizer.ggml.token_type", self.types)
        out.string_array("tokenizer.ggml.merges", self.merges)
        for role, (key, _) in _ROLES.items():
            if role in self.ids:
                out.u32(key, self.ids[role])
        if self.chat_template is not None:
            out.string("tokenizer.chat_template", self.chat_template)
        out.boolean("tokenizer.ggml.add_space_prefix", False)
        out.boolean("tokenizer.ggml.add_bos_token", True)
        if self.suppress:
            out.i32_array("tokenizer.ggml.suppress_tokens", self.suppress)
        if self.ends:
            out.i32_array("tokenizer.ggml.eos_token_ids", self.ends)


def has_tokenizer(model_dir: Path) -> bool:
    return any((model_dir / name).is_file() for name in FILES)


def tokenizer_from_folder(model_dir: Path, config_ids: dict[str, int]) -> Tokenizer:
    """Reads tokenizer.json, else tokenizer.model. config_ids: ids that config.json names."""
    settings = _optional_json(model_dir / "tokenizer_config.json")
    path = model_dir / "tokenizer.json"
    if path.is_file():
        tokenizer = _from_json(path)
    else:
        path = model_dir / "tokenizer.model"
        if not path.is_file():
            raise FileError(f"{model_dir} holds neither {' nor '.join(FILES)}.")
        tokenizer = _from_sentencepiece(path, settings)
    _find_roles(tokenizer, [settings, _optional_json(model_dir / "special_tokens_map.json")])
    for role, index in config_ids.items():
        if index < len(tokenizer.tokens):
            tokenizer.ids.setdefault(role, index)
    _demand_bos(tokenizer)
    tokenizer.chat_template = _chat_template(model_dir, settings)
    if tokenizer.chat_template is None and settings.get("chat_template"):
        tokenizer.notes.append(
            "no chat template written: what tokenizer_config.json has is no text, and none is "
            "called default"
        )
    tokenizer.suppress = _suppressed(model_dir, len(tokenizer.tokens))
    tokenizer.ends = _ends(model_dir, tokenizer)
    return tokenizer


def tokenizer_from_gguf(path: Path, values: dict[str, Any] | None = None) -> Tokenizer:
    """Returns the tokenizer of another GGUF. values: its metadata, if already read."""
    values = read_metadata(path) if values is None else values
    model = values.get("tokenizer.ggml.model")
    if model is None:
        raise FileError(f"{path} holds no tokenizer.")
    if model != b"gemma4":
        raise ModelError(f"{path} holds a tokenizer of type {model!r}, not gemma4.")

    def strings(key: str) -> list[bytes]:
        value = values.get(key)
        if not isinstance(value, list) or not value:
            raise FileError(f"{path}: '{key}' must be a list of strings.")
        for text in value:
            try:
                text.decode("utf-8")
            except UnicodeDecodeError as e:
                raise FileError(f"{path}: '{key}' holds text that is not UTF-8.") from e
        return value

    tokens = strings("tokenizer.ggml.tokens")
    types = values.get("tokenizer.ggml.token_type")
    if types is None or getattr(types, "dtype", None) is None or len(types) != len(tokens):
        raise FileError(f"{path}: 'tokenizer.ggml.token_type' must have one entry per token.")
    tokenizer = Tokenizer(path, tokens, [int(t) for t in types], strings("tokenizer.ggml.merges"))
    for role, (key, _) in _ROLES.items():
        index = values.get(key)
        if index is not None:
            if not isinstance(index, int) or not 0 <= index < len(tokens):
                raise FileError(f"{path}: '{key}' is not the id of a token.")
            tokenizer.ids[role] = index
    _demand_bos(tokenizer)
    template = values.get("tokenizer.chat_template")
    tokenizer.chat_template = template if isinstance(template, bytes) else None
    suppress = values.get("tokenizer.ggml.suppress_tokens")
    if suppress is not None and getattr(suppress, "dtype", None) is not None:
        tokenizer.suppress = [int(i) for i in suppress if 0 <= i < len(tokens)]
    return tokenizer


def _from_json(path: Path) -> Tokenizer:
    data = read_json_object(path)
    model = data.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        raise ModelError(f"{path} is not a BPE tokenizer, which the gemma4 tokenizer must be.")
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict) or not vocab or not isinstance(merges, list):
        raise FileError(f"{path}: 'model' must have a 'vocab' object and a 'merges' list.")
    if not model.get("byte_fallback"):
        raise ModelError(f"{path}: 'byte_fallback' is off; the gemma4 tokenizer depends on it.")
    for key in ("ignore_merges", "continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(key):
            raise ModelError(
                f"{path}: '{key}' is {json.dumps(model[key])[:80]}, which makes other tokens of a "
                f"text; the gemma4 tokenizer has nothing like it."
            )
    _check_normalizer(path, data)

    ids: dict[str, int] = {}
    for text, index in vocab.items():
        ids[text] = _token_id(path, text, index)
    kinds: dict[str, int] = {}
    stripping: list[str] = []
    added = data.get("added_tokens")
    for entry in added if isinstance(added, list) else []:
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise FileError(f"{path}: an entry of 'added_tokens' has no 'content'.")
        text = entry["content"]
        index = _token_id(path, text, entry.get("id"))
        if ids.setdefault(text, index) != index:
            raise FileError(f"{path}: token {text!r} has two ids, {ids[text]} and {index}.")
        if any(entry.get(flag) is True for flag in ("lstrip", "rstrip", "single_word")):
            stripping.append(text)
        # Runs of white space are built by merges; all other added tokens match as a whole.
        plain = not entry.get("special") and not text.replace("▁", " ").strip()
        kinds[text] = NORMAL if plain else CONTROL if entry.get("special") else USER_DEFINED

    size = max(ids.values()) + 1
    if size > 2 * len(ids) + 1024:
        raise FileError(f"{path}: ids go up to {size - 1} for {len(ids)} tokens.")
    texts: list[str | None] = [None] * size
    for text, index in ids.items():
        if texts[index] is not None:
            raise FileError(f"{path}: id {index} is given to {texts[index]!r} and to {text!r}.")
        texts[index] = text
    tokens, types = [], []
    for index, known in enumerate(texts):
        text = f"[PAD{index}]" if known is None else known
        tokens.append(_utf8(path, text))
        types.append(UNUSED if known is None else _kind(text, kinds.get(text, NORMAL)))
    tokenizer = Tokenizer(path, tokens, types, _merges(path, merges, ids))
    if stripping:
        tokenizer.notes.append(
            f"'lstrip', 'rstrip' and 'single_word' of added tokens are not followed: "
            f"{', '.join(map(repr, stripping[:5]))}{', …' if len(stripping) > 5 else ''}"
        )
    unk = model.get("unk_token")
    if isinstance(unk, str) and unk in ids:
        tokenizer.ids["unk"] = ids[unk]
    return tokenizer


def _from_sentencepiece(path: Path, settings: dict[str, Any]) -> Tokenizer:
    pieces = sp.read_sentencepiece(path)
    texts = [p.text for p in pieces]
    if len(set(texts)) != len(texts):
        raise FileError(f"{path} holds the same piece twice.")
    kinds = {
        # User-defined runs of white space are built by merges like other tokens.
        p.text: NORMAL
        if p.kind == USER_DEFINED and not p.text.replace("▁", " ").strip()
        else p.kind
        for p in pieces
    }
    added = settings.get("added_tokens_decoder")
    extra: dict[int, str] = {}
    if isinstance(added, dict):
        for index, entry in added.items():
            text = entry.get("content") if isinstance(entry, dict) else None
            at = whole_number(index)
            if not isinstance(text, str) or at is None:
                continue
            if at < len(texts):
                if texts[at] != text:
                    raise FileError(
                        f"{path} has {texts[at]!r} as token {index}, tokenizer_config.json "
                        f"has {text!r}."
                    )
            else:
                extra[at] = text
            if entry.get("special") and kinds.get(text) != UNKNOWN:
                kinds[text] = CONTROL
            else:
                kinds.setdefault(text, USER_DEFINED)
    for index in sorted(extra):
        if index != len(texts):
            break
        texts.append(extra[index])
    tokens = [_utf8(path, text) for text in texts]
    types = [_kind(text, kinds[text]) for text in texts]
    merges = [_utf8(path, f"{left} {right}") for left, right in sp.merges_of(pieces)]
    tokenizer = Tokenizer(path, tokens, types, merges)
    for index, piece in enumerate(pieces):
        if piece.kind == UNKNOWN:
            tokenizer.ids["unk"] = index
    return tokenizer


def _kind(text: str, kind: int) -> int:
    if _BYTE_TOKEN.fullmatch(text):
        return BYTE
    return USER_DEFINED if text in _VISIBLE else kind


def _token_id(path: Path, text: str, index: Any) -> int:
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < 1 << 26:
        raise FileError(f"{path}: the id of token {text!r} is {index!r}.")
    return index


def _utf8(path: Path, text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise FileError(f"{path}: token {text!r} is not valid Unicode.") from e


def _merges(path: Path, merges: list[Any], ids: dict[str, int]) -> list[bytes]:
    """Returns merges as "a b", whether they are spelled "a b" or ["a", "b"]."""
    out = []
    for rank, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if (
            not isinstance(parts, list)
            or len(parts) != 2
            or not all(isinstance(p, str) and p and " " not in p for p in parts)
        ):
            raise FileError(f"{path}: merge {rank} ({str(merge)[:80]!r}) is not a pair of tokens.")
        for part in (parts[0], parts[1], parts[0] + parts[1]):
            if part not in ids:
                raise FileError(f"{path}: merge {rank} uses {part!r}, which is not a token.")
        out.append(_utf8(path, f"{parts[0]} {parts[1]}"))
    return out


def _check_normalizer(path: Path, data: dict[str, Any]) -> None:
    """Rejects settings that split text differently: at run time only spaces become ▁."""
    steps: list[Any] = []
    for key in ("normalizer", "pre_tokenizer"):
        step = data.get(key)
        if isinstance(step, dict) and step.get("type") == "Sequence":
            inner = step.get(f"{key}s", step.get("pretokenizers"))
            steps += inner if isinstance(inner, list) else [step]
        elif step is not None:
            steps.append(step)
    if not steps:
        raise ModelError(
            f"{path}: no step of its normalizer or pre-tokenizer turns spaces into ▁, as the "
            f"gemma4 tokenizer does."
        )
    for step in steps:
        kind = step.get("type") if isinstance(step, dict) else None
        pattern = step.get("pattern") if isinstance(step, dict) else None
        ok = (
            (kind == "Replace" and pattern == {"String": " "} and step.get("content") == "▁")
            or (kind == "Split" and pattern == {"String": " "})
            or (
                kind == "Metaspace"
                and step.get("prepend_scheme") == "never"
                and step.get("replacement", "▁") == "▁"
            )
        )
        if not ok:
            raise ModelError(
                f"{path}: step {kind!r} of its normalizer or pre-tokenizer is unknown; the gemma4 "
                f"tokenizer only turns spaces into ▁."
            )


def _find_roles(tokenizer: Tokenizer, settings: list[dict[str, Any]]) -> None:
    index = {token: i for i, token in enumerate(tokenizer.tokens)}
    for role, (_, usual) in _ROLES.items():
        for values in settings:
            token = values.get(f"{role}_token")
            if isinstance(token, dict):
                token = token.get("content")
            if isinstance(token, str) and token.encode("utf-8", "replace") in index:
                tokenizer.ids[role] = index[token.encode("utf-8", "replace")]
                break
        if role not in tokenizer.ids and usual.encode() in index:
            tokenizer.ids[role] = index[usual.encode()]


def _demand_bos(tokenizer: Tokenizer) -> None:
    if "bos" not in tokenizer.ids:
        raise ModelError(
            f"{tokenizer.source} names no begin-of-sequence token; every gemma4 prompt starts with "
            f"one (bos_token in tokenizer_config.json)."
        )


def _chat_template(model_dir: Path, settings: dict[str, Any]) -> bytes | None:
    path = model_dir / "chat_template.jinja"
    template: Any = None
    if path.is_file():
        template = read_text_input(path, pipe=False)
        refuse_impostor(path)
    else:
        template = settings.get("chat_template")
        if template is None:
            template = _optional_json(model_dir / "chat_template.json").get("chat_template")
        if isinstance(template, list):  # several templates by name
            named = [t for t in template if isinstance(t, dict) and t.get("name") == "default"]
            template = named[0].get("template") if named else None
    return template.encode("utf-8", "replace") if isinstance(template, str) else None


def _suppressed(model_dir: Path, count: int) -> list[int]:
    path = model_dir / "generation_config.json"
    tokens = _optional_json(path).get("suppress_tokens")
    if tokens is None:
        return []
    if not isinstance(tokens, list) or any(
        isinstance(t, bool) or not isinstance(t, int) or not 0 <= t < count for t in tokens
    ):
        raise FileError(f"{path}: 'suppress_tokens' must be a list of token ids below {count}.")
    return tokens


def _ends(model_dir: Path, tokenizer: Tokenizer) -> list[int]:
    """Returns the ids that end a generation by `generation_config.json`, if they are others than
    those that every reader finds by name."""
    path = model_dir / "generation_config.json"
    value = _optional_json(path).get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    count = len(tokenizer.tokens)
    if any(isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < count for i in ids):
        raise FileError(f"{path}: 'eos_token_id' must be token ids below {count}.")
    named = {i for i, text in enumerate(tokenizer.tokens) if text in _ENDS}
    named.add(tokenizer.ids.get("eos", -1))
    return ids if set(ids) - named else []


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.is_file() else {}
