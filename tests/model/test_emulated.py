"""The emulated GPU gives the CPU's bytes: the kernels for GPUs, launched by the backend for GPUs,
on a device that runs them on the CPU and watches them."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import checkpoints
import gemtp_native as gemtp
from devices import Pairs, check_sessions_travel, open_on
from gemtp_native import _core

pytestmark = pytest.mark.skipif(
    "emulated" not in gemtp.system_info()["backends"], reason="this build has no emulated GPU"
)

# Every architecture, and every kind of quants and scales.
CASES = [
    *((arch, "q4_0") for arch in checkpoints.ARCHITECTURES),
    ("e2b", "f32"),
    ("26b-a4b", "f32"),
    ("e2b", "bf16"),
    ("12b", "f16"),
    ("e4b", "q8_0"),
    ("31b", "q5_1"),
    ("26b-a4b", "mxfp4"),
    ("e2b", "q4_1"),
    ("e4b", "iq4_nl"),
    ("12b", "q5_0"),
]
PROMPT = 40  # longer than every window
SAMPLINGS = {
    "greedy": {},
    "sampled": {"temperature": 0.8, "seed": 5, "top_k": 50, "top_p": 0.95},
    "penalised": {"temperature": 1.0, "seed": 6, "repetition_penalty": 1.2, "min_p": 0.02},
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Pairs(tmp_path_factory.mktemp("emulated"))


@pytest.mark.parametrize(("arch", "outtype"), CASES)
def test_texts_logits_and_drafts(pairs, arch: str, outtype: str) -> None:
    pair = pairs(arch, outtype)
    prompt = checkpoints.random_prompt(arch, PROMPT, 1)
    kv_type = "f32" if outtype == "f32" else "f16"
    cpu, gpu = (open_on(device, pair, kv_type=kv_type) for device in ("cpu", "emulated"))
    assert (cpu.device, gpu.device) == ("cpu", "emulated")
    np.testing.assert_array_equal(gpu.logits(prompt[:20]), cpu.logits(prompt[:20]))
    assert gpu.draft(prompt, 3) == cpu.draft(prompt, 3)
    accepted = 0
    for (name, sampling), draft in zip(SAMPLINGS.items(), (3, 1, 0), strict=True):
        expected = cpu.generate(prompt, max_tokens=12, ignore_eos=True, draft=0, **sampling)
        got = gpu.generate(prompt, max_tokens=12, ignore_eos=True, draft=draft, **sampling)
        assert got.tokens == expected.tokens, name
        accepted += got.stats.accepted
    assert accepted > 0


def test_prompts_in_chunks_and_several_sequences(pairs) -> None:
    """Also one whose chunks have more rows than go through the kernels for few rows."""
    pair = pairs("e2b", "q4_0")
    prompts = [checkpoints.random_prompt("e2b", n, n) for n in (50, 33, 21)]
    cpu = open_on("cpu", pair)
    expected = [cpu.generate(p, max_tokens=8, ignore_eos=True).tokens for p in prompts]
    for chunk in (7, 64):
        with open_on("emulated", pair, prefill_chunk=chunk) as gpu:

            def tokens(prompt: list[int], gpu: gemtp.Model = gpu) -> list[int]:
                return gpu.generate(prompt, max_tokens=8, ignore_eos=True, draft=2).tokens

            with ThreadPoolExecutor(3) as pool:
                assert list(pool.map(tokens, prompts)) == expected


def test_a_session_file_holds_its_session_alone(pairs, tmp_path) -> None:
    """Blocks of K/V are saved as a whole, also those that are only partly used: by another text
    before, or not yet at all."""
    prompt = checkpoints.random_prompt("e4b", 20, 4)
    options = {"max_tokens": 2, "ignore_eos": True, "draft": 0}
    files = []
    for device in ("cpu", "emulated"):
        with open_on(device, pairs("e4b")) as model:
            for other in (None, [*prompt, *checkpoints.random_prompt("e4b", 11, 5)]):
                if other:
                    model.generate(other, **options)
                with model.session() as session:
                    session.append(prompt)
                    session.generate(**options)
                    session.save(tmp_path / "session")
                files.append((tmp_path / "session").read_bytes())
    assert files == files[:1] * 4


def test_sessions_go_from_device_to_device(pairs, tmp_path) -> None:
    prompt = checkpoints.random_prompt("e4b", PROMPT, 3)
    check_sessions_travel(pairs("e4b", "q4_0"), "emulated", prompt, tmp_path)


def test_other_orders_of_blocks_and_threads(pairs) -> None:
    pair = pairs("26b-a4b", "q4_0")
    prompt = checkpoints.random_prompt("26b-a4b", 10, 4)
    expected = open_on("cpu", pair).generate(prompt, max_tokens=5, ignore_eos=True).tokens
    script = (
        "import sys, gemtp_native as g\n"
        "m = g.Model(sys.argv[1], drafter=sys.argv[2], context=128)\n"
        "print(m.device, m.generate(eval(sys.argv[3]), max_tokens=5, ignore_eos=True).tokens)\n"
    )
    for seed in ("1", "2", "3"):
        out = subprocess.run(
            [sys.executable, "-c", script, pair.target, pair.drafter, repr(prompt)],
            env=os.environ | {"GEMTP_DEVICE": "emulated", "GEMTP_EMULATED_SEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout == f"emulated {expected}\n"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "gpu",
            "the device 'gpu' is unknown; it must be auto, cpu, cuda, cuda:N, metal or emulated",
        ),
        ("cuda:", "the device 'cuda:' is unknown"),
        ("metal", "the device 'metal' is not here; there is: cpu, emulated"),
        ("", "device is ''; it must be a name"),
        (3, "device is 3; it must be a name"),
        ("cuda\udcff", "device is 'cuda\\udcff'; it must be a name"),
    ],
)
def test_devices_that_are_not_there(name, sentence: str) -> None:
    target, _ = gemtp.demo_models()
    with pytest.raises(gemtp.ArgumentError) as error:
        gemtp.Model(target, device=name)
    assert str(error.value).startswith(sentence)


def test_the_environment_names_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    target, _ = gemtp.demo_models()
    for name, device in (("emulated", "emulated"), ("auto", "cpu"), ("cpu", "cpu"), ("", "cpu")):
        monkeypatch.setenv("GEMTP_DEVICE", name)
        assert gemtp.system_info()["device"] in (device, name or "auto")
        assert gemtp.Model(target, context=16).device == device
    for name, sentence in (("gpu", "is unknown; it must be auto, cpu"), ("metal", "is not here")):
        monkeypatch.setenv("GEMTP_DEVICE", name)
        for act in (gemtp.system_info, lambda: gemtp.Model(target)):
            with pytest.raises(gemtp.ArgumentError) as error:
                act()
            assert str(error.value).startswith(f"the device of GEMTP_DEVICE '{name}' {sentence}")
        assert gemtp.Model(target, context=16, device="cpu").device == "cpu"


def test_importance_does_not_depend_on_the_device() -> None:
    target, _ = gemtp.demo_models()
    ids = gemtp.Tokenizer(target).encode("def mean(values):\n", add_bos=True)
    found = []
    for device in ("cpu", "emulated"):
        sums = _core.ActivationSums(target, 1, 64, device)
        sums.add(ids)
        found.append(sums.entries())
    assert len(found[0]) == len(found[1]) > 0
    for one, other in zip(*found, strict=True):
        assert one[0] == other[0]
        assert np.array_equal(one[1], other[1])
        assert np.array_equal(one[2], other[2])


def test_the_command_line_lists_and_takes_devices() -> None:
    target, _ = gemtp.demo_models()

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gemtp_native", *map(str, args)],
            env=os.environ | {"GEMTP_CUDA_DRIVER": "/no/driver.so"},
            capture_output=True,
            text=True,
        )

    assert "emulated (a GPU imitated on the CPU, to test" in run("info").stdout
    texts = [
        run("generate", target, "def f(x):", "--max-tokens", 4, "--device", device).stdout
        for device in ("cpu", "emulated", "auto")
    ]
    assert texts[0]
    assert texts == [texts[0]] * 3
    refused = run("generate", target, "a", "--device", "cuda")
    assert refused.returncode != 0
    built = gemtp.system_info()["cuda_kernels"]
    begin = "no driver for CUDA is here" if built else "this build of gemtp has no kernels for CUDA"
    assert refused.stderr.startswith(f"gemtp: error: {begin}")
