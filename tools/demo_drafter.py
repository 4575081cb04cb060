"""The drafter of the demo pair: distillation from the target, ordered head, and its measurement.

A round at position p starts from the pending token t = tokens[p] and the target's hidden state of
position p - 1. Every step of the round attends to the target's K/V of positions below p and uses
the RoPE position p; step j (from 1) predicts token p + j and passes its projected hidden state to
the next step. No position of a sequence depends on another position's round, so the rounds of all
positions run as one forward pass per step, under masks that are strict in p.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo_corpus import TokenStream
from demo_target import (
    Schedule,
    held_out_batch,
    initialise,
    learning_rate_factor,
    make_optimizers,
    mixed_precision,
    save_checkpoint,
    set_learning_rate,
    softcapped_logits,
    training_batches,
)


@dataclass(frozen=True)
class DrafterSize:
    """Dimensions of a drafter; its heads' sizes, K/V heads and window are the target's."""

    hidden: int = 128
    ffn: int = 256
    heads: int = 4
    centroids: int = 64
    top_k: int = 8


def build_drafter(size: DrafterSize, target: nn.Module) -> nn.Module:
    """Return a Gemma4AssistantForCausalLM for `target`, its head a projection of the target's."""
    from transformers import Gemma4AssistantConfig, Gemma4AssistantForCausalLM, Gemma4TextConfig

    backbone = target.config
    text_config = Gemma4TextConfig(
        vocab_size=backbone.vocab_size,
        vocab_size_per_layer_input=0,
        hidden_size_per_layer_input=0,
        hidden_size=size.hidden,
        intermediate_size=size.ffn,
        num_hidden_layers=4,
        num_kv_shared_layers=4,
        use_double_wide_mlp=False,
        layer_types=["sliding_attention"] * 3 + ["full_attention"],
        num_attention_heads=size.heads,
        num_key_value_heads=1,
        head_dim=backbone.per_layer_config["sliding_attention"].head_dim,
        global_head_dim=backbone.per_layer_config["full_attention"].head_dim,
        sliding_window=backbone.sliding_window,
        max_position_embeddings=backbone.max_position_embeddings,
        final_logit_softcapping=None,
        attention_k_eq_v=False,
        enable_moe_block=False,
        rope_parameters=backbone.rope_parameters,
        attn_implementation="sdpa",
    )
    config = Gemma4AssistantConfig(
        text_config=text_config,
        backbone_hidden_size=backbone.hidden_size,
        use_ordered_embeddings=True,
        num_centroids=size.centroids,
        centroid_intermediate_top_k=size.top_k,
        attn_implementation="sdpa",
    )
    drafter = Gemma4AssistantForCausalLM(config)
    initialise(drafter)
    with torch.no_grad():
        rows = target.lm_head.weight  # [vocab, backbone]
        _, _, axes = torch.linalg.svd(rows, full_matrices=False)  # [backbone, backbone]
        drafter.lm_head.weight.copy_(rows @ axes[: size.hidden].T)
        drafter.masked_embedding.token_ordering.copy_(torch.arange(backbone.vocab_size))
    return drafter


def round_masks(length: int, window: int, device: torch.device) -> dict[str, Tensor]:
    """Masks [1, 1, length - 1, length] for the rounds at positions p = 1 ... length - 1 (rows).

    Row p sees the keys k < p; in sliding layers those with p - k < window.
    """
    positions = torch.arange(1, length, device=device)[:, None]
    distance = positions - torch.arange(length, device=device)
    below = distance > 0
    return {
        "full_attention": below[None, None],
        "sliding_attention": (below & (distance < window))[None, None],
    }


@dataclass
class Backbone:
    """The target's outputs for the drafter, for sequences of ids [batch, length]."""

    hidden: Tensor  # [batch, length, backbone], after the final norm
    logits: Tensor  # [batch, length, vocab]
    shared_kv: dict[str, tuple[Tensor, Tensor]]  # each [batch, kv heads, length, head_dim]


@torch.no_grad()
def run_backbone(target: nn.Module, ids: Tensor) -> Backbone:
    """Run the target over ids [batch, length]."""
    output = target.model(input_ids=ids, use_cache=False, return_shared_kv_states=True)
    logits = softcapped_logits(target, output.last_hidden_state)
    return Backbone(output.last_hidden_state, logits, dict(output.shared_kv_states))


def draft_step(
    target: nn.Module,
    drafter: nn.Module,
    tokens: Tensor,
    hidden: Tensor,
    backbone: Backbone,
    masks: dict[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """One recurrent step of the rounds at p = 1 ... n.

    tokens [batch, n], hidden [batch, n, backbone] -> (the drafter's normed hidden
    [batch, n, hidden], the next step's hidden [batch, n, backbone]).
    """
    count = tokens.shape[1]
    embedded = target.model.embed_tokens(tokens)  # the module scales by sqrt(backbone)
    x = drafter.pre_projection(torch.cat([embedded, hidden], dim=-1))
    positions = torch.arange(1, count + 1, device=tokens.device)[None]
    output = drafter.model(
        inputs_embeds=x,
        attention_mask={kind: mask[:, :, :count] for kind, mask in masks.items()},
        position_ids=positions,
        shared_kv_states=backbone.shared_kv,
        use_cache=False,
    ).last_hidden_state
    return output, drafter.post_projection(output)


def distillation_loss(
    target: nn.Module,
    drafter: nn.Module,
    ids: Tensor,
    masks: dict[str, Tensor],
    steps: int,
    clusters: Tensor | None,
) -> Tensor:
    """Mean loss of `steps` recurrent steps over ids [batch, length], fed with the ids themselves.

    Per prediction: half the cross-entropy to the target's distribution, half that to its first
    choice, which is what greedy acceptance asks for; the same again over clusters once the
    `clusters` [vocab] of the ordered head exist. A step is reached in use only if all earlier
    drafts were the target's choices, so rounds that left that path weigh a quarter.
    """
    backbone = run_backbone(target, ids)
    choices = backbone.logits.argmax(dim=-1)  # [batch, length]
    probabilities = backbone.logits.softmax(dim=-1)  # [batch, length, vocab]
    if clusters is not None:
        per_cluster = probabilities.new_zeros(*ids.shape, drafter.config.num_centroids)
        per_cluster.index_add_(2, clusters, probabilities)
    count = ids.shape[1] - steps  # rounds at p = 1 ... count have all their predictions
    hidden = backbone.hidden[:, :count]
    on_path = torch.ones_like(ids[:, :count], dtype=torch.bool)
    total = ids.new_zeros((), dtype=torch.float)
    for step in range(steps):
        place = slice(1 + step, 1 + step + count)  # position of the input token in step `step`
        if step:
            on_path = on_path & (choices[:, step : step + count] == ids[:, place])
        output, hidden = draft_step(target, drafter, ids[:, place], hidden, backbone, masks)
        weights = torch.where(on_path, 1.0, 0.25)
        loss = mixed_cross_entropy(
            drafter.lm_head(output), probabilities[:, place], choices[:, place]
        )
        if clusters is not None:
            loss = loss + mixed_cross_entropy(
                drafter.masked_embedding.centroids(output),
                per_cluster[:, place],
                clusters[choices[:, place]],
            )
        total = total + (loss * weights).sum() / weights.sum()
    return total / steps


def mixed_cross_entropy(logits: Tensor, probabilities: Tensor, choice: Tensor) -> Tensor:
    """Half soft, half hard cross-entropy of [batch, n, classes]: [batch, n].

    -sum(q log softmax(z)) = logsumexp(z) - sum(q z) for any distribution q; one pass for both.
    """
    logits = logits.float()
    soft = (probabilities * logits).sum(dim=-1)
    hard = logits.gather(-1, choice[..., None]).squeeze(-1)
    return logits.logsumexp(dim=-1) - 0.5 * (soft + hard)


@torch.no_grad()
def balanced_clusters(rows: Tensor, count: int, iterations: int, seed: int) -> Tensor:
    """Spherical k-means with clusters of equal size: rows [n, dim] -> cluster of each row [n].

    Each iteration assigns rows to clusters from the most similar pair down, while a cluster is not
    full.
    """
    total, capacity = rows.shape[0], rows.shape[0] // count
    if capacity * count != total:
        raise SystemExit(f"{total} tokens cannot be split into {count} clusters of equal size.")
    generator = torch.Generator().manual_seed(seed)
    rows = F.normalize(rows.detach().float().cpu(), dim=1)
    centres = rows[torch.randperm(total, generator=generator)[:count]]
    assignment = torch.zeros(total, dtype=torch.long)
    for _ in range(iterations):
        order = (rows @ centres.T).flatten().argsort(descending=True).tolist()
        room, owner, left = [capacity] * count, [-1] * total, total
        for pair in order:
            row, cluster = divmod(pair, count)
            if owner[row] < 0 and room[cluster]:
                owner[row] = cluster
                room[cluster] -= 1
                left -= 1
                if not left:
                    break
        updated = torch.tensor(owner)
        if torch.equal(updated, assignment):
            break
        assignment = updated
        centres = torch.stack([rows[assignment == c].mean(dim=0) for c in range(count)])
        centres = F.normalize(centres, dim=1)
    return assignment


@torch.no_grad()
def install_ordered_head(drafter: nn.Module, seed: int) -> None:
    """Cluster the head's rows; centroids start as their clusters' means, times a little gain."""
    head, weight = drafter.masked_embedding, drafter.lm_head.weight
    clusters = balanced_clusters(weight, head.num_centroids, iterations=20, seed=seed)
    head.token_ordering.copy_(torch.argsort(clusters, stable=True))
    for cluster in range(head.num_centroids):
        head.centroids.weight[cluster] = weight[clusters.to(weight.device) == cluster].mean(dim=0)


def clusters_of(drafter: nn.Module) -> Tensor:
    """Cluster of every token [vocab], read back from the ordering."""
    head = drafter.masked_embedding
    clusters = torch.empty_like(head.token_ordering)
    size = head.vocab_size_per_centroid
    clusters[head.token_ordering] = torch.arange(head.vocab_size, device=clusters.device) // size
    return clusters


def ordered_logits(drafter: nn.Module, output: Tensor) -> Tensor:
    """Ordered head: output [..., hidden] -> logits [..., vocab], -inf outside the best clusters.

    The same choice as the drafter's `masked_embedding`, which gathers a copy of the chosen rows for
    every position and needs gigabytes for a few thousand of them.
    """
    head = drafter.masked_embedding
    scores = head.centroids(output)  # [..., centroids]
    best = scores.topk(head.centroid_intermediate_top_k, dim=-1).indices
    open_clusters = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, True)
    open_tokens = open_clusters[..., clusters_of(drafter)]  # [..., vocab]
    return drafter.lm_head(output).masked_fill(~open_tokens, float("-inf"))


@torch.no_grad()
def draft_rounds(
    target: nn.Module, drafter: nn.Module, ids: Tensor, steps: int, ordered: bool = True
) -> tuple[Tensor, Backbone]:
    """Greedy drafts of the rounds at p = 1 ... length - 1: ([batch, length - 1, steps], ...)."""
    backbone = run_backbone(target, ids)
    masks = round_masks(ids.shape[1], target.config.sliding_window, ids.device)
    tokens, hidden, drafts = ids[:, 1:], backbone.hidden[:, :-1], []
    for _ in range(steps):
        output, hidden = draft_step(target, drafter, tokens, hidden, backbone, masks)
        logits = ordered_logits(drafter, output) if ordered else drafter.lm_head(output)
        tokens = logits.argmax(dim=-1)
        drafts.append(tokens)
    return torch.stack(drafts, dim=-1), backbone


@torch.no_grad()
def continue_greedily(target: nn.Module, prompts: Tensor, count: int) -> Tensor:
    """Append the target's `count` first choices to prompts [batch, n]: [batch, n + count]."""
    ids, step_input, cache = prompts, prompts, None
    for _ in range(count):
        output = target(
            input_ids=step_input, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        cache = output.past_key_values
        step_input = output.logits[:, -1:].argmax(dim=-1)
        ids = torch.cat([ids, step_input], dim=1)
    return ids


@dataclass
class Acceptance:
    """Outcome of simulated greedy decoding with a fixed number of drafts a round."""

    rounds: int
    tokens: int
    reached: list[int]  # rounds in which the draft at this position was checked
    accepted: list[int]

    def summary(self) -> dict[str, object]:
        """Returns all figures, for metrics.json."""
        return {
            "rounds": self.rounds,
            "tokens_per_round": self.tokens / max(1, self.rounds),
            "drafts": self.table(),
        }

    def table(self) -> list[dict[str, float]]:
        """Returns acceptance per draft position: of all rounds, and of those that checked it."""
        return [
            {
                "position": i + 1,
                "accepted": a / max(1, self.rounds),
                "accepted_if_reached": a / max(1, r),
            }
            for i, (r, a) in enumerate(zip(self.reached, self.accepted, strict=True))
        ]


@torch.no_grad()
def measure_acceptance(
    target: nn.Module,
    drafter: nn.Module,
    prompts: Tensor,
    new_tokens: int,
    steps: int,
    ordered: bool = True,
) -> Acceptance:
    """Walk draft-verify rounds along the target's own greedy continuations of prompts [batch, n].

    Greedy decoding yields the same text with and without a drafter, so the text comes first, all
    rounds' drafts second, and the walk picks the rounds that decoding would have made.
    """
    ids = continue_greedily(target, prompts, new_tokens)
    outcome = Acceptance(0, 0, [0] * steps, [0] * steps)
    for part in ids.split(16):
        drafts, _ = draft_rounds(target, drafter, part, steps, ordered)
        for sequence, row in zip(part.tolist(), drafts.tolist(), strict=True):
            position = prompts.shape[1]  # the first new token is the first pending one
            while position + steps < len(sequence):
                accepted = 0
                for i, draft in enumerate(row[position - 1]):
                    outcome.reached[i] += 1
                    if draft != sequence[position + 1 + i]:
                        break
                    outcome.accepted[i] += 1
                    accepted += 1
                outcome.rounds += 1
                outcome.tokens += accepted + 1
                position += accepted + 1
    return outcome


@torch.no_grad()
def first_draft_agreement(target: nn.Module, drafter: nn.Module, ids: Tensor) -> float:
    """Share of the positions of given text [batch, length] at which draft 1 is the target's choice.

    The text is not the model's own, so this figure does not benefit from a small model's habit of
    repeating itself, which makes its own text easy to guess.
    """
    drafts, backbone = draft_rounds(target, drafter, ids, steps=1)
    choices = backbone.logits.argmax(dim=-1)[:, 1:]  # [batch, length - 1]
    return (drafts[..., 0] == choices).float().mean().item()


@torch.no_grad()
def check_against_forward(target: nn.Module, drafter: nn.Module, ids: Tensor) -> float:
    """Compare the rounds with the drafter's own forward at a few positions of ids [1, length].

    There each round is a single query whose K/V are cut to the positions that it may see.
    Returns the largest relative difference of the next hidden state; a different first choice of
    the ordered head counts as infinite.
    """
    backbone = run_backbone(target, ids)
    masks = round_masks(ids.shape[1], target.config.sliding_window, ids.device)
    normed, hidden = draft_step(
        target, drafter, ids[:, 1:], backbone.hidden[:, :-1], backbone, masks
    )
    choices = ordered_logits(drafter, normed).argmax(dim=-1)  # [1, length - 1]
    worst = 0.0
    window = target.config.sliding_window
    for p in (1, 2, window - 1, window, window + 1, ids.shape[1] - 1):
        first = {"full_attention": 0, "sliding_attention": max(0, p - window + 1)}
        cut = {
            kind: tuple(part[:, :, first[kind] : p] for part in pair)
            for kind, pair in backbone.shared_kv.items()
        }
        embedded = target.model.embed_tokens(ids[:, p : p + 1])
        output = drafter(
            inputs_embeds=torch.cat([embedded, backbone.hidden[:, p - 1 : p]], dim=-1),
            position_ids=torch.tensor([[p]], device=ids.device),
            shared_kv_states=cut,
        )
        expected = output.last_hidden_state[:, 0]
        difference = (hidden[:, p - 1] - expected).norm() / expected.norm()
        worst = max(worst, difference.item())
        if output.logits[0, 0].argmax() != choices[0, p - 1]:
            return float("inf")
    return worst


def mixed_batches(
    corpus: TokenStream, own: Tensor | None, schedule: Schedule, length: int, step: int
) -> Iterator[Tensor]:
    """Windows of the corpus; every fourth batch is of the target's `own` text [rows, length]."""
    batch = max(1, schedule.batch_tokens // length)
    batches = training_batches(corpus, batch, length, schedule.seed, step)
    while True:
        ids = next(batches)[:, :length]
        if own is not None and step % 4 == 3:
            generator = torch.Generator().manual_seed(schedule.seed * 1_000_003 + step)
            rows = torch.randint(len(own), (batch,), generator=generator)
            ids = own[rows, :length]
        yield ids
        step += 1


def train_drafter(
    target: nn.Module,
    drafter: nn.Module,
    train: TokenStream,
    own: Tensor | None,
    held_out: TokenStream,
    schedule: Schedule,
    checkpoint: Path,
    log: Callable[[str], None],
    recurrent_steps: int = 4,
    ordered_from: float = 0.4,
) -> None:
    """Distil in place: plain head first, the ordered head too after `ordered_from` of the steps."""
    device = target.device
    target.requires_grad_(False)
    optimizers = make_optimizers(drafter)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        drafter.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first = state["step"]
        log(f"drafter: resumed at step {first}")
    ordered_step = int(schedule.steps * ordered_from)
    clusters = clusters_of(drafter) if first > ordered_step else None
    length = schedule.length
    batches = mixed_batches(train, own, schedule, length, first)
    masks = round_masks(length, target.config.sliding_window, device)
    prompts = held_out_batch(held_out, 32, 95).to(device)  # [32, 96]
    started, average = time.monotonic(), None
    for step in range(first, schedule.steps):
        if step == ordered_step:
            install_ordered_head(drafter, schedule.seed)
            clusters = clusters_of(drafter)
        set_learning_rate(optimizers, learning_rate_factor(step, schedule.steps))
        ids = next(batches).to(device)
        with mixed_precision(device):
            loss = distillation_loss(target, drafter, ids, masks, recurrent_steps, clusters)
        loss.backward()
        nn.utils.clip_grad_norm_(drafter.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        average = loss.detach() if average is None else average.lerp(loss.detach(), 0.05)
        done = step + 1
        if done % schedule.report_every == 0 or done == schedule.steps:
            outcome = measure_acceptance(
                target, drafter, prompts, 64, recurrent_steps, ordered=clusters is not None
            )
            shares = " ".join(f"{row['accepted']:.3f}" for row in outcome.table())
            rate = (done - first) * schedule.batch_tokens / (time.monotonic() - started)
            log(
                f"drafter: step {done}/{schedule.steps} loss {average.item():.4f} "
                f"accepted at 1..{recurrent_steps}: {shares} ({outcome.rounds} rounds) "
                f"{rate:.0f} tokens/s"
            )
            save_checkpoint(
                checkpoint,
                model=drafter.state_dict(),
                optimizers=[o.state_dict() for o in optimizers],
                step=done,
            )
