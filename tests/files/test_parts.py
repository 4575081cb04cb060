"""Models in several files: any part opens all of them, and nothing else changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import gemtp_native as gemtp
import tiny_files
from gemtp_native import _core, profile
from gemtp_native.export.configuration import source_of
from gemtp_native.gguf import parts
from gemtp_native.gguf.file import read_contents
from gemtp_native.make.quantize import quantize
from gguf_bytes import STRING, U16
from split_files import parts_of, write_parts

PROMPT = [2, 105, 263, 264]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """whole.gguf and whole-drafter.gguf, and both in parts."""
    folder = tmp_path_factory.mktemp("parts")
    target, drafter = tiny_files.sound_target(), tiny_files.sound_drafter()
    (folder / "whole.gguf").write_bytes(target.encode())
    (folder / "whole-drafter.gguf").write_bytes(drafter.encode())
    write_parts(folder, "target", parts_of(target, 4))
    write_parts(folder, "header", parts_of(target, 3, empty_first=True))
    write_parts(folder, "drafter", parts_of(drafter, 2))
    return folder


def opened(target: Path, drafter: Path | None = None, **options) -> gemtp.Model:
    return gemtp.Model(target, drafter=drafter, threads=2, context=64, **options)


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "target-00001-of-00004.gguf",
        "target-00003-of-00004.gguf",
        "target-00004-of-00004.gguf",
        "header-00001-of-00003.gguf",
        "header-00002-of-00003.gguf",
    ],
)
def test_any_part_opens_the_model(folder: Path, name: str, mmap: bool) -> None:
    whole = opened(folder / "whole.gguf", folder / "whole-drafter.gguf")
    split = opened(folder / name, folder / "drafter-00002-of-00002.gguf", mmap=mmap)
    assert split.logits(PROMPT).tobytes() == whole.logits(PROMPT).tobytes()
    assert split.draft(PROMPT, 4) == whole.draft(PROMPT, 4)
    assert (
        split.generate("the hand", max_tokens=8).tokens
        == whole.generate("the hand", max_tokens=8).tokens
    )


def test_the_tokenizer_is_in_the_first(folder: Path) -> None:
    whole = gemtp.Tokenizer(folder / "whole.gguf")
    split = gemtp.Tokenizer(folder / "target-00002-of-00004.gguf")
    assert split.encode("the hand in", add_bos=True) == whole.encode("the hand in", add_bos=True)


def test_a_set_that_gguf_py_writes(folder: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    source = gguf.GGUFReader(folder / "whole.gguf")
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "gemma4", split_max_tensors=20)
    for field in source.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind, *sub = field.types
        writer.add_key_value(field.name, field.contents(), kind, sub[-1] if sub else None)
    for tensor in source.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) > 2
    expected = opened(folder / "whole.gguf").logits(PROMPT)
    assert opened(files[1]).logits(PROMPT).tobytes() == expected.tobytes()


def test_inspect_shows_the_sum(folder: Path, gemtp_main) -> None:
    paths = sorted(folder.glob("target-*"))
    code, out, _ = gemtp_main("inspect", paths[2], "--json")
    facts = json.loads(out)["files"][0]
    assert code == 0
    assert facts["problems"] == []
    assert facts["parts"] == [str(p) for p in paths]
    assert facts["bytes"] == sum(p.stat().st_size for p in paths)
    whole = json.loads(gemtp_main("inspect", folder / "whole.gguf", "--json")[1])["files"][0]
    different = {k for k in facts if facts[k] != whole[k]}
    assert different == {"path", "parts", "bytes"}
    assert " in 4 files, " in gemtp_main("inspect", paths[0])[1]
    pair = gemtp_main("inspect", paths[1], folder / "drafter-00001-of-00002.gguf")
    assert pair[0] == 0, pair


def test_requantizing_makes_one_file(folder: Path, tmp_path: Path) -> None:
    def made(source: str) -> bytes:
        quantize(folder / source, tmp_path / source, "q4_0", allow_requantize=True, progress=False)
        return (tmp_path / source).read_bytes()

    assert made("target-00003-of-00004.gguf") == made("whole.gguf")
    with pytest.raises(gemtp.ArgumentError, match="is one of the files to read"):
        quantize(
            folder / "target-00001-of-00004.gguf",
            folder / "target-00002-of-00004.gguf",
            "q4_0",
            allow_requantize=True,
        )


def test_a_profile_is_of_all_parts(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("target-*"):
        shutil.copy(path, tmp_path)
    paths = sorted(tmp_path.iterdir())
    before = [profile.identify(p) for p in paths]
    assert len(set(before)) == 1
    assert before[0].path == str(paths[0].resolve())
    assert before[0].bytes == parts.size_of(paths[3]) == sum(p.stat().st_size for p in paths)
    assert profile.path_of(paths[1], None, 1, "f16") == profile.path_of(paths[2], None, 1, "f16")
    with paths[2].open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    assert profile.identify(paths[0]).sha256 != before[0].sha256


def test_an_export_names_the_first() -> None:
    assert source_of(["some/model-00002-of-00003.gguf"]).gguf == "some/model-00001-of-00003.gguf"
    assert source_of(["some/model-2-of-3.gguf"]).gguf == "some/model-2-of-3.gguf"


@pytest.mark.parametrize(
    "name",
    [
        "m.gguf",
        "m-1-of-2.gguf",
        "m-00000-of-00002.gguf",
        "m-00003-of-00002.gguf",
        "m-0000x-of-00002.gguf",
        "-00001-of-00002",
        "m-00001-of-00002.GGUF",
    ],
)
def test_other_names_are_no_parts(name: str) -> None:
    assert parts.names(name) is None
    assert parts.first_of(name) == name


def test_a_single_file_may_be_called_like_a_part(folder: Path, tmp_path: Path) -> None:
    path = shutil.copy(folder / "whole.gguf", tmp_path / "lonely-00002-of-00009.gguf")
    assert parts.files_of(path) == [str(path)]
    assert opened(path).logits(PROMPT).shape[0] == len(PROMPT)


# ---------------------------------------------------------------- what is refused


def check(path: Path, *words: str) -> None:
    for attempt in (_core.GgufFile, lambda p: read_contents(Path(p))):
        with pytest.raises(gemtp.Error) as caught:
            attempt(path)
        message = str(caught.value)
        assert "\n" not in message
    for word in words:  # the native reader says which part
        with pytest.raises(gemtp.Error) as caught:
            _core.GgufFile(path)
        assert word in str(caught.value), caught.value


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return write_parts(tmp_path, "m", parts_of(tiny_files.sound_target(), 3))


@pytest.mark.parametrize("opened_by", [0, 2])
def test_a_missing_part(three: list[Path], opened_by: int) -> None:
    three[1].unlink()
    check(three[opened_by], "m-00002-of-00003.gguf", "part 2 of the 3 that the model consists of")


def test_the_first_part_is_missing(three: list[Path]) -> None:
    three[0].unlink()
    check(three[1], "m-00001-of-00003.gguf", "part 1 of the 3")


def test_a_truncated_part(three: list[Path]) -> None:
    three[2].write_bytes(three[2].read_bytes()[:-40])
    with pytest.raises(gemtp.FileError, match=r"m-00003-of-00003.gguf': .*truncated.*part 3 of"):
        _core.GgufFile(three[0])


def test_a_renamed_part(three: list[Path], tmp_path: Path) -> None:
    lonely = shutil.copy(three[1], tmp_path / "other.gguf")
    check(Path(lonely), "part 2 of a model in 3 files", "model-00001-of-00003.gguf")
    shutil.copy(three[2], three[1])  # named as the second, but the third
    check(three[0], "m-00002-of-00003.gguf': by its name it is part 2 of 3")


def test_a_part_of_a_set_of_another_size(three: list[Path], tmp_path: Path) -> None:
    for path, part in zip(three, parts_of(tiny_files.sound_target(), 4), strict=False):
        if path is not three[0]:
            path.write_bytes(part.encode())
    check(three[0], "m-00002-of-00003.gguf': by its name it is part 2 of 3")


def test_tensors_in_two_parts(three: list[Path]) -> None:
    made = parts_of(tiny_files.sound_target(), 3)
    made[2].tensors[0] = made[0].tensors[0]
    three[2].write_bytes(made[2].encode())
    check(three[1], "m-00003-of-00003.gguf': tensor 'token_embd.weight' is in ", "m-00001-of-")


def test_tensors_that_are_nowhere(three: list[Path]) -> None:
    made = parts_of(tiny_files.sound_target(), 3)
    del made[1].tensors[-1]
    three[1].write_bytes(made[1].encode())
    check(three[0], "are in its 3 parts; one of them is of another model")


def test_a_part_of_another_model(three: list[Path]) -> None:
    made = parts_of(tiny_files.sound_target(), 3)
    made[1].put("general.architecture", STRING, "llama")
    three[1].write_bytes(made[1].encode())
    with pytest.raises(gemtp.FileError, match="00002-of-00003.*'general.architecture' is not what"):
        _core.GgufFile(three[0])
    other = parts_of(tiny_files.sound_experts(), 3)
    three[1].write_bytes(other[1].encode())
    with pytest.raises(gemtp.FileError, match="00002-of-00003.*'split.tensors.count' is not what"):
        _core.GgufFile(three[0])


def test_counts_of_a_hostile_file(three: list[Path]) -> None:
    made = parts_of(tiny_files.sound_target(), 3)
    made[0].put("split.count", U16, 65535)
    three[0].write_bytes(made[0].encode())
    check(three[0], "m-00001-of-00003.gguf': by its name it is part 1 of 3")


def test_an_error_names_the_part_of_the_tensor(three: list[Path]) -> None:
    made = parts_of(tiny_files.sound_target(), 3)
    norm = next(t for t in made[1].tensors if t.name.endswith("attn_norm.weight"))
    norm.data = np.full(len(norm.data) // 4, np.nan, np.float32).tobytes()
    three[1].write_bytes(made[1].encode())
    with pytest.raises(gemtp.FileError, match=f"m-00002-of-00003.gguf': tensor {norm.name} holds"):
        opened(three[0])
