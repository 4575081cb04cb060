#!/usr/bin/env python3
"""Compiles the GPU kernels for CUDA and writes them as C++ data, which a build then contains.

    python tools/cuda_kernels.py --out build/cuda     # kernels.cc, and all that it was made from

CMake calls this when it finds nvcc (GEMTP_CUDA). It needs no GPU. The kernels of a format, and
those that are of none, are a module each, which a program loads when it first needs it. nvcc makes
PTX of it, for GPUs without (compute_75) and with (compute_80) the larger matrix instruction. Of the
usual formats ptxas makes machine code for some generations, and PTX is there for others. The other
formats are there as PTX alone, of which the driver makes machine code in a second or two, once:
machine code of all formats for six generations would be 7 MB.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
KERNELS = Path("backend/gpu/kernels/list.h")

# By capability, 10 major + minor: the PTX from which machine code is made. That for 8.0 runs on
# 8.6, 8.7 and 8.9, too; drivers of 9.0 and 10.x compile the PTX.
CODE = {75: 75, 80: 80, 120: 120}
# What gpu_code.py looks at.
CAPABILITIES = {75: 75, 80: 80, 86: 80, 89: 80, 90: 80, 120: 120}
FLAGS = ("-std=c++17", "-fmad=false", "-prec-div=true", "-prec-sqrt=true", "-ftz=false")
# PTX that drivers compile is that of CUDA 12.3, which ptxas checks. Drivers from CUDA 12.4 on know
# its compressed form.
SHIPPED_PTX, PTX_VERSION = (75, 80), "8.3"

COMMON = "common"  # the module of kernels that are of no format
USUAL = (COMMON, "f32", "f16", "q4_0", "q8_0", "q4_k", "q6_k")


class MissingTool(Exception):
    pass


def packages() -> list[Path]:
    """Returns folders of tools from PyPI."""
    return sorted(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/*/bin"))


@functools.cache
def nvcc() -> str:
    """Returns one that can be used, on the path or from PyPI: systems bring some that are too old
    for the GPUs or for their own compiler."""
    why = "nvcc is not installed"
    for found in (shutil.which("nvcc"), *(str(place / "nvcc") for place in packages())):
        if found and Path(found).exists():
            problem = problem_of(found)
            if not problem:
                return found
            why = f"{found} cannot be used ({problem})"
    raise MissingTool(f"{why}; pip install '.[gpu]' brings one")


def problem_of(nvcc: str) -> str:
    """Returns why a kernel cannot be compiled for all GPUs; "" if it can."""
    gpus = [f"-gencode=arch=compute_{c},code=sm_{c}" for c in CODE]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.cu"
        source.write_text("__global__ void kernel() {}\n")
        command = (nvcc, *FLAGS, "-fatbin", *gpus, "-o", source.with_suffix(".fatbin"), source)
        try:
            run(*command)
        except (OSError, SystemExit) as error:
            return str(error).strip().splitlines()[-1]
    return ""


def tool(name: str) -> str:
    """Returns a tool of CUDA: beside nvcc, from PyPI, or on the path."""
    if name == "nvcc":
        return nvcc()
    for place in (Path(nvcc()).resolve().parent, *packages()):
        if (place / name).exists():
            return str(place / name)
    if found := shutil.which(name):
        return found
    raise MissingTool(f"{name} is not installed; pip install '.[gpu]' brings it")


@dataclass
class Entry:
    """A kernel as its PTX declares it."""

    name: str
    threads: int
    argument_bytes: int


def modules() -> list[str]:
    listed = (CSRC / KERNELS).read_text()
    return [*re.findall(r"^GPU_(?:QUANTIZED|FLOATS)\((\w+),", listed, re.MULTILINE), COMMON]


def write_list(folder: Path, module: str) -> None:
    """Writes kernels/list.h with only the kernels of a module."""

    def kept(line: str) -> bool:
        m = re.match(r"GPU_(QUANTIZED|FLOATS|KERNEL)\((\w+),", line)
        return not m or (COMMON if m[1] == "KERNEL" else m[2]) == module

    target = folder / KERNELS
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = (CSRC / KERNELS).read_text().splitlines()
    target.write_text("\n".join(filter(kept, lines)) + "\n")


def run(*command: object) -> str:
    """Runs a tool; what it prints is returned."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def make_ptx(module: str, capability: int, folder: Path) -> Path:
    """Returns the PTX of a module, whose list is in `folder`. What nvcc said lies beside it."""
    lists = folder / module
    ptx = folder / f"{module}_{capability}.ptx"
    if ptx.exists():
        return ptx
    made = ptx.with_suffix(".made")
    said = run(
        *(tool("nvcc"), *FLAGS, f"-I{lists}", f"-I{CSRC}", f"-arch=compute_{capability}"),
        *("-ptx", "-o", made, CSRC / "backend" / "gpu" / "cuda" / "kernels.cu"),
    )
    ptx.with_suffix(".ptx.log").write_text(said)
    text = re.sub(r"//.*", "", made.read_text())  # half of it
    if capability in SHIPPED_PTX:
        text = re.sub(r"^\.version .*$", f".version {PTX_VERSION}", text, flags=re.M)
    made.write_text(re.sub(r"\n\s*\n+", "\n", text))
    return made.rename(ptx)


def make_cubin(ptx: Path, capability: int) -> Path:
    """Returns the machine code for a GPU; what ptxas said of it lies beside it."""
    cubin = ptx.with_name(re.sub(r"_\d+$", f"_{capability}", ptx.stem) + ".cubin")
    if cubin.exists():
        return cubin
    made = cubin.with_suffix(".made")
    said = run(tool("nvcc"), "-cubin", f"-arch=sm_{capability}", "-Xptxas", "-v", "-o", made, ptx)
    cubin.with_suffix(".cubin.log").write_text(said)
    return made.rename(cubin)


def entries(ptx: str) -> list[Entry]:
    """Returns the kernels of a PTX text."""
    out = []
    for part in ptx.split(".entry ")[1:]:
        name = re.match(r"gemtp_(\w+)\(", part)
        size = re.search(r"\.param \.align \d+ \.b8 \w+_param_0\[(\d+)\]", part)
        threads = re.search(r"\.maxntid (\d+)", part)
        if not (name and size and threads):
            raise SystemExit(f"this is no kernel as gpu.h makes them: {part[:80]}")
        out.append(Entry(name[1], int(threads[1]), int(size[1])))
    return out


def compress(code: Path, capability: int) -> bytes:
    """Returns code as the driver's loader takes it, compressed."""
    kind = "ptx" if code.suffix == ".ptx" else "elf"
    image = code.with_name(f"{code.name}.fatbin")
    run(
        *(tool("fatbinary"), "-64", "--compress-all", "--compress-mode=size", "--create", image),
        f"--image3=kind={kind},sm={capability},file={code}",
    )
    return image.read_bytes()


def array(name: str, data: bytes) -> str:
    data += bytes(-len(data) % 8)
    words = struct.unpack(f"<{len(data) // 8}Q", data)
    lines = (
        ",".join(f"{word:#x}" for word in words[at : at + 8]) for at in range(0, len(words), 8)
    )
    return f"const uint64_t {name}[] = {{\n" + ",\n".join(lines) + "};\n"


def write_source(images: dict[tuple[int, str, int], bytes], kernels: list[tuple[int, Entry]],
                 target: Path) -> None:  # fmt: skip
    """Writes the C++ file. Images: by module, kind and capability."""
    parts = ['#include "backend/gpu/cuda/kernel_images.h"\n', "namespace gemtp::gpu::cuda {",
             "namespace {\n"]  # fmt: skip
    table = []
    for (module, kind, capability), data in sorted(images.items()):
        name = f"kImage{module}_{kind}{capability}"
        parts.append(array(name, data))
        is_ptx = "true" if kind == "ptx" else "false"
        table.append(f"{{{module}, {capability}, {is_ptx}, {name}, {len(data)}}}")
    named = sorted(
        (e.name, f'{{"{e.name}", {module}, {e.threads}, {e.argument_bytes}}}')
        for module, e in kernels
    )
    parts += [
        "constexpr KernelImage kImages[] = {\n" + ",\n".join(table) + "};\n",
        "constexpr KernelEntry kEntries[] = {\n" + ",\n".join(row for _, row in named) + "};\n",
        "}  // namespace\n",
        "std::span<const KernelEntry> kernel_entries() { return kEntries; }",
        "std::span<const KernelImage> kernel_images() { return kImages; }\n",
        "}  // namespace gemtp::gpu::cuda",
    ]
    target.write_text("\n".join(parts) + "\n")


def state_of_sources() -> str:
    """Returns a text that changes with everything that the result depends on."""
    digest = hashlib.sha256(run(tool("nvcc"), "--version").encode())
    folder = CSRC / "backend" / "gpu"
    sources = [*folder.glob("kernels/*"), *folder.glob("cuda/*.h"), folder / "cuda" / "kernels.cu"]
    for path in sorted([*sources, Path(__file__)]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def prepare(folder: Path) -> None:
    """Makes the folder, empty unless what is in it is still right."""
    stamp, state = folder / "stamp", state_of_sources()
    if not stamp.exists() or stamp.read_text() != state:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for module in modules():
            write_list(folder / module, module)
        stamp.write_text(state)


def build(out: Path, jobs: int) -> None:
    """Writes kernels.cc, unless it is there and still right."""
    prepare(out)
    if (out / "kernels.cc").exists():
        (out / "kernels.cc").touch()
        return
    images: dict[tuple[int, str, int], bytes] = {}
    kernels: list[tuple[int, Entry]] = []

    def make(job: tuple[int, str, int]) -> None:
        number, module, virtual = job
        ptx = make_ptx(module, virtual, out)
        if virtual == 75:
            kernels.extend((number, e) for e in entries(ptx.read_text()))
        if virtual == 80 or module not in USUAL:
            images[number, "ptx", virtual] = compress(ptx, virtual)
        for capability, of in CODE.items():
            if of == virtual and module in USUAL:
                code = compress(make_cubin(ptx, capability), capability)
                images[number, "code", capability] = code

    virtuals = sorted(set(CODE.values()))
    work = [(i, m, v) for i, m in enumerate(modules()) for v in (virtuals if m in USUAL else (75,))]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(make, work))
    write_source(images, kernels, out / "kernels.cc")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--find-tools", action="store_true", help="only see whether they are here")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    if not args.out and not args.find_tools:
        parser.error("--out is missing")
    try:
        for name in ("nvcc", "fatbinary"):
            tool(name)
        if not args.find_tools:
            build(args.out, args.jobs)
    except MissingTool as error:
        raise SystemExit(str(error)) from None
    return 0


if __name__ == "__main__":
    sys.exit(main())
