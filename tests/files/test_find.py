"""Finding models: by name in folders, in Ollama's and LM Studio's, and on a hub."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fake_hub
import gemtp_native as gemtp
import tiny_files
from gemtp_native import find
from gemtp_native.find import beside, choose, lmstudio, ollama
from gguf_bytes import T_F32, U32, random_tensor
from split_files import parts_of

TARGET = tiny_files.sound_target().encode()
DRAFTER = tiny_files.sound_drafter().encode()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def other_drafter() -> bytes:
    """Made for a target of another size."""
    g = tiny_files.sound_drafter()
    g.put("gemma4-assistant.embedding_length_out", U32, 64)
    random = np.random.default_rng(0)
    for i, tensor in enumerate(g.tensors):
        name, hidden = str(tensor.name), tiny_files.HIDDEN
        if name.startswith("nextn."):
            shape = [128, hidden] if "pre" in name else [hidden, 64]
            g.tensors[i] = random_tensor(random, name, shape, T_F32)
    return g.encode()


def one_sentence(error: BaseException) -> str:
    message = str(error)
    assert "\n" not in message
    assert len(message) < 700
    return message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With no neighbours but the test's own."""
    return tmp_path / "models" / "m"


# ---------------------------------------------------------------- what names say


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("gemma-4-E2B-it-Q4_K_M.gguf", "Q4_K_M"),
        ("gemma-4-E2B-it-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("gemma-4-E2B-it-UD-IQ2_XXS.gguf", "UD-IQ2_XXS"),
        ("gemma-4-12b-it-q4_0.gguf", "Q4_0"),
        ("gemma-4-E2B-it-IQ4_NL.gguf", "IQ4_NL"),
        ("gemma-4-26B-A4B-it-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("BF16/gemma-4-31B-it-BF16-00001-of-00002.gguf", "BF16"),
        ("Q8_0/model-00002-of-00003.gguf", "Q8_0"),
        ("gemma-4-E2B-it.Q6_K.gguf", "Q6_K"),
        ("gemma4-fp16.gguf", "F16"),
        ("gemma-4-E2B-it.gguf", None),
    ],
)
def test_labels(name: str, label: str | None) -> None:
    assert choose.label(name) == label


FILES = {
    "README.md": 10,
    "gemma-4-X-it-Q4_0.gguf": 100,
    "gemma-4-X-it-Q4_K_M.gguf": 110,
    "gemma-4-X-it-UD-Q4_K_XL.gguf": 120,
    "gemma-4-X-it-Q8_0.gguf": 200,
    "BF16/gemma-4-X-it-BF16-00001-of-00002.gguf": 300,
    "BF16/gemma-4-X-it-BF16-00002-of-00002.gguf": 90,
    "gemma-4-X-it-assistant-Q8_0.gguf": 20,
    "mmproj-BF16.gguf": 50,
    "imatrix_gemma.gguf": 5,
}


def test_candidates() -> None:
    found = {c.name: (c.label, c.bytes, c.role, len(c.files)) for c in choose.candidates(FILES)}
    assert found == {
        "gemma-4-X-it-Q4_0.gguf": ("Q4_0", 100, "target", 1),
        "gemma-4-X-it-Q4_K_M.gguf": ("Q4_K_M", 110, "target", 1),
        "gemma-4-X-it-UD-Q4_K_XL.gguf": ("UD-Q4_K_XL", 120, "target", 1),
        "gemma-4-X-it-Q8_0.gguf": ("Q8_0", 200, "target", 1),
        "BF16/gemma-4-X-it-BF16-00001-of-00002.gguf": ("BF16", 390, "target", 2),
        "gemma-4-X-it-assistant-Q8_0.gguf": ("Q8_0", 20, "drafter", 1),
    }


@pytest.mark.parametrize(
    ("wanted", "role", "where", "name"),
    [
        (None, "target", "some", "gemma-4-X-it-Q4_K_M.gguf"),
        (None, "target", "some-qat", "gemma-4-X-it-Q4_0.gguf"),
        ("q8_0", "target", "some", "gemma-4-X-it-Q8_0.gguf"),
        ("Q4_K_XL", "target", "some", "gemma-4-X-it-UD-Q4_K_XL.gguf"),
        ("bf16", "target", "some", "BF16/gemma-4-X-it-BF16-00001-of-00002.gguf"),
        (None, "drafter", "some", "gemma-4-X-it-assistant-Q8_0.gguf"),
        ("Q8_0", "drafter", "some", "gemma-4-X-it-assistant-Q8_0.gguf"),
        ("gemma-4-X-it-Q8_0.gguf", "target", "some", "gemma-4-X-it-Q8_0.gguf"),
        ("gemma-4-X-it-BF16-00002-of-00002.gguf", "target", "some",
         "BF16/gemma-4-X-it-BF16-00001-of-00002.gguf"),
    ],
)  # fmt: skip
def test_choosing(wanted: str | None, role: str, where: str, name: str) -> None:
    assert choose.choose(choose.candidates(FILES), wanted, role, where).name == name


def test_no_choice() -> None:
    found = choose.candidates(FILES)
    with pytest.raises(
        gemtp.FileError, match=r"some has no Q5_K_M; it has .*Q4_0 \(0.00 GB\), "
    ) as e:
        choose.choose(found, "Q5_K_M", "target", "some")
    assert "assistant" not in one_sentence(e.value)
    with pytest.raises(gemtp.FileError, match="some has no file x.gguf"):
        choose.choose(found, "x.gguf", "target", "some")
    with pytest.raises(gemtp.FileError, match="some has no GGUF models"):
        choose.choose([], None, "target", "some")
    odd = choose.candidates({"a-Q3_K_S.gguf": 1, "a-Q2_K.gguf": 1})
    with pytest.raises(gemtp.FileError, match="several models; say which, like some:Q2_K"):
        choose.choose(odd, None, "target", "some")
    twice = choose.candidates({"a-Q4_0.gguf": 1, "b-Q4_0.gguf": 1})
    for wanted in (None, "Q4_0"):
        with pytest.raises(gemtp.FileError, match="like some:a-Q4_0.gguf"):
            choose.choose(twice, wanted, "target", "some")


def test_names_are_told_from_paths(tmp_path: Path) -> None:
    for path in ("model.gguf", "./hf", b"model.gguf", tmp_path, "auto", "C:/models/x.gguf"):
        assert not find.is_name(path)
    for name in ("hf:a/b", "ollama:a", "lmstudio:a/b:Q4_0"):
        assert find.is_name(name)
    assert find.model_path("some/path.gguf") == "some/path.gguf"
    for name in ("hf:a", "hf:a/b/c", "hf:/b", "hf:../b", "hf:a/b:", "lmstudio:a", "ollama:",
                 "ollama:..", "ollama:a:", "lmstudio:../.."):  # fmt: skip
        with pytest.raises(gemtp.ArgumentError) as e:
            find.model_path(name)
        one_sentence(e.value)


# ---------------------------------------------------------------- folders


def test_a_folder(folder: Path) -> None:
    write(folder / "m-Q8_0.gguf", TARGET)
    write(folder / "m-assistant-Q8_0.gguf", DRAFTER)
    write(folder / "mmproj-F16.gguf", b"")
    assert find.model_path(folder) == folder / "m-Q8_0.gguf"
    assert find.model_path(folder, "drafter") == folder / "m-assistant-Q8_0.gguf"
    model = gemtp.Model(folder, drafter="auto", threads=1, context=64)
    assert model.draft([2, 5, 6], 2)
    empty = folder / "empty"
    empty.mkdir()
    with pytest.raises(gemtp.FileError, match="is a directory"):
        gemtp.Model(empty)


@pytest.mark.parametrize("name", ["mtp-m.gguf", "m-Drafter.gguf", "M_assistant_q8.gguf"])
def test_a_drafter_in_the_folder(name: str, folder: Path) -> None:
    target = write(folder / "m.gguf", TARGET)
    drafter = write(folder / name, DRAFTER)
    write(folder / "other-assistant.gguf", other_drafter())
    assert beside.drafter_beside(target) == drafter


def test_a_drafter_in_a_folder_beside_it(tmp_path: Path) -> None:
    """As LM Studio lays them out."""
    target = write(tmp_path / "pub" / "gemma-4-X-it-GGUF" / "m-Q4_0.gguf", TARGET)
    write(tmp_path / "pub" / "other-GGUF" / "m-Q4_0.gguf", DRAFTER)
    drafter = write(tmp_path / "pub" / "gemma-4-X-it-assistant-GGUF" / "m-Q8_0.gguf", DRAFTER)
    assert beside.drafter_beside(target) == drafter


@pytest.mark.parametrize("place", ["", "Q4_0"])
def test_a_drafter_in_a_folder_of_the_repository(place: str, tmp_path: Path) -> None:
    """As unsloth lays them out, on disk and in the hub's cache."""
    for folder in (tmp_path / "x-GGUF", tmp_path / "models--u--x-GGUF" / "snapshots" / "0123"):
        target = write(folder / place / "gemma-4-X-it-Q4_0.gguf", TARGET)
        write(folder / "other" / "gemma-4-X-it-Q8_0.gguf", DRAFTER)
        drafter = write(folder / "MTP" / "gemma-4-X-it-Q8_0.gguf", DRAFTER)
        assert beside.drafter_beside(target) == drafter


@pytest.mark.parametrize(
    "place",
    [
        "mtp-gemma-4-X-it.gguf",
        "draft/m.gguf",
        "Drafts/m.gguf",
        "MTP/Q8_0/m.gguf",
        "Q4_0/MTP/m.gguf",
    ],
)
def test_other_places_of_drafters(place: str, tmp_path: Path) -> None:
    target = write(tmp_path / "x-GGUF" / "Q4_0" / "gemma-4-X-it-Q4_0.gguf", TARGET)
    drafter = write(tmp_path / "x-GGUF" / place, DRAFTER)
    write(tmp_path / "x-GGUF" / "other.gguf", DRAFTER)
    assert beside.drafter_beside(target) == drafter


def test_names_without_their_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(gemtp.FileError, match="no file g/m-GGUF:Q4_0; .* hf:g/m-GGUF:Q4_0"):
        gemtp.Model("g/m-GGUF:Q4_0")
    with pytest.raises(gemtp.FileError, match="no file gemma4:e2b; .* ollama:gemma4:e2b"):
        gemtp.Model("gemma4:e2b")
    for name in ("models/m.gguf", "m", "./g/m", "a/b/c"):
        with pytest.raises(gemtp.FileError, match="cannot be opened"):
            gemtp.Model(name)
    write(tmp_path / "g" / "m", TARGET)
    gemtp.Model("g/m", threads=1, context=64).close()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(gemtp.FileError, match="a Hugging Face checkpoint, no GGUF; gemtp convert"):
        gemtp.Model(tmp_path)


def test_a_drafter_in_a_folder_of_another_repository(tmp_path: Path) -> None:
    target = write(tmp_path / "models--u--x" / "snapshots" / "01" / "Q4_0" / "m.gguf", TARGET)
    other = tmp_path / "models--u--x-assistant" / "snapshots" / "02"
    drafter = write(other / "MTP" / "m.gguf", DRAFTER)
    assert beside.drafter_beside(target) == drafter


def test_of_several_the_ordered_then_the_smallest(folder: Path) -> None:
    target = write(folder / "m.gguf", TARGET)
    plain = tiny_files.sound_drafter()
    for key in ("num_centroids", "top_k", "centroids", "token_order"):
        plain.drop(f"gemtp.ordered_head.{key}")
    write(folder / "m-assistant-plain.gguf", plain.encode())
    drafter = write(folder / "m-assistant-q8.gguf", DRAFTER)
    write(folder / "m-assistant-z.gguf", DRAFTER + bytes(64))
    assert beside.drafter_beside(target) == drafter


def test_no_drafter(folder: Path) -> None:
    target = write(folder / "m.gguf", TARGET)
    with pytest.raises(gemtp.FileError, match="no drafter is beside .*m.gguf.*give its path"):
        gemtp.Model(target, drafter="auto")
    write(folder / "m-assistant.gguf", other_drafter())
    with pytest.raises(
        gemtp.ModelError, match="m-assistant.gguf: .*target of hidden size 64, this one has 32"
    ) as e:
        gemtp.Model(target, drafter="auto")
    one_sentence(e.value)


def test_auto_on_the_command_line(folder: Path, gemtp_main) -> None:
    target = write(folder / "m.gguf", TARGET)
    write(folder / "m-assistant.gguf", DRAFTER)
    options = ("the hand", "--max-tokens", 8, "--draft", 3, "--ignore-eos", "--json")
    code, out, err = gemtp_main("generate", target, "--drafter", "auto", *options)
    assert code == 0, err
    assert json.loads(out)["stats"]["drafted"] > 0
    assert err == f"gemtp: note: the drafter is {folder / 'm-assistant.gguf'}\n"
    code, _, err = gemtp_main("generate", folder, "--drafter", "auto", *options, "--quiet")
    assert (code, err) == (0, "")
    code, out, _ = gemtp_main("inspect", folder, "--drafter", "auto")
    assert code == 0
    assert "the drafter fits the target" in out
    assert gemtp_main("inspect", target, target, "--drafter", target)[0] == 1


# ---------------------------------------------------------------- Ollama


def blob(root: Path, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    write(root / "blobs" / f"sha256-{digest}", data)
    return f"sha256:{digest}"


def manifest(root: Path, name: str, **layers: bytes) -> Path:
    """Below "manifests": layers by the kind of each."""
    data = {
        "schemaVersion": 2,
        "layers": [
            {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": blob(root, content),
             "size": len(content)}
            for kind, content in layers.items()
        ],
    }  # fmt: skip
    return write(root / "manifests" / name, json.dumps(data).encode())


@pytest.fixture
def ollama_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "ollama"
    monkeypatch.setenv("OLLAMA_MODELS", str(root))
    manifest(root, "some.registry/library/gemma4/latest", model=TARGET, template=b"x")
    manifest(root, "some.registry/library/gemma4/e2b", model=TARGET, draft=DRAFTER)
    manifest(root, "some.registry/me/mine/v1", model=TARGET)
    manifest(root, "other.host/a/b/Q4_0", model=TARGET)
    return root


@pytest.mark.parametrize(
    "name", ["gemma4", "gemma4:latest", "gemma4:e2b", "me/mine:v1", "other.host/a/b:Q4_0"]
)
def test_ollama_names(name: str, ollama_root: Path) -> None:
    assert Path(ollama.model_of(name)).read_bytes() == TARGET
    assert gemtp.Model(f"ollama:{name}", threads=1, context=64).logits([2, 5]).shape[0] == 2


def test_ollama_drafters(ollama_root: Path) -> None:
    model = gemtp.Model("ollama:gemma4:e2b", drafter="auto", threads=1, context=64)
    assert model.draft([2, 5, 6], 2)
    assert Path(ollama.model_of("gemma4:e2b", "drafter")).read_bytes() == DRAFTER
    with pytest.raises(gemtp.FileError, match="comes without a drafter"):
        find.drafter_path("auto", ollama.model_of("gemma4"), "ollama:gemma4")
    manifest(ollama_root, "some.registry/library/gemma4-assistant/latest", model=DRAFTER)
    found = find.drafter_path("auto", ollama.model_of("gemma4"), "ollama:gemma4")
    assert Path(os.fsdecode(found)).read_bytes() == DRAFTER


def test_ollama_refusals(
    ollama_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(name: str, match: str) -> None:
        with pytest.raises(gemtp.FileError, match=match) as e:
            ollama.model_of(name)
        one_sentence(e.value)

    refused("gemma5", "no gemma5:latest; it has me/mine:v1, |no gemma5:latest; it has .*gemma4:e2b")
    refused("gemma4:x", "no gemma4:x")
    path = manifest(ollama_root, "some.registry/library/bad/latest", adapter=b"x")
    refused("bad", "has no model in a GGUF file")
    for text in ("{", "[]", '{"layers": 3}'):
        path.write_text(text)
        refused("bad", "is not a manifest")
    manifest(ollama_root, "some.registry/library/bad/latest", model=b"abc")
    name = hashlib.sha256(b"abc").hexdigest()
    (ollama_root / "blobs" / f"sha256-{name}").write_bytes(b"ab")
    refused("bad", "has 2 bytes and should have 3")
    (ollama_root / "blobs" / f"sha256-{name}").unlink()
    refused("bad", "is missing")
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "none"))
    refused("gemma4", "Ollama has no models in .*none; set OLLAMA_MODELS")


# ---------------------------------------------------------------- LM Studio


def test_lmstudio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    old = tmp_path / ".cache/lm-studio/models/pub/m-GGUF"
    write(old / "m-Q4_K_M.gguf", TARGET)
    write(old / "m-Q8_0.gguf", TARGET)
    assert lmstudio.model_in("pub/m-GGUF") == old / "m-Q4_K_M.gguf"
    assert find.model_path("lmstudio:pub/m-GGUF:Q8_0") == old / "m-Q8_0.gguf"
    moved = tmp_path / "elsewhere"
    write(tmp_path / ".lmstudio-home-pointer", str(moved).encode())
    new = write(moved / "models/pub/m-GGUF/m-F16.gguf", TARGET)
    assert lmstudio.model_in("pub/m-GGUF") == new
    with pytest.raises(gemtp.FileError, match="LM Studio has no pub/other in "):
        lmstudio.model_in("pub/other")


# ---------------------------------------------------------------- the hub

huggingface_hub = pytest.importorskip("huggingface_hub")
from gemtp_native.find import hub as finder  # noqa: E402

REPO = "someone/gemma-4-X-it-GGUF"


@pytest.fixture
def hub() -> Iterator[fake_hub.Hub]:
    with fake_hub.serving() as hub:
        hub.repos[REPO] = {
            "README.md": b"# read me",
            "gemma-4-X-it-Q4_0.gguf": TARGET,
            "gemma-4-X-it-Q8_0.gguf": TARGET + bytes(64),
            "mmproj-F16.gguf": b"x",
        }
        yield hub


@pytest.fixture
def place(hub: fake_hub.Hub, tmp_path: Path) -> finder.Place:
    return finder.Place(hub.url, tmp_path / "cache")


def pull(name: str, place: finder.Place, role: str = "target") -> finder.Pulled:
    return finder.pull(finder.parse(name), role, progress=False, place=place)


def refused(name: str, place: finder.Place, match: str) -> str:
    with pytest.raises(gemtp.FileError, match=match) as e:
        pull(name, place)
    message = one_sentence(e.value)
    if place.cache is not None:
        complete = [p for p in place.cache.rglob("snapshots/*/*") if p.is_file()]
        assert complete == []
    return message


def test_a_model_is_fetched_once(hub: fake_hub.Hub, place: finder.Place) -> None:
    pulled = pull(REPO, place)
    assert pulled.path.name == "gemma-4-X-it-Q4_0.gguf"
    assert pulled.path.read_bytes() == TARGET
    assert pulled.bytes == len(TARGET)
    assert pull(f"{REPO}:Q4_0", place) == pulled
    assert len(hub.gets("Q4_0.gguf")) == 1
    assert pull(f"{REPO}:Q8_0", place).path.read_bytes() == TARGET + bytes(64)


def test_sets_are_fetched_whole(hub: fake_hub.Hub, place: finder.Place) -> None:
    made = [p.encode() for p in parts_of(tiny_files.sound_target(), 3)]
    names = [f"BF16/gemma-4-X-it-BF16-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    hub.repos[REPO].update(zip(names, made, strict=True))
    pulled = pull(f"{REPO}:BF16", place)
    assert [p.name for p in pulled.files] == [Path(n).name for n in names]
    assert pulled.bytes == sum(map(len, made))
    assert len(gemtp._core.GgufFile(pulled.path).parts) == 3
    del hub.repos[REPO][names[1]]
    with pytest.raises(gemtp.FileError, match="lacks BF16/gemma-4-X-it-BF16-00002-of-00003.gguf"):
        pull(f"{REPO}:BF16", place)


BIG = TARGET + bytes(24 << 20)  # arrives in several pieces


def test_a_cut_is_resumed(hub: fake_hub.Hub, place: finder.Place) -> None:
    hub.repos[REPO]["gemma-4-X-it-Q4_0.gguf"] = BIG
    hub.cut["gemma-4-X-it-Q4_0.gguf"], hub.cuts = 16 << 20, 1
    assert pull(f"{REPO}:Q4_0", place).path.read_bytes() == BIG
    first, second = hub.gets("Q4_0.gguf")
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 16 << 20


def test_a_process_that_ended_half_way(hub: fake_hub.Hub, place: finder.Place) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom gemtp_native.find import hub\n"
        "def end(_): raise SystemExit(9)\ntime.sleep = end\n"
        "hub.pull(hub.parse(sys.argv[1]), progress=False,"
        " place=hub.Place(sys.argv[2], Path(sys.argv[3])))"
    )
    hub.repos[REPO]["gemma-4-X-it-Q4_0.gguf"] = BIG
    hub.cut["gemma-4-X-it-Q4_0.gguf"] = 16 << 20
    done = subprocess.run(
        [sys.executable, "-c", code, f"{REPO}:Q4_0", hub.url, str(place.cache)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 9, done.stderr
    assert place.cache is not None
    assert list(place.cache.rglob("snapshots/*/*")) == []
    nowhere = finder.Place("http://127.0.0.1:9", place.cache)
    with pytest.raises(gemtp.FileError, match="is the hub reachable"):
        pull(f"{REPO}:Q4_0", nowhere)
    hub.cut.clear()
    assert pull(f"{REPO}:Q4_0", place).path.read_bytes() == BIG


def test_a_short_answer_is_not_used(hub: fake_hub.Hub, place: finder.Place) -> None:
    hub.short["gemma-4-X-it-Q4_0.gguf"] = 4000
    refused(f"{REPO}:Q4_0", place, "came shorter than the hub says it is; it is not used")
    hub.short.clear()
    assert pull(f"{REPO}:Q4_0", place).path.read_bytes() == TARGET


def test_a_damaged_file(hub: fake_hub.Hub, place: finder.Place) -> None:
    hub.repos[REPO]["gemma-4-X-it-Q4_0.gguf"] = TARGET[:-100]
    with pytest.raises(gemtp.FileError, match="truncated or damaged.*came so from the hub") as e:
        pull(f"{REPO}:Q4_0", place)
    one_sentence(e.value)


def test_answers_that_say_no(hub: fake_hub.Hub, place: finder.Place) -> None:
    refused("someone/nothing", place, "hf:someone/nothing is not on the hub, or is private")
    hub.refused["a/gated"] = (403, "GatedRepo")
    refused("a/gated", place, "hf:a/gated is for those who have agreed to its terms.*HF_TOKEN")
    hub.refused["a/gated"] = (401, "GatedRepo")
    refused("a/gated", place, "agreed to its terms")
    hub.refused["a/broken"] = (500, "")
    refused("a/broken", place, "hf:a/broken cannot be fetched: the hub answers 500")
    refused(f"{REPO}:Q5_K_M", place, r"hf:someone/gemma-4-X-it-GGUF has no Q5_K_M; it has Q4_0 \(")
    hub.repos["a/empty"] = {"README.md": b""}
    refused("a/empty", place, "hf:a/empty has no GGUF models")


def test_gated_files(hub: fake_hub.Hub, place: finder.Place, monkeypatch) -> None:
    """The list is public, the files are not."""
    listing = finder._listing

    def listed_then_gated(repo: str, at: finder.Place):
        found = listing(repo, at)
        hub.refused[REPO] = (401, "GatedRepo")
        return found

    monkeypatch.setattr(finder, "_listing", listed_then_gated)
    refused(f"{REPO}:Q4_0", place, "gemma-4-X-it-Q4_0.gguf of hf:someone.*agreed to its terms")


def test_no_hub(tmp_path: Path) -> None:
    nowhere = finder.Place("http://127.0.0.1:9", tmp_path / "cache")
    refused(REPO, nowhere, "cannot be fetched: .*; is the hub reachable from here?")


def test_the_cache_does_without_a_hub(hub: fake_hub.Hub, place: finder.Place) -> None:
    fetched = pull(f"{REPO}:Q4_0", place)
    nowhere = finder.Place("http://127.0.0.1:9", place.cache)
    assert pull(f"{REPO}:Q4_0", nowhere) == fetched
    assert pull(REPO, nowhere) == fetched
    with pytest.raises(gemtp.FileError, match="is the hub reachable from here"):
        pull(f"{REPO}:Q8_0", nowhere)


def test_a_full_disk(hub: fake_hub.Hub, place: finder.Place, monkeypatch) -> None:
    usage = shutil.disk_usage("/")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        refused(REPO, place, r"needs 0.00 GB in .*cache and 0.00 GB are free; make room.*HF_HOME")
    assert hub.gets("Q4_0.gguf") == []

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.file_download, "http_get", full)
        refused(REPO, place, "the disk is full, gemma-4-X-it-Q4_0.gguf of hf:someone")
    assert pull(REPO, place).path.read_bytes() == TARGET


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(gemtp.ArgumentError, match=r"pip install 'gemtp-native\[hub\]'"):
        gemtp.Model(f"hf:{REPO}")


# ---------------------------------------------------------------- drafters on the hub


@pytest.mark.parametrize(
    "repo", ["someone/gemma-4-X-it-assistant-GGUF", "someone/gemma-4-X-it-assistant"]
)
def test_a_drafter_by_name(repo: str, hub: fake_hub.Hub, place: finder.Place) -> None:
    target = pull(REPO, place).path
    hub.repos[repo] = {"gemma-4-X-it-assistant-Q8_0.gguf": DRAFTER, "x-F16.gguf": b"x"}
    found = finder.drafter_of(finder.parse(REPO), target, False, place)
    assert found.read_bytes() == DRAFTER
    # Beside it in the cache it is found without a name.
    assert beside.drafter_beside(target) == found


def test_a_drafter_in_the_same_repository(hub: fake_hub.Hub, place: finder.Place) -> None:
    target = pull(REPO, place).path
    hub.repos[REPO]["mtp-gemma-4-X-it.gguf"] = DRAFTER
    assert (
        finder.drafter_of(finder.parse(REPO), target, False, place).name == "mtp-gemma-4-X-it.gguf"
    )


def test_a_drafter_in_a_folder_of_the_same_repository(
    hub: fake_hub.Hub, place: finder.Place
) -> None:
    hub.repos[REPO]["MTP/gemma-4-X-it-Q8_0.gguf"] = DRAFTER
    target = pull(REPO, place).path
    assert target.read_bytes() != DRAFTER
    found = finder.drafter_of(finder.parse(REPO), target, False, place)
    assert found.parent.name == "MTP"
    assert beside.drafter_beside(target) == found


def test_a_drafter_of_trained_quantization(hub: fake_hub.Hub, place: finder.Place) -> None:
    names = finder._drafter_repos("g/gemma-4-X-it-qat-q4_0-gguf")
    assert names[0] == "g/gemma-4-X-it-qat-q4_0-gguf"
    assert {"g/gemma-4-X-it-qat-q4_0-assistant-gguf", "g/gemma-4-X-it-assistant-qat-q4_0-gguf",
            "g/gemma-4-X-it-assistant-gguf"} <= set(names)  # fmt: skip


def test_no_drafter_on_the_hub(hub: fake_hub.Hub, place: finder.Place) -> None:
    target = pull(REPO, place).path
    with pytest.raises(
        gemtp.FileError, match="no drafter was found for hf:someone.*assistant"
    ) as e:
        finder.drafter_of(finder.parse(REPO), target, False, place)
    one_sentence(e.value)
    hub.repos["someone/gemma-4-X-it-assistant-GGUF"] = {"a-Q8_0.gguf": other_drafter()}
    with pytest.raises(gemtp.ModelError, match="does not fit the target"):
        finder.drafter_of(finder.parse(REPO), target, False, place)


# ---------------------------------------------------------------- the command


def test_pull(hub: fake_hub.Hub, tmp_path: Path) -> None:
    """As a user has it: the library reads HF_ENDPOINT and HF_HOME by itself."""
    hub.repos["someone/gemma-4-X-it-assistant-GGUF"] = {"a-assistant-Q8_0.gguf": DRAFTER}
    home = tmp_path / "home"
    env = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home)}
    env.pop("HF_HUB_OFFLINE", None)

    def run(*args: str, **more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "gemtp_native", *args],
            capture_output=True, text=True, timeout=120, env=env | more,
        )  # fmt: skip

    listed = run("pull", f"hf:{REPO}", "--list")
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["Q4_0", "Q8_0"]
    pulled = run("pull", f"hf:{REPO}:Q8_0", "--drafter", "auto", "--json")
    assert (pulled.returncode, pulled.stderr.count("Traceback")) == (0, 0), pulled.stderr
    report = json.loads(pulled.stdout)
    model = Path(report["model"]["path"])
    assert model.is_relative_to(home)
    assert report["model"]["bytes"] == len(TARGET) + 64
    assert Path(report["drafter"]["path"]).read_bytes() == DRAFTER

    options = ["the hand", "--max-tokens", "4", "--draft", "2", "--ignore-eos"]
    online = run("generate", f"hf:{REPO}:Q8_0", "--drafter", "auto", *options)
    assert online.returncode == 0, online.stderr
    before = len(hub.log)
    offline = run("generate", f"hf:{REPO}:Q8_0", "--drafter", "auto", *options, HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert offline.stdout == online.stdout
    assert len(hub.log) == before
    missing = run("generate", f"hf:{REPO}:Q4_0", *options, HF_HUB_OFFLINE="1")
    assert missing.returncode == 1
    assert missing.stderr.startswith("gemtp: error: hf:someone/gemma-4-X-it-GGUF is not in the")
    assert missing.stderr.count("\n") == 1
