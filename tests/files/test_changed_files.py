"""Files that another process cuts short, overwrites or replaces while a model, a quantization or a
conversion has them open: one sentence, never a signal, never other bytes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import gemtp_native as gemtp
import tiny_files
from gemtp_native import _core
from gemtp_native.gguf import file as gguf_file
from gemtp_native.make.quantize import quantize
from split_files import parts_of, write_parts

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="nobody can write to a file there that is open for reading"
)

PROMPT = [2, 105, 263, 264, 300, 301, 302]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    target, drafter = tmp_path / "target.gguf", tmp_path / "drafter.gguf"
    target.write_bytes(tiny_files.sound_target().encode())
    drafter.write_bytes(tiny_files.sound_drafter().encode())
    return target, drafter


def opened(files: tuple[Path, Path], **options) -> gemtp.Model:
    return gemtp.Model(files[0], drafter=files[1], threads=2, context=64, **options)


def one_sentence(act: Callable[[], object], *words: str) -> None:
    with pytest.raises(gemtp.FileError) as error:
        act()
    text = str(error.value)
    assert "\n" not in text, text
    assert all(word in text for word in words), text


def uses(model: gemtp.Model) -> list[Callable[[], object]]:
    """Of a model with a drafter, each another way to its tables."""
    return [
        lambda: model.generate(PROMPT, max_tokens=8, draft=0),
        lambda: model.generate(PROMPT, max_tokens=8, draft=3, ignore_eos=True),
        lambda: model.generate(PROMPT, max_tokens=8, draft="auto", ignore_eos=True),
        lambda: list(model.stream("the hand", max_tokens=8)),
        lambda: model.logits(PROMPT),
        lambda: model.score(PROMPT),
        lambda: model.draft(PROMPT, 4),
    ]


@pytest.mark.parametrize("size", [0, 1, 100, 5000, 0.5, -1])
def test_a_target_that_is_cut_short(files: tuple[Path, Path], size: float) -> None:
    """At bytes, a share, or from the end. Other models go on."""
    whole = files[0].stat().st_size
    other = files[0].with_name("other.gguf")
    shutil.copy(files[0], other)
    model, untouched = opened(files), gemtp.Model(other, threads=2, context=64)
    alone = gemtp.Model(files[0], threads=2, context=64)  # its drafts are looked up in the text
    before = model.generate(PROMPT, max_tokens=8, ignore_eos=True).tokens
    os.truncate(files[0], int(size * whole) if 0 < size < 1 else int(size) % whole)
    for use in [*uses(model), lambda: alone.generate(PROMPT * 4, max_tokens=8)]:
        one_sentence(use, "target.gguf' ", "; put the whole file back and open it again")
    assert untouched.generate(PROMPT, max_tokens=8, ignore_eos=True).tokens == before
    files[0].unlink()
    shutil.copy(other, files[0])
    assert opened(files).generate(PROMPT, max_tokens=8, ignore_eos=True).tokens == before


def test_a_generation_that_is_under_way(files: tuple[Path, Path]) -> None:
    model = opened(files)
    stream = iter(model.stream("the hand", max_tokens=40, ignore_eos=True))
    next(stream)
    os.truncate(files[0], 4096)
    one_sentence(lambda: list(stream), "target.gguf' ")


def test_a_drafter_is_not_read_once_it_is_loaded(files: tuple[Path, Path]) -> None:
    model = opened(files)
    before = [u() for u in (lambda: model.draft(PROMPT, 4), lambda: model.logits(PROMPT).tobytes())]
    tokens = model.generate(PROMPT, max_tokens=8, draft=3, ignore_eos=True).tokens
    os.truncate(files[1], 64)
    assert before == [model.draft(PROMPT, 4), model.logits(PROMPT).tobytes()]
    assert model.generate(PROMPT, max_tokens=8, draft=3, ignore_eos=True).tokens == tokens


def test_other_bytes_of_the_same_length(files: tuple[Path, Path]) -> None:
    model = opened(files)
    data = files[0].read_bytes()
    files[0].write_bytes(data[:-4000] + bytes(4000))
    one_sentence(lambda: model.logits(PROMPT), "target.gguf' was changed while in use; open it")


@pytest.mark.parametrize("how", ["replace", "unlink"])
def test_another_file_under_the_same_name(files: tuple[Path, Path], how: str) -> None:
    model = opened(files)
    before = [u() for u in uses(model)[:3]]
    if how == "replace":
        other = files[0].with_name("other")
        other.write_bytes(b"x" * 1000)
        other.replace(files[0])
    else:
        files[0].unlink()
    after = [u() for u in uses(model)[:3]]
    assert [r.tokens for r in after] == [r.tokens for r in before]


def test_tables_in_memory_are_safe_from_changes(files: tuple[Path, Path]) -> None:
    model = opened(files, mmap=False)
    before = model.logits(PROMPT).tobytes()
    os.truncate(files[0], 0)
    assert model.logits(PROMPT).tobytes() == before
    assert model.generate(PROMPT, max_tokens=4, draft=3).tokens


def test_a_part_that_is_cut_short(tmp_path: Path) -> None:
    paths = write_parts(tmp_path, "target", parts_of(tiny_files.sound_target(), 4))
    names = {t.name: t.file for t in gguf_file.read_contents(Path(paths[0])).tensors}
    model = gemtp.Model(paths[0], threads=2, context=64)
    victim = names["token_embd.weight"]
    os.truncate(victim, 200)
    one_sentence(lambda: model.generate(PROMPT, max_tokens=4), f"{victim.name}' ")


@pytest.mark.parametrize("size", [0, 20, 4096])
def test_metadata_and_rows_of_an_open_file(files: tuple[Path, Path], size: int) -> None:
    file = _core.GgufFile(files[0])
    os.truncate(files[0], size)
    one_sentence(lambda: file.value("tokenizer.ggml.tokens"), "target.gguf' ")
    one_sentence(lambda: file.value("general.architecture"), "target.gguf' ")
    one_sentence(lambda: file.rows("token_embd.weight", 0, 4), "target.gguf' ")


@pytest.mark.parametrize("at", [0.0, 0.3])
@pytest.mark.parametrize("mmap", [True, False])
def test_while_it_is_loaded(files: tuple[Path, Path], mmap: bool, at: float) -> None:
    def cut(done: float) -> None:
        if done >= at and files[0].stat().st_size > 5000:
            os.truncate(files[0], 5000)

    one_sentence(lambda: opened(files, mmap=mmap, progress=cut), "target.gguf' ")


def test_while_it_is_quantized(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from gemtp_native.make.quantize import file as module

    write = module._write

    def cut(*args: object) -> None:
        os.truncate(files[0], files[0].stat().st_size // 2)
        write(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_write", cut)
    out = files[0].with_name("out.gguf")
    one_sentence(
        lambda: quantize(files[0], out, "q4_0", allow_requantize=True, progress=False),
        "target.gguf",
    )
    assert not out.exists()


def test_while_its_header_is_read(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = gguf_file._Reader.metadata

    def cut(self: gguf_file._Reader) -> object:
        os.truncate(files[0], 30)
        return metadata(self)

    monkeypatch.setattr(gguf_file._Reader, "metadata", cut)
    one_sentence(lambda: gguf_file.read_contents(files[0]), "target.gguf ")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    one_sentence(lambda: gemtp.Model(pipe), "pipe.gguf' is a pipe or a device")
    one_sentence(lambda: gguf_file.read_contents(pipe), "pipe.gguf is not a file")


_INSPECT = """
import os, sys
import gemtp_native as gemtp
from gemtp_native.cli import main
from gemtp_native.cli import model_file

opened = model_file._core.GgufFile

def cut(path):
    file = opened(path)
    os.truncate(path, 40)
    return file

model_file._core.GgufFile = cut
sys.exit(main(["inspect", sys.argv[1]]))
"""


def test_inspect_ends_without_a_signal(files: tuple[Path, Path]) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _INSPECT, files[0]], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert "it ends at byte 40 of 84416; put the whole file back and open it again" in run.stdout
