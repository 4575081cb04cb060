"""gemtp quantize: which tensor gets which type, files that load and generate, reports that fit the
file, refusals in one sentence; convert --outtype gives the same."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import checkpoints
import gemtp_native as gemtp
import shipped
import tiny_files
from convert_folders import CONFIGS, make_folder
from gemtp_native import _core
from gemtp_native.gguf.encode import encode
from gemtp_native.gguf.file import read_contents
from gemtp_native.gguf.types import (
    FILE_TYPES,
    Rules,
    TensorType,
    encoded_size,
    file_type,
    fitting,
    is_matrix,
    tensor_type,
)
from gemtp_native.make.convert import convert
from gemtp_native.make.quantize import ImportanceMatrix, has_type, plan, quantize
from gemtp_native.make.quantize.imatrix import Sums

TARGET, _ = shipped.in_q8_0()
Q4_K, Q5_K, Q6_K = TensorType.Q4_K, TensorType.Q5_K, TensorType.Q6_K
F32, BF16 = TensorType.F32, TensorType.BF16


@pytest.fixture(scope="module")
def originals() -> tuple[Path, Path]:
    """The shipped pair in F32."""
    return shipped.in_f32()


def kinds_of(path: str | Path) -> dict[str, str]:
    return {name: kind for name, kind, *_ in _core.GgufFile(path).tensors}


# ---------------------------------------------------------------- rules


def names_of(layers: int, values: int, experts: bool = False) -> list[str]:
    names = ["token_embd.weight", "per_layer_token_embd.weight", "per_layer_model_proj.weight"]
    for i in range(layers):
        names += [f"blk.{i}.{n}.weight" for n in ("attn_q", "attn_output", "ffn_gate", "ffn_down")]
        names += [f"blk.{i}.attn_v.weight"] * (i < values)
        names += [f"blk.{i}.ffn_down_exps.weight"] * experts
    return names


def layers_with(rules: Rules, part: str, kind: TensorType, layers: int) -> list[int]:
    return [i for i in range(layers) if rules.kind(f"blk.{i}.{part}.weight", 1536, F32) == kind]


def test_a_mix_gives_more_bits_where_llama_cpp_does():
    """As llama-quantize --dry-run lists them for a model of 35 layers, 15 of which have values."""
    names = names_of(35, 15)
    rules = Rules(file_type("q4_k_m"), names, 35)
    assert rules.kind("token_embd.weight", 1536, F32) == Q6_K
    assert rules.kind("per_layer_token_embd.weight", 8960, F32) == Q6_K
    assert rules.kind("per_layer_model_proj.weight", 1536, BF16) == BF16
    assert rules.kind("blk.3.attn_q.weight", 1536, F32) == Q4_K
    assert rules.kind("blk.3.proj.weight", 256, F32) == Q4_K
    more = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 31, 32, 33, 34]
    assert layers_with(rules, "ffn_down", Q6_K, 35) == more
    assert layers_with(rules, "attn_v", Q6_K, 15) == [0, 3, 6, 9, 12, 13, 14]
    rules = Rules(file_type("q4_k_s"), names, 35)
    assert layers_with(rules, "ffn_down", Q5_K, 35) == [0, 1, 2, 3]
    assert layers_with(rules, "attn_v", Q5_K, 15) == [0, 1, 2, 3]
    rules = Rules(file_type("q5_k_m"), names, 35)
    assert layers_with(rules, "ffn_down", Q6_K, 35) == more
    rules = Rules(file_type("q5_k_s"), names, 35)
    assert layers_with(rules, "ffn_down", Q5_K, 35) == list(range(35))
    rules = Rules(file_type("q3_k_m"), names, 35)
    assert layers_with(rules, "ffn_down", Q5_K, 35) == [0, 1]
    assert layers_with(rules, "ffn_down", Q4_K, 35) == list(range(2, 35))
    assert layers_with(rules, "attn_v", Q5_K, 15) == [0, 1]
    assert layers_with(rules, "attn_output", Q4_K, 35) == list(range(35))
    rules = Rules(file_type("q3_k_l"), names, 35)
    for part in ("ffn_down", "attn_output"):
        assert layers_with(rules, part, Q5_K, 35) == list(range(35))


def test_experts_and_untied_heads():
    names = [*names_of(30, 30, experts=True), "output.weight"]
    rules = Rules(file_type("q4_k_m"), names, 30)
    assert rules.kind("output.weight", 2816, F32) == Q6_K
    assert rules.kind("token_embd.weight", 2816, F32) == Q4_K  # a table of its own
    same = layers_with(rules, "ffn_down", Q6_K, 30)
    assert 0 in same
    # Rows of 704 values are no multiple of 256.
    q8_0, q5_0 = TensorType.Q8_0, TensorType.Q5_0
    for i in range(30):
        kind = rules.kind(f"blk.{i}.ffn_down_exps.weight", 704, F32)
        assert kind == (q8_0 if i in same else q5_0)


def test_a_type_is_for_all_matrices():
    for name in ("q4_k", "q6_k", "iq4_xs", "q4_0"):
        wanted = file_type(name)
        rules = Rules(wanted, names_of(4, 4), 4)
        for matrix in names_of(4, 4):
            assert rules.kind(matrix, 512, F32) == wanted.kind
    assert not is_matrix("blk.0.ffn_gate_inp.weight", 2)
    assert not is_matrix("masked_embd_centroids.weight", 2)
    assert not is_matrix("masked_embd_ordering", 2)
    assert not is_matrix("blk.0.attn_norm.weight", 1)


def test_narrow_rows():
    for kind, other in {
        "Q6_K": "Q8_0", "Q5_K": "Q5_1", "Q4_K": "Q5_0", "Q3_K": "Q4_0", "Q2_K": "Q4_0",
        "IQ4_XS": "IQ4_NL", "Q4_0": "Q4_0", "F16": "F16",
    }.items():  # fmt: skip
        assert fitting(TensorType[kind], 512) == TensorType[kind]
        assert fitting(TensorType[kind], 96) == TensorType[other]
        assert fitting(TensorType[kind], 40) == TensorType.F16


def test_overrides_and_a_kept_head():
    names = names_of(4, 4)
    overrides = [(r"attn_v", tensor_type("q8_0")), (r"blk\.1\.", tensor_type("F16"))]
    rules = Rules(file_type("q4_k"), names, 4, overrides, keep_head=True)
    assert rules.kind("blk.1.attn_v.weight", 512, F32) == TensorType.Q8_0
    assert rules.kind("blk.1.attn_q.weight", 512, F32) == TensorType.F16
    assert rules.kind("blk.2.attn_q.weight", 512, F32) == Q4_K
    assert rules.kind("token_embd.weight", 512, F32) == F32
    with pytest.raises(gemtp.ArgumentError, match="no tensor has a name that matches 'attn_w'"):
        Rules(file_type("q4_k"), names, 4, [("attn_w", Q4_K)])
    with pytest.raises(gemtp.ArgumentError, match=r"'\(' is no pattern"):
        Rules(file_type("q4_k"), names, 4, [("(", Q4_K)])
    with pytest.raises(gemtp.ArgumentError, match=r"'q7'; F32, F16.*MXFP4.* are possible"):
        tensor_type("q7")


# ---------------------------------------------------------------- files


def test_what_is_written(originals, tmp_path):
    """Values as encoded, everything else as it was."""
    for source in originals:
        made = quantize(source, tmp_path / "made.gguf", "Q4_K_M", progress=False)
        assert made.path.stat().st_size == made.bytes
        before, after = read_contents(source), read_contents(tmp_path / "made.gguf")
        assert after.values.pop("general.file_type") == 15
        assert after.values.pop("general.quantization_version") == 2
        for key in ("general.file_type", "general.quantization_version"):
            before.values.pop(key)
        assert list(before.values) == list(after.values)  # the ordered head's among them
        np.testing.assert_equal(after.values, before.values)
        old, new = source.read_bytes(), (tmp_path / "made.gguf").read_bytes()
        for was, now in zip(before.tensors, after.tensors, strict=True):
            assert (was.name, was.shape) == (now.name, now.shape)
            kind = TensorType(now.kind)
            values = np.frombuffer(old, "<f4", was.count, was.offset)
            data = new[now.offset : now.offset + encoded_size(now.count, kind)]
            assert data == encode(values, kind).tobytes()
            if was.name in made.tensors:
                assert made.tensors[was.name] == kind.name
        assert sum(made.types.values()) == len(after.tensors)


def test_the_shipped_pair_in_a_mix(originals, tmp_path):
    """Its rows are narrow, or not of 256: what each matrix falls back to."""
    target, drafter = (
        quantize(path, tmp_path / path.name, "q4_k_m", progress=False) for path in originals
    )
    kinds = kinds_of(target.path)
    assert kinds["per_layer_token_embd.weight"] == "Q6_K"  # 512 values
    assert kinds["token_embd.weight"] == "Q6_K"
    assert kinds["blk.0.attn_q.weight"] == "Q4_K"
    assert kinds["blk.0.proj.weight"] == "Q5_0"  # 64
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert kinds["per_layer_model_proj.weight"] == "F32"
    assert any("as Q5_0, because their rows" in note for note in target.notes)
    assert drafter.tensors["blk.0.ffn_down.weight"] in ("Q4_K", "Q6_K")


@pytest.mark.parametrize("name", ["q8_0", "q4_0", "f16"])
def test_a_written_pair_generates(originals, tmp_path, name):
    target, drafter = (
        quantize(path, tmp_path / path.name, name, progress=False).path for path in originals
    )
    model = gemtp.Model(target, drafter=drafter, context=128)
    prompt = model.tokenize("def mean(values):\n")
    fast = model.generate(prompt, max_tokens=24)
    assert fast.tokens == model.generate(prompt, max_tokens=24, draft=0).tokens
    assert fast.stats.accepted > 0


@pytest.mark.parametrize("name", ["q4_k_m", "q3_k_l", "iq4_xs", "q5_1", "mxfp4"])
def test_convert_writes_the_same(tmp_path, name):
    """Straight from the folder, byte for byte."""
    for config in ("26b", "e2b", "draft"):
        folder = make_folder(tmp_path / config, CONFIGS[config])
        options = {"tokenizer": False, "progress": False}
        source, direct = tmp_path / "f32.gguf", tmp_path / "direct.gguf"
        convert(folder, source, "f32", **options)
        result = convert(folder, direct, name.upper(), **options)
        assert result.outtype == name
        made = quantize(source, tmp_path / "made.gguf", name, progress=False)
        changed = {n for n, k in kinds_of(direct).items() if k != kinds_of(made.path)[n]}
        # What a mix leaves as it is has the checkpoint's type.
        assert changed <= {"per_layer_model_proj.weight"}
        if not changed:
            assert direct.read_bytes() == made.path.read_bytes()


def test_threads_do_not_change_bytes(originals, tmp_path):
    paths = []
    for threads in (1, 3):
        made = quantize(
            originals[0], tmp_path / f"{threads}.gguf", "q6_k", threads=threads, progress=False
        )
        paths.append(made.path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_importance_reaches_its_columns(originals, tmp_path):
    name = "blk.0.ffn_down.weight"
    random = np.random.default_rng(1)
    sums = Sums(random.lognormal(0, 2, (1, 768)).astype(np.float32), np.float32([7]))
    matrix = ImportanceMatrix(Path("some.gguf"), {name: sums}, ["text"], 3)
    made = quantize(originals[0], tmp_path / "w.gguf", "q4_0", imatrix=matrix, progress=False)
    assert made.weighted == 1
    assert any("are not in the importance matrix" in note for note in made.notes)
    contents = read_contents(made.path)
    assert contents.values["quantize.imatrix.file"] == b"some.gguf"
    assert contents.values["quantize.imatrix.chunks_count"] == 3
    (source,) = [t for t in read_contents(originals[0]).tensors if t.name == name]
    values = np.frombuffer(originals[0].read_bytes(), "<f4", source.count, source.offset)
    weights = np.tile(sums.squares[0] / np.float32(7), 256)
    expected = encode(values, TensorType.Q4_0, weights).tobytes()
    (tensor,) = [t for t in contents.tensors if t.name == name]
    data = made.path.read_bytes()[tensor.offset :][: len(expected)]
    assert data == expected


def test_each_expert_has_its_own_importance(tmp_path):
    g = tiny_files.sound_experts()
    random = np.random.default_rng(1)
    name = "blk.0.ffn_down_exps.weight"
    g.tensor(name).kind = 0
    values = random.standard_normal(tiny_files.EXPERTS * 32 * 32).astype(np.float32)
    g.tensor(name).data = values.tobytes()
    source = tmp_path / "experts.gguf"
    source.write_bytes(g.encode())
    squares = random.lognormal(0, 2, (tiny_files.EXPERTS, 32)).astype(np.float32)
    counts = np.float32([1, 2, 0, 4])
    matrix = ImportanceMatrix(Path("m"), {name: Sums(squares, counts)}, [], 1)
    made = quantize(
        source, tmp_path / "made.gguf", "q4_0", imatrix=matrix, allow_requantize=True,
        progress=False,
    )  # fmt: skip
    (tensor,) = [t for t in read_contents(made.path).tensors if t.name == name]
    means = [squares[0], squares[1] / 2, np.ones(32), squares[3] / 4]
    expected = b"".join(
        encode(part, TensorType.Q4_0, np.tile(np.float32(w), 32)).tobytes()
        for part, w in zip(values.reshape(tiny_files.EXPERTS, -1), means, strict=True)
    )
    assert made.path.read_bytes()[tensor.offset :][: len(expected)] == expected


def test_tensors_that_are_no_weights_are_copied(tmp_path):
    g = tiny_files.sound_drafter()
    order = np.random.default_rng(1).permutation(len(tiny_files.TOKENS)).astype("<i4")
    g.tensors.append(tiny_files.random_tensor(np.random.default_rng(1), "masked_embd_ordering",
                                              [len(order)], 0))  # fmt: skip
    g.tensors[-1].kind, g.tensors[-1].data = 26, order.tobytes()
    rows = tiny_files.random_tensor(np.random.default_rng(1), "masked_embd_centroids.weight",
                                    [32, 8], 0)  # fmt: skip
    g.tensors.append(rows)
    source = tmp_path / "head.gguf"
    source.write_bytes(g.encode())
    made = quantize(source, tmp_path / "m.gguf", "q4_0", allow_requantize=True, progress=False)
    kinds = kinds_of(made.path)
    assert kinds["masked_embd_ordering"] == "I32"
    assert kinds["masked_embd_centroids.weight"] == "F32"
    data = made.path.read_bytes()
    assert order.tobytes() in data
    assert rows.data in data


def test_a_mix_does_not_add_bits(tmp_path):
    """A matrix that has fewer already stays, also where narrow rows would have made more of them; a
    type for all refuses."""
    g = tiny_files.sound_target()
    source = tmp_path / "mixed.gguf"
    source.write_bytes(g.encode())
    with pytest.raises(gemtp.ModelError, match="is Q4_0, and Q8_0 would not bring back"):
        quantize(source, tmp_path / "m.gguf", "q8_0", allow_requantize=True, progress=False)
    for name in ("q4_k_m", "q6_k"):
        result = plan(source, name, allow_requantize=True)
        assert result.tensors["blk.0.ffn_gate.weight"] == "Q4_0"
    assert has_type(TARGET, "q8_0")


# ---------------------------------------------------------------- command line


@pytest.fixture
def call(gemtp_main):
    return partial(gemtp_main, "quantize")


def test_report(call, originals, tmp_path):
    out = tmp_path / "out.gguf"
    code, text, err = call(originals[0], out, "Q5_K_M", "--json")
    assert (code, err) == (0, "")
    report = json.loads(text)
    assert report["bytes"] == out.stat().st_size
    assert report["path"] == str(out)
    assert report["source_bytes"] == originals[0].stat().st_size
    assert report["tensors"] == {n: k for n, k in kinds_of(out).items() if n in report["tensors"]}
    size = sum(b for _, _, _, b, _ in _core.GgufFile(out).tensors)
    assert report["bits_per_weight"] == pytest.approx(8 * size / report["parameters"])
    out.unlink()
    code, text, _ = call(originals[0], out, "q5_k_m", "--json", "--dry-run")
    again = json.loads(text)
    assert not out.exists()
    for key in ("bytes", "types", "tensors", "bits_per_weight"):
        assert again[key] == report[key]
    code, text, err = call(originals[0], out, "q4_0", "--verbose", "--tensor-type", "attn_v=q8_0")
    assert (code, err) == (0, "")
    assert "blk.0.attn_v.weight" in text
    assert f"{out}: q4_0, {out.stat().st_size:,} bytes" in text
    assert kinds_of(out)["blk.1.attn_v.weight"] == "Q8_0"
    assert call(originals[0], out, "q4_0", "--quiet") == (0, "", "")


def test_refusals(call, originals, tmp_path):
    source, out = originals[0], tmp_path / "out.gguf"

    def refused(match: str, *args: object, status: int = 1) -> None:
        code, text, err = call(*args)
        assert (code, text) == (status, "")
        assert match in err
        assert "Traceback" not in err
        assert err.count("\n") == 1 or status == 2
        assert not out.exists()

    refused("'q9_k'; f32, f16, bf16, q8_0", source, out, "q9_k")
    refused("Q8_0 already", TARGET, out, "q4_0")
    refused("would not bring back", TARGET, out, "f16", "--allow-requantize")
    refused("is one of the files to read", source, source, "q4_0")
    refused("is a folder", source, tmp_path, "q4_0")
    refused("does not exist", source, tmp_path / "none" / "out.gguf", "q4_0")
    refused("none.gguf cannot be read", tmp_path / "none.gguf", out, "q4_0")
    refused("must be between 1 and 1024", source, out, "q4_0", "--threads", 0)
    refused("no tensor has a name", source, out, "q4_0", "--tensor-type", "attn_w=f16")
    refused("NAME=TYPE", source, out, "q4_0", "--tensor-type", "attn_v", status=2)
    refused("the type of a tensor", source, out, "q4_0", "--tensor-type", "v=q9", status=2)
    refused("no importance matrix", source, out, "q4_0", "--imatrix", source)
    assert source.exists()


def test_an_importance_matrix_of_another_model(originals, tmp_path):
    def refused(match: str, entries: dict[str, Sums]) -> None:
        matrix = ImportanceMatrix(Path("other.gguf"), entries, [], 1)
        with pytest.raises(gemtp.ModelError, match=match):
            plan(originals[0], "q4_0", imatrix=matrix)

    one = np.float32([1])
    refused("has no entry for any matrix", {"blk.99.attn_q.weight": Sums(one[None], one)})
    refused(
        "attn_q.weight has 1 x 7 values, the model needs 1 x 256",
        {"blk.0.attn_q.weight": Sums(np.ones((1, 7), np.float32), one)},
    )


def test_every_type_has_a_number_and_a_name():
    numbers = {}
    for name, wanted in FILE_TYPES.items():
        assert file_type(name.upper()) is wanted
        numbers.setdefault(wanted.number, []).append(name)
    assert numbers[15] == ["q4_k_m"]
    assert numbers[17] == ["q5_k_m"]
    assert numbers[12] == ["q3_k_m"]


def test_experts_are_quantized_and_routers_are_not(tmp_path):
    folder = checkpoints.committed("26b-a4b", tmp_path / "moe")
    source = checkpoints.to_gguf(folder, folder, "f32").target
    made = quantize(source, tmp_path / "q5.gguf", "q5_1", progress=False).path
    kinds = kinds_of(made)
    assert kinds["blk.0.ffn_gate_inp.weight"] == "F32"
    assert kinds["blk.0.ffn_down_exps.weight"] == "Q5_1"
    assert kinds["blk.0.ffn_down_exps.scale"] == "F32"


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("kind", ["q4_0", "q4_1", "q8_0", "f16", "q4_k_m"])
def test_values_that_no_scale_reaches(tmp_path, kind):
    g = tiny_files.sound_target()
    name = "blk.0.attn_v.weight"
    values = np.frombuffer(g.tensor(name).data, "<f4").copy()
    values[5] = 1e9
    g.tensor(name).data = values.tobytes()
    source, out = tmp_path / "large.gguf", tmp_path / "out.gguf"
    source.write_bytes(g.encode())
    options = {"overrides": [("attn_v", tensor_type(kind))]} if not kind.endswith("_m") else {}
    with pytest.raises(gemtp.ModelError, match=r"attn_v.weight holds 1 values beyond .* bf16 or"):
        quantize(source, out, "q4_0" if options else kind, allow_requantize=True, progress=False,
                 **options)  # fmt: skip
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("blk.1.ffn_norm.weight", 16, np.float32(np.nan)),  # never a matrix
        ("blk.0.layer_output_scale.weight", 0, np.float32(np.inf)),
        ("blk.0.attn_v.weight", 400, np.float32(np.nan)),  # encoded
        ("blk.0.ffn_gate.weight", 18, np.float16(np.nan)),  # Q4_0 already: copied
        ("blk.0.ffn_up.weight", 34, np.float16(np.inf)),  # Q8_0: decoded
    ],
)
def test_what_is_no_number_is_not_passed_on(tmp_path, name, at, value):
    g = tiny_files.sound_target()
    data = bytearray(g.tensor(name).data)
    data[at : at + value.nbytes] = value.tobytes()
    g.tensor(name).data = bytes(data)
    source, out = tmp_path / "nan.gguf", tmp_path / "out.gguf"
    source.write_bytes(g.encode())
    with pytest.raises(gemtp.FileError, match=f"{name}.* (NaN|not finite)"):
        quantize(source, out, "q4_0", allow_requantize=True, progress=False)
    assert not out.exists()


def test_extreme_importance_of_extreme_values(tmp_path):
    """What columns without weight have lies far from what is fitted to the others."""
    g = tiny_files.sound_target()
    name = "blk.0.attn_v.weight"
    values = np.where(np.arange(32 * 32) % 2, 60000, -60000).astype(np.float32)
    g.tensor(name).data = values.tobytes()
    source = tmp_path / "source.gguf"
    source.write_bytes(g.encode())
    for squares in ([3e38] + [0] * 31, [3e38, 1e-38] * 16, [3e38] * 32, [0] * 32):
        sums = Sums(np.float32([squares]), np.float32([1]))
        matrix = ImportanceMatrix(Path("m"), {name: sums}, [], 1)
        for kind in ("q4_1", "q5_1", "q4_0", "q5_0", "iq4_nl"):
            made = quantize(source, tmp_path / "made.gguf", "q8_0", imatrix=matrix, progress=False,
                            allow_requantize=True, overrides=[("attn_v", tensor_type(kind)),
                            (".", TensorType.Q4_0)])  # fmt: skip
            gemtp.Model(made.path, threads=1, context=64).logits([2, 270])
