"""The file that appears whole or not at all, the command line, and memory."""

from __future__ import annotations

import copy
import errno
import json
import os
import struct
import sys

import numpy as np
import pytest

from convert_folders import CONFIGS, ROOT, command, make_folder, make_tensors, run, shapes_of
from gemtp_native import _core
from gemtp_native.base import whole_file
from gemtp_native.errors import ArgumentError, FileError
from gemtp_native.make.convert import convert, pipeline


def test_an_existing_output_is_replaced_only_by_a_complete_one(tmp_path, monkeypatch):
    folder = make_folder(tmp_path, CONFIGS["31b"])
    out = tmp_path / "out.gguf"
    out.write_text("old")

    def kept(kind: type, match: str | None = None):
        with pytest.raises(kind, match=match):
            run(folder)
        assert out.read_text() == "old"
        assert sorted(os.listdir(tmp_path)) == ["model", "out.gguf"]

    def fails_with(error: BaseException):
        calls = iter(range(1000))

        def pad(handle, size):
            if next(calls) == 20:
                raise error
            original(handle, size)

        return pad

    original = pipeline.pad
    monkeypatch.setattr(pipeline, "pad", fails_with(OSError(errno.ENOSPC, "No space left")))
    kept(FileError, r"not enough space for .*out\.gguf: [\d,]+ bytes are needed, [\d,]+ are free")
    monkeypatch.setattr(pipeline, "pad", fails_with(OSError(errno.EIO, "Input/output error")))
    kept(FileError, "cannot be written: Input/output error")
    monkeypatch.setattr(pipeline, "pad", fails_with(KeyboardInterrupt()))
    kept(KeyboardInterrupt)
    monkeypatch.setattr(pipeline, "pad", original)
    usage = whole_file.shutil.disk_usage
    monkeypatch.setattr(whole_file.shutil, "disk_usage", lambda p: usage(p)._replace(free=1000))
    kept(FileError, "bytes are needed, 1,000 are free")
    monkeypatch.setattr(whole_file.shutil, "disk_usage", usage)
    run(folder)
    assert out.read_bytes()[:4] == b"GGUF"


def test_bad_arguments(tmp_path):
    folder = make_folder(tmp_path, CONFIGS["31b"])
    with pytest.raises(ArgumentError, match="the type is 'q9_k'"):
        run(folder, "q9_k")
    with pytest.raises(FileError, match="is a folder"):
        convert(folder, tmp_path, tokenizer=False)
    with pytest.raises(FileError, match="does not exist"):
        convert(folder, tmp_path / "none" / "x.gguf", tokenizer=False)
    with pytest.raises(ArgumentError, match="one of the files to read"):
        convert(folder, folder / "model.safetensors", tokenizer=False)
    with pytest.raises(ArgumentError, match="choose one"):
        run(folder, target=folder)


def test_command_line(tmp_path):
    config = CONFIGS["e2b"]
    tensors = {**make_tensors(config), "model.vision_tower.w": np.zeros(3, np.float32)}
    folder = make_folder(tmp_path, config, tensors)
    done = command(folder, "--no-tokenizer", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "left out: 1 vision tensors" in done.stdout
    assert "gemma4 (Gemma4ForConditionalGeneration), 6 layers" in done.stdout
    assert (tmp_path / "model-q8_0.gguf").is_file()
    done = command(folder, "x.gguf", "--no-tokenizer", "--verbose", cwd=tmp_path)
    assert "  model.vision_tower.w\n" in done.stdout
    done = command(folder, "x.gguf", "--no-tokenizer", "--quiet", "--outtype", "f16", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    bytes_ = {}
    for given in (("y.gguf", "--outtype", "bf16"), ("--outfile", "y.gguf", "--outtype", "auto")):
        done = command(folder, *given, "--no-tokenizer", "--quiet", cwd=tmp_path)
        assert done.returncode == 0
        bytes_[given] = (tmp_path / "y.gguf").read_bytes()
        (tmp_path / "y.gguf").unlink()
    assert len(set(bytes_.values())) == 1
    done = command(folder, "--outfile", "z-{ftype}.gguf", "--outtype", "fp16", "--no-tokenizer",
                   cwd=tmp_path)  # fmt: skip
    assert (done.returncode, (tmp_path / "z-f16.gguf").is_file()) == (0, True)
    done = command(folder, "x.gguf", "--no-tokenizer", "--json", cwd=tmp_path)
    summary = json.loads(done.stdout)
    assert summary["bytes"] == (tmp_path / "x.gguf").stat().st_size
    assert summary["left_out"] == {"vision": 1}
    for args, status, text in (
        ((folder, "x.gguf"), 1, "error: "),
        ((tmp_path / "none", "x.gguf"), 1, "is not a folder"),
        ((folder / "model.safetensors",), 1, f"give the folder of a Hugging Face model, {folder}"),
        ((tmp_path / "z-f16.gguf",), 1, "gemtp quantize writes a GGUF in another type"),
        (("google/x-it",), 1, "hf download google/x-it --local-dir x-it"),
        ((folder, tmp_path, "--no-tokenizer"), 1, "is a folder"),
        ((folder, "--outtype", "q3"), 2, "invalid choice"),
        ((folder, "x.gguf", "--outfile", "y.gguf"), 2, "two files"),
        ((), 2, "MODEL_DIR"),
    ):
        done = command(*args, cwd=tmp_path)
        assert done.returncode == status
        assert text in done.stderr
        assert "Traceback" not in done.stderr


def test_the_file_says_that_a_model_completes(tmp_path):
    folder = make_folder(tmp_path, CONFIGS["31b"])
    for name, completes in (("yes", True), ("no", None)):
        convert(folder, tmp_path / name, "f32", tokenizer=False, completes=bool(completes))
        assert _core.GgufFile(tmp_path / name).value("gemtp.completes") is completes


def test_whether_a_pair_completes_is_not_up_to_the_drafter(tmp_path):
    folder = make_folder(tmp_path, CONFIGS["draft"])
    with pytest.raises(ArgumentError, match="drafter"):
        convert(folder, tmp_path / "out.gguf", "f32", tokenizer=False, completes=True)
    assert not (tmp_path / "out.gguf").exists()


def test_a_disk_that_fills_up(tmp_path):
    """A limit on file sizes makes the kernel refuse a write half-way."""
    pytest.importorskip("resource")
    folder = make_folder(tmp_path, CONFIGS["31b"])
    code = (
        "import resource, sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from gemtp_native.cli.convert import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "sys.exit(main())"
    )
    done = command(
        ROOT / "python", folder, "x.gguf", "--no-tokenizer", "--outtype", "f32", cwd=tmp_path,
        code=code,
    )  # fmt: skip
    assert done.returncode == 1
    assert "x.gguf cannot be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == ["model"]


def test_works_without_the_compiled_module(tmp_path):
    folder = make_folder(tmp_path, CONFIGS["31b"])
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "sys.modules['gemtp_native._core'] = None\n"
        "from gemtp_native.cli.convert import main; sys.exit(main())"
    )
    done = command(ROOT / "python", folder, "x.gguf", "--no-tokenizer", cwd=tmp_path, code=code)
    assert (done.returncode, done.stderr) == (0, "")


def test_peak_memory_is_a_couple_of_the_largest_tensors(tmp_path):
    """400 MB in shards; the files are holes, so that making them costs nothing."""
    pytest.importorskip("resource")
    config = copy.deepcopy(CONFIGS["31b"])
    config |= {"vocab_size": 32_768, "hidden_size": 1024, "intermediate_size": 10_240}
    shapes = shapes_of(config)
    sizes = {n: int(np.prod(s)) * 2 for n, s in shapes.items()}
    largest, total = max(sizes.values()), sum(sizes.values())
    assert total > 400e6
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    weight_map = {}
    for i in range(4):
        header, at = {}, 0
        for name in list(shapes)[i::4]:
            offsets = [at, at + sizes[name]]
            header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": offsets}
            weight_map[name] = f"{i}.safetensors"
            at += sizes[name]
        text = json.dumps(header).encode()
        with (folder / f"{i}.safetensors").open("wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            f.truncate(8 + len(text) + at)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    small = make_folder(tmp_path, CONFIGS["31b"], name="small")
    code = (
        "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "from gemtp_native.make.convert import convert\n"
        "for folder in sys.argv[2:]:\n"
        "    convert(folder, 'x.gguf', 'q8_0', tokenizer=False)\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = command(ROOT / "python", small, folder, cwd=tmp_path, code=code)
    before, after = (int(line) for line in done.stdout.split())
    unit = 1 if sys.platform == "darwin" else 1024
    assert (after - before) * unit < 2 * largest
