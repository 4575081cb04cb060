"""The converter: names, shapes, keys and values of every architecture."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from convert_folders import (
    CONFIGS,
    gguf,
    gguf_name,
    keys_of,
    make_folder,
    make_tensors,
    nested,
    run,
    save_sharded,
    text_of,
    values_of,
)
from gemtp_native.errors import ModelError
from gemtp_native.gguf.encode import encode
from gemtp_native.gguf.types import TensorType


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_every_tensor_arrives_unchanged(tmp_path, kind, dtype):
    config = CONFIGS[kind]
    tensors = make_tensors(config)
    result, reader = run(make_folder(tmp_path, config, tensors, dtype))
    expected = {gguf_name(n): v for n, v in tensors.items() if "masked_embedding" not in n}
    found = values_of(reader)
    rope = found.pop("rope_freqs.weight")
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        assert np.array_equal(found[name], value), name
    assert rope.tolist() == [1.0] * 8 + [float(np.float32(1e30))] * 24  # head 64, a quarter of 32
    assert result.tensors == len(expected) + 1
    assert result.bytes == result.path.stat().st_size


COMMON_KEYS = {
    "block_count": 6,
    "context_length": 512,
    "embedding_length": 64,
    "feed_forward_length": 96,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.key_length": 64,
    "attention.value_length": 64,
    "attention.key_length_swa": 32,
    "attention.value_length_swa": 32,
    "attention.layer_norm_rms_epsilon": pytest.approx(1e-6),
    "attention.sliding_window": 16,
    "attention.sliding_window_pattern": [True, True, False] * 2,
    "attention.shared_kv_layers": 0,
    "rope.freq_base": 1e6,
    "rope.freq_base_swa": 1e4,
    "rope.dimension_count": 64,
    "rope.dimension_count_swa": 32,
    "embedding_length_per_layer_input": 0,
    "final_logit_softcapping": 30.0,
}
OWN_KEYS = {
    "e2b": {
        "attention.shared_kv_layers": 3,
        "feed_forward_length": [96] * 3 + [192] * 3,
        "embedding_length_per_layer_input": 32,
    },
    "e4b": {"attention.shared_kv_layers": 3, "embedding_length_per_layer_input": 32},
    "12b": {"attention.head_count_kv": [2, 2, 1] * 2},
    "26b": {
        "attention.head_count_kv": [2, 2, 1] * 2,
        "expert_count": 4,
        "expert_used_count": 2,
        "expert_feed_forward_length": 32,
    },
    "31b": {"attention.head_count_kv": [2, 2, 1] * 2},
    "draft": {},
    "draft12b": {"attention.head_count_kv": [2, 2, 1]},
}
DRAFT_KEYS = {
    "block_count": 3,
    "attention.shared_kv_layers": 3,
    "attention.sliding_window_pattern": [True, True, False],
    "embedding_length_out": 64,
    "nextn_predict_layers": 3,
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_keys(tmp_path, kind):
    _, reader = run(make_folder(tmp_path, CONFIGS[kind]), "q8_0")
    draft = kind.startswith("draft")
    arch = "gemma4-assistant" if draft else "gemma4"
    expected = COMMON_KEYS | (DRAFT_KEYS if draft else {}) | OWN_KEYS[kind]
    if draft:
        del expected["final_logit_softcapping"]
    keys = keys_of(reader)
    assert {k: v for k, v in keys.items() if k.startswith(arch)} == {
        f"{arch}.{k}": v for k, v in expected.items()
    }
    general = {k: v for k, v in keys.items() if k.startswith("general.")}
    assert general == {
        "general.architecture": arch,
        "general.type": "model",
        "general.name": "model",
        "general.file_type": 7,
        "general.quantization_version": 2,
    }
    assert not any(k.startswith("tokenizer.") for k in keys)


def test_defaults_are_those_of_the_configuration_classes(tmp_path):
    from gemtp_native.make.convert.config import read_config

    def read(**config):
        (tmp_path / "config.json").write_text(json.dumps(config))
        return read_config(tmp_path)

    c = read(architectures=["Gemma4ForCausalLM"])
    assert (c.vocab, c.hidden, c.layers, c.heads) == (262_144, 2304, 30, 8)
    assert set(c.kv_heads) == {4}
    assert (c.head_dim_sliding, c.head_dim_full, c.window) == (256, 512, 512)
    assert c.sliding == ([True] * 5 + [False]) * 5
    assert (c.ple_width, c.context_length, c.softcap, c.tied) == (256, 131_072, None, True)
    assert (c.rope_base_sliding, c.rope_base_full, c.rope_factor_full) == (1e4, 1e6, 0.25)
    c = read(model_type="gemma4_unified", text_config={"num_hidden_layers": 8})
    assert c.class_name == "Gemma4UnifiedForConditionalGeneration"
    assert (c.window, c.ple_width, c.context_length) == (1024, 0, 262_144)
    assert c.sliding == [True] * 5 + [False, True, False]  # the last one is forced to full
    # Without attention_k_eq_v the key/value heads of full layers do not differ.
    c = read(architectures=["Gemma4ForCausalLM"], num_global_key_value_heads=1)
    assert set(c.kv_heads) == {4}
    # A drafter shares everything, also where the config does not say so.
    c = read(architectures=["Gemma4UnifiedAssistantForCausalLM"], text_config={})
    assert (c.shared_kv_layers, c.backbone, c.ordered_head) == (30, 3840, None)
    c = read(architectures=["Gemma4AssistantForCausalLM"], use_ordered_embeddings=True)
    assert (c.backbone, c.ordered_head.num_centroids, c.ordered_head.top_k) == (1536, 2048, 32)
    # An empty per_layer_config means that no layer differs.
    c = read(architectures=["Gemma4ForCausalLM"], per_layer_config={}, global_head_dim=512)
    assert c.head_dim_full == 256


@pytest.mark.parametrize("kind", ["e2b", "31b", "draft12b"])
def test_both_spellings_of_head_sizes_give_the_same_file(tmp_path, kind):
    config = CONFIGS[kind]
    tensors = make_tensors(config)
    run(make_folder(tmp_path / "a", config, tensors), "q8_0")
    other = copy.deepcopy(config)
    text = text_of(other)
    full = {"head_dim": text.pop("global_head_dim")}
    if text.get("attention_k_eq_v"):
        full["num_key_value_heads"] = text.pop("num_global_key_value_heads")
    text["per_layer_config"] = {
        str(i): full for i, t in enumerate(text["layer_types"]) if t == "full_attention"
    }
    run(make_folder(tmp_path / "b", other, tensors), "q8_0")
    a, b = ((tmp_path / x / "out.gguf").read_bytes() for x in "ab")
    assert a == b


def test_flat_and_nested_configs_give_the_same_file(tmp_path):
    flat = CONFIGS["31b"]
    run(make_folder(tmp_path / "a", flat))
    text = {k: v for k, v in flat.items() if k != "architectures"}
    tensors = {
        n.replace("model.", "model.language_model."): v for n, v in make_tensors(flat).items()
    }
    run(make_folder(tmp_path / "b", nested("Gemma4ForConditionalGeneration", text), tensors))
    assert (tmp_path / "a/out.gguf").read_bytes() == (tmp_path / "b/out.gguf").read_bytes()


def test_shards_give_the_same_file_as_one(tmp_path):
    config = CONFIGS["26b"]
    run(make_folder(tmp_path / "a", config), "q4_0")
    folder = make_folder(tmp_path / "b", config)
    (folder / "model.safetensors").unlink()
    save_sharded(folder, make_tensors(config))
    run(folder, "q4_0")
    assert (tmp_path / "a/out.gguf").read_bytes() == (tmp_path / "b/out.gguf").read_bytes()


def test_untied_head(tmp_path):
    config = {**CONFIGS["31b"], "tie_word_embeddings": False}
    tensors = make_tensors(config)
    folder = make_folder(tmp_path, config, tensors)
    with pytest.raises(ModelError, match="lm_head.weight is missing"):
        run(folder)
    head = tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"][::-1].copy()
    _, reader = run(make_folder(tmp_path, config, tensors))
    assert np.array_equal(values_of(reader)["output.weight"], head)


def test_what_is_not_needed_is_left_out_and_listed(tmp_path):
    config = CONFIGS["e2b"]
    tensors = make_tensors(config)
    extra = np.zeros(2, np.float32)
    names = {
        "vision": ["model.vision_tower.encoder.layers.0.w", "model.embed_vision.w"],
        "audio": ["model.audio_tower.layers.0.w"],
        "shared key/value": ["model.language_model.layers.5.self_attn.k_norm.weight"],
    }
    for reason in names.values():
        tensors |= dict.fromkeys(reason, extra)
    result, _ = run(make_folder(tmp_path, config, tensors))
    assert result.left_out == names


def test_unified_embedders_count_as_vision_and_audio(tmp_path):
    tensors = make_tensors(CONFIGS["12b"])
    for name in ("vision_embedder.pos_embedding", "embed_vision.x", "embed_audio.y"):
        tensors["model." + name] = np.zeros((2, 2, 2), np.float32)
    result, _ = run(make_folder(tmp_path, CONFIGS["12b"], tensors))
    assert {k: len(v) for k, v in result.left_out.items()} == {"vision": 2, "audio": 1}


def test_ordered_head(tmp_path):
    tensors = make_tensors(CONFIGS["draft"])
    _, reader = run(make_folder(tmp_path, CONFIGS["draft"], tensors), "q4_0")
    keys = keys_of(reader)
    assert keys["gemtp.ordered_head.num_centroids"] == 8
    assert keys["gemtp.ordered_head.top_k"] == 2
    centroids = np.float32(keys["gemtp.ordered_head.centroids"]).reshape(8, 64)
    assert np.array_equal(centroids, tensors["masked_embedding.centroids.weight"])
    order = tensors["masked_embedding.token_ordering"]
    assert keys["gemtp.ordered_head.token_order"] == order.tolist()


@pytest.mark.parametrize(
    ("outtype", "kind", "file_type"),
    [("f32", 0, 0), ("f16", 1, 1), ("bf16", 30, 32), ("q8_0", 8, 7), ("q4_0", 2, 2)],
)
def test_matrices_take_the_type_and_all_else_stays_f32(tmp_path, outtype, kind, file_type):
    for name in ("26b", "e2b"):
        _, reader = run(make_folder(tmp_path, CONFIGS[name]), outtype)
        for t in reader.tensors:
            plain = len(t.shape) == 1 or "ffn_gate_inp" in t.name
            assert t.tensor_type == (0 if plain else kind), t.name
        assert keys_of(reader)["general.file_type"] == file_type


def random_rows(rows: int, width: int) -> np.ndarray:
    """Magnitudes from 1e-6 to 1e3, some zeros, a row of zeros, ties and sign extremes."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, width)) * 10.0 ** rng.uniform(-6, 3, (rows, 1))
    x[rng.random(x.shape) < 0.05] = 0
    x[0] = 0
    x[1] = np.linspace(-8, 8, width)
    return x.astype(np.float32)


@pytest.mark.parametrize("kind", [TensorType.Q8_0, TensorType.Q4_0])
def test_quantized_values_are_within_half_a_step(kind):
    x = random_rows(300, 96)
    raw = encode(x.reshape(-1), kind)
    qtype = gguf.GGMLQuantizationType(int(kind))
    y = gguf.quants.dequantize(raw, qtype).reshape(-1, 32)
    blocks = x.reshape(-1, 32)
    amax = np.abs(blocks).max(axis=1, keepdims=True)
    if kind == TensorType.Q8_0:
        step, levels, bound = amax / 127, 127, 0.5
    else:
        # -8 … 7 of a step that puts the largest value at -8: its mirror image is one step off.
        largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)
        step, levels = amax / 8, 8
        with np.errstate(invalid="ignore"):
            position = np.where(amax > 0, blocks / (largest / -8), 0)
        bound = np.maximum(0.5, position - 7)
    # The step is stored as float16: relative 2^-11, absolute 2^-25 where it is subnormal.
    slack = levels * np.maximum(step * 2.0**-11, 2.0**-25) + step * 1e-5
    assert np.all(np.abs(blocks - y) <= bound * step + slack)
    # And the bytes are those of the reference, whatever the slicing.
    reference = gguf.quants.quantize(x, qtype).reshape(-1)
    assert np.array_equal(raw, reference)
    parts = [encode(x.reshape(-1)[i : i + 960], kind) for i in range(0, x.size, 960)]
    assert np.array_equal(np.concatenate(parts), reference)


def test_half_precisions_round_to_nearest_even():
    x = random_rows(100, 96).reshape(-1)
    x = np.concatenate([x, np.float32([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, -0.0])])
    bf16 = encode(x, TensorType.BF16)
    assert np.array_equal(
        bf16, gguf.quants.quantize(x, gguf.GGMLQuantizationType.BF16).view(np.uint8)
    )
    assert np.array_equal(encode(x, TensorType.F16).view(np.float16), x.astype(np.float16))
    # Exactly half-way: to the even neighbour.
    ends = (bf16.view(np.uint16)[-4:-2].astype(np.uint32) << 16).view(np.float32)
    assert ends.tolist() == [1.0, 1 + 2**-6]


def test_blocks_too_small_for_a_scale_become_zero():
    tiny = np.full(64, 1e-40, np.float32)
    for kind in (TensorType.Q8_0, TensorType.Q4_0):
        assert np.array_equal(encode(tiny, kind), encode(np.zeros(64, np.float32), kind))


def test_narrow_rows_fall_back_to_f16_with_a_note(tmp_path):
    config = copy.deepcopy(CONFIGS["31b"])
    config["intermediate_size"] = 40  # rows of ffn_down
    result, reader = run(make_folder(tmp_path, config), "q8_0")
    types = {t.name: t.tensor_type for t in reader.tensors}
    assert types["blk.0.ffn_down.weight"] == 1
    assert types["blk.0.ffn_up.weight"] == 8
    assert len(result.notes) == 1
    assert result.notes[0].startswith("6 matrices are written as F16")
    result, reader = run(make_folder(tmp_path, config), "f32")
    assert result.notes == []
