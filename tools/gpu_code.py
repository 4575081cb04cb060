#!/usr/bin/env python3
"""What compilers make of the GPU kernels: a machine without a GPU can say that much.

    python tools/gpu_code.py                     # a table of instructions per block
    python tools/gpu_code.py --check             # exit 1 for spills in loops, for other arithmetic
                                                 # than is written, for more instructions than in
                                                 # tests/gpu/instructions.json
    python tools/gpu_code.py --update            # writes that file
    python tools/gpu_code.py --arch sm_89 --all  # one architecture, with the rarer formats
    python tools/gpu_code.py --folder build/cuda # what a build has compiled there is not again

It needs nvcc and nvdisasm, of which pip install '.[gpu]' brings what is missing. It compiles as
tools/cuda_kernels.py does for a build.

The figures are lane-operations per row and block of 32 weights: instructions of a warp, since a
warp's strip has 32 rows. They are those of the loops at full speed, without what is done once.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cuda_kernels

ROOT = Path(__file__).resolve().parent.parent
RATCHET = ROOT / "tests" / "gpu" / "instructions.json"

ARCHITECTURES = tuple(f"sm_{capability}" for capability in cuda_kernels.CAPABILITIES)

# Formats that together have all kinds of quants and scales.
FORMATS = ("q8_0", "q4_0", "q5_k", "q6_k", "t4_gm", "f32", "f16")

# Lane-operations for a block of Q4_0, 18 bytes, while its bytes arrive, by device.
AT_FULL_BANDWIDTH = {"256 GB/s laptop card": 432, "H200": 111}

# Budget by rows of a panel, estimated before any kernel was written.
BUDGET = {1: 33, 4: 84, 8: 64, 16: 92}


@dataclass
class Kernel:
    name: str
    registers: int = 0
    ptx: str = ""
    blocks: list[list[str]] = field(default_factory=list)  # basic blocks of opcodes

    def opcodes(self) -> list[str]:
        return [op for block in self.blocks for op in block]


def chosen_modules(formats: tuple[str, ...] | None) -> list[str]:
    """Returns those of the formats, or all."""
    chosen = (*(formats or ()), cuda_kernels.COMMON)
    return [m for m in cuda_kernels.modules() if formats is None or m in chosen]


def virtual_of(arch: str) -> int:
    """Returns the capability of the PTX from which machine code is made."""
    return cuda_kernels.CAPABILITIES[int(arch.removeprefix("sm_"))]


def compile_for(
    arch: str, formats: tuple[str, ...] | None, folder: Path
) -> tuple[dict[str, Kernel], str]:
    """Returns the kernels of these formats, or of all, and the compilers' warnings. Whatever the
    folder has already is not compiled again."""
    kernels: dict[str, Kernel] = {}
    warnings: list[str] = []
    for module in chosen_modules(formats):
        ptx = cuda_kernels.make_ptx(module, virtual_of(arch), folder)
        code = cuda_kernels.make_cubin(ptx, int(arch.removeprefix("sm_")))
        said = code.with_suffix(".cubin.log").read_text()
        kernels |= read_ptxas(said)
        read_ptx(ptx.read_text(), kernels)
        read_sass(cuda_kernels.run(cuda_kernels.tool("nvdisasm"), "-c", code), kernels)
        said += ptx.with_suffix(".ptx.log").read_text()
        warnings += [line for line in said.splitlines() if "warning" in line.lower()]
    return kernels, "\n".join(warnings)


def read_ptxas(text: str) -> dict[str, Kernel]:
    kernels: dict[str, Kernel] = {}
    name = ""
    for line in text.splitlines():
        if m := re.search(r"Compiling entry function '(\w+)'", line):
            name = m[1]
            kernels[name] = Kernel(name)
        elif m := re.search(r"Used (\d+) registers", line):
            kernels[name].registers = int(m[1])
    return kernels


def read_ptx(text: str, kernels: dict[str, Kernel]) -> None:
    for part in re.split(r"(?=\.entry )", text)[1:]:
        name = re.match(r"\.entry (\w+)", part)
        if name and name[1] in kernels:
            kernels[name[1]].ptx = part


def read_sass(text: str, kernels: dict[str, Kernel]) -> None:
    blocks: list[list[str]] | None = None
    for line in text.splitlines():
        if m := re.match(r"\.text\.(\w+):", line):
            blocks = kernels[m[1]].blocks
            blocks.append([])
        elif line.startswith("\t.section"):
            blocks = None
        elif blocks is None:
            continue
        elif re.match(r"\.L_x_\d+:", line):
            blocks.append([])
        elif m := re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?(\w[\w.]*)", line):
            blocks[-1].append(m[1])
            if m[1].split(".")[0] in ("BRA", "EXIT", "CALL", "RET"):
                blocks.append([])


def arithmetic_faults(kernel: Kernel) -> list[str]:
    """Returns places where the arithmetic differs from the source."""
    faults = []
    # Without .rn a product and a sum may be fused into one operation.
    for loose in re.findall(r"\b(?:(?:add|sub|mul|fma|mad)\.(?!rn\b)[\w.]*f32)\b", kernel.ptx):
        faults.append(f"{kernel.name}: {loose} in the PTX")
    for word in (".ftz", ".approx", ".sat"):
        if re.search(rf"\{word}[\w.]*f32", kernel.ptx):
            faults.append(f"{kernel.name}: {word} in the PTX")
    if not re.search(r"\b(?:div|sqrt|rcp)\.", kernel.ptx):  # their expansions have these
        for op in kernel.opcodes():
            if ".FTZ" in op or op.startswith("MUFU"):
                faults.append(f"{kernel.name}: {op}")
        written = len(re.findall(r"\bfma\.rn\.f32\b", kernel.ptx))
        made = sum(op.startswith("FFMA") for op in kernel.opcodes())
        if (written == 0) != (made == 0):
            faults.append(f"{kernel.name}: {made} FFMA of {written} that are written")
    return faults


def is_dot(op: str) -> bool:
    return op.startswith(("IMMA", "IDP"))


def hot_blocks(kernel: Kernel) -> list[list[str]]:
    """Returns the blocks with most products."""
    return [
        block
        for block in kernel.blocks
        if any(map(is_dot, block)) or sum(op.startswith("FFMA") for op in block) >= 8
    ]


def rows_of(name: str) -> int | None:
    m = re.match(r"gemtp_matmul_\w+?_(1|2|4|8|16|many)$", name)
    return None if not m else 32 if m[1] == "many" else int(m[1])


def instructions_per_block(kernel: Kernel, arch: str) -> float | None:
    """Returns instructions per block of a plain product with a quantized matrix."""
    rows = rows_of(kernel.name)
    format_ = re.sub(r"gemtp_matmul_(\w+)_\w+$", r"\1", kernel.name)
    loops = [b for b in kernel.blocks if any(map(is_dot, b))]
    if rows is None or not loops:
        return None
    best = max(loops, key=lambda b: (sum(map(is_dot, b)), -len(b)))
    if rows >= 8:  # two tiles, 8 rows per instruction
        of_block = 2 * (rows // 8) * (4 if arch == "sm_75" else 1)
        if arch != "sm_75" and any("16816" in op for op in best):
            of_block *= 2
    else:
        of_block = 8 * rows
    total = len(best) / (sum(map(is_dot, best)) / of_block)
    # Then a warp adds the terms.
    adding = [
        b
        for b in kernel.blocks
        if sum(op.startswith("FFMA") for op in b) >= 2
        and any(op.startswith("LDS") for op in b)
        and not any(map(is_dot, b))
    ]
    if rows < 32 and adding:
        step = min(len(b) / sum(op.startswith("FFMA") for op in b) for b in adding)
        kinds = 2 if format_ in ("q4_1", "q5_1", "q4_k", "q5_k", "t4_gm") else 1
        total += step * rows * kinds
    return round(total, 1)


def figures(kernels: dict[str, Kernel], arch: str) -> dict[str, float]:
    out = {}
    for kernel in kernels.values():
        n = instructions_per_block(kernel, arch)
        if n is not None:
            out[kernel.name.removeprefix("gemtp_matmul_")] = n
    return dict(sorted(out.items()))


def faults(kernels: dict[str, Kernel], arch: str, warned: str) -> list[str]:
    out = [f"{arch}: {line}" for line in warned.splitlines()]
    for kernel in kernels.values():
        if any(op.startswith(("LDL", "STL")) for block in hot_blocks(kernel) for op in block):
            out.append(f"{arch}: {kernel.name} spills registers in a loop that counts")
        out += [f"{arch}: {fault}" for fault in arithmetic_faults(kernel)]
    if RATCHET.exists():
        before = json.loads(RATCHET.read_text()).get(arch, {})
        for name, n in figures(kernels, arch).items():
            if n > before.get(name, n):
                out.append(f"{arch}: {name} has {n} instructions per block, {before[name]} before")
    return out


def print_table(results: dict[str, dict[str, float]]) -> None:
    names = sorted({name for of_arch in results.values() for name in of_arch})
    print("instructions per row and block".ljust(32), *(a.rjust(8) for a in results))
    for name in names:
        print(name.ljust(32), *(str(r.get(name, "")).rjust(8) for r in results.values()))
    print("\nq4_0: share of the bandwidth that instructions allow, and what was reckoned with")
    for rows in (1, 2, 4, 8, 16):
        for arch, of_arch in results.items():
            n = of_arch.get(f"q4_0_{rows}")
            if n is None:
                continue
            share = ", ".join(
                f"{device} {min(1.0, most / n):.0%}" for device, most in AT_FULL_BANDWIDTH.items()
            )
            print(f"  {rows:2} rows, {arch:7} {n:6} (reckoned {BUDGET.get(rows, '-')}): {share}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", action="append", choices=ARCHITECTURES)
    parser.add_argument("--all", action="store_true", help="all formats")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="of what is compiled, which is kept")
    args = parser.parse_args()
    archs = args.arch or ARCHITECTURES
    formats = None if args.all else FORMATS
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(args.jobs) as pool:
        folder = args.folder or Path(name) / "cuda"
        cuda_kernels.prepare(folder)
        of_both = [(m, virtual_of(a)) for m in chosen_modules(formats) for a in archs]
        list(pool.map(lambda mv: cuda_kernels.make_ptx(*mv, folder), dict.fromkeys(of_both)))
        made = pool.map(lambda a: compile_for(a, formats, folder), archs)
        compiled = dict(zip(archs, made, strict=True))
    found = [
        f for arch, (kernels, warned) in compiled.items() for f in faults(kernels, arch, warned)
    ]
    results = {arch: figures(kernels, arch) for arch, (kernels, _) in compiled.items()}
    if args.update:
        before = json.loads(RATCHET.read_text()) if RATCHET.exists() else {}
        for arch, new in results.items():
            before[arch] = before.get(arch, {}) | new
        RATCHET.write_text(json.dumps(before, indent=1, sort_keys=True) + "\n")
    print_table(results)
    print(*found, sep="\n")
    return 1 if args.check and found else 0


if __name__ == "__main__":
    sys.exit(main())
