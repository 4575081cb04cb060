"""Models that are split between a GPU and the CPU give the CPU's bytes, wherever they are cut."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import checkpoints
import gemtp_native as gemtp
from devices import Pairs, open_on
from gemtp_native import _core

pytestmark = pytest.mark.skipif(
    "emulated" not in gemtp.system_info()["backends"], reason="this build has no emulated GPU"
)

LAYERS = {"e2b": 6, "e4b": 5, "12b": 4, "26b-a4b": 3, "31b": 4}
PROMPT = 40  # longer than every window
SAMPLED = {"temperature": 0.8, "seed": 5, "top_k": 50, "top_p": 0.95}
TARGET, DRAFTER = gemtp.demo_models()
MEMORY = "GEMTP_EMULATED_MEMORY"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Pairs(tmp_path_factory.mktemp("split"))


def split(pair: checkpoints.Pair, layers: int | str | None, **options) -> gemtp.Model:
    return open_on("emulated", pair, gpu_layers=layers, **options)


def tokens(model: gemtp.Model, prompt: list[int], n: int = 8, draft: int = 2, **sampling):
    return model.generate(prompt, max_tokens=n, ignore_eos=True, draft=draft, **sampling).tokens


@pytest.mark.parametrize("arch", checkpoints.ARCHITECTURES)
def test_every_split(pairs, arch: str) -> None:
    """In chunks, so that prompts end in layers of either side; drafts are accepted and rejected."""
    pair = pairs(arch)
    prompt = checkpoints.random_prompt(arch, PROMPT, 1)
    cpu = open_on("cpu", pair)
    logits, drafts = cpu.logits(prompt[:20]), cpu.draft(prompt, 3)
    expected = tokens(cpu, prompt, 10, 0), tokens(cpu, prompt, 8, 0, **SAMPLED)
    for layers in range(LAYERS[arch] + 1):
        with split(pair, layers, prefill_chunk=17) as model:
            assert (model.device, model.gpu_layers) == ("emulated", layers)
            np.testing.assert_array_equal(model.logits(prompt[:20]), logits)
            assert model.draft(prompt, 3) == drafts
            assert tokens(model, prompt, 10, 3) == expected[0], layers
            assert tokens(model, prompt, 8, 1, **SAMPLED) == expected[1], layers


def test_several_sequences(pairs) -> None:
    """Some share a beginning, which is copied with the copies of its K/V."""
    pair = pairs("e2b")
    first = checkpoints.random_prompt("e2b", 90, 1)
    prompts = [first, first[:80] + [3, 4], checkpoints.random_prompt("e2b", 21, 2)]
    cpu = open_on("cpu", pair)
    expected = [tokens(cpu, p) for p in prompts]
    for layers in (0, 2, 4):
        with split(pair, layers, prefill_chunk=24) as model:
            with ThreadPoolExecutor(3) as pool:
                assert list(pool.map(lambda p, m=model: tokens(m, p), prompts)) == expected
            again = [model.generate(p, max_tokens=8, ignore_eos=True) for p in prompts]
            assert [a.tokens for a in again] == expected
            assert all(a.stats.cached_tokens for a in again)


def test_sessions_go_from_split_to_split(pairs, tmp_path) -> None:
    pair = pairs("e4b")
    prompt = checkpoints.random_prompt("e4b", PROMPT, 3)
    options = {"max_tokens": 6, "ignore_eos": True, "draft": 2}
    models = [open_on("cpu", pair), *(split(pair, layers) for layers in range(LAYERS["e4b"] + 1))]
    with models[0].session() as session:
        session.append(prompt)
        session.generate(**options)
        session.save(tmp_path / "session")
        went_on = session.generate(**options).tokens
    kept = (tmp_path / "session").read_bytes()
    for model in models:  # each goes on from what the one before it has saved
        with model.restore(tmp_path / "session") as session:
            session.save(tmp_path / "session")
            assert (tmp_path / "session").read_bytes() == kept
            with session.fork() as fork:
                assert fork.generate(**options).tokens == went_on


def test_cancelling(pairs) -> None:
    pair = pairs("e2b")
    prompt = checkpoints.random_prompt("e2b", 60, 4)
    expected = tokens(open_on("cpu", pair), prompt)
    with split(pair, 2, prefill_chunk=16) as model:
        stream = model.stream(prompt, max_tokens=50, ignore_eos=True)
        next(iter(stream))
        stream.close()
        assert tokens(model, prompt) == expected


def test_importance_does_not_depend_on_the_split() -> None:
    ids = gemtp.Tokenizer(TARGET).encode("def mean(values):\n", add_bos=True)
    found = []
    for layers in ("0", "2", "auto"):
        sums = _core.ActivationSums(TARGET, 1, 64, "emulated", layers)
        sums.add(ids)
        found.append(sums.entries())
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert one[0] == two[0]
            assert np.array_equal(one[1], two[1])
            assert np.array_equal(one[2], two[2])


# ---- what fits -----------------------------------------------------------------------------------


def least_memory(
    pair: checkpoints.Pair, layers: int, monkeypatch, experts: int = 0, **options
) -> int:
    """The least memory with which as many layers, with their experts but for some, lie on the GPU:
    found by opening, as a user would."""
    low, high = 1000, 1 << 30

    def enough(memory: int) -> bool:
        monkeypatch.setenv(MEMORY, str(memory))
        try:
            with split(pair, "auto", **options) as model:
                got = model.gpu_layers, -model._engine.cpu_experts
                return got >= (layers, -experts)
        except gemtp.OutOfMemoryError:
            return False

    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    monkeypatch.setenv(MEMORY, str(high))
    return high


def test_as_many_layers_as_fit(pairs, monkeypatch) -> None:
    pair = pairs("e2b")
    prompt = checkpoints.random_prompt("e2b", PROMPT, 5)
    expected = tokens(open_on("cpu", pair), prompt)
    memory = 0
    for layers in (0, 2, LAYERS["e2b"]):
        more = least_memory(pair, layers, monkeypatch)
        assert more > memory
        memory = more
        with split(pair, None) as model:
            assert model.gpu_layers == layers
            assert tokens(model, prompt) == expected
    # One layer more than fits is refused, and what the sentence proposes can be opened.
    monkeypatch.setenv(MEMORY, str(memory - 1))
    with pytest.raises(gemtp.OutOfMemoryError) as error:
        split(pair, LAYERS["e2b"])
    said = str(error.value)
    assert "free on emulated: weights " in said
    proposed = re.search(r"context of at most (\d+), or with gpu_layers of at most (\d)$", said)
    assert proposed
    split(pair, LAYERS["e2b"], context=int(proposed[1])).close()
    with split(pair, int(proposed[2])) as model:
        assert tokens(model, prompt) == expected


def test_a_gpu_that_is_full(pairs, monkeypatch) -> None:
    """No free byte is not an unknown number of them."""
    pair = pairs("e2b")
    open_on("emulated", pair).close()  # proves
    monkeypatch.setenv(MEMORY, "0")
    monkeypatch.setenv("GEMTP_EMULATED_AUTO", "1")
    with pytest.raises(gemtp.OutOfMemoryError) as error:
        split(pair, None)
    assert "GB of memory and there are 0.000 GB free on emulated: weights " in str(error.value)
    with open_on("auto", pair) as model:
        assert model.device == "cpu"


def test_experts_on_the_cpu(pairs, monkeypatch) -> None:
    """All layers before any experts."""
    pair = pairs("26b-a4b")
    prompt = checkpoints.random_prompt("26b-a4b", PROMPT, 6)
    cpu = open_on("cpu", pair)
    expected = tokens(cpu, prompt), tokens(cpu, prompt, **SAMPLED)
    for experts in (3, 1, 0):
        least_memory(pair, 3, monkeypatch, experts, prefill_chunk=17)
        with split(pair, "auto", prefill_chunk=17) as model:
            assert (model.gpu_layers, model._engine.cpu_experts) == (3, experts)
            assert (tokens(model, prompt), tokens(model, prompt, **SAMPLED)) == expected
    # Auto takes such a GPU, too, but not one on which layers do not fit.
    monkeypatch.setenv("GEMTP_EMULATED_AUTO", "1")
    memory = least_memory(pair, 3, monkeypatch, 3)
    for room, device in ((memory, "emulated"), (memory - 1, "cpu")):
        monkeypatch.setenv(MEMORY, str(room))
        with open_on("auto", pair) as model:
            assert model.device == device
            assert tokens(model, prompt) == expected[0]
    with open_on("auto", pair, gpu_layers=1) as model:  # what is asked for is done
        assert (model.device, model.gpu_layers) == ("emulated", 1)


# ---- wrong numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", ["all", "", "1", -1, 1.5, True, [1], "AUTO"])
def test_what_is_no_number_of_layers(layers) -> None:
    with pytest.raises(gemtp.ArgumentError) as error:
        gemtp.Model(TARGET, gpu_layers=layers)
    said = 'it must be "auto", a number of layers or None'
    assert str(error.value) == f"gpu_layers is {layers!r}; {said}"


@pytest.mark.parametrize("device", ["cpu", "emulated", "auto"])
def test_more_layers_than_there_are(device: str, monkeypatch) -> None:
    n = len(_core.ExaminedFile(_core.GgufFile(TARGET)).model["layers"])
    for more in (n + 1, 99):
        with gemtp.Model(TARGET, device=device, gpu_layers=more, context=64) as model:
            assert model.gpu_layers == (n if device == "emulated" else 0)
    monkeypatch.setenv("GEMTP_GPU_LAYERS", "many")
    with pytest.raises(gemtp.ArgumentError) as error:
        gemtp.Model(TARGET, device=device)
    wrong = "gpu_layers of GEMTP_GPU_LAYERS is 'many'; it must be auto or a number of layers"
    assert str(error.value) == wrong
    gemtp.Model(TARGET, device=device, gpu_layers=1, context=64).close()


def test_the_command_line() -> None:
    def run(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
        command = ["generate", TARGET, "def f(x):", *map(str, args)]
        return subprocess.run(
            [sys.executable, "-m", "gemtp_native", *command],
            env=os.environ | env,
            capture_output=True,
            text=True,
        )

    args = ("--max-tokens", 4, "--device", "emulated", "--verbose")
    expected = run("--max-tokens", 4).stdout
    for got, layers in (
        (run(*args, "-ngl", 2), "2 layers"),
        (run(*args, "--gpu-layers", "1"), "1 layer"),
        (run(*args, GEMTP_GPU_LAYERS="3"), "3 layers"),
    ):
        assert got.stdout == expected
        assert f" emulated, {layers} there, " in got.stderr
    for text in ("some", "٣", "-1", "9" * 5000):
        refused = run("-ngl", text)
        assert refused.returncode == 2
        assert f"'{text}' is neither auto nor a number of layers" in refused.stderr
    # What users of llama.cpp type for all layers.
    done = run("-ngl", "99", "--max-tokens", 4, "--device", "emulated")
    assert (done.returncode, done.stdout) == (0, expected)
    assert "gpu_layers is 99; the model has 8 layers, which are all there" in done.stderr
