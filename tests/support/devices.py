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


def check_sessions_travel(pair: checkpoints.Pair, device: str, prompt: list[int], at: Path) -> None:
    """A session that is saved on the device or on the CPU goes on on the other with the same text,
    and is saved there with the same bytes. at: an empty folder."""
    options = {"max_tokens": 6, "ignore_eos": True, "draft": 2}
    with open_on("cpu", pair) as cpu, open_on(device, pair) as gpu:
        for here, there in ((cpu, gpu), (gpu, cpu)):
            with here.session() as session:
                session.append(prompt)
                begun = session.generate(**options).tokens
                session.save(at / "session")
                with session.fork() as fork:
                    went_on = fork.generate(**options).tokens
                kept = (at / "session").read_bytes()
            with there.restore(at / "session") as session:
                assert session.tokens == prompt + begun
                session.save(at / "again")
                assert (at / "again").read_bytes() == kept
                assert session.generate(**options).tokens == went_on
