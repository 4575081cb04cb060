"""Files of other converters: their names for the same things, fused and split tensors, scales."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gemtp_native as gemtp
import tiny_files
from gemtp_native.cli.model_file import ModelFile
from gemtp_native.make.quantize import quantize
from gguf_bytes import (
    BLOCKS,
    BOOL,
    I32,
    STRING,
    T_F32,
    T_I32,
    T_Q4_0,
    T_Q8_0,
    U32,
    Gguf,
    Tensor,
    random_tensor,
    read_array,
)

PROMPT = [2, 105, 263, 264, 270]
VOCAB = len(tiny_files.TOKENS)


def write(path: Path, made: Gguf) -> Path:
    path.write_bytes(made.encode())
    return path


def logits(path: Path) -> bytes:
    return gemtp.Model(path, threads=1, context=64).logits(PROMPT).tobytes()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sound")
    return (
        write(folder / "target.gguf", tiny_files.sound_target()),
        write(folder / "drafter.gguf", tiny_files.sound_drafter()),
    )


# ---------------------------------------------------------------- drafters


def rename(g: Gguf, arch: str, keys: dict[str, str], tensors: dict[str, str]) -> None:
    for key in g.keys:
        if isinstance(key.name, str) and key.name.startswith("gemma4-assistant."):
            key.name = f"{arch}." + key.name.removeprefix("gemma4-assistant.")
            key.name = keys.get(key.name, key.name)
    g.put("general.architecture", STRING, arch)
    for tensor in g.tensors:
        tensor.name = tensors.get(str(tensor.name), tensor.name)


def ordered_head_as_tensors(
    g: Gguf, source: Path, arch: str, names: tuple[str, str], top_k: str, token_to_cluster: bool
) -> None:
    """In place of the metadata of `source`."""
    centroids = np.array(read_array(source, "gemtp.ordered_head.centroids"), np.float32)
    order = np.array(read_array(source, "gemtp.ordered_head.token_order"), np.int32)
    if token_to_cluster:
        # Within a cluster tokens then come by their number, which decides nothing.
        clusters = np.empty_like(order)
        clusters[order] = np.arange(VOCAB) // (VOCAB // tiny_files.CENTROIDS)
        order = clusters.astype(np.int32)
    for key in ("num_centroids", "top_k", "centroids", "token_order"):
        g.drop(f"gemtp.ordered_head.{key}")
    shape = [tiny_files.HIDDEN, tiny_files.CENTROIDS]
    g.tensors.append(Tensor(names[0], shape, T_F32, centroids.tobytes()))
    g.tensors.append(Tensor(names[1], [VOCAB], T_I32, order.tobytes()))
    g.put(f"{arch}.{top_k}", U32, 2)


def llama_cpp(g: Gguf, source: Path) -> None:
    names = "masked_embd_centroids.weight", "masked_embd_ordering"
    ordered_head_as_tensors(
        g, source, "gemma4-assistant", names, "centroid_intermediate_top_k", False
    )


def underscore(g: Gguf, source: Path) -> None:
    arch = "gemma4_assistant"
    tensors = {
        f"nextn.{p}_projection.weight": f"mtp.{p}_projection.weight" for p in ("pre", "post")
    }
    rename(g, arch, {f"{arch}.embedding_length_out": f"{arch}.n_embd_backbone"}, tensors)
    g.drop(f"{arch}.nextn_predict_layers")
    names = "mtp.centroids.weight", "mtp.token_ordering.weight"
    ordered_head_as_tensors(g, source, arch, names, "centroid_top_k", False)
    g.put(f"{arch}.use_ordered_embeddings", BOOL, True)


def mtp(g: Gguf, source: Path) -> None:
    arch = "gemma4_mtp"
    tensors = {f"nextn.{p}_projection.weight": f"mtp_{p}_proj.weight" for p in ("pre", "post")}
    rename(g, arch, {f"{arch}.embedding_length_out": f"{arch}.backbone_embedding_length"}, tensors)
    g.drop(f"{arch}.nextn_predict_layers")
    g.drop("rope_freqs.weight")
    names = "mtp_centroids.weight", "mtp_token_ordering.weight"
    ordered_head_as_tensors(g, source, arch, names, "centroid_top_k", True)


@pytest.mark.parametrize("dialect", [llama_cpp, underscore, mtp])
def test_drafters_of_other_converters(
    dialect: Callable[[Gguf, Path], None], sound: tuple[Path, Path], tmp_path: Path
) -> None:
    target, drafter = sound
    g = tiny_files.sound_drafter()
    dialect(g, drafter)
    path = write(tmp_path / "drafter.gguf", g)
    ours = gemtp.Model(target, drafter=drafter, threads=1, context=64)
    theirs = gemtp.Model(target, drafter=path, threads=1, context=64)
    for start in range(5):
        prompt = [2, *range(260 + start, 268 + start)]
        assert theirs.draft(prompt, 6) == ours.draft(prompt, 6)

    seen = ModelFile(path)
    assert (seen.kind, seen.problems, seen.backbone) == ("drafter", [], tiny_files.HIDDEN)
    assert seen.ordered_head is not None
    assert (seen.ordered_head.centroids, seen.ordered_head.top_k) == (tiny_files.CENTROIDS, 2)

    # What is no matrix stays as it is, whatever its type.
    small = tmp_path / "small.gguf"
    quantize(path, small, "q4_0", allow_requantize=True, progress=False)
    kinds = {t.name: t.type for t in ModelFile(small).tensors}
    assert [kinds[n] for n in kinds if "order" in n] == ["I32"]
    assert [kinds[n] for n in kinds if "centroids" in n] == ["F32"]
    again = gemtp.Model(target, drafter=small, threads=1, context=64)
    assert len(again.draft(PROMPT, 4)) == 4


def test_the_spelling_alone_is_enough(sound: tuple[Path, Path], tmp_path: Path) -> None:
    """An architecture's name with llama.cpp's keys and tensors."""
    expected = gemtp.Model(sound[0], drafter=sound[1], threads=1, context=64).draft(PROMPT, 4)
    for arch in ("gemma4_assistant", "gemma4_mtp"):
        g = tiny_files.sound_drafter()
        rename(g, arch, {}, {})
        path = write(tmp_path / f"{arch}.gguf", g)
        assert gemtp.Model(sound[0], drafter=path, threads=1, context=64).draft(PROMPT, 4) == (
            expected
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda order: np.where(order == 3, 4, order), "not a permutation"),
        (lambda order: order // 3, "not a permutation"),
        (lambda order: order - 1, "not a permutation"),
    ],
)
def test_an_ordering_that_is_none(
    change, words: str, sound: tuple[Path, Path], tmp_path: Path
) -> None:
    g = tiny_files.sound_drafter()
    llama_cpp(g, sound[1])
    ordering = g.tensor("masked_embd_ordering")
    ordering.data = change(np.frombuffer(ordering.data, np.int32)).astype(np.int32).tobytes()
    path = write(tmp_path / "drafter.gguf", g)
    with pytest.raises(gemtp.FileError, match=words):
        gemtp.Model(sound[0], drafter=path, threads=1, context=64)


def test_a_drafter_without_its_backbone(sound: tuple[Path, Path], tmp_path: Path) -> None:
    g = tiny_files.sound_drafter()
    g.drop("gemma4-assistant.embedding_length_out")
    path = write(tmp_path / "drafter.gguf", g)
    with pytest.raises(gemtp.FileError, match="embedding_length_out is missing"):
        gemtp.Model(sound[0], drafter=path, threads=1, context=64)


# ---------------------------------------------------------------- fused tensors


def target_without_ple(k_is_v: bool) -> Gguf:
    """Projections of attention all in Q8_0, so that they can be fused."""
    g = Gguf()
    random = np.random.default_rng(5)
    tiny_files.put_architecture(g, "gemma4", tiny_files.PATTERN)
    g.put("gemma4.attention.shared_kv_layers", U32, tiny_files.SHARED)
    tiny_files.put_vocabulary(g)
    g.tensors.append(random_tensor(random, "token_embd.weight", [tiny_files.HIDDEN, VOCAB], T_Q8_0))
    owners = len(tiny_files.PATTERN) - tiny_files.SHARED
    tiny_files.put_layers(g, random, tiny_files.PATTERN, owners, ple=False)
    for i, tensor in enumerate(g.tensors):
        if str(tensor.name).endswith(("attn_q.weight", "attn_k.weight", "attn_v.weight")):
            g.tensors[i] = random_tensor(random, str(tensor.name), tensor.shape, T_Q8_0)
    if k_is_v:
        for i, sliding in enumerate(tiny_files.PATTERN):
            if not sliding:
                g.drop(f"blk.{i}.attn_v.weight")
    return g


def fuse(g: Gguf, layer: int) -> None:
    names = [f"blk.{layer}.attn_{part}.weight" for part in "qkv"]
    found = [t for t in g.tensors if t.name in names]
    rows = sum(t.shape[1] for t in found)
    at = g.tensors.index(found[0])
    data = b"".join(t.data for t in sorted(found, key=lambda t: names.index(str(t.name))))
    for tensor in found:
        g.tensors.remove(tensor)
    name = f"blk.{layer}.attn_qkv.weight"
    g.tensors.insert(at, Tensor(name, [tiny_files.HIDDEN, rows], T_Q8_0, data))


@pytest.mark.parametrize("k_is_v", [False, True])
def test_fused_projections(k_is_v: bool, tmp_path: Path) -> None:
    expected = logits(write(tmp_path / "separate.gguf", target_without_ple(k_is_v)))
    fused = target_without_ple(k_is_v)
    for i in range(len(tiny_files.PATTERN)):  # the last, which shares K/V, has Q alone
        fuse(fused, i)
    path = write(tmp_path / "fused.gguf", fused)
    assert logits(path) == expected
    assert ModelFile(path).problems == []


def test_fused_projections_of_the_wrong_size(tmp_path: Path) -> None:
    g = target_without_ple(False)
    fuse(g, 0)
    qkv = g.tensor("blk.0.attn_qkv.weight")
    qkv.shape[1] += 16
    qkv.data += bytes(16 * tiny_files.HIDDEN // 32 * 34)
    with pytest.raises(gemtp.FileError, match=r"blk\.0\.attn_qkv\.weight has shape \[32, 112\]"):
        logits(write(tmp_path / "wrong.gguf", g))


def split_experts(g: Gguf) -> None:
    """gate_up into gate and up."""
    for i in range(len(tiny_files.PATTERN)):
        both = g.tensor(f"blk.{i}.ffn_gate_up_exps.weight")
        cols, rows, count = both.shape
        data = np.frombuffer(both.data, np.uint8).reshape(count, 2, -1)
        at = g.tensors.index(both)
        g.tensors[at : at + 1] = [
            Tensor(
                f"blk.{i}.ffn_{part}_exps.weight",
                [cols, rows // 2, count],
                both.kind,
                data[:, j].tobytes(),
            )
            for j, part in enumerate(("gate", "up"))
        ]


def test_split_experts(tmp_path: Path) -> None:
    expected = logits(write(tmp_path / "fused.gguf", tiny_files.sound_experts()))
    g = tiny_files.sound_experts()
    split_experts(g)
    assert logits(write(tmp_path / "split.gguf", g)) == expected


# ---------------------------------------------------------------- scales


def divide(tensor: Tensor, by: np.ndarray) -> None:
    """The weights, which makes the same of them when a scale `by` (powers of two) is applied; one
    for all, or one for each expert."""
    block, size = BLOCKS[tensor.kind]
    if block == 1:
        values = np.frombuffer(tensor.data, np.float32).reshape(len(by), -1)
        tensor.data = (values / by[:, None].astype(np.float32)).tobytes()
        return
    blocks = np.frombuffer(tensor.data, np.uint8).reshape(len(by), -1, size).copy()
    scales = blocks[..., :2].copy().view(np.float16)
    blocks[..., :2] = (scales / by[:, None, None].astype(np.float16)).view(np.uint8)
    tensor.data = blocks.tobytes()


def with_scales(g: Gguf, random: np.random.Generator) -> Gguf:
    """Scales beside every weight that can have one, weights divided by them."""
    ends = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    for tensor in list(g.tensors):
        name = str(tensor.name).removesuffix(".weight")
        experts = name.endswith(("ffn_gate_exps", "ffn_up_exps"))
        if not experts and not name.endswith(ends):
            continue
        by = 2.0 ** random.integers(-3, 4, tiny_files.EXPERTS if experts else 1)
        divide(tensor, by)
        for kind in ("scale", "input_scale"):  # the second is for other hardware
            data = (by if kind == "scale" else by * 3).astype(np.float32).tobytes()
            g.tensors.append(Tensor(f"{name}.{kind}", [len(by)], T_F32, data))
    return g


def test_scales_beside_weights(tmp_path: Path) -> None:
    def made() -> Gguf:
        g = tiny_files.sound_experts()
        split_experts(g)
        return g

    expected = logits(write(tmp_path / "plain.gguf", made()))
    random = np.random.default_rng(6)
    path = write(tmp_path / "scaled.gguf", with_scales(made(), random))
    assert logits(path) == expected
    assert ModelFile(path).problems == []

    # They do count, where no norm undoes them.
    for name in ("blk.0.ffn_gate.scale", "blk.0.ffn_gate_exps.scale"):
        g = with_scales(made(), np.random.default_rng(6))
        g.tensor(name).data = (7 * np.frombuffer(g.tensor(name).data, np.float32)).tobytes()
        assert logits(write(tmp_path / "other.gguf", g)) != expected


def test_a_scale_of_fused_projections(tmp_path: Path) -> None:
    plain = target_without_ple(False)
    fuse(plain, 0)
    scaled = plain.copy()
    divide(scaled.tensor("blk.0.attn_qkv.weight"), np.array([4.0]))
    data = np.array([4], np.float32).tobytes()
    scaled.tensors.append(Tensor("blk.0.attn_qkv.scale", [1], T_F32, data))
    assert logits(write(tmp_path / "scaled.gguf", scaled)) == logits(
        write(tmp_path / "plain.gguf", plain)
    )


def test_a_scale_of_the_head(tmp_path: Path) -> None:
    g = tiny_files.sound_target()
    head = random_tensor(
        np.random.default_rng(8), "output.weight", [tiny_files.HIDDEN, VOCAB], T_Q4_0
    )
    g.tensors.append(head)
    expected = logits(write(tmp_path / "plain.gguf", g))
    divide(head, np.array([0.5]))
    data = np.array([0.5], np.float32).tobytes()
    g.tensors.append(Tensor("output.scale", [1], T_F32, data))
    assert logits(write(tmp_path / "scaled.gguf", g)) == expected


@pytest.mark.parametrize("name", ["token_embd.scale", "per_layer_token_embd.scale"])
def test_a_scale_of_a_table_is_refused(tmp_path: Path, name: str) -> None:
    g = tiny_files.sound_target()
    g.tensors.append(Tensor(name, [1], T_F32, np.array([2], np.float32).tobytes()))
    with pytest.raises(gemtp.FileError, match=f"{name} multiplies a table"):
        gemtp.Model(write(tmp_path / "scaled.gguf", g))


def test_a_scale_that_is_no_number(tmp_path: Path) -> None:
    g = tiny_files.sound_target()
    data = np.array([np.nan], np.float32).tobytes()
    g.tensors.append(Tensor("blk.0.attn_q.scale", [1], T_F32, data))
    with pytest.raises(gemtp.FileError, match=r"blk\.0\.attn_q\.scale holds a NaN"):
        logits(write(tmp_path / "nan.gguf", g))
    g.tensor("blk.0.attn_q.scale").shape[0] = 2
    g.tensor("blk.0.attn_q.scale").data = bytes(8)
    with pytest.raises(gemtp.FileError, match=r"blk\.0\.attn_q\.scale has shape \[2\]"):
        logits(write(tmp_path / "two.gguf", g))


# ---------------------------------------------------------------- tokenizers


def test_a_tokenizer_as_ollama_writes_it(sound: tuple[Path, Path], tmp_path: Path) -> None:
    """Model "llama", and the types that tokenizer.json has: no bytes, tags as added tokens."""
    g = tiny_files.sound_target()
    g.put("tokenizer.ggml.model", STRING, "llama")
    g.put("tokenizer.ggml.pre", STRING, "gemma4")
    kinds = np.array(tiny_files.TYPES)
    kinds[kinds == tiny_files.BYTE] = tiny_files.NORMAL
    kinds[tiny_files.TOKENS.index("and")] = tiny_files.USER_DEFINED  # like a tag
    g.put_array("tokenizer.ggml.token_type", I32, kinds.tolist())
    theirs = gemtp.Tokenizer(write(tmp_path / "blob", g))
    ours = gemtp.Tokenizer(sound[0])
    for text in ("the hand", "<|turn>the and\n", "é <0x41> 日本", "", "in the\n\n"):
        for special in (False, True):
            ids = ours.encode(text, add_bos=True, special=special)
            assert theirs.encode(text, add_bos=True, special=special) == ids
            assert theirs.decode(ids) == ours.decode(ids)
    assert theirs.end_tokens == ours.end_tokens

    g.put("tokenizer.ggml.pre", STRING, "default")
    with pytest.raises(gemtp.FileError, match="of the model 'llama', but only 'gemma4'"):
        gemtp.Tokenizer(write(tmp_path / "other", g))
