"""Every hostile file is refused by one sentence that names it; the sound ones work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import attacks
import gemtp_native as gemtp
import tiny_files
from gemtp_native.cli.inspect import describe
from gemtp_native.cli.model_file import ModelFile
from gguf_bytes import Gguf

ATTACKS = list(attacks.all_attacks())
PROMPT = [2, 105, 263, 264]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sound")
    for name, data in attacks.sound_files().items():
        (folder / f"{name}.gguf").write_bytes(data)
    return folder / "sound-target.gguf", folder / "sound-drafter.gguf"


def load(path: Path, target: Path | None, mmap: bool = True) -> gemtp.Model:
    """``path`` as the drafter of ``target`` or, without one, as a target."""
    if target is None:
        return gemtp.Model(path, threads=1, context=64, mmap=mmap)
    return gemtp.Model(target, drafter=path, threads=1, context=64, mmap=mmap)


def check_message(message: str, path: Path) -> None:
    assert path.name in message
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 400 + len(str(path))


@pytest.mark.parametrize("mmap", [True, False])
def test_the_sound_files_load_and_generate(sound: tuple[Path, Path], mmap: bool) -> None:
    target, drafter = sound
    plain = load(target, None, mmap).generate("the hand", max_tokens=12, ignore_eos=True)
    drafted = load(drafter, target, mmap).generate("the hand", max_tokens=12, ignore_eos=True)
    assert len(plain.tokens) == 12
    assert drafted.tokens == plain.tokens


def test_the_sound_experts_load(sound: tuple[Path, Path]) -> None:
    logits = load(sound[0].with_name("sound-experts.gguf"), None).logits(PROMPT)
    assert np.isfinite(logits).all()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_no_count_is_allocated_unchecked(sound: tuple[Path, Path], tmp_path: Path) -> None:
    """All files again, in a process that may grow by 256 MB: no MemoryError, nothing but Error."""
    for attack in ATTACKS:
        (tmp_path / f"{attack.name}.gguf").write_bytes(attack.data)
    code = """
import resource, sys
from pathlib import Path
import gemtp_native as gemtp
folder, target = Path(sys.argv[1]), sys.argv[2]
gemtp.Model(target, threads=1, context=64)  # what every process needs
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (256 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sorted(folder.iterdir()):
    drafter = path.name.startswith("drafter-")
    try:
        gemtp.Model(target if drafter else path, drafter=path if drafter else None, threads=1,
                    context=64, mmap=False)
    except gemtp.Error as e:
        if "memory" in str(e):
            raise
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(sound[0])],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_names_are_unique() -> None:
    names = [a.name for a in ATTACKS]
    assert len(set(names)) == len(names)
    sound = set(attacks.sound_files().values())
    unchanged = {a.name for a in ATTACKS if a.data in sound}
    assert unchanged == {"model-is-a-drafter", "drafter-is-a-target"}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_a_hostile_file_is_refused(
    attack: attacks.Attack, sound: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / f"{attack.name}.gguf"
    path.write_bytes(attack.data)
    # Tables that are read by the row may show their damage when a row is used.
    with pytest.raises(gemtp.Error) as caught:
        load(path, sound[0] if attack.is_drafter else None).logits(PROMPT)
    check_message(str(caught.value), path)
    check_inspection(path, str(caught.value))


def check_inspection(path: Path, refusal: str) -> None:
    """Inspecting asks the loader itself, which then reads all but the matrices."""
    try:
        file = ModelFile(path)
        describe(file)
        problems = file.problems
    except gemtp.Error as e:
        problems = [str(e)]
    if problems:
        assert problems[0] in refusal
        assert all(len(p) < 400 + len(str(path)) and p.isprintable() for p in problems)
    else:
        elsewhere = "NaN or infinite|does not fit the target|holds a drafter|holds a target"
        assert re.search(elsewhere, refusal)


@pytest.mark.parametrize(
    "made", [tiny_files.sound_target, tiny_files.sound_experts, tiny_files.sound_drafter]
)
def test_what_is_missing_is_one_problem(made: Callable[[], Gguf], tmp_path: Path) -> None:
    """What depends on it is not known, and no problem of its own."""
    path = tmp_path / "some.gguf"
    missing = 0
    for part in ("keys", "tensors"):
        for i in range(len(getattr(made(), part))):
            g = made()
            name = getattr(g, part).pop(i).name
            path.write_bytes(g.encode())
            problems = ModelFile(path).problems
            if problems and f"{name} is missing" in problems[0]:
                missing += 1
                assert len(problems) == 1, problems
    assert missing > 20


def test_many_problems_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    g = tiny_files.sound_target()
    g.tensors = [t for t in g.tensors if t.name == "token_embd.weight"]
    path.write_bytes(g.encode())
    problems = ModelFile(path).problems
    assert "tensor blk.0.attn_q.weight is missing; convert the model again" in problems
    assert len(problems) == 17
    assert re.fullmatch(r"and \d+ more", problems[-1])


@pytest.mark.parametrize("role", ["target", "drafter"])
def test_truncation_at_every_length(role: str, sound: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    data = attacks.sound_files()[f"sound-{role}"]
    path.write_bytes(data)
    target = sound[0] if role == "drafter" else None
    if target is not None:
        # Opening the target each time would take long; the reader is the same for both.
        def attempt() -> None:
            gemtp._core.GgufFile(path)
    else:

        def attempt() -> None:
            gemtp.Model(path, threads=1, context=64)

    attempt()
    opened = []
    for length in range(len(data) - 1, -1, -1):
        os.truncate(path, length)
        try:
            attempt()
        except gemtp.Error as e:
            check_message(str(e), path)
        else:
            opened.append(length)
    assert opened == []


def test_what_is_not_a_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.gguf"):
        with pytest.raises(gemtp.Error) as caught:
            gemtp.Model(path)
        check_message(str(caught.value), path)
    with pytest.raises(gemtp.Error):
        gemtp.Model("")
    with pytest.raises(gemtp.Error):
        gemtp.Model("a\0b.gguf")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read every file"
)
def test_a_file_without_permission(sound: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "secret.gguf"
    path.write_bytes(sound[0].read_bytes())
    path.chmod(0)
    with pytest.raises(gemtp.Error, match="secret"):
        gemtp.Model(path)


@pytest.mark.parametrize(
    "name",
    [
        "header-wrong-magic",
        "header-truncated-by-half",
        "metadata-duplicate-key",
        "metadata-array-longer-than-file",
        "tensors-overlapping",
        "tensors-type-unknown",
    ],
)
def test_the_command_line_says_it_in_one_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.gguf"
    path.write_bytes(next(a for a in ATTACKS if a.name == name).data)
    done = subprocess.run(
        [sys.executable, "-m", "gemtp_native", "inspect", str(path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert path.name in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
