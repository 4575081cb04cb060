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


def run(args: argparse.Namespace) -> int:
    from .. import _core
    from ..model import system_info

    info: dict[str, Any] = system_info()
    info["memory_bytes"] = _core.physical_memory() or None  # 0: unknown
    info["available_memory_bytes"] = _core.available_memory() or None
    devices = _core.devices(args.devices)
    if args.devices:
        info["devices"] = [{"name": name or None, "about": about} for name, about in devices]
    info["platform"] = f"{platform.system()} {platform.machine()}"
    info["python"] = platform.python_version()
    if args.json:
        print(json_text(info))
        return 0
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
        ("cuda", _cuda_text(info["cuda_kernels"], args.devices)),
        ("platform", f"{info['platform']}, Python {info['python']}"),
    ):
        print(f"{name:<9} {value}")
    return 0


def _cuda_text(built: bool, looked: bool) -> str:
    if not built:
        return "no: this build has no kernels for NVIDIA's GPUs, because nvcc was not there"
    return "kernels are there" + ("" if looked else "; gemtp info --devices looks for GPUs")


def _picked(variable: str) -> str:
    return f"picked by {variable}" if os.environ.get(variable) else f"{variable} picks one"
