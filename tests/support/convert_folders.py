"""Small checkpoints in Hugging Face's form, from independent tables, for the converter's tests.

Neither torch nor transformers is needed; bfloat16 is written by hand.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gemtp_native.make.convert import convert

gguf = pytest.importorskip("gguf")
ROOT = Path(__file__).resolve().parent.parent.parent

VOCAB = 64
PATTERN = ["sliding_attention", "sliding_attention", "full_attention"]
TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "global_head_dim": 64,
    "sliding_window": 16,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "final_logit_softcapping": 30.0,
    "hidden_size_per_layer_input": 0,
    "layer_types": PATTERN * 2,
}
PLE = {"hidden_size_per_layer_input": 32, "vocab_size_per_layer_input": VOCAB}
K_EQ_V = {"attention_k_eq_v": True, "num_global_key_value_heads": 1}
DRAFT = {
    **TEXT,
    "num_hidden_layers": 3,
    "layer_types": PATTERN,
    "num_kv_shared_layers": 3,
    "final_logit_softcapping": None,
}


def nested(class_name: str, text: dict, **top) -> dict:
    return {"architectures": [class_name], "text_config": text, **top}


CONFIGS = {
    "e2b": nested(
        "Gemma4ForConditionalGeneration",
        {**TEXT, **PLE, "num_kv_shared_layers": 3, "use_double_wide_mlp": True},
        vision_config={},
    ),
    "e4b": nested("Gemma4ForConditionalGeneration", {**TEXT, **PLE, "num_kv_shared_layers": 3}),
    "12b": nested("Gemma4UnifiedForConditionalGeneration", {**TEXT, **K_EQ_V}),
    "26b": nested(
        "Gemma4ForConditionalGeneration",
        {
            **TEXT,
            **K_EQ_V,
            "enable_moe_block": True,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 32,
        },
    ),
    "31b": {"architectures": ["Gemma4ForCausalLM"], **TEXT, **K_EQ_V},
    "draft": nested(
        "Gemma4AssistantForCausalLM",
        DRAFT,
        backbone_hidden_size=64,
        use_ordered_embeddings=True,
        num_centroids=8,
        centroid_intermediate_top_k=2,
    ),
    "draft12b": nested(
        "Gemma4UnifiedAssistantForCausalLM", {**DRAFT, **K_EQ_V}, backbone_hidden_size=64
    ),
}

# Hugging Face name in a layer -> GGUF name in a block
LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
    "per_layer_input_gate.weight": "inp_gate.weight",
    "per_layer_projection.weight": "proj.weight",
    "post_per_layer_input_norm.weight": "post_norm.weight",
    "layer_scalar": "layer_output_scale.weight",
    "router.proj.weight": "ffn_gate_inp.weight",
    "router.scale": "ffn_gate_inp.scale",
    "router.per_expert_scale": "ffn_down_exps.scale",
    "pre_feedforward_layernorm_2.weight": "pre_ffw_norm_2.weight",
    "post_feedforward_layernorm_1.weight": "post_ffw_norm_1.weight",
    "post_feedforward_layernorm_2.weight": "post_ffw_norm_2.weight",
    "experts.gate_up_proj": "ffn_gate_up_exps.weight",
    "experts.down_proj": "ffn_down_exps.weight",
}
TOP_NAMES = {
    "embed_tokens.weight": "token_embd.weight",
    "lm_head.weight": "output.weight",
    "norm.weight": "output_norm.weight",
    "embed_tokens_per_layer.weight": "per_layer_token_embd.weight",
    "per_layer_model_projection.weight": "per_layer_model_proj.weight",
    "per_layer_projection_norm.weight": "per_layer_proj_norm.weight",
    "pre_projection.weight": "nextn.pre_projection.weight",
    "post_projection.weight": "nextn.post_projection.weight",
}


def text_of(config: dict) -> dict:
    return config.get("text_config", config)


def shapes_of(config: dict) -> dict[str, tuple[int, ...]]:
    """Returns tensor shapes by name, as transformers saves them."""
    t = text_of(config)
    drafter = "Assistant" in config["architectures"][0]
    p = "model.language_model." if "Conditional" in config["architectures"][0] else "model."
    h, layers, ple = t["hidden_size"], t["num_hidden_layers"], t["hidden_size_per_layer_input"]
    shared = t.get("num_kv_shared_layers", 0)
    out = {f"{p}embed_tokens.weight": (t["vocab_size"], h), f"{p}norm.weight": (h,)}
    if ple:
        out[f"{p}embed_tokens_per_layer.weight"] = (t["vocab_size"], layers * ple)
        out[f"{p}per_layer_model_projection.weight"] = (layers * ple, h)
        out[f"{p}per_layer_projection_norm.weight"] = (ple,)
    for i, kind in enumerate(t["layer_types"]):
        b = f"{p}layers.{i}."
        full = kind == "full_attention"
        d = t["global_head_dim"] if full else t["head_dim"]
        k_eq_v = full and t.get("attention_k_eq_v", False)
        kv = t["num_global_key_value_heads"] if k_eq_v else t["num_key_value_heads"]
        wide = t.get("use_double_wide_mlp", False) and i >= layers - shared
        ff = t["intermediate_size"] * (2 if wide else 1)
        q = t["num_attention_heads"] * d
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            out[f"{b}{name}_layernorm.weight"] = (h,)
        out[f"{b}layer_scalar"] = (1,)
        out[f"{b}self_attn.q_proj.weight"] = (q, h)
        out[f"{b}self_attn.q_norm.weight"] = (d,)
        out[f"{b}self_attn.o_proj.weight"] = (h, q)
        if i < layers - shared:
            out[f"{b}self_attn.k_proj.weight"] = (kv * d, h)
            out[f"{b}self_attn.k_norm.weight"] = (d,)
            if not k_eq_v:
                out[f"{b}self_attn.v_proj.weight"] = (kv * d, h)
        out[f"{b}mlp.gate_proj.weight"] = (ff, h)
        out[f"{b}mlp.up_proj.weight"] = (ff, h)
        out[f"{b}mlp.down_proj.weight"] = (h, ff)
        if ple:
            out[f"{b}per_layer_input_gate.weight"] = (ple, h)
            out[f"{b}per_layer_projection.weight"] = (h, ple)
            out[f"{b}post_per_layer_input_norm.weight"] = (h,)
        if t.get("enable_moe_block"):
            e, f = t["num_experts"], t["moe_intermediate_size"]
            out[f"{b}router.proj.weight"] = (e, h)
            out[f"{b}router.scale"] = (h,)
            out[f"{b}router.per_expert_scale"] = (e,)
            out[f"{b}experts.gate_up_proj"] = (e, 2 * f, h)
            out[f"{b}experts.down_proj"] = (e, h, f)
            for name in (
                "post_feedforward_layernorm_1",
                "post_feedforward_layernorm_2",
                "pre_feedforward_layernorm_2",
            ):
                out[f"{b}{name}.weight"] = (h,)
    if drafter:
        out["pre_projection.weight"] = (h, 2 * config["backbone_hidden_size"])
        out["post_projection.weight"] = (config["backbone_hidden_size"], h)
    if config.get("use_ordered_embeddings"):
        out["masked_embedding.centroids.weight"] = (config["num_centroids"], h)
    return out


def gguf_name(name: str) -> str:
    name = name.removeprefix("model.").removeprefix("language_model.")
    if name.startswith("layers."):
        _, layer, rest = name.split(".", 2)
        return f"blk.{layer}.{LAYER_NAMES[rest]}"
    return TOP_NAMES[name]


def make_tensors(config: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Makes tensors with values that bfloat16 and float16 both represent exactly."""
    rng = np.random.default_rng(seed)
    tensors = {
        name: (rng.integers(-127, 128, shape) / 64).astype(np.float32)
        for name, shape in shapes_of(config).items()
    }
    if config.get("use_ordered_embeddings"):
        order = rng.permutation(text_of(config)["vocab_size"])
        tensors["masked_embedding.token_ordering"] = order.astype(np.int64)
    return tensors


def save(path: Path, tensors: dict[str, np.ndarray], dtype: str = "BF16") -> None:
    """Writes a safetensors file by hand, because numpy has no bfloat16."""
    header, parts, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, value in tensors.items():
        if value.dtype == np.int64:
            kind, raw = "I64", value.tobytes()
        elif dtype == "BF16":
            kind, raw = "BF16", (value.view(np.uint32) >> 16).astype("<u2").tobytes()
        else:
            kind, raw = dtype, value.astype({"F16": "<f2", "F32": "<f4"}[dtype]).tobytes()
        header[name] = {
            "dtype": kind,
            "shape": list(value.shape),
            "data_offsets": [at, at + len(raw)],
        }
        parts.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def save_sharded(folder: Path, tensors: dict[str, np.ndarray], count: int = 3) -> None:
    names = list(tensors)
    weight_map = {}
    for i in range(count):
        file = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        part = {n: tensors[n] for n in names[i::count]}
        save(folder / file, part)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def make_folder(
    parent: Path, config: dict, tensors=None, dtype: str = "BF16", name: str = "model"
) -> Path:
    folder = parent / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save(folder / "model.safetensors", make_tensors(config) if tensors is None else tensors, dtype)
    return folder


def run(folder: Path, outtype: str = "f32", **kwargs):
    out = folder.parent / "out.gguf"
    kwargs.setdefault("tokenizer", False)
    result = convert(folder, out, outtype, progress=False, **kwargs)
    assert leftovers(folder.parent) == []
    return result, gguf.GGUFReader(out)


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if ".tmp-" in p.name]


def keys_of(reader) -> dict:
    return {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }


def values_of(reader) -> dict[str, np.ndarray]:
    return {
        t.name: gguf.quants.dequantize(t.data, t.tensor_type).reshape(
            tuple(reversed([int(n) for n in t.shape]))
        )
        for t in reader.tensors
    }


SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>", '<|"|>', "<|tool>"]
PIECES = ["▁", "a", "b", "\n", "\n\n", "ab", "▁ab", "<user>"]
MERGES = [["a", "b"], ["▁", "ab"], ["\n", "\n"]]


def tokenizer_json(pairs: bool = True) -> dict:
    texts = SPECIAL + ["<0x00>", "<0x0A>"] + PIECES
    added = [{"id": i, "content": s, "special": True} for i, s in enumerate(SPECIAL)]
    added.append({"id": texts.index("<user>"), "content": "<user>", "special": False})
    added.append({"id": texts.index("\n\n"), "content": "\n\n", "special": False})
    return {
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}},
        "model": {
            "type": "BPE",
            "byte_fallback": True,
            "unk_token": "<unk>",
            "vocab": {s: i for i, s in enumerate(texts)},
            "merges": MERGES if pairs else [" ".join(m) for m in MERGES],
        },
    }


def add_tokenizer(folder: Path, data: dict | None = None, **settings) -> Path:
    (folder / "tokenizer.json").write_text(json.dumps(data or tokenizer_json()), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def command(*args, cwd: Path, code: str | None = None) -> subprocess.CompletedProcess:
    start = [str(ROOT / "tools" / "convert.py")] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *start, *map(str, args)], cwd=cwd, capture_output=True, text=True
    )
