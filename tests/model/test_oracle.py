"""Our logits and drafts against Hugging Face transformers, live, on checkpoints with fresh seeds.

Needs the [oracle] extra. GEMTP_ORACLE_SEED repeats a run; without it the clock decides.
"""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

import checkpoints
import gemtp_native as gemtp
from gemtp_native.make.convert import convert

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch", reason="the [oracle] extra is not installed (torch)")
transformers = pytest.importorskip(
    "transformers", reason="the [oracle] extra is not installed (transformers)"
)

from safetensors.torch import load_file, save_file  # noqa: E402

import oracle  # noqa: E402

SEED = int(os.environ.get("GEMTP_ORACLE_SEED") or time.time_ns() // 1_000_000 % 1_000_000)
BOUND = 1e-5  # relative error of a row, float32 against float32

# How a checkpoint is stored and converted: (class, storage, older spelling of head sizes?, shard
# size, outtype). The outtype holds the stored weights exactly, so the bound is the same.
ROUTES = {
    "e2b": ("towers", torch.bfloat16, True, None, "bf16"),
    "e4b": ("causal", torch.float16, False, "100KB", "f16"),
    "12b": ("towers", torch.bfloat16, False, "100KB", "f32"),
    "26b-a4b": ("text", torch.float32, True, None, "f32"),
    "31b": ("untied", torch.bfloat16, True, "50KB", "bf16"),
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _say_the_seed():
    print(f"repeat with GEMTP_ORACLE_SEED={SEED}")  # pytest shows it when a test fails


def close(ours, theirs) -> None:
    theirs = np.asarray(theirs, np.float64)
    error = np.linalg.norm(ours - theirs, axis=-1) / np.linalg.norm(theirs, axis=-1)
    assert error.max() <= BOUND


@pytest.fixture(scope="module", params=oracle.ARCHITECTURES)
def pair(request, tmp_path_factory):
    """(architecture, transformers' target and drafter, our model of the same weights)."""
    arch = request.param
    folder = tmp_path_factory.mktemp(arch)
    wrapper, storage, older_config, shard, outtype = ROUTES[arch]
    target, drafter = oracle.build_pair(arch, SEED, wrapper, storage)
    options = {"older_config": older_config}
    if shard is not None:
        options["max_shard_size"] = shard
    oracle.save(target, folder / "target", storage, **options)
    oracle.save(drafter, folder / "drafter", storage, **options)
    shards = len(list((folder / "target").glob("*.safetensors")))
    assert (shards > 1) == (shard is not None)
    checkpoints.write_tokenizer(folder / "target", oracle.SHAPES[arch].vocab)
    files = checkpoints.to_gguf(folder, folder, outtype)
    model = gemtp.Model(files.target, drafter=files.drafter, context=256, kv_type="f32")
    return arch, target, drafter, model


@pytest.mark.parametrize("length", ["start", "short", "long"])
def test_logits_and_draft(pair, length):
    arch, target, drafter, model = pair
    count = oracle.lengths(oracle.SHAPES[arch])[length]
    rng = np.random.default_rng([SEED, count])
    case = oracle.clear_case(target, drafter, count, rng)
    close(model.logits(case.ids), case.logits)
    tokens, logits, hidden = model.draft_trace(case.ids, len(case.draft.tokens))
    assert tokens == case.draft.tokens
    for ours, theirs in zip(logits, case.draft.logits, strict=True):
        running = np.isfinite(theirs)
        np.testing.assert_array_equal(np.isfinite(ours), running)
        close(ours[running], theirs[running])
    close(hidden, np.stack(case.draft.hidden))


def test_draft_around_the_window(pair):
    """Each length near the window's, where a mask that is off by one shows."""
    arch, target, drafter, model = pair
    window = oracle.SHAPES[arch].window
    rng = np.random.default_rng([SEED, 1])
    for count in range(window - 1, window + 4):
        case = oracle.clear_case(target, drafter, count, rng)
        tokens, _, hidden = model.draft_trace(case.ids, 2)
        assert tokens == case.draft.tokens[:2]
        close(hidden, np.stack(case.draft.hidden[:2]))


@pytest.mark.parametrize("arch", ["e2b", "12b"])
def test_oracle_sees_the_window(arch):
    """The oracle's draft depends on sliding keys with position - k < window, and on no other.

    Gradients say which keys a forward depends on; they know nothing of masks. The same probe on all
    keys shows why `visible_kv` cuts them: the assistant's own mask lets two more in.
    """
    shape = oracle.SHAPES[arch]
    target, drafter = oracle.build_pair(arch, SEED)
    position = 2 * shape.window
    rng = np.random.default_rng(SEED)
    ids = [checkpoints.BOS, *rng.integers(3, shape.vocab, position).tolist()]
    state = oracle.target_state(target, ids[:-1])
    keys, values = state.shared_kv["sliding_attention"]
    assert keys.shape[2] == position  # the target handed over all of them

    def seen(cut: bool) -> list[int]:
        probe = keys.clone().requires_grad_()
        state.shared_kv["sliding_attention"] = (probe, values)
        kv = oracle.visible_kv(state, position, shape.window) if cut else dict(state.shared_kv)
        embedded = oracle.text_model(target).embed_tokens(torch.tensor([[ids[-1]]]))
        out = drafter(
            inputs_embeds=torch.cat([embedded, state.hidden[:, -1:]], dim=-1).detach(),
            position_ids=torch.tensor([[position]]),
            shared_kv_states=kv,
        )
        out.last_hidden_state.pow(2).sum().backward()
        return probe.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten().tolist()

    assert seen(cut=True) == [k for k in range(position) if position - k < shape.window]
    assert seen(cut=False) == [k for k in range(position) if position - k < shape.window + 2]


@pytest.mark.parametrize("arch", ["e2b", "31b"])
@pytest.mark.parametrize("stored", ["different", "equal", "alone"])
def test_a_stored_head_of_a_tied_checkpoint(arch, stored, tmp_path):
    """transformers ties equal ones, or to the one that is there, and does not tie what differs."""
    folder = checkpoints.committed(arch, tmp_path) / "target"
    tensors = load_file(folder / "model.safetensors")
    (embedding,) = [n for n in tensors if n.endswith(".embed_tokens.weight")]
    head = tensors[embedding].clone()
    if stored == "different":
        head = head[torch.randperm(len(head), generator=torch.Generator().manual_seed(SEED))]
    tensors["lm_head.weight"] = head.contiguous()
    if stored == "alone":
        del tensors[embedding]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = checkpoints.read_config(folder)
    assert config.get("tie_word_embeddings", True)
    kind = getattr(transformers, config["architectures"][0])
    theirs = kind.from_pretrained(folder, dtype=torch.float32).eval()
    ids = checkpoints.random_prompt(arch, 12, SEED)
    out = tmp_path / "target.gguf"
    convert(folder, out, "f32", progress=False)
    ours = gemtp.Model(out, context=64, kv_type="f32").logits(ids)
    close(ours, oracle.target_logits(theirs, ids))
