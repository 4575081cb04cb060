"""Checkpoints and configs that cannot be converted: one sentence each, nothing half-written."""

from __future__ import annotations

import copy
import json
import os
import struct

import numpy as np
import pytest

from convert_folders import (
    CONFIGS,
    add_tokenizer,
    make_folder,
    make_tensors,
    run,
    save_sharded,
    text_of,
    values_of,
)
from gemtp_native.errors import FileError, ModelError
from gemtp_native.make.convert import pipeline


def rename(tensors, old, new):
    return {new if n == old else n: v for n, v in tensors.items()}


def without(tensors, *parts):
    return {n: v for n, v in tensors.items() if not any(p in n for p in parts)}


def test_missing_tensors(tmp_path):
    tensors = make_tensors(CONFIGS["e2b"])
    with pytest.raises(ModelError) as e:
        run(make_folder(tmp_path, CONFIGS["e2b"], without(tensors, "layers.4.mlp.up_proj")))
    name = "model.language_model.layers.4.mlp.up_proj.weight"
    assert f"tensor {name} is missing; Gemma4ForConditionalGeneration" in str(e.value)
    with pytest.raises(
        ModelError, match=r"layers\.0\.mlp\.up_proj\.weight is missing \(and 5 more"
    ):
        run(make_folder(tmp_path, CONFIGS["e2b"], without(tensors, "mlp.up_proj")))
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


@pytest.mark.parametrize("kind", CONFIGS)
def test_each_tensor_is_demanded_and_its_shape_too(tmp_path, kind):
    config = CONFIGS[kind]
    tensors = make_tensors(config)
    for name, value in tensors.items():
        if ".layers.1" in name:
            continue  # like layer 0
        with pytest.raises(ModelError, match="is missing") as e:
            run(make_folder(tmp_path, config, without(tensors, name)))
        assert f"tensor {name} " in str(e.value)
        with pytest.raises(ModelError, match="has shape") as e:
            run(make_folder(tmp_path, config, {**tensors, name: value[:0]}))
        assert f"{name} has shape [0" in str(e.value)
        assert f"asks for {list(value.shape)}" in str(e.value)


def test_unknown_and_mistyped_tensors(tmp_path):
    tensors = make_tensors(CONFIGS["31b"])
    more = {**tensors, "model.layers.0.mlp.gate_proj.weight_more": np.zeros(1, np.float32)}
    with pytest.raises(ModelError, match=r"weight_more is unknown;"):
        run(make_folder(tmp_path, CONFIGS["31b"], more))
    more["model.layers.6.layer_scalar"] = np.zeros(1, np.float32)
    with pytest.raises(ModelError, match=r"weight_more is unknown \(and 1 more\);"):
        run(make_folder(tmp_path, CONFIGS["31b"], more))
    name = "model.layers.0.self_attn.q_proj.weight"
    integers = {**tensors, name: tensors[name].astype(np.int64)}
    with pytest.raises(ModelError, match=r"q_proj\.weight has type I64, not F32, F16, BF16"):
        run(make_folder(tmp_path, CONFIGS["31b"], integers))


@pytest.mark.parametrize("outtype", ["f32", "f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_numbers(tmp_path, outtype, value):
    tensors = make_tensors(CONFIGS["31b"])
    for name in ("model.layers.2.mlp.down_proj.weight", "model.layers.3.layer_scalar"):
        bad = tensors[name].copy()
        bad.flat[-1] = bad.flat[0] = value
        folder = make_folder(tmp_path, CONFIGS["31b"], {**tensors, name: bad})
        with pytest.raises(FileError) as e:
            run(folder, outtype)
        count = min(2, bad.size)
        assert f"{name} holds {count} values that are NaN or infinite" in str(e.value)
        assert os.listdir(tmp_path) == ["model"]


def test_values_too_large_for_the_type(tmp_path):
    tensors = make_tensors(CONFIGS["31b"])
    name = "model.layers.2.mlp.down_proj.weight"
    tensors[name] = tensors[name].copy()
    for value, fits, too_small in (
        (1e5, ["q4_0", "q8_0", "bf16"], ["f16"]),
        (1e7, ["bf16", "f32"], ["q8_0", "q4_0"]),
        (3.4e38, ["f32"], ["bf16", "f16"]),
    ):
        tensors[name].flat[5] = value
        folder = make_folder(tmp_path, CONFIGS["31b"], tensors, "F32")
        for outtype in fits:
            _, reader = run(folder, outtype)
            assert all(np.isfinite(v).all() for v in values_of(reader).values())
        for outtype in too_small:
            with pytest.raises(ModelError, match="down_proj.weight holds 1 values beyond"):
                run(folder, outtype)


def test_ordered_heads_that_are_not_one(tmp_path):
    tensors = make_tensors(CONFIGS["draft"])
    order = tensors["masked_embedding.token_ordering"].copy()
    order[0] = order[1]
    with pytest.raises(ModelError, match="token_ordering is not a permutation of the 64"):
        run(
            make_folder(
                tmp_path, CONFIGS["draft"], {**tensors, "masked_embedding.token_ordering": order}
            )
        )
    with pytest.raises(ModelError, match="64 tokens do not divide evenly among 7"):
        run(make_folder(tmp_path, {**CONFIGS["draft"], "num_centroids": 7}, tensors))
    with pytest.raises(FileError, match="'centroid_intermediate_top_k' is 9"):
        run(make_folder(tmp_path, {**CONFIGS["draft"], "centroid_intermediate_top_k": 9}, tensors))
    off = {**CONFIGS["draft"], "use_ordered_embeddings": False}
    result, _ = run(make_folder(tmp_path, off, tensors))
    assert result.left_out == {
        "ordered head (switched off)": [
            "masked_embedding.centroids.weight",
            "masked_embedding.token_ordering",
        ]
    }


BAD_CONFIGS = [
    ({"hidden_size": -1}, FileError, "'hidden_size' is -1, a whole number from 1"),
    ({"hidden_size": "64"}, FileError, "'hidden_size' is \"64\""),
    ({"num_hidden_layers": 10**30}, FileError, "'num_hidden_layers'"),
    ({"vocab_size": True}, FileError, "'vocab_size' is true"),
    ({"rms_norm_eps": 0}, FileError, "'rms_norm_eps' is 0, a number from 1e-30 to 1"),
    ({"layer_types": ["full_attention"]}, FileError, "'layer_types' .* a list of 6"),
    ({"layer_types": ["linear"] * 6}, FileError, "'layer_types'"),
    ({"num_attention_heads": 3}, ModelError, "3 attention heads do not divide .* 2 key/value"),
    ({"num_kv_shared_layers": 5}, ModelError, "no earlier layer is of type full_attention"),
    ({"num_kv_shared_layers": 7}, FileError, "'num_kv_shared_layers' is 7"),
    ({"use_bidirectional_attention": "all"}, ModelError, "'use_bidirectional_attention'"),
    ({"attention_bias": True}, ModelError, "'attention_bias'"),
    ({"hidden_activation": "relu"}, ModelError, "'hidden_activation' is \"relu\""),
    ({"per_layer_config": {"6": {}}}, FileError, "'per_layer_config'"),
    ({"per_layer_config": {"1": {"head_dim": 64}}}, ModelError, r"head sizes \[32, 64\]"),
    ({"per_layer_config": {"1": {"hidden_size": 9}}}, ModelError, "'hidden_size' in layer 1"),
    ({"rope_parameters": {"full_attention": {}}}, FileError, "'rope_theta' is null"),
    ({"rope_parameters": {"x": 1}}, FileError, "no object for 'full_attention'"),
    (
        {"rope_parameters": {"full_attention": {"rope_type": "yarn", "rope_theta": 1.0}}},
        ModelError,
        'RoPE type of .full_attention. is "yarn"',
    ),
    ({"hidden_size_per_layer_input": 32}, ModelError, "'vocab_size_per_layer_input'"),
    ({"architectures": ["LlamaForCausalLM"]}, FileError, '"LlamaForCausalLM" is not one of'),
    ({"architectures": []}, FileError, "architecture null"),
]


@pytest.mark.parametrize(("values", "kind", "match"), BAD_CONFIGS)
def test_bad_configs(tmp_path, values, kind, match):
    folder = make_folder(tmp_path, CONFIGS["31b"])
    (folder / "config.json").write_text(json.dumps({**CONFIGS["31b"], **values}))
    with pytest.raises(kind, match=match):
        run(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"num_kv_shared_layers": 1},
        {"hidden_size_per_layer_input": 8, **{}},
        {"enable_moe_block": True, "num_experts": 2},
    ],
)
def test_configs_that_no_drafter_has(tmp_path, values):
    config = copy.deepcopy(CONFIGS["draft"])
    config["text_config"] |= values
    folder = make_folder(tmp_path, CONFIGS["draft"])
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="a drafter"):
        run(folder)


def test_bad_files(tmp_path):
    folder = make_folder(tmp_path, CONFIGS["31b"])
    config, weights = folder / "config.json", folder / "model.safetensors"
    for data in (b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000):
        config.write_bytes(data)
        with pytest.raises(FileError, match=r"config\.json (is not valid JSON|must hold)"):
            run(folder)
    config.unlink()
    with pytest.raises(FileError, match=r"holds no config\.json"):
        run(folder)
    config.write_text(json.dumps(CONFIGS["31b"]))
    weights.write_bytes(b"no weights at all")
    with pytest.raises(FileError, match="not a complete safetensors file"):
        run(folder)
    weights.unlink()
    with pytest.raises(
        FileError, match=r"neither model\.safetensors nor model\.safetensors\.index"
    ):
        run(folder)
    with pytest.raises(FileError, match="is not a folder"):
        run(config)
    with pytest.raises(FileError, match="holds no tokenizer .tokenizer.json or tokenizer.model."):
        run(make_folder(tmp_path, CONFIGS["31b"]), tokenizer=True)
    (folder / "generation_config.json").write_text('{"suppress_tokens": [64]}')
    add_tokenizer(folder)
    with pytest.raises(FileError, match="'suppress_tokens' must be a list"):
        run(folder, tokenizer=True)


@pytest.mark.parametrize("name", ["\x1b[2Jx", "a\nb", "\ud800", "x" * 5000])
def test_what_a_stranger_wrote_is_shown_on_one_line(tmp_path, name):
    """Whatever an error repeats of it, no terminal takes it for an order."""
    folder = make_folder(tmp_path, CONFIGS["31b"])
    header = json.dumps({name: {"dtype": "F32"}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(FileError, match="not a complete safetensors file") as e:
        run(folder)
    assert str(e.value).isprintable()
    assert len(str(e.value)) < 2000


@pytest.mark.parametrize("digits", ["\u00b2", "1" * 5000])
def test_layers_are_counted_in_plain_digits(tmp_path, digits):
    """Of other digits Python's int raises for some, and for too many."""
    config = copy.deepcopy(CONFIGS["31b"])
    text_of(config)["per_layer_config"] = {digits: {}}
    with pytest.raises((FileError, ModelError), match="per_layer_config"):
        run(make_folder(tmp_path, config))


def test_every_truncation_of_the_weights(tmp_path):
    folder = make_folder(tmp_path, CONFIGS["draft12b"])
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    sizes = {*range(0, header, 97), *range(12), *range(header - 4, header + 4)}
    sizes |= {*range(header, len(data), 9973), len(data) - 1}
    for size in sorted(sizes):
        weights.write_bytes(data[:size])
        with pytest.raises(FileError, match="not a complete safetensors file"):
            run(folder)
    assert os.listdir(tmp_path) == ["model"]


def test_a_file_that_shrinks_while_it_is_read(tmp_path, monkeypatch):
    folder = make_folder(tmp_path, CONFIGS["31b"])
    weights = folder / "model.safetensors"
    plan = pipeline.make_plan

    def shrink(*args):
        result = plan(*args)
        os.truncate(weights, weights.stat().st_size // 2)
        return result

    monkeypatch.setattr(pipeline, "make_plan", shrink)
    with pytest.raises(FileError, match="changed while being read"):
        run(folder)
    assert os.listdir(tmp_path) == ["model"]


def test_bad_indexes(tmp_path):
    tensors = make_tensors(CONFIGS["31b"])
    folder = make_folder(tmp_path, CONFIGS["31b"])
    (folder / "model.safetensors").unlink()
    save_sharded(folder, tensors)
    index = folder / "model.safetensors.index.json"
    good = json.loads(index.read_text())

    def refused(match: str, **entries):
        index.write_text(json.dumps({"weight_map": {**good["weight_map"], **entries}}))
        with pytest.raises(FileError, match=match):
            run(folder)

    for name in ("../x.safetensors", "/etc/passwd", "", 5, "a\\b"):
        refused("not the name of a file", x=name)
    refused("x.safetensors is missing, though", x="x.safetensors")
    refused("lacks x, which", x="model-00001-of-00003.safetensors")
    index.write_text("{}")
    with pytest.raises(FileError, match="no 'weight_map'"):
        run(folder)
