"""What a file has and nothing computes with: the same as what is used, or read by nothing in
transformers either, it may go; anything else is used, or refused by a sentence."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gemtp_native as gemtp
import tiny_files
from convert_folders import (
    CONFIGS,
    add_tokenizer,
    make_folder,
    make_tensors,
    run,
    text_of,
    values_of,
)
from gemtp_native.errors import FileError, ModelError
from gemtp_native.make.cluster import cluster
from gemtp_native.make.quantize import quantize, read_imatrix
from gguf_bytes import T_F32, T_I32, U32, Gguf, Tensor, random_tensor

PROMPT = [2, 105, 263, 264, 270]
H = tiny_files.HIDDEN

# ---------------------------------------------------------------- folders


def embedding_of(tensors: dict[str, np.ndarray]) -> str:
    (name,) = [n for n in tensors if n.endswith(".embed_tokens.weight")]
    return name


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_head_beside_the_embedding(kind: str, tmp_path: Path) -> None:
    """As transformers: "both are present in the checkpoints with different values, so we will NOT
    tie them"."""
    tensors = make_tensors(CONFIGS[kind])
    embedding = tensors[embedding_of(tensors)]
    same = {**tensors, "lm_head.weight": embedding.copy()}
    result, reader = run(make_folder(tmp_path, CONFIGS[kind], same))
    assert "output.weight" not in values_of(reader)
    assert result.left_out["tied head"] == ["lm_head.weight"]
    assert result.notes == []

    other = embedding.copy()
    other[-1, -1] += 1
    result, reader = run(make_folder(tmp_path, CONFIGS[kind], {**tensors, "lm_head.weight": other}))
    assert np.array_equal(values_of(reader)["output.weight"], other)
    assert np.array_equal(values_of(reader)["token_embd.weight"], embedding)
    assert "tied head" not in result.left_out
    assert [n for n in result.notes if "lm_head.weight differs from" in n] == result.notes != []

    # "we swap source and target so we can still tie everything to the parameter that exists"
    del same[embedding_of(tensors)]
    _, reader = run(make_folder(tmp_path, CONFIGS[kind], same))
    assert np.array_equal(values_of(reader)["token_embd.weight"], embedding)


def test_keys_and_values_that_nothing_reads(tmp_path: Path) -> None:
    """transformers ignores them in layers that share the K/V of others."""
    tensors = make_tensors(CONFIGS["e2b"])
    p = "model.language_model.layers.5.self_attn."
    extra = {p + f"{n}.weight": np.ones(3, np.float32) for n in ("k_proj", "v_proj", "k_norm")}
    result, _ = run(make_folder(tmp_path, CONFIGS["e2b"], tensors | extra))
    assert sorted(result.left_out["shared key/value"]) == sorted(extra)


def test_values_beside_keys_that_are_their_values(tmp_path: Path) -> None:
    tensors = make_tensors(CONFIGS["31b"])
    keys = tensors["model.layers.2.self_attn.k_proj.weight"]
    name = "model.layers.2.self_attn.v_proj.weight"
    result, _ = run(make_folder(tmp_path, CONFIGS["31b"], {**tensors, name: keys.copy()}))
    assert result.left_out == {"shared key/value": [name]}
    with pytest.raises(ModelError, match=r"v_proj\.weight differs from .*k_proj\.weight, though"):
        run(make_folder(tmp_path, CONFIGS["31b"], {**tensors, name: keys + 1}))


def test_the_same_tensor_under_two_prefixes(tmp_path: Path) -> None:
    tensors = make_tensors(CONFIGS["31b"])
    norm, again = tensors["model.norm.weight"], "model.language_model.norm.weight"
    result, _ = run(make_folder(tmp_path, CONFIGS["31b"], {**tensors, again: norm.copy()}))
    assert result.left_out == {"copy": [again]}
    with pytest.raises(FileError, match="holds already as"):
        run(make_folder(tmp_path, CONFIGS["31b"], {**tensors, again: norm + 1}))


def test_tables_of_rope(tmp_path: Path) -> None:
    tensors = make_tensors(CONFIGS["31b"])
    full = 1e6 ** (-np.arange(0, 64, 2) / 64)
    full[8:] = 0  # a quarter of the pairs rotates
    tables = {
        "model.rotary_emb.full_attention_inv_freq": full,
        "model.rotary_emb.sliding_attention_inv_freq": 1e4 ** (-np.arange(0, 32, 2) / 32),
        "model.layers.0.self_attn.rotary_emb.inv_freq": 1e4 ** (-np.arange(0, 32, 2) / 32),
    }
    tables = {n: v.astype(np.float32) for n, v in tables.items()}
    for dtype in ("F32", "BF16"):
        result, _ = run(make_folder(tmp_path, CONFIGS["31b"], tensors | tables, dtype))
        assert result.left_out == {"RoPE table": list(tables)}
    for name, table in tables.items():
        for other in (table / 8, table[:-1], np.flip(table).copy()):
            with pytest.raises(ModelError, match="holds other frequencies than config.json gives"):
                run(make_folder(tmp_path, CONFIGS["31b"], {**tensors, **tables, name: other}))


def test_leftovers_are_unknown(tmp_path: Path) -> None:
    """Of parts that the config switches off, of layers that it does not count, biases."""
    for kind, name in (
        ("31b", "model.embed_tokens_per_layer.weight"),
        ("31b", "model.layers.0.per_layer_input_gate.weight"),
        ("31b", "model.layers.0.router.proj.weight"),
        ("31b", "model.layers.0.experts.down_proj"),
        ("31b", "model.layers.6.input_layernorm.weight"),
        ("31b", "model.layers.0.self_attn.q_proj.bias"),
        ("31b", "model.layers.0.self_attn.v_norm.weight"),
        ("31b", "lm_head.bias"),
        ("31b", "pre_projection.weight"),
        ("31b", "masked_embedding.centroids.weight"),
        ("e2b", "model.language_model.altup_projections.0.weight"),
        ("e2b", "model.language_model.layers.0.laurel.linear_left.weight"),
        ("draft", "model.layers.0.mlp.up_proj.bias"),
        ("draft", "model.embed_tokens_per_layer.weight"),
    ):
        tensors = make_tensors(CONFIGS[kind]) | {name: np.zeros(2, np.float32)}
        with pytest.raises(ModelError, match="is unknown"):
            run(make_folder(tmp_path, CONFIGS[kind], tensors))


@pytest.mark.parametrize(
    ("rename", "words"),
    [
        (lambda n: "module." + n, "module.save_pretrained"),
        (lambda n: "_orig_mod." + n, "_orig_mod.save_pretrained"),
        (lambda n: "base_model.model." + n, "merge it into its model first"),
        (lambda n: n.replace(".weight", ".lora_A.weight"), "merge it into its model first"),
        (lambda n: n + ".absmax", "bitsandbytes has quantized; convert the original"),
        (lambda n: n + ".quant_state.bitsandbytes__nf4", "bitsandbytes has quantized"),
        (lambda n: n.replace(".weight", ".SCB"), "bitsandbytes has quantized"),
        (lambda n: n.replace(".weight", ".scales"), "MLX has quantized; convert the original"),
        (lambda n: n.replace(".weight", ".biases"), "MLX has quantized; convert the original"),
        (lambda n: n.replace(".weight", ".qweight"), "quantized checkpoint; convert the original"),
        (lambda n: n + "_scale", "quantized checkpoint; convert the original"),
        (lambda n: n + "_scale_inv", "quantized checkpoint; convert the original"),
        (lambda n: n.replace(".weight", ".input_scale"), "quantized checkpoint"),
        (lambda n: n.replace(".weight", ".trellis"), "quantized checkpoint"),
        (lambda n: "model.module." + n, "wrapper for several devices"),
        (lambda n: n.replace("layers.0.", "layers.0._fsdp_wrapped_module."), "several devices"),
        (lambda n: n.replace("layers.0.", "layers.0._checkpoint_wrapped_module."), "a wrapper"),
        (lambda n: n.replace("q_proj.", "q_proj.base_layer."), "merge it into its model first"),
        (lambda n: n.replace("norm.", "norm.modules_to_save.default."), "merge it into its model"),
        (
            lambda n: n.replace("q_proj.weight", "q_proj.parametrizations.weight.original"),
            "a parametrized weight; remove the parametrization",
        ),
        (lambda n: "student." + n, "names of its tensors begin with student.,"),
        (lambda n: "llm.wrapped_model." + n, "begin with llm.wrapped_model.,"),
    ],
)
def test_names_of_other_checkpoints(
    rename: Callable[[str], str], words: str, tmp_path: Path
) -> None:
    for kind in ("e2b", "draft"):
        tensors = {rename(n): v for n, v in make_tensors(CONFIGS[kind]).items()}
        with pytest.raises(ModelError) as e:
            run(make_folder(tmp_path, CONFIGS[kind], tensors))
        assert words in str(e.value)


def test_folders_of_adapters(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, CONFIGS["31b"])
    (folder / "adapter_config.json").write_text("{}")
    run(folder)  # beside a whole model it does not matter
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds an adapter, no model: merge it"):
        run(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match="holds an adapter, no model: merge it"):
        run(folder)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
PAGES = [b"<!DOCTYPE html>\n<html>", b"\xef\xbb\xbf\n  <HTML lang='en'>"]
PAGES += [b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>", b"<!-- x --><html>"]
WORDS = {
    **dict.fromkeys([POINTER], "is a Git LFS pointer"),
    **dict.fromkeys(PAGES, "is a web page"),
    b"/annex/objects/SHA256E-s1--00.gguf\n": "is a git-annex pointer",
    b'# xet version 0\nfilesize = 1\nhash = "x"\n': "is a pointer of Xet",
    b'{"error":"Entry not found"}': "answer of a server that refused",
    b"Entry not found": "answer of a server that refused",
    b"Access to model google/x is restricted.": "answer of a server that refused",
}


@pytest.mark.parametrize("data", WORDS)
@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
    ],
)
def test_downloads_that_went_wrong(name: str, data: bytes, tmp_path: Path) -> None:
    folder = make_folder(tmp_path, CONFIGS["31b"])
    if name != "tokenizer.model":
        add_tokenizer(folder)
    (folder / name).write_bytes(data)
    with pytest.raises(FileError, match=f"{name} is .*{WORDS[data].removeprefix('is ')}"):
        run(folder, tokenizer=True)


OTHERS = {
    bytes(100): "unfinished download",
    b"\x1f\x8b\x08" + bytes(50): "compressed",
    b"PK\x03\x04" + bytes(50): "an archive",
    b"\x10\x00\x00\x00": "begins with bytes 10 00 00 00",
}


@pytest.mark.parametrize("data", OTHERS, ids=OTHERS.get)
def test_files_of_other_kinds(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(FileError, match=OTHERS[data]):
        gemtp.Model(path)


@pytest.mark.parametrize("data", WORDS)
def test_gguf_files_that_are_none(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    words = WORDS[data]
    with pytest.raises(FileError, match=words):
        gemtp.Model(path)
    with pytest.raises(FileError, match=words):
        quantize(path, tmp_path / "out.gguf", "q4_0", progress=False)
    with pytest.raises(FileError, match=words):
        cluster(path, tmp_path / "out.gguf")
    with pytest.raises(FileError, match=words):
        read_imatrix(path)


# ---------------------------------------------------------------- GGUF


def tensor(name: str, *shape: int) -> Tensor:
    return random_tensor(np.random.default_rng(9), name, list(shape), T_F32, mean=1.0)


def write(path: Path, g: Gguf, *more: Tensor) -> Path:
    g.tensors.extend(more)
    path.write_bytes(g.encode())
    return path


def test_tensors_that_nothing_would_use_are_refused(tmp_path: Path) -> None:
    kv = tiny_files.KV_HEADS[True] * tiny_files.HEAD_DIM[True]
    path = tmp_path / "more.gguf"
    for more in (
        tensor("extra", 16),
        tensor("blk.0.attn_q.bias", 32),
        tensor("blk.0.ffn_up.bias", 32),
        tensor("output.bias", len(tiny_files.TOKENS)),
        tensor("blk.0.attn_norm.scale", 1),
        tensor("blk.0.rope_freqs.weight", 16),
        tensor("blk.0.attn_sinks.weight", 2),
        tensor("blk.3.attn_norm.weight", H),
        tensor("blk.0.attn_qkv.weight", H, 32 + 2 * kv),  # beside attn_q, attn_k and attn_v
        tensor("blk.0.ffn_gate_inp.weight", H, 4),
        tensor("nextn.pre_projection.weight", 2 * H, H),
        tensor("altup_proj.weight", H, H),
    ):
        with pytest.raises(FileError, match=f"tensor .* has no place|{more.name}.* has no place"):
            gemtp.Model(write(path, tiny_files.sound_target(), more), threads=1, context=64)
    g = tiny_files.sound_experts()
    with pytest.raises(FileError, match=r"ffn_up_exps\.weight' has no place"):
        gemtp.Model(write(path, g, tensor("blk.0.ffn_up_exps.weight", H, 32, 4)), context=64)
    g = tiny_files.sound_target()
    g.drop("gemma4.embedding_length_per_layer_input")
    with pytest.raises(FileError, match=r"per_layer_token_embd\.weight' has no place"):
        gemtp.Model(write(path, g), context=64)


def test_tensors_that_nothing_would_use_in_a_drafter(tmp_path: Path) -> None:
    target = write(tmp_path / "target.gguf", tiny_files.sound_target())
    order = np.arange(len(tiny_files.TOKENS), dtype="<i4")
    for more in (
        [tensor("mtp.pre_projection.weight", 2 * H, H)],
        [tensor("blk.0.inp_gate.weight", H, 32)],
        # An ordered head in the metadata already.
        [
            tensor("masked_embd_centroids.weight", H, tiny_files.CENTROIDS),
            Tensor("masked_embd_ordering", [len(order)], T_I32, order.tobytes()),
        ],
    ):
        drafter = write(tmp_path / "drafter.gguf", tiny_files.sound_drafter(), *more)
        with pytest.raises(FileError, match="has no place"):
            gemtp.Model(target, drafter=drafter, threads=1, context=64)


def test_what_is_known_to_be_read_by_nothing(tmp_path: Path) -> None:
    """K/V of layers that share those of others, as llama.cpp's converter writes them; the towers of
    images and audio; scales for other hardware."""
    kv = tiny_files.KV_HEADS[True] * tiny_files.HEAD_DIM[True]
    target = write(tmp_path / "target.gguf", tiny_files.sound_target())
    expected = gemtp.Model(target, threads=1, context=64).logits(PROMPT)
    more = [
        tensor("blk.2.attn_k.weight", H, kv),
        tensor("blk.2.attn_v.weight", H, kv),
        tensor("blk.2.attn_k_norm.weight", tiny_files.HEAD_DIM[True]),
        tensor("v.blk.0.attn_q.weight", 16, 16),
        tensor("a.blk.0.attn_q.weight", 16, 16),
        tensor("mm.input_projection.weight", 16, 16),
        tensor("blk.0.attn_q.input_scale", 1),
    ]
    path = write(tmp_path / "more.gguf", tiny_files.sound_target(), *more)
    found = gemtp.Model(path, threads=1, context=64).logits(PROMPT)
    assert found.tobytes() == expected.tobytes()
    extra = [tensor("blk.0.attn_k.weight", H, kv), tensor("blk.0.attn_k_norm.weight", 16)]
    drafter = write(tmp_path / "drafter.gguf", tiny_files.sound_drafter(), *extra)
    assert gemtp.Model(target, drafter=drafter, threads=1, context=64).draft(PROMPT, 3)


def test_a_head_in_a_gguf_is_used(tmp_path: Path) -> None:
    target = write(tmp_path / "target.gguf", tiny_files.sound_target())
    head = tensor("output.weight", H, len(tiny_files.TOKENS))
    path = write(tmp_path / "untied.gguf", tiny_files.sound_target(), head)
    logits = [gemtp.Model(p, threads=1, context=64).logits(PROMPT) for p in (target, path)]
    assert not np.array_equal(*logits)


def test_a_switched_off_head_is_listed(tmp_path: Path) -> None:
    """transformers makes no ordered head then, and the plain one drafts the same or better."""
    config = {**copy.deepcopy(CONFIGS["draft"]), "use_ordered_embeddings": False}
    result, _ = run(make_folder(tmp_path, config, make_tensors(CONFIGS["draft"])))
    assert len(result.left_out["ordered head (switched off)"]) == 2
    text_of(config)["vocab_size"] = 32
    with pytest.raises(ModelError, match="has shape"):
        run(make_folder(tmp_path, config, make_tensors(CONFIGS["draft"])))


def test_drafters_that_see_more_or_nothing(tmp_path: Path) -> None:
    target = write(tmp_path / "target.gguf", tiny_files.sound_target())
    for window, words in ((17, "of which the target keeps 16"), (1, r"is 1, outside \[2")):
        g = tiny_files.sound_drafter()
        g.put("gemma4-assistant.attention.sliding_window", U32, window)
        drafter = write(tmp_path / "drafter.gguf", g)
        with pytest.raises(gemtp.Error, match=words):
            gemtp.Model(target, drafter=drafter, threads=1, context=64)
