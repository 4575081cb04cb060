"""Facts about the machine, the files and the process, as far as the system reports them."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from .. import _core


def describe_machine() -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": _core.available_cores(),
        "memory_bytes": _core.physical_memory() or None,
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def describe_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns name, architecture, size, context length, and bytes by type, largest first."""
    file = _core.GgufFile(path)
    types: Counter[str] = Counter()
    for _name, kind, _shape, size, _supported in file.tensors:
        types[kind] += size
    arch = file.value("general.architecture")
    return {
        "path": os.fspath(path),
        "architecture": arch,
        "bytes": file.size,
        "types": dict(types.most_common()),
        "context_length": file.value(f"{arch}.context_length"),
    }


def _cpu_model() -> str:
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.check_output(command, text=True, timeout=10).strip()
    for path, key in (
        ("/proc/cpuinfo", "model name"),  # x86
        ("/proc/cpuinfo", "Model"),  # Raspberry Pi
        ("/proc/cpuinfo", "CPU part"),
    ):
        if value := _field(Path(path), key):
            return value
    return platform.processor() or platform.machine()


def reset_peak() -> None:
    """Makes peak_bytes() count from here, if the system supports it (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident_bytes(process: int | str = "self") -> int | None:
    return _status_bytes(process, "VmRSS")


def peak_bytes(process: int | str = "self") -> int | None:
    peak = _status_bytes(process, "VmHWM")
    if peak is not None or process != "self" or sys.platform == "win32":
        return peak
    import resource

    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def storage_bytes() -> int | None:
    """Bytes that were read for this process from storage, not from the page cache (Linux)."""
    value = _field(Path("/proc/self/io"), "read_bytes")
    return int(value) if value else None


def _status_bytes(process: int | str, key: str) -> int | None:
    value = _field(Path(f"/proc/{process}/status"), key)
    return int(value.split()[0]) * 1024 if value else None


def _field(path: Path, key: str) -> str | None:
    """Returns the value of a key in a file of lines "key: value"."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None
