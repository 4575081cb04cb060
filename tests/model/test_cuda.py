"""Models on CUDA's device give the CPU's bytes, and survive what can happen to a GPU: on a stand-in
for NVIDIA's driver, which does what is enqueued later, watches every call and fails on demand.
Nothing here has anything to do with a real GPU."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import checkpoints
import gemtp_native as gemtp
from cuda_stand_in import StandIn, environment, library
from devices import Pairs, open_on
from serving import serving

# Every architecture, kinds of quants and scales, and floats.
CASES = [
    *((arch, "q4_0") for arch in checkpoints.ARCHITECTURES),
    ("26b-a4b", "f32"),
    ("12b", "f16"),
    ("e4b", "q8_0"),
    ("e2b", "q5_1"),
]
SAMPLED = {"temperature": 0.8, "seed": 5, "top_k": 50, "top_p": 0.95}


@pytest.fixture(scope="module")
def stand_in():
    one = StandIn()
    one.set(slow=30)
    yield one
    one.set(slow=0, gpus=0)  # "auto" finds none
    del os.environ["GEMTP_CUDA_DRIVER"]


@pytest.fixture
def clean(stand_in):
    """The stand-in; in the end no call was wrong, and nothing is left on the GPU."""
    yield stand_in
    stand_in.check()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Pairs(tmp_path_factory.mktemp("cuda"))


def tokens(model: gemtp.Model, prompt: list[int], n: int = 8, draft: int = 2, **sampling):
    return model.generate(prompt, max_tokens=n, ignore_eos=True, draft=draft, **sampling).tokens


@pytest.mark.parametrize(("arch", "outtype"), CASES)
def test_texts_logits_and_drafts(pairs, clean, arch: str, outtype: str) -> None:
    pair = pairs(arch, outtype)
    prompt = checkpoints.random_prompt(arch, 24, 1)  # longer than every window
    kv_type = "f32" if outtype == "f32" else "f16"
    cpu = open_on("cpu", pair, kv_type=kv_type)
    with open_on("cuda", pair, kv_type=kv_type) as gpu:
        assert gpu.device == "cuda:0"
        np.testing.assert_array_equal(gpu.logits(prompt[:12]), cpu.logits(prompt[:12]))
        assert gpu.draft(prompt, 3) == cpu.draft(prompt, 3)
        # As soon as a shape of passes has been seen twice, they are recorded.
        graphs = clean.get("graph_launches")
        assert tokens(gpu, prompt, 12, 3) == tokens(cpu, prompt, 12, 0)
        assert tokens(gpu, prompt, 8, 1, **SAMPLED) == tokens(cpu, prompt, 8, 0, **SAMPLED)
        assert clean.get("graph_launches") > graphs


def test_work_that_begins_when_it_is_waited_for(pairs, clean) -> None:
    """Whoever does not wait reads what was there before."""
    pair = pairs("e2b")
    prompt = checkpoints.random_prompt("e2b", 24, 2)
    cpu = open_on("cpu", pair)
    with clean.setting("lazy", 1), open_on("cuda", pair) as gpu:
        assert tokens(gpu, prompt, 12, 3) == tokens(cpu, prompt, 12, 0)


def test_several_sequences_and_prompts_in_chunks(pairs, clean) -> None:
    pair = pairs("e2b")
    prompts = [checkpoints.random_prompt("e2b", n, n) for n in (50, 33, 21)]
    cpu = open_on("cpu", pair)
    expected = [tokens(cpu, p) for p in prompts]
    for chunk in (7, 64):
        with open_on("cuda", pair, prefill_chunk=chunk) as gpu, ThreadPoolExecutor(3) as pool:
            assert list(pool.map(lambda p, gpu=gpu: tokens(gpu, p), prompts)) == expected


def test_sessions_go_from_device_to_device(pairs, clean, tmp_path) -> None:
    pair = pairs("e4b")
    prompt = checkpoints.random_prompt("e4b", 30, 3)
    options = {"max_tokens": 6, "ignore_eos": True, "draft": 2}
    with open_on("cpu", pair) as cpu, open_on("cuda", pair) as gpu:
        for here, there in ((cpu, gpu), (gpu, cpu)):
            with here.session() as session:
                session.append(prompt)
                begun = session.generate(**options).tokens
                session.save(tmp_path / "session")
                with session.fork() as fork:
                    went_on = fork.generate(**options).tokens
                kept = (tmp_path / "session").read_bytes()
            with there.restore(tmp_path / "session") as session:
                assert session.tokens == prompt + begun
                session.save(tmp_path / "again")
                assert (tmp_path / "again").read_bytes() == kept
                assert session.generate(**options).tokens == went_on


def test_auto_and_split_models(pairs, clean, caplog) -> None:
    pair = pairs("e2b")
    prompt = checkpoints.random_prompt("e2b", 24, 7)
    expected = tokens(open_on("cpu", pair), prompt)
    for layers in (None, 0, 4):
        with open_on("auto", pair, gpu_layers=layers) as model:
            assert (model.device, model.gpu_layers) == ("cuda:0", 6 if layers is None else layers)
            assert tokens(model, prompt) == expected
    assert not caplog.records
    with clean.setting("capability", 61, 89), open_on("auto", pair) as model:
        assert model.device == "cpu"
        assert tokens(model, prompt) == expected
    (record,) = caplog.records
    assert "the device is the CPU, for cuda:0 (Stand-in) has compute cap" in record.getMessage()


def test_cancelling(pairs, clean) -> None:
    """A stream that is closed in a pass stops; the next text is the right one."""
    pair = pairs("e2b")
    prompt = checkpoints.random_prompt("e2b", 60, 4)
    expected = tokens(open_on("cpu", pair), prompt)
    with clean.setting("slow", 3000, 30), open_on("cuda", pair, prefill_chunk=16) as gpu:
        for seconds in (0.0, 0.01, 0.05, 0.1):
            stream = gpu.stream(prompt, max_tokens=50, ignore_eos=True)
            timer = threading.Timer(seconds, stream.close)
            timer.start()
            with contextlib.suppress(gemtp.CancelledError):  # or it was between two pieces
                list(stream)
            timer.join()
        assert tokens(gpu, prompt) == expected


def test_the_server(pairs, clean, tmp_path) -> None:
    pair = pairs("e2b")
    with serving(
        tmp_path, pair.target, "--drafter", pair.drafter, "--device", "cuda", **environment()
    ) as server:
        got = server.complete([2, 17, 33, 41], max_tokens=6)
        expected = open_on("cpu", pair).generate([2, 17, 33, 41], max_tokens=6)
        assert got["choices"][0]["text"] == expected.text


# ---- faults --------------------------------------------------------------------------------------


def faults() -> int:
    """How many are tried; GEMTP_FAULTS=1000 for as many as a release should survive."""
    return int(os.environ.get("GEMTP_FAULTS", "100"))


def test_faults(pairs, stand_in) -> None:
    """Allocations that fail and GPUs that are lost, at a random moment of opening and generating:
    one sentence, nothing left behind, and afterwards the right bytes on the GPU and on the CPU."""
    stand_in.check()
    pair = pairs("e2b")
    prompt = checkpoints.random_prompt("e2b", 20, 5)
    cpu = open_on("cpu", pair)
    expected = tokens(cpu, prompt, 6, 3)
    # An allocation that fails once is tried again, when the GPU has nothing to do.
    kinds = {"fail_from": gemtp.OutOfMemoryError, "lose_at": gemtp.DeviceError,
             "fail_allocation": gemtp.OutOfMemoryError}  # fmt: skip

    def work(gpu: gemtp.Model) -> None:
        assert tokens(gpu, prompt, 6, 3) == expected

    counts = {}
    for name in kinds:
        counted = "calls" if name == "lose_at" else "allocations"
        before = stand_in.get(counted)
        with open_on("cuda", pair) as gpu:
            work(gpu)
        counts[name] = stand_in.get(counted) - before
    rng = random.Random(6)
    seen = dict.fromkeys(kinds, 0)
    sentences = set()
    for _ in range(faults()):
        name = rng.choice(list(kinds))
        stand_in.set(**{name: rng.randint(1, counts[name])})
        gpu = None
        try:
            gpu = open_on("cuda", pair)
            work(gpu)
        except kinds[name] as e:
            seen[name] += 1
            sentences.add(str(e))
            stand_in.set(fail_from=0)
            if name != "lose_at" and gpu:
                work(gpu)  # now there is memory
        finally:
            stand_in.set(**dict.fromkeys(kinds, 0))
            if gpu:
                gpu.close()
        stand_in.check()
    assert all(s.startswith("cuda:0 (Stand-in) ") for s in sentences), sentences
    assert seen["fail_from"] > faults() / 5, seen
    assert seen["lose_at"] > faults() / 5, seen
    work(cpu)
    with open_on("cuda", pair) as gpu:
        work(gpu)


def sentence_of(stream) -> str:
    """Keeps nothing of the error: its frames would keep the model."""
    try:
        for _ in stream:
            pass
    except gemtp.DeviceError as e:
        return str(e)
    raise AssertionError("the stream ended well")


def test_a_gpu_that_is_lost_in_a_generation(pairs, stand_in) -> None:
    pair = pairs("e2b")
    prompts = [checkpoints.random_prompt("e2b", 20, n) for n in range(3)]
    cpu = open_on("cpu", pair)
    gpu = open_on("cuda", pair)
    streams = [gpu.stream(p, max_tokens=30, ignore_eos=True) for p in prompts]
    for stream in streams:
        next(stream)
    stand_in.set(lose_with=214, lose_at=40)
    said = {sentence_of(stream) for stream in streams}
    stand_in.set(lose_with=719)
    (sentence,) = said  # the same to all
    assert "CUDA_ERROR_ECC_UNCORRECTABLE" in sentence
    assert sentence.endswith("; open the model again, or on the device cpu")
    assert sentence_of(gpu.stream(prompts[0])) == sentence
    gpu.close()
    stand_in.check()
    with open_on("cuda", pair) as gpu:
        assert tokens(gpu, prompts[0]) == tokens(cpu, prompts[0])
    stand_in.check()


def test_the_status_of_the_c_library(stand_in, monkeypatch) -> None:
    path = library().parents[2] / "libgemtp.so"
    if not path.exists():
        pytest.skip("the build has no C library")
    c = ctypes.CDLL(str(path))
    target, _ = gemtp.demo_models()
    model, error = ctypes.c_void_p(), ctypes.create_string_buffer(256)
    monkeypatch.setenv("GEMTP_DEVICE", "cuda")
    with stand_in.setting("capability", 61, 89):
        status = c.gemtp_model_open(
            os.fsencode(target), None, ctypes.byref(model), error, ctypes.c_size_t(256)
        )
    assert status == 9  # GEMTP_ERROR_DEVICE
    assert error.value.startswith(b"cuda:0 (Stand-in) has compute capability 6.1, and 7.5 is")


# ---- what is not there ---------------------------------------------------------------------------


def run(*args: object, **settings: int | str) -> subprocess.CompletedProcess[str]:
    texts = {k: v for k, v in settings.items() if isinstance(v, str)}
    numbers = {k: v for k, v in settings.items() if isinstance(v, int)}
    return subprocess.run(
        [sys.executable, "-m", "gemtp_native", *map(str, args)],
        env=os.environ | environment(**numbers) | texts,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("device", "settings", "sentence"),
    [
        ("cuda", {"GEMTP_CUDA_DRIVER": "/no/driver.so"}, "no driver for CUDA is here ('/no/driver"),
        ("cuda", {"gpus": 0}, "NVIDIA's driver finds no GPU that CUDA can use (CUDA_VISIBLE_DEV"),
        ("cuda", {"init": 803}, "NVIDIA's driver does not work: cuInit gives CUDA_ERROR_SYSTEM_D"),
        ("cuda", {"version": 11040}, "NVIDIA's driver is too old: it supports CUDA 11.4, and 12.4"),
        ("cuda:7", {}, "the device 'cuda:7' is not here; NVIDIA's driver finds 1 GPU, from cuda:0"),
        ("cuda:3", {"gpus": 2}, "the device 'cuda:3' is not here; NVIDIA's driver finds 2 GPUs, "),
        ("cuda", {"memory": 1000}, "cuda:0 (Stand-in) has too little memory for cuDevicePrimaryC"),
        ("cuda", {"memory": 2000000}, "GB of memory and there are 0.002 GB free on cuda:0: weig"),
        ("cuda", {"capability": 61}, "cuda:0 (Stand-in) has compute capability 6.1, and 7.5 is t"),
        ("cuda", {"taken": 1}, "cuda:0 (Stand-in) is taken by another process, which has it alon"),
    ],
)  # fmt: skip
def test_one_sentence(device: str, settings: dict[str, int | str], sentence: str) -> None:
    target, _ = gemtp.demo_models()
    out = run("generate", target, "a", "--device", device, **settings)
    assert out.returncode == 1
    assert out.stdout == ""
    assert out.stderr.startswith("gemtp: error: ")
    assert sentence in out.stderr
    assert out.stderr.count("\n") == 1


def test_the_second_gpu_and_another_process(pairs) -> None:
    """Two processes have a context each."""
    target, _ = gemtp.demo_models()
    args = ("generate", target, "def f(x):", "--max-tokens", 3, "--device")
    expected = run(*args, "cpu").stdout
    with ThreadPoolExecutor(2) as pool:
        outs = list(pool.map(lambda d: run(*args, d, gpus=2), ("cuda:1", "cuda:0")))
    assert [o.stdout for o in outs] == [expected] * 2


def test_info_looks_for_gpus_only_when_asked() -> None:
    broken = {"GEMTP_CUDA_DRIVER": "/no/driver.so"}
    plain = run("info", **broken)
    assert "kernels are there; gemtp info --devices looks for GPUs" in plain.stdout
    assert "/no/driver.so" not in plain.stdout
    assert "no driver for CUDA is here ('/no/driver.so" in run("info", "--devices", **broken).stdout
    found = run("info", "--devices", gpus=2, memory=8 * 10**9, capability=75).stdout
    assert "cuda:1 (Stand-in, 8.0 GB, compute capability 7.5)" in found
    assert run("info", "--devices", "--json", gpus=1, capability=50).stdout.count("too old") == 1
