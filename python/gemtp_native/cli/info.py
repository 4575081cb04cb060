"""`gemtp info`: describes this machine and build."""

from __future__ import annotations

import argparse
import os
import platform
from typing import Any

from ..base.json_text import json_text
from ..measure.text import size_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument(
        "--devices", action="store_true", help="look for GPUs, too, which loads their driver"
    )
    parser.add_argument(
        "--self-test",
        nargs="?",
        const="",
        metavar="DEVICE",
        help="compare the kernels of each GPU, or of DEVICE, with the CPU's: byte for byte",
    )


def run(args: argparse.Namespace) -> int:
    from .. import _core
    from ..arguments import device_name
    from ..model import system_info

    info: dict[str, Any] = system_info()
    info["memory_bytes"] = _core.physical_memory() or None  # 0: unknown
    info["available_memory_bytes"] = _core.available_memory() or None
    looked = args.devices or args.self_test is not None
    devices = _core.devices(looked)
    if looked:
        info["devices"] = [{"name": name or None, "about": about} for name, about in devices]
    if args.self_test is not None:
        gpus = [name for name, _ in devices if name not in ("", "cpu", "emulated")]
        tested = gpus if args.self_test in ("", "auto") else [device_name(args.self_test)]
        info["self_test"] = [_core.self_test(name) for name in tested]
    info["platform"] = f"{platform.system()} {platform.machine()}"
    info["python"] = platform.python_version()
    failed = not all(result["exact"] for result in info.get("self_test", ()))
    if args.json:
        print(json_text(info))
        return int(failed)
    memory, available = info["memory_bytes"], info["available_memory_bytes"]
    memory_text = "unknown" if memory is None else size_text(memory)
    if available != memory:
        memory_text += f", of which this process may use {size_text(available)}"
    for name, value in (
        ("version", info["version"]),
        ("isa", f"{info['isa']} ({_picked('GEMTP_ISA')}; can run: {', '.join(info['isas'])})"),
        ("threads", info["threads"]),
        ("memory", memory_text),
        ("device", f"{info['device']} ({_picked('GEMTP_DEVICE')})"),
        ("devices", "; ".join(f"{name} ({about})" if name else about for name, about in devices)),
        ("cuda", _cuda_text(info["cuda_kernels"], looked)),
        *(("self-test", text) for text in _self_test_texts(info)),
        ("platform", f"{info['platform']}, Python {info['python']}"),
    ):
        print(f"{name:<9} {value}")
    return int(failed)


def _self_test_texts(info: dict[str, Any]) -> list[str]:
    results = info.get("self_test")
    if results == []:
        return ["there is no GPU to test"]
    return [
        f"{r['identity']}: exact, each kernel gives the CPU's bytes ({r['seconds']:.2f} s)"
        if r["exact"]
        else r["problem"]
        for r in results or ()
    ]


def _cuda_text(built: bool, looked: bool) -> str:
    if not built:
        return "no: this build has no kernels for NVIDIA's GPUs, because it was built without nvcc"
    return "kernels are there" + ("" if looked else "; gemtp info --devices looks for GPUs")


def _picked(variable: str) -> str:
    return f"picked by {variable}" if os.environ.get(variable) else f"{variable} picks one"
