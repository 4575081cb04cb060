#!/usr/bin/env python3
"""Make the demo pair from nothing: a small Gemma 4 target for Python code, and its drafter.

    python tools/train_demo.py --out build/demo

Seven stages, each of which picks up where an earlier run stopped:

    corpus      the standard library's sources, and those in the wheels given with --packages
    tokenizer   SentencePiece BPE over the standard library's sources
    target      train the target, save it as a Hugging Face folder
    drafter     write the target's own continuations, distil the drafter, save it likewise
    evaluate    held-out loss, and acceptance per draft position in greedy rounds
    convert     the two folders to GGUF (Q4_0)
    runtime     acceptance again with gemtp_native and the GGUF files, greedy and sampled

Needs torch, transformers (5.22.2), sentencepiece and tokenizers besides the package itself. With a
GPU the larger preset is chosen, of which the shipped pair is. See docs/demo-models.md.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from demo_corpus import (
    Document,
    TokenStream,
    build_tokenizer,
    compare_tokenizers,
    corpus_digest,
    held_out_stream,
    load_corpus,
    read_corpus,
    read_packages,
    save_corpus,
    training_stream,
)
from demo_drafter import (
    DrafterSize,
    build_drafter,
    check_against_forward,
    continue_greedily,
    first_draft_agreement,
    measure_acceptance,
    train_drafter,
)
from demo_target import (
    Schedule,
    TargetSize,
    build_target,
    causal_masks,
    held_out_batch,
    held_out_loss,
    train_target,
    training_batches,
)
from gemtp_native.base.whole_file import replacing, write_whole

STAGES = ("corpus", "tokenizer", "target", "drafter", "evaluate", "convert", "runtime")
END_TOKENS = ("<eos>", "<turn|>", "<|tool_response>")
TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


@dataclass(frozen=True)
class Preset:
    """Sizes and step counts that go together."""

    target: TargetSize
    drafter: DrafterSize
    target_schedule: Schedule
    drafter_schedule: Schedule
    own_rows: int  # the target's own continuations, from which the drafter also learns


PRESETS = {
    "small": Preset(
        target=TargetSize(),
        drafter=DrafterSize(),
        target_schedule=Schedule(steps=850, batch_tokens=3072),
        drafter_schedule=Schedule(steps=900, batch_tokens=1536, length=384, report_every=100),
        own_rows=256,
    ),
    "large": Preset(
        target=TargetSize(hidden=256, ffn=768, head_dim=64, global_head_dim=128),
        drafter=DrafterSize(),
        target_schedule=Schedule(
            steps=3700, batch_tokens=32768, length=512, long_length=1024, report_every=500
        ),
        drafter_schedule=Schedule(steps=1250, batch_tokens=24576, length=384, report_every=500),
        own_rows=4096,
    ),
}


class Job:
    """One output directory and the settings of the run that fills it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.out: Path = options.out
        self.seed: int = options.seed
        self.compiled: bool = options.compile
        self.outtype: str = options.outtype
        self.device = pick_device(options.device)
        preset = PRESETS[options.preset or ("large" if self.device.type == "cuda" else "small")]
        self.preset = replace(
            preset,
            target_schedule=adjusted(preset.target_schedule, options.target_steps, self.seed),
            drafter_schedule=adjusted(preset.drafter_schedule, options.drafter_steps, self.seed),
            own_rows=preset.own_rows if options.own_rows is None else options.own_rows,
        )
        self.tokenizer_dir = self.out / "tokenizer"
        self.target_dir = self.out / "target"
        self.drafter_dir = self.out / "drafter"
        self.checkpoints = self.out / "checkpoints"
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self.corpus = self.out / "corpus.json.xz"
        self.packages: list[Path] = options.packages

    def log(self, line: str) -> None:
        """Print with the time of day, and keep a copy beside the results."""
        line = f"{time.strftime('%H:%M:%S')} {line}"
        print(line, flush=True)
        with (self.out / "log.txt").open("a") as file:
            file.write(line + "\n")

    @cached_property
    def documents(self) -> list[Document]:
        """The corpus."""
        self.require(self.corpus, "corpus")
        return load_corpus(self.corpus)

    def streams(self) -> tuple[TokenStream, TokenStream]:
        """Training and held-out tokens."""
        self.require(self.tokenizer_dir / "tokenizer.json", "tokenizer")
        path = self.checkpoints / "tokens.npz"
        if not path.exists():
            train = training_stream(self.documents, self.tokenizer_dir)
            held_out = held_out_stream(self.documents, self.tokenizer_dir)
            with replacing(path) as file:
                np.savez(file, t=train.ids, ts=train.starts, h=held_out.ids, hs=held_out.starts)
            return train, held_out
        saved = np.load(path)
        return TokenStream(saved["t"], saved["ts"]), TokenStream(saved["h"], saved["hs"])

    def require(self, path: Path, stage: str) -> None:
        """Stop with a sentence if an earlier stage's result is missing."""
        if not path.exists():
            raise SystemExit(f"{path} is missing: run the stage '{stage}' first.")


def pick_device(name: str) -> torch.device:
    """Device by name; `auto` takes a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: this torch finds no CUDA device; use --device cpu.")
    return torch.device(name)


def adjusted(schedule: Schedule, steps: int | None, seed: int) -> Schedule:
    """The preset's schedule with the user's step count and seed."""
    return replace(schedule, seed=seed, steps=schedule.steps if steps is None else steps)


def save_folder(model: nn.Module, folder: Path, tokenizer_dir: Path) -> None:
    """Write a Hugging Face folder: config, safetensors in bfloat16, tokenizer, chat template."""
    model.bfloat16().save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer_dir / name, folder / name)


def load_target(job: Job) -> nn.Module:
    """Load the finished target, frozen."""
    from transformers import Gemma4ForCausalLM

    job.require(job.target_dir / "model.safetensors", "target")
    target = Gemma4ForCausalLM.from_pretrained(job.target_dir, dtype=torch.float32)
    return target.to(job.device).requires_grad_(False)


def load_drafter(job: Job) -> nn.Module:
    """Load the finished drafter, frozen."""
    from transformers import Gemma4AssistantForCausalLM

    job.require(job.drafter_dir / "model.safetensors", "drafter")
    drafter = Gemma4AssistantForCausalLM.from_pretrained(job.drafter_dir, dtype=torch.float32)
    return drafter.to(job.device).requires_grad_(False)


def run_corpus(job: Job) -> None:
    """Collect the sources into one file, so that later stages may run on another machine."""
    if job.corpus.exists():
        job.log(f"corpus: {job.corpus} is there already")
        return
    library = read_corpus()
    packages = read_packages(job.packages, library)
    save_corpus(library + packages, job.corpus)
    for label, documents in (("library", library), ("packages", packages)):
        size = sum(len(d.text) for d in documents)
        job.log(f"corpus: {label}: {len(documents)} files, {size / 1e6:.1f} MB")
    job.log(f"corpus: {sys.version.split()[0]}, fingerprint {corpus_digest(job.documents)}")


def run_tokenizer(job: Job) -> None:
    """Train the tokenizer and say how far its two forms agree."""
    build_tokenizer(job.documents, job.preset.target.vocab, job.tokenizer_dir)
    job.log(f"tokenizer: {compare_tokenizers(job.documents, job.tokenizer_dir)}")


def run_target(job: Job) -> None:
    """Train the target and save it."""
    from tokenizers import Tokenizer

    if (job.target_dir / "model.safetensors").exists():
        job.log(f"target: {job.target_dir} is there already")
        return
    train, held_out = job.streams()
    torch.manual_seed(job.seed)
    target = build_target(job.preset.target).to(job.device)
    loss = train_target(
        target,
        train,
        held_out,
        job.preset.target_schedule,
        job.checkpoints / "target.pt",
        job.compiled,
        job.log,
    )
    tokenizer = Tokenizer.from_file(str(job.tokenizer_dir / "tokenizer.json"))
    target.generation_config.eos_token_id = [tokenizer.token_to_id(t) for t in END_TOKENS]
    save_folder(target, job.target_dir, job.tokenizer_dir)
    job.log(f"target: saved, held-out loss {loss:.4f} nats per token")


def own_text(job: Job, target: nn.Module, train: TokenStream) -> Tensor | None:
    """The target's greedy continuations of training windows: [own_rows, length], made once."""
    if not job.preset.own_rows:
        return None
    path = job.checkpoints / "own_text.pt"
    if path.exists():
        return torch.load(path)
    length, batch = job.preset.drafter_schedule.length, min(2048, job.preset.own_rows)
    prompt = length // 2
    batches = training_batches(train, batch, prompt - 1, job.seed + 1, 0)
    parts, done = [], 0
    while done < job.preset.own_rows:
        parts.append(continue_greedily(target, next(batches).to(job.device), length - prompt).cpu())
        done += batch
        job.log(f"drafter: {done}/{job.preset.own_rows} of the target's own continuations")
    rows = torch.cat(parts)[: job.preset.own_rows]
    with replacing(path) as file:
        torch.save(rows, file)
    return rows


def run_drafter(job: Job) -> None:
    """Distil the drafter and save it."""
    if (job.drafter_dir / "model.safetensors").exists():
        job.log(f"drafter: {job.drafter_dir} is there already")
        return
    target = load_target(job)
    train, held_out = job.streams()
    own = own_text(job, target, train)
    torch.manual_seed(job.seed + 1)
    drafter = build_drafter(job.preset.drafter, target).to(job.device)
    train_drafter(
        target,
        drafter,
        train,
        own,
        held_out,
        job.preset.drafter_schedule,
        job.checkpoints / "drafter.pt",
        job.log,
    )
    save_folder(drafter, job.drafter_dir, job.tokenizer_dir)
    job.log("drafter: saved")


def run_evaluate(job: Job, drafts: int = 4) -> None:
    """Measure the pair on the held-out files and write metrics.json.

    Acceptance is measured three ways, from the hardest text to the easiest: draft 1 on the files'
    own text; rounds over the first 32 tokens of many greedy continuations; rounds over long ones,
    which a model of this size sooner or later fills with repetitions.
    """
    _, held_out = job.streams()
    target, drafter = load_target(job), load_drafter(job)
    length = job.preset.target_schedule.long_length
    windows = held_out_batch(held_out, 64, length)
    masks = causal_masks(length, target.config.sliding_window, job.device)
    loss = held_out_loss(target, target.model, windows, masks)
    difference = check_against_forward(target, drafter, windows[:1].to(job.device))
    if difference > 1e-4:
        raise SystemExit(f"The rounds differ from the drafter's forward by {difference:.1e}.")
    characters = sum(len(d.text) for d in job.documents if d.held_out)
    agreement = [
        first_draft_agreement(target, drafter, part.to(job.device)) for part in windows.split(8)
    ]
    prompts = held_out_batch(held_out, 512, 95).to(job.device)  # [512, 96]
    short = measure_acceptance(target, drafter, prompts, 32 + drafts, drafts)
    plain = measure_acceptance(target, drafter, prompts, 32 + drafts, drafts, ordered=False)
    long = measure_acceptance(target, drafter, prompts[::4], 160 + drafts, drafts)
    metrics = {
        "corpus_fingerprint": corpus_digest(job.documents),
        "target": asdict(job.preset.target),
        "drafter": asdict(job.preset.drafter),
        "target_parameters": sum(p.numel() for p in target.parameters()),
        "drafter_parameters": sum(p.numel() for p in drafter.parameters()),
        "held_out_nats_per_token": loss,
        "held_out_bits_per_character": loss * len(held_out.ids) / characters / math.log(2),
        "rounds_vs_forward": difference,
        "first_draft_on_given_text": sum(agreement) / len(agreement),
        "rounds_of_32_tokens": short.summary(),
        "rounds_of_32_tokens_plain_head": plain.summary(),
        "rounds_of_160_tokens": long.summary(),
    }
    write_whole(job.out / "metrics.json", json.dumps(metrics, indent=2).encode() + b"\n")
    job.log(f"evaluate: held-out loss {loss:.4f} nats per token, {length} tokens of context")
    job.log(f"evaluate: draft 1 on the files' own text: {metrics['first_draft_on_given_text']:.1%}")
    for label, outcome in (
        ("continuations of 32", short),
        ("continuations of 32, plain head", plain),
        ("continuations of 160", long),
    ):
        shares = ", ".join(f"{row['accepted']:.1%}" for row in outcome.table())
        job.log(
            f"evaluate: {label}: accepted at 1..{drafts}: {shares}; {outcome.rounds} rounds, "
            f"{outcome.tokens / max(1, outcome.rounds):.2f} tokens each"
        )


def run_convert(job: Job) -> None:
    """Turn both folders into GGUF files with the package's converter."""
    for name, folder in (("target", job.target_dir), ("drafter", job.drafter_dir)):
        job.require(folder / "model.safetensors", name)
        output = job.out / f"{name}.gguf"
        command = [str(folder), str(output), "--outtype", job.outtype]
        command += ["--completes"] if name == "target" else []
        script = Path(__file__).resolve().parent / "convert.py"
        result = subprocess.run([sys.executable, str(script), *command], check=False)
        if result.returncode:
            raise SystemExit(f"Converting {folder} failed; the converter's message is above.")
        job.log(f"convert: {output} {output.stat().st_size / 1e6:.2f} MB")


def run_runtime(job: Job, drafts: int = 4) -> None:
    """Decode held-out prompts with the package and the GGUF files, and count accepted drafts."""
    try:
        import gemtp_native
    except ImportError as error:
        raise SystemExit(
            f"The stage 'runtime' needs the package: pip install . ({error})"
        ) from None
    for name in ("target", "drafter"):
        job.require(job.out / f"{name}.gguf", "convert")
    model = gemtp_native.Model(
        str(job.out / "target.gguf"), drafter=str(job.out / "drafter.gguf"), threads=1
    )
    _, held_out = job.streams()
    prompts = held_out_batch(held_out, 512, 95).tolist()  # 512 of 96 tokens
    results = []
    for temperature, tokens, every in ((0.0, 32, 1), (0.0, 160, 4), (0.7, 64, 2), (1.0, 64, 2)):
        rounds, produced, drafted, accepted = 0, 0, [0] * drafts, [0] * drafts
        for prompt in prompts[::every]:
            stats = model.generate(
                prompt,
                max_tokens=tokens,
                temperature=temperature,
                seed=job.seed,
                draft=drafts,
                ignore_eos=True,
            ).stats
            rounds, produced = rounds + stats.rounds, produced + stats.tokens
            drafted = [a + b for a, b in zip_longest(drafted, stats.drafted_at, fillvalue=0)]
            accepted = [a + b for a, b in zip_longest(accepted, stats.accepted_at, fillvalue=0)]
        shares = [a / max(1, d) for a, d in zip(accepted, drafted, strict=True)]
        results.append(
            {
                "temperature": temperature,
                "tokens": tokens,
                "rounds": rounds,
                "accepted": shares,
                "tokens_per_round": produced / max(1, rounds),
            }
        )
        job.log(
            f"runtime: temperature {temperature}, {tokens} tokens: accepted at 1..{drafts}: "
            f"{', '.join(f'{share:.1%}' for share in shares)}; {rounds} rounds, "
            f"{produced / max(1, rounds):.2f} tokens each"
        )
    write_whole(job.out / "runtime.json", json.dumps(results, indent=2).encode() + b"\n")


def parse_options() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="directory for all results")
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, default=list(STAGES), help="default: all"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="default: large on a GPU")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target-steps", type=int, help="default: the preset's")
    parser.add_argument("--drafter-steps", type=int, help="default: the preset's")
    parser.add_argument(
        "--own-rows", type=int, help="continuations by the target for distillation (0: none)"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the target")
    parser.add_argument(
        "--packages", type=Path, nargs="+", default=[], metavar="WHEEL", help="more to train on"
    )
    parser.add_argument("--outtype", default="q4_0", help="type of the GGUF files (default q4_0)")
    options = parser.parse_args()
    for name in ("threads", "target_steps", "drafter_steps"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, not {value}.")
    return options


def main() -> None:
    """Run the chosen stages in order."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    job = Job(options)
    stages = {
        "corpus": run_corpus,
        "tokenizer": run_tokenizer,
        "target": run_target,
        "drafter": run_drafter,
        "evaluate": run_evaluate,
        "convert": run_convert,
        "runtime": run_runtime,
    }
    for stage in STAGES:
        if stage in options.stages:
            stages[stage](job)


if __name__ == "__main__":
    main()
