"""A file written by gguf-py, in another order and other spellings, gives the same logits."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

import checkpoints
import gemtp_native as gemtp


def _field_value(field: gguf.ReaderField):
    """(value, type) of one metadata entry; arrays as lists."""
    if field.types[0] != gguf.GGUFValueType.ARRAY:
        return field.contents(), field.types[0], None
    return field.contents(), field.types[0], field.types[1]


def _shuffled(items: list) -> list:
    order = np.random.default_rng(3).permutation(len(items))
    return [items[i] for i in order]


def rewrite(
    source: Path,
    out: Path,
    fuse_qkv: bool = False,
    split_experts: bool = False,
    tied_copy: bool = False,
    head_as_tensors: bool = False,
) -> None:
    """Write `source` again with gguf-py's own writer, laid out as differently as is allowed.

    Keys and tensors are in another order, data is aligned to 64 bytes, unknown metadata stands in
    between, arrays of equal entries become scalars and scalars that may be arrays become arrays.
    fuse_qkv: attn_q, attn_k, attn_v as one attn_qkv where all three exist. split_experts: fused
    gate and up experts as two tensors. tied_copy: the tied head written out as a tensor.
    head_as_tensors: an ordered head as llama.cpp's two tensors instead of metadata.
    """
    reader = gguf.GGUFReader(source)
    arch = reader.fields["general.architecture"].contents()
    layers = reader.fields[f"{arch}.block_count"].contents()
    writer = gguf.GGUFWriter(out, arch)
    writer.add_custom_alignment(64)
    writer.add_string("other_tool.comment", "metadata that nobody knows")
    writer.add_array("other_tool.numbers", [1.5, 2.5])
    per_layer = (".feed_forward_length", ".attention.head_count", ".attention.head_count_kv")
    for name, field in _shuffled(list(reader.fields.items())):
        if name.startswith("GGUF.") or name in ("general.architecture", "general.alignment"):
            continue
        if head_as_tensors and name.startswith("gemtp.ordered_head."):
            continue
        value, kind, element = _field_value(field)
        if name.endswith(per_layer) and element is None:
            value, kind, element = [value] * layers, gguf.GGUFValueType.ARRAY, kind
        elif name.endswith(per_layer) and len(set(value)) == 1:
            value, kind, element = value[0], element, None
        writer.add_key_value(name, value, kind, element)

    tensors = {t.name: t for t in reader.tensors}
    written: dict[str, tuple[np.ndarray, gguf.GGMLQuantizationType]] = {
        name: (np.array(t.data), t.tensor_type) for name, t in tensors.items()
    }
    for layer in range(layers):
        q, k, v = (f"blk.{layer}.attn_{part}.weight" for part in "qkv")
        if fuse_qkv and v in written:  # rows follow each other; a row is the same bytes in both
            parts = [written.pop(name) for name in (q, k, v)]
            fused = np.concatenate([data for data, _ in parts])
            written[f"blk.{layer}.attn_qkv.weight"] = (fused, parts[0][1])
        both = f"blk.{layer}.ffn_gate_up_exps.weight"
        if split_experts and both in written:
            data, kind = written.pop(both)  # [experts, gate rows then up rows, bytes or values]
            gate, up = np.split(data, 2, axis=1)
            written[f"blk.{layer}.ffn_gate_exps.weight"] = (np.ascontiguousarray(gate), kind)
            written[f"blk.{layer}.ffn_up_exps.weight"] = (np.ascontiguousarray(up), kind)
    if head_as_tensors:
        head = {
            name.removeprefix("gemtp.ordered_head."): field.contents()
            for name, field in reader.fields.items()
            if name.startswith("gemtp.ordered_head.")
        }
        writer.add_uint32(f"{arch}.centroid_intermediate_top_k", head["top_k"])
        centroids = np.array(head["centroids"], np.float32).reshape(head["num_centroids"], -1)
        f32, i32 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.I32
        written["masked_embd_centroids.weight"] = (centroids, f32)
        written["masked_embd_ordering"] = (np.array(head["token_order"], np.int32), i32)
    if tied_copy and "output.weight" not in written:
        written["output.weight"] = written["token_embd.weight"]
    for name, (data, kind) in _shuffled(list(written.items())):
        quantized = kind in (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0)
        writer.add_tensor(name, data, raw_dtype=kind if quantized else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("outtype", ["f32", "f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("arch", checkpoints.ARCHITECTURES)
def test_same_bits(arch, outtype, tmp_path):
    pair = checkpoints.to_gguf(checkpoints.committed(arch, tmp_path / "hf"), tmp_path, outtype)
    target, drafter = tmp_path / "other-target.gguf", tmp_path / "other-drafter.gguf"
    rewrite(pair.target, target, fuse_qkv=True, split_experts=True, tied_copy=True)
    rewrite(pair.drafter, drafter)
    assert target.read_bytes()[:4096] != pair.target.read_bytes()[:4096]
    names = {tensor.name for tensor in gguf.GGUFReader(target).tensors}
    assert any("attn_qkv" in name for name in names)
    assert (arch == "26b-a4b") == any("ffn_up_exps" in name for name in names)

    ours = gemtp.Model(pair.target, drafter=pair.drafter, threads=1, context=256)
    other = gemtp.Model(target, drafter=drafter, threads=1, context=256)
    ids = checkpoints.random_prompt(arch, 3 * checkpoints.window(arch) + 5, 1)
    assert ours.logits(ids).tobytes() == other.logits(ids).tobytes()
    for a, b in zip(ours.draft_trace(ids, 4), other.draft_trace(ids, 4), strict=True):
        assert np.array_equal(a, b)
    options = {"max_tokens": 24, "ignore_eos": True, "temperature": 1.0, "seed": 5}
    assert ours.generate(ids, **options).text == other.generate(ids, **options).text


@pytest.mark.parametrize("arch", ["e2b", "e4b"])
def test_ordered_head_as_tensors(arch, tmp_path):
    pair = checkpoints.to_gguf(checkpoints.committed(arch, tmp_path / "hf"), tmp_path, "q8_0")
    drafter = tmp_path / "other-drafter.gguf"
    rewrite(pair.drafter, drafter, head_as_tensors=True)
    reader = gguf.GGUFReader(drafter)
    assert not any(name.startswith("gemtp.") for name in reader.fields)
    assert "masked_embd_ordering" in {tensor.name for tensor in reader.tensors}

    ours = gemtp.Model(pair.target, drafter=pair.drafter, threads=1, context=256)
    other = gemtp.Model(pair.target, drafter=drafter, threads=1, context=256)
    ids = checkpoints.random_prompt(arch, 30, 1)
    for a, b in zip(ours.draft_trace(ids, 4), other.draft_trace(ids, 4), strict=True):
        assert np.array_equal(a, b)
