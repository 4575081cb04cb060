"""Pairs of models that are opened on the CPU and on another device."""

from __future__ import annotations

from pathlib import Path

import checkpoints
import gemtp_native as gemtp


class Pairs:
    """Random pairs of every architecture and type, each made in `root` when it is first needed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: dict[tuple[str, str], checkpoints.Pair] = {}

    def __call__(self, arch: str, outtype: str = "q4_0") -> checkpoints.Pair:
        if (arch, outtype) not in self._made:
            folder = self._root / arch
            if not folder.exists():
                checkpoints.agreeing(arch, folder)
            self._made[arch, outtype] = checkpoints.to_gguf(folder, folder / "gguf", outtype)
        return self._made[arch, outtype]


def open_on(device: str, pair: checkpoints.Pair, **options) -> gemtp.Model:
    options = {"threads": 1, "context": 128} | options
    return gemtp.Model(pair.target, drafter=pair.drafter, device=device, **options)
