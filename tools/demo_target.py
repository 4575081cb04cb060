"""The target of the demo pair: a small Gemma 4 E-series model and its training.

It has all features of the E series at a small size: per-layer embeddings, layers that read the K/V
of earlier ones and have a double-wide feed-forward, sliding and full layers with different head
sizes, proportional RoPE, capped logits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo_corpus import TokenStream
from gemtp_native.base.whole_file import replacing


@dataclass(frozen=True)
class TargetSize:
    """Dimensions of a target. Every matrix's K is a multiple of 32, the quantization block."""

    hidden: int = 192
    layers: int = 8
    pattern: int = 4  # every fourth layer is full attention
    kv_shared: int = 4
    ffn: int = 384  # doubled in the layers with shared K/V
    heads: int = 4
    head_dim: int = 32
    global_head_dim: int = 64
    per_layer: int = 64
    window: int = 128
    vocab: int = 4096


def build_target(size: TargetSize) -> nn.Module:
    """Return a Gemma4ForCausalLM with fresh weights (the global torch seed decides them)."""
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig

    layer_types = [
        "full_attention" if (i + 1) % size.pattern == 0 else "sliding_attention"
        for i in range(size.layers)
    ]
    config = Gemma4TextConfig(
        vocab_size=size.vocab,
        vocab_size_per_layer_input=size.vocab,
        hidden_size=size.hidden,
        hidden_size_per_layer_input=size.per_layer,
        intermediate_size=size.ffn,
        num_hidden_layers=size.layers,
        num_kv_shared_layers=size.kv_shared,
        use_double_wide_mlp=True,
        layer_types=layer_types,
        num_attention_heads=size.heads,
        num_key_value_heads=1,
        head_dim=size.head_dim,
        global_head_dim=size.global_head_dim,
        sliding_window=size.window,
        max_position_embeddings=2048,
        final_logit_softcapping=30.0,
        attention_k_eq_v=False,
        enable_moe_block=False,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            "full_attention": {
                "rope_type": "proportional",
                "partial_rotary_factor": 0.25,
                "rope_theta": 1_000_000.0,
            },
        },
        attn_implementation="sdpa",
    )
    model = Gemma4ForCausalLM(config)
    initialise(model)
    return model


@torch.no_grad()
def initialise(model: nn.Module, branch_scale: float = 0.3) -> None:
    """Start where training is quick.

    Each branch ends in an RMS norm, so its first size is that norm's weight: well below the
    residual stream's. Queries and keys are normalised and their product is not scaled, so the
    usual 1/sqrt(d) goes into the two norms' weights.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            if ".q_norm" in name or ".k_norm" in name:
                parameter.fill_(parameter.numel() ** -0.25)
            elif ".post_" in name:
                parameter.fill_(branch_scale)


def causal_masks(length: int, window: int, device: torch.device) -> dict[str, Tensor]:
    """Boolean masks [1, 1, length, length], true where query (row) may see key (column)."""
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    causal = distance >= 0
    return {
        "full_attention": causal[None, None],
        "sliding_attention": (causal & (distance < window))[None, None],
    }


def softcapped_logits(model: nn.Module, hidden: Tensor) -> Tensor:
    """Head of the target: hidden [..., hidden] after the final norm -> logits [..., vocab]."""
    cap = model.config.final_logit_softcapping
    return cap * torch.tanh(F.linear(hidden, model.lm_head.weight).float() / cap)


def mixed_precision(device: torch.device) -> torch.autocast:
    """The precision of training: bfloat16 products on a GPU, float32 on a CPU."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


class Muon(torch.optim.Optimizer):
    """Momentum whose update is replaced by the nearest orthogonal matrix (Jordan et al., 2024)."""

    def __init__(self, parameters: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": 0.01})

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:
        for group in self.param_groups:
            same_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    same_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in same_shape.items():  # batched: many small matrices
                gradients = torch.stack([p.grad for p in parameters])
                averages = torch.stack([self._average(p) for p in parameters])
                averages.lerp_(gradients, 1 - group["momentum"])
                for parameter, average in zip(parameters, averages, strict=True):
                    self.state[parameter]["momentum"].copy_(average)
                updates = orthogonalise(gradients.lerp(averages, group["momentum"]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-group["lr"] * scale)

    def _average(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        return state["momentum"]


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Push all singular values of matrices [n, rows, columns] towards 1: quintic Newton-Schulz."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def make_optimizers(
    model: nn.Module, muon_lr: float = 0.02, adam_lr: float = 3e-3
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the network, Adam for embeddings, heads and vectors."""
    parameters = dict(model.named_parameters())  # lists tied weights once
    outside = ("embed_tokens", "lm_head", "centroids")
    inner = [
        p for n, p in parameters.items() if p.ndim == 2 and not any(key in n for key in outside)
    ]
    chosen = set(map(id, inner))
    rest = [p for p in parameters.values() if id(p) not in chosen]
    adam = torch.optim.Adam(rest, lr=adam_lr, betas=(0.9, 0.95), eps=1e-10)
    optimizers = [Muon(inner, lr=muon_lr), adam]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def learning_rate_factor(step: int, steps: int, warmup: int = 100, decay: float = 0.5) -> float:
    """Linear warm-up, a plateau, and a linear way down over the last `decay` of the steps."""
    return min(1.0, (step + 1) / warmup, max(0.02, (steps - step) / (steps * decay)))


def set_learning_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Scale every group's peak rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def training_batches(
    stream: TokenStream, batch: int, length: int, seed: int, first_step: int
) -> Iterator[Tensor]:
    """Yield [batch, length + 1] ids endlessly; batch number i depends only on (seed, i).

    The stream is cut into as many slots as it holds windows; a pass visits every slot once, in
    random order, and takes a window that starts at some line in it.
    """
    starts = stream.starts[stream.starts < len(stream.ids) - length]
    slots = max(1, len(stream.ids) // length)
    orders: dict[int, np.ndarray] = {}  # order of each pass

    def slot(number: int) -> int:
        epoch, index = divmod(number, slots)
        if epoch not in orders:
            orders[epoch] = np.random.default_rng([seed, epoch]).permutation(slots)
        return int(orders[epoch][index])

    step = first_step
    while True:
        visited = np.asarray([slot(number) for number in range(step * batch, (step + 1) * batch)])
        jitter = np.random.default_rng([seed, 1, step]).random(batch)
        wanted = (visited + jitter) / slots  # in [0, 1)
        chosen = starts[(wanted * len(starts)).astype(np.int64)]
        ids = np.stack([stream.window(int(s), length + 1) for s in chosen])
        yield torch.from_numpy(ids)
        step += 1


def held_out_batch(stream: TokenStream, count: int, length: int) -> Tensor:
    """A fixed set of windows [count, length + 1], evenly spread over the held-out files."""
    usable = stream.starts[stream.starts < len(stream.ids) - length]
    chosen = usable[np.linspace(0, len(usable) - 1, count).astype(np.int64)]
    return torch.from_numpy(np.stack([stream.window(int(s), length + 1) for s in chosen]))


def target_loss(model: nn.Module, body: Callable, ids: Tensor, masks: dict[str, Tensor]) -> Tensor:
    """Mean loss in nats over ids [batch, length + 1]; `body` is model.model, maybe compiled."""
    hidden = body(input_ids=ids[:, :-1], attention_mask=masks, use_cache=False).last_hidden_state
    logits = softcapped_logits(model, hidden)  # [batch, length, vocab]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: nn.Module, body: Callable, ids: Tensor, masks: dict[str, Tensor]) -> float:
    """Loss over held-out windows, in pieces of 16 windows."""
    losses = [
        target_loss(model, body, part.to(model.device), masks).item() for part in ids.split(16)
    ]
    return sum(losses) / len(losses)


def save_checkpoint(path: Path, **state: object) -> None:
    """Write atomically, so that an interruption leaves the earlier checkpoint."""
    with replacing(path) as file:
        torch.save(state, file)


@dataclass(frozen=True)
class Schedule:
    """The length of training and of its sequences."""

    steps: int
    batch_tokens: int = 4096
    length: int = 256
    long_length: int = 512  # used for the last part, so that longer contexts work
    long_fraction: float = 0.25
    report_every: int = 50
    seed: int = 1

    def length_at(self, step: int) -> int:
        """Return the sequence length of a step."""
        return self.long_length if step >= self.steps * (1 - self.long_fraction) else self.length


def train_target(
    model: nn.Module,
    train: TokenStream,
    held_out: TokenStream,
    schedule: Schedule,
    checkpoint: Path,
    compiled: bool,
    log: Callable[[str], None],
) -> float:
    """Train in place, resuming from `checkpoint` if there is one; return the held-out loss."""
    device = model.device
    body = torch.compile(model.model, dynamic=False) if compiled else model.model
    optimizers = make_optimizers(model)
    first, loss_value = 0, float("nan")
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first, loss_value = state["step"], state["loss"]
        log(f"target: resumed at step {first}")
    length, batches, masks, validation = 0, iter(()), {}, torch.empty(0)
    started, average = time.monotonic(), None
    for step in range(first, schedule.steps):
        if schedule.length_at(step) != length:
            length = schedule.length_at(step)
            batch = max(1, schedule.batch_tokens // length)
            batches = training_batches(train, batch, length, schedule.seed, step)
            masks = causal_masks(length, model.config.sliding_window, device)
            validation = held_out_batch(held_out, 8192 // length, length)
        set_learning_rate(optimizers, learning_rate_factor(step, schedule.steps))
        with mixed_precision(device):
            loss = target_loss(model, body, next(batches).to(device), masks)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        average = loss.detach() if average is None else average.lerp(loss.detach(), 0.02)
        done = step + 1
        if done % schedule.report_every == 0 or done == schedule.steps:
            loss_value = held_out_loss(model, body, validation, masks)
            rate = (done - first) * schedule.batch_tokens / (time.monotonic() - started)
            log(
                f"target: step {done}/{schedule.steps} loss {average.item():.4f} "
                f"held-out {loss_value:.4f} {rate:.0f} tokens/s"
            )
            save_checkpoint(
                checkpoint,
                model=model.state_dict(),
                optimizers=[o.state_dict() for o in optimizers],
                step=done,
                loss=loss_value,
            )
    return loss_value
