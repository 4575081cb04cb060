"""Keys that would change what is computed: refused by a sentence that names key and value, in GGUF
files and in config.json, of targets and drafters; values that change nothing are accepted."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

import gemtp_native as gemtp
import tiny_files
from convert_folders import CONFIGS, ROOT, make_folder, run, text_of
from gemtp_native.make.convert.config import NEUTRAL, NEUTRAL_ROPE, read_config, unknown_keys
from gguf_bytes import BOOL, F32, F64, I32, STRING, U32, Gguf

PROMPT = [2, 105, 263, 264, 270]

# ---------------------------------------------------------------- GGUF


def table_of_the_core() -> dict[str, tuple[list[float], list[str]]]:
    """key -> (neutral numbers, neutral texts), as csrc/model/config.cc has them."""
    source = (ROOT / "csrc" / "model" / "config.cc").read_text(encoding="utf-8")
    body = source[source.index("neutral_keys() {") : source.index("return keys;")]
    found = {}
    for key, numbers, texts in re.findall(r'\{"([\w.]+)", \{([^}]*)\}(?:, \{([^}]*)\})?\},', body):
        values = [float(n.replace("kInfinity", "inf")) for n in numbers.split(",") if n.strip()]
        found[key] = values, re.findall(r'"([^"]*)"', texts)
    return found


CORE = table_of_the_core()


def test_the_table_is_read_whole() -> None:
    assert len(CORE) > 50
    assert CORE["rope.scaling.factor"] == ([0, 1], [])
    assert CORE["rope.scaling.type"] == ([], ["", "none", "default", "linear"])
    assert CORE["activation_sparsity_scale"] == ([0, float("-inf")], [])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    made = folder / "target.gguf", folder / "drafter.gguf"
    for path, g in zip(made, (tiny_files.sound_target(), tiny_files.sound_drafter()), strict=True):
        path.write_bytes(g.encode())
    return made


def open_as(arch: str, g: Gguf, path: Path, pair: tuple[Path, Path]) -> gemtp.Model:
    path.write_bytes(g.encode())
    drafter = None if arch == "gemma4" else path
    return gemtp.Model(
        path if drafter is None else pair[0], drafter=drafter, threads=1, context=64, profile=False
    )


@pytest.mark.parametrize("arch", ["gemma4", "gemma4-assistant"])
@pytest.mark.parametrize("key", CORE)
def test_keys_of_a_gguf(key: str, arch: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    made = tiny_files.sound_target if arch == "gemma4" else tiny_files.sound_drafter
    name, path = f"{arch}.{key}", tmp_path / "model.gguf"
    numbers, texts = CORE[key]
    for kind, value, shown in (
        (F32, 7.5, "7.5"),
        (F64, 7.5, "7.5"),
        (F32, float("nan"), "nan"),
        (U32, 7, "7"),
        (I32, -7, "-7"),
        (STRING, "yarn", "'yarn'"),
    ):
        g = made()
        g.put(name, kind, value)
        with pytest.raises(gemtp.FileError, match=re.escape(f"{name} is {shown}, which would")):
            open_as(arch, g, path, pair)
    g = made()
    g.put_array(name, F32, [*numbers, 7.5])
    with pytest.raises(gemtp.FileError, match=re.escape(f"{name} is an array")):
        open_as(arch, g, path, pair)

    for number in numbers:
        for g, put in ((made(), "put"), (made(), "put_array")):
            getattr(g, put)(name, F32, number if put == "put" else [number, number])
            open_as(arch, g, path, pair)
        if number in (0, 1):
            for kind in (U32, BOOL):
                g = made()
                g.put(name, kind, int(number))
                open_as(arch, g, path, pair)
    for text in texts:
        g = made()
        g.put(name, STRING, text)
        open_as(arch, g, path, pair)


def test_neutral_keys_change_nothing(pair: tuple[Path, Path], tmp_path: Path) -> None:
    g = tiny_files.sound_target()
    for key, (numbers, texts) in CORE.items():
        if numbers:
            g.put(f"gemma4.{key}", F32, numbers[-1])
        else:
            g.put(f"gemma4.{key}", STRING, texts[-1])
    expected = gemtp.Model(pair[0], threads=1, context=64).logits(PROMPT)
    found = open_as("gemma4", g, tmp_path / "all.gguf", pair).logits(PROMPT)
    assert found.tobytes() == expected.tobytes()


# ---------------------------------------------------------------- config.json


def refused(folder: Path, config: dict[str, Any], *words: str) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(gemtp.Error) as e:
        read_config(folder)
    for word in words:
        assert word in str(e.value)
    assert "\n" not in str(e.value)


def accepted(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    read_config(folder)


@pytest.mark.parametrize("kind", ["e2b", "31b", "draft", "draft12b"])
@pytest.mark.parametrize("key", NEUTRAL)
def test_keys_of_a_config(key: str, kind: str, tmp_path: Path) -> None:
    for where in (text_of, lambda config: config):  # beside "text_config" too
        config = copy.deepcopy(CONFIGS[kind])
        for value in (None, *NEUTRAL[key], list(NEUTRAL[key])):
            where(config)[key] = value
            accepted(tmp_path, config)
        for value in (7.5, -1, "other", float("nan"), float("inf"), [7], {"a": 1}):
            where(config)[key] = value
            refused(tmp_path, config, f"'{key}' is ", json.dumps(value))


@pytest.mark.parametrize("kind", ["e2b", "draft"])
@pytest.mark.parametrize("key", NEUTRAL_ROPE)
def test_keys_of_rope(key: str, kind: str, tmp_path: Path) -> None:
    parameters = {
        "full_attention": {
            "rope_type": "proportional",
            "rope_theta": 1e6,
            "partial_rotary_factor": 0.25,
        },
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    for layer in parameters:
        config = copy.deepcopy(CONFIGS[kind])
        text_of(config)["rope_parameters"] = copy.deepcopy(parameters)
        inner = text_of(config)["rope_parameters"][layer]
        for value in (None, *NEUTRAL_ROPE[key]):
            inner[key] = value
            accepted(tmp_path, config)
        for value in (8.0, "x", [8.0, 1]):
            inner[key] = value
            refused(tmp_path, config, f"'rope_parameters.{layer}.{key}' is ", json.dumps(value))
    config = copy.deepcopy(CONFIGS[kind])
    text_of(config)["rope_parameters"] = {**parameters, key: 8.0}
    refused(tmp_path, config, f"'rope_parameters.{key}' is 8.0")
    config = copy.deepcopy(CONFIGS[kind])
    text_of(config)["rope_scaling"] = {"type": "linear", key: 8.0}
    refused(tmp_path, config, f"'rope_scaling.{key}' is 8.0")
    text_of(config)["rope_scaling"] = {"type": "linear", key: NEUTRAL_ROPE[key][0]}
    accepted(tmp_path, config)


@pytest.mark.parametrize("kind", ["e2b", "draft"])
def test_other_rope(kind: str, tmp_path: Path) -> None:
    def with_text(**values: Any) -> dict[str, Any]:
        config = copy.deepcopy(CONFIGS[kind])
        text_of(config).update(values)
        return config

    for name in ("yarn", "llama3", "longrope", "dynamic"):
        for key in ("type", "rope_type"):
            config = with_text(rope_scaling={key: name, "factor": 1.0})
            refused(tmp_path, config, f"'rope_scaling.{key}' is \"{name}\"")
    refused(tmp_path, with_text(rope_scaling=8.0), "'rope_scaling' is 8.0, an object")
    for value in (None, {}, {"type": "default"}, {"rope_type": "linear", "factor": 1}):
        accepted(tmp_path, with_text(rope_scaling=value))
    refused(tmp_path, with_text(rope_theta=5e5), "'rope_theta' is 500000.0")
    refused(tmp_path, with_text(rope_local_base_freq=1e6), "'rope_local_base_freq' is 1000000.0")
    refused(tmp_path, with_text(partial_rotary_factor=0.5), "'partial_rotary_factor' is 0.5")
    same = {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "partial_rotary_factor": 0.25}
    accepted(tmp_path, with_text(**same))
    default = {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.25}
    other = {"full_attention": default, "sliding_attention": {"rope_theta": 1e4}}
    refused(tmp_path, with_text(rope_parameters=other), "'partial_rotary_factor' is 0.25, 1")
    sliding = {"rope_theta": 1e4, "partial_rotary_factor": 0.5}
    other = {
        "full_attention": {**default, "rope_type": "proportional"},
        "sliding_attention": sliding,
    }
    refused(tmp_path, with_text(rope_parameters=other), "'partial_rotary_factor' is 0.5, 1")


@pytest.mark.parametrize("kind", CONFIGS)
def test_keys_that_nothing_knows_are_noted(kind: str, tmp_path: Path) -> None:
    config = {**copy.deepcopy(CONFIGS[kind]), "use_cache": True, "note_id": 7, "attn_scale": None}
    result, _ = run(make_folder(tmp_path, config))
    assert result.notes == []
    for where in (text_of, lambda config: config):
        for key, value in (("attn_logit_cap", 50), ("use_nope_layers", 4), ("mlp_scale", 0.5)):
            config = copy.deepcopy(CONFIGS[kind])
            where(config)[key] = value
            result, _ = run(make_folder(tmp_path, config))
            (note,) = result.notes
            assert note.endswith(f"not of Gemma 4 and that nothing follows: {key}")


def test_keys_of_published_configs_are_known() -> None:
    folders = sorted((ROOT / "tests" / "golden").glob("*/*/config.json"))
    assert len(folders) == 10
    for path in folders:
        assert unknown_keys(path.parent) == []


@pytest.mark.parametrize("key", ["sliding_window_pattern", "_sliding_window_pattern"])
def test_the_pattern_of_sliding_layers(key: str, tmp_path: Path) -> None:
    config = copy.deepcopy(CONFIGS["31b"])  # two sliding, one full
    accepted(tmp_path, {**config, key: 3})
    refused(tmp_path, {**config, key: 6}, f"'{key}' is 6, what the types of the layers say")
    refused(tmp_path, {**config, key: 0}, f"'{key}' is 0")


REQUIRED = [
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "global_head_dim", "sliding_window", "rms_norm_eps",
    "max_position_embeddings", "hidden_size_per_layer_input", "vocab_size_per_layer_input",
    "tie_word_embeddings",
]  # fmt: skip
OPTIONAL = {
    "num_kv_shared_layers": 0, "use_double_wide_mlp": False, "enable_moe_block": False,
    "attention_k_eq_v": False, "layer_types": None, "final_logit_softcapping": None,
    "num_global_key_value_heads": None, "num_experts": None, "top_k_experts": None,
    "moe_intermediate_size": None, "rope_parameters": None, "sliding_window_pattern": None,
}  # fmt: skip


@pytest.mark.parametrize("key", REQUIRED)
def test_a_null_that_is_no_default(key: str, tmp_path: Path) -> None:
    config = copy.deepcopy(CONFIGS["e2b"])
    (config if key == "tie_word_embeddings" else text_of(config))[key] = None
    refused(tmp_path, config, f"'{key}' is null", "is expected")


@pytest.mark.parametrize("key", OPTIONAL)
def test_a_null_that_is_the_default(key: str, tmp_path: Path) -> None:
    config = {"architectures": ["Gemma4ForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    expected = read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, key: None}))
    assert read_config(tmp_path) == expected


def test_a_null_in_a_layer_is_no_default(tmp_path: Path) -> None:
    for key in ("head_dim", "num_key_value_heads"):
        config = copy.deepcopy(CONFIGS["e2b"])
        text_of(config)["per_layer_config"] = {"0": {key: None}}
        refused(tmp_path, config, f"'{key}' is null")


def test_no_window_is_needed_where_no_layer_slides(tmp_path: Path) -> None:
    config: dict[str, Any] = {"architectures": ["Gemma4ForCausalLM"], "num_hidden_layers": 1}
    accepted(tmp_path, {**config, "sliding_window": None})


@pytest.mark.parametrize("kind", ["e2b", "31b", "draft"])
def test_other_spellings(kind: str, tmp_path: Path) -> None:
    text = text_of(CONFIGS[kind])
    rope = text.get("rope_parameters") or {"sliding_attention": {"rope_theta": 1e4}}
    same = {
        "layer_norm_eps": text.get("rms_norm_eps", 1e-6),
        "head_dim_swa": text.get("head_dim", 256),
        "swa_rope_theta": rope["sliding_attention"]["rope_theta"],
    }
    for key, value in same.items():
        for good in (None, value):
            config = copy.deepcopy(CONFIGS[kind])
            text_of(config)[key] = good
            accepted(tmp_path, config)
        for wrong in (value * 2, 0, "x"):
            text_of(config)[key] = wrong
            refused(tmp_path, config, f"'{key}' is {json.dumps(wrong)}, {value:g} as in ")


@pytest.mark.parametrize("kind", ["e2b", "draft"])
@pytest.mark.parametrize(
    ("key", "value", "method"),
    [
        ("quantization_config", {"quant_method": "bitsandbytes", "bits": 4}, "bitsandbytes"),
        ("quantization_config", {"group_size": 64, "bits": 4}, "quantized already"),
        ("quantization", {"group_size": 64, "bits": 4}, "quantized already"),
        ("quantization_config", {"quant_method": "gptq"}, "gptq"),
    ],
)
def test_quantized_folders(key: str, value: dict, method: str, kind: str, tmp_path: Path) -> None:
    config = {**copy.deepcopy(CONFIGS[kind]), key: value}
    refused(tmp_path, config, f"'{key}'", method, "convert the original, unquantized")
    text_of(config := copy.deepcopy(CONFIGS[kind]))[key] = value
    refused(tmp_path, config, f"'{key}'", method)


NUMBERS = {
    "rms_norm_eps": [1e-40, 2, 1e30],
    "final_logit_softcapping": [0, 1e-40, 1e30],
    "rope_theta": [0.5, 1e13],
    "partial_rotary_factor": [1.5],
}


@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_that_no_model_has(key: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path, CONFIGS["31b"])
    good = json.dumps(CONFIGS["31b"])
    for shown in [*map(json.dumps, NUMBERS[key]), "-1", "NaN", "1e400", "-1e400", "1" * 400, '"1"']:
        if key in ("rope_theta", "partial_rotary_factor"):
            full = f'{{"rope_type": "proportional", "rope_theta": 1e6, "{key}": {shown}}}'
            added = f'"rope_parameters": {{"full_attention": {full}, "sliding_attention": ' + (
                '{"rope_theta": 1e4}}'
            )
        else:
            added = f'"{key}": {shown}'
        (folder / "config.json").write_text(good[:-1] + ", " + added + "}")
        with pytest.raises(gemtp.FileError, match=f"'{key}' is "):
            run(folder)
