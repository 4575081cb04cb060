"""Kernels with a mistake put into them: the tests must notice each.

    python mutants.py --compiler g++ --flags "-std=c++20 …" --objects a.o b.o … --libraries lib.a

A mutant is a text replaced in a copy of csrc/backend/gpu/kernels. Objects are those of the tests
and of the emulated device, without its kernels, which are compiled here with one mistake at a time.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3] / "csrc"
KERNELS = Path("backend/gpu/kernels")

# Formats that between them have all kinds of quants and scales; fewer compile faster.
FORMATS = ("q4_0", "q5_k", "q6_k", "t4_gm", "f32", "f16")


@dataclass(frozen=True)
class Mutant:
    mistake: str
    file: str
    old: str  # which is in the file once
    new: str
    tests: str  # test cases that may notice


MUTANTS = (
    Mutant(
        "terms are added before all are there",
        "matmul.h",
        "make_window(own, up, first, n, memory, at);\n      barrier();",
        "make_window(own, up, first, n, memory, at);",
        "gpu matmul*",
    ),
    Mutant(
        "terms are overwritten before all are added",
        "matmul.h",
        "add_window(n, memory, at, acc);\n      barrier();",
        "add_window(n, memory, at, acc);",
        "gpu matmul*",
    ),
    Mutant(
        "blocks of K are added last to first",
        "matmul.h",
        "for (int b = 0; b < n; ++b) {",
        "for (int b = n - 1; b >= 0; --b) {",
        "gpu matmul*",
    ),
    Mutant(
        "rows of a tile off by one",
        "matmul.h",
        "+ i % 2 * 8;\n      codes",
        "+ i % 2 * 7;\n      codes",
        "gpu matmul*",
    ),
    Mutant(
        "columns of fragments mixed up",
        "matmul.h",
        "fragment_pair(lane) * 2 + term % 2;",
        "fragment_pair(lane) + term % 2 * 4;",
        "gpu matmul*",
    ),
    Mutant(
        "a strip at the end reads a tile behind the matrix",
        "matmul.h",
        "(left > 16 ? a.matrix[s.matrix].tile_bytes : 0)",
        "a.matrix[s.matrix].tile_bytes",
        "gpu matmul*",
    ),
    Mutant(
        "results are not flushed",
        "matmul.h",
        "return flushed(flushed(sum) * scale);",
        "return sum * scale;",
        "gpu matmul*",
    ),
    Mutant(
        "parts of a float product of another length",
        "matmul.h",
        "const int begin = b * 512, end = begin + 512 < own.k ? begin + 512 : own.k;",
        "const int begin = b * 512, end = begin + 511 < own.k ? begin + 511 : own.k;",
        "gpu matmul*",
    ),
    Mutant(
        "minima of the neighbour",
        "formats.h",
        "float(s[i + 16])",
        "float(s[i + 15])",
        "gpu matmul*",
    ),
    Mutant(
        "a NaN becomes -128",
        "quantize.h",
        "scaled > -127.0f ? scaled : -127.0f",
        "scaled > -128.0f ? scaled : -128.0f",
        "gpu quantize*",
    ),
    Mutant(
        "the smallest block counts as zero",
        "quantize.h",
        "amax < kTiny;",
        "amax <= kTiny;",
        "gpu quantize*",
    ),
    Mutant(
        "halves of a half are summed",
        "quantize.h",
        "for (int i = 8; i > 0; i /= 2) sum",
        "for (int i = 4; i > 0; i /= 2) sum",
        "gpu quantize*",
    ),
    Mutant(
        "squares are added in 32 chains",
        "rows.h",
        "for (int i = at.lane % 16; i < count; i += 16) {",
        "for (int i = at.lane; i < count; i += 32) {",
        "gpu norm*",
    ),
    Mutant(
        "the root is read before it is written",
        "rows.h",
        "    barrier();\n    return memory.inverse[0];",
        "    return memory.inverse[0];",
        "gpu norm*",
    ),
    Mutant(
        "a rotation the other way",
        "heads.h",
        "fused(-second, s, first * c)",
        "fused(second, s, first * c)",
        "gpu heads*",
    ),
    Mutant(
        "slots of a ring are not taken modulo",
        "heads.h",
        "a.positions[row] % kv.capacity",
        "int(a.positions[row])",
        "gpu heads*",
    ),
    Mutant(
        "the last position of a span has no weight",
        "attention.h",
        "if (own >= span.first && own <= span.last)",
        "if (own >= span.first && own < span.last)",
        "gpu attention*",
    ),
    Mutant(
        "weights are added in another order",
        "attention.h",
        "lanes[i] = (lanes[i] + weight) + upper;",
        "lanes[i] = lanes[i] + (weight + upper);",
        "gpu attention*",
    ),
    Mutant(
        "weights are read before they are there",
        "attention.h",
        "    }\n    warp_barrier();\n    return whole;",
        "    }\n    return whole;",
        "gpu attention*",
    ),
    Mutant(
        "values outside of a span are added",
        "attention.h",
        "acc[i] = whole || holds(a, tile, i, t) ? sum : acc[i];",
        "acc[i] = sum;",
        "gpu attention*",
    ),
    Mutant(
        "parts of attention of another length",
        "attention.h",
        "kPart = 512;",
        "kPart = 256;",
        "gpu attention*",
    ),
    Mutant(
        "keys of a ring are read behind its end",
        "attention.h",
        "slot = slot + 1 == tile.kv.capacity ? 0 : slot + 1;",
        "slot = slot + 1;",
        "gpu attention*",
    ),
    Mutant(
        "the last of equal logits",
        "choices.h",
        "return a.index < b.index;",
        "return a.index > b.index;",
        "gpu head*",
    ),
    Mutant(
        "scores are overwritten while they are read",
        "choices.h",
        "      }\n      barrier();\n    }\n    if (i < a.n && before < a.top)",
        "      }\n    }\n    if (i < a.n && before < a.top)",
        "gpu ordered head*",
    ),
    Mutant(
        "experts that nobody uses take a place in the list",
        "choices.h",
        "own_list += n > 0;",
        "own_list += 1;",
        "gpu route*",
    ),
)


class Builder:
    def __init__(self, args: argparse.Namespace, work: Path) -> None:
        self.args = args
        self.work = work

    def run(self, number: int, mutant: Mutant | None) -> tuple[int, str]:
        """The exit code of the tests, and what they said."""
        work = self.work / str(number)
        copy = work / KERNELS
        shutil.copytree(SOURCE / KERNELS, copy)
        listing = copy / "list.h"
        kept = [
            line
            for line in listing.read_text().splitlines()
            if not (m := re.match(r"GPU_(?:QUANTIZED|FLOATS)\((\w+), \w+\)", line))
            or m[1] in FORMATS
        ]
        listing.write_text("\n".join(kept) + "\n")
        if mutant:
            text = (copy / mutant.file).read_text()
            if text.count(mutant.old) != 1:
                raise SystemExit(f"{mutant.mistake}: {mutant.file} has no single place for it")
            (copy / mutant.file).write_text(text.replace(mutant.old, mutant.new))
        kernels = work / "kernels.o"
        subprocess.run(
            [self.args.compiler, *shlex.split(self.args.flags), f"-I{work}", f"-I{SOURCE}", "-c",
             str(SOURCE / "backend/gpu/emulated/kernels.cc"), "-o", str(kernels)],
            check=True,
        )  # fmt: skip
        program = work / "tests"
        subprocess.run(
            [self.args.compiler, *self.args.objects, str(kernels), *self.args.libraries,
             "-o", str(program)],
            check=True,
        )  # fmt: skip
        tests = mutant.tests if mutant else "gpu *"
        done = subprocess.run(
            [str(program), f"--test-case={tests}", "--abort-after=1", "-tse=long"],
            capture_output=True,
            text=True,
            timeout=600,
        )
        shutil.rmtree(work)
        return done.returncode, done.stdout + done.stderr


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--flags", default="")
    parser.add_argument("--objects", nargs="+", required=True)
    parser.add_argument("--libraries", nargs="*", default=[])
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        builder = Builder(args, Path(work))
        code, said = builder.run(0, None)
        if code != 0:
            print(said, "The tests fail without any mistake.", sep="\n")
            return 1
        with ThreadPoolExecutor(args.jobs) as pool:
            results = list(pool.map(builder.run, range(1, len(MUTANTS) + 1), MUTANTS))
    missed = [m.mistake for m, (code, _) in zip(MUTANTS, results, strict=True) if code == 0]
    for mistake in missed:
        print(f"not noticed: {mistake}")
    print(f"{len(MUTANTS) - len(missed)} of {len(MUTANTS)} mistakes noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
