#!/usr/bin/env python3
"""Makes tests/golden: tiny random checkpoints of every architecture and what transformers says.

Needs the [oracle] extra. The same versions of torch and transformers give the same checkpoints.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

SEED = 20

# Together they cover every class of target and both spellings of head sizes.
CLASSES = {
    "e2b": ("text", True),
    "e4b": ("causal", False),
    "12b": ("text", True),
    "26b-a4b": ("text", False),
    "31b": ("causal", True),
}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "tests" / "golden",
        help="folder to write, one subfolder an architecture (default: tests/golden)",
    )
    parser.add_argument("--seed", type=int, default=SEED, help=f"(default: {SEED})")
    return parser.parse_args(argv)


def make(arch: str, seed: int, folder: Path) -> None:
    """Write target/, drafter/ and oracle.safetensors of one architecture into `folder`."""
    import numpy as np
    from safetensors.numpy import save_file

    import oracle

    wrapper, older_config = CLASSES[arch]
    target, drafter = oracle.build_pair(arch, seed, wrapper)
    oracle.save(target, folder / "target", older_config=older_config)
    oracle.save(drafter, folder / "drafter", older_config=older_config)
    rng = np.random.default_rng(seed)
    tensors = {}
    shape = oracle.SHAPES[arch]
    for case_name, length in oracle.lengths(shape).items():
        case = oracle.clear_case(target, drafter, length, rng)
        rows = rows_to_keep(length, shape.window)
        tensors |= {
            f"{case_name}.ids": np.array(case.ids, np.int32),
            f"{case_name}.rows": np.array(rows, np.int32),
            f"{case_name}.logits": case.logits[rows],
            f"{case_name}.draft_tokens": np.array(case.draft.tokens, np.int32),
            f"{case_name}.draft_logits": np.stack(case.draft.logits),
            f"{case_name}.draft_hidden": np.stack(case.draft.hidden),
        }
    save_file(tensors, folder / "oracle.safetensors")


def rows_to_keep(length: int, window: int) -> list[int]:
    """Return all rows of a sequence inside the window; of a longer one, those at its edge and a
    sample."""
    if length <= window:
        return list(range(length))
    return sorted({*range(window - 2, window + 3), *range(0, length, 7), length - 1})


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    try:
        import torch
        import transformers
    except ImportError as e:
        print(f"error: {e.name} is missing; install the [oracle] extra.", file=sys.stderr)
        return 1
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    total = 0
    try:
        for arch in CLASSES:
            with tempfile.TemporaryDirectory() as scratch:
                made = Path(scratch) / arch
                make(arch, args.seed, made)
                shutil.rmtree(args.out / arch, ignore_errors=True)
                shutil.copytree(made, args.out / arch)
            sizes = {
                file.relative_to(args.out / arch).as_posix(): file.stat().st_size
                for file in sorted((args.out / arch).rglob("*.safetensors"))
            }
            total += sum(sizes.values())
            parts = ", ".join(f"{name} {size / 1000:.0f} kB" for name, size in sizes.items())
            print(f"{arch}: {parts}")
    except (OSError, RuntimeError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    print(
        f"{args.out}: {total / 1e6:.2f} MB, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, seed {args.seed}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
