"""What must hold of models on every GPU: the CPU's bytes, and that they survive what can happen to
a GPU. On a library that stands in for its driver, which does what is enqueued later, watches every
call and fails on demand. Nothing here has anything to do with a real GPU."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import checkpoints
import gemtp_native as gemtp
from devices import Pairs, check_sessions_travel, open_on
from serving import serving
from stand_ins import Kind, StandIn

# Every architecture, kinds of quants and scales, and floats.
CASES = [
    *((arch, "q4_0") for arch in checkpoints.ARCHITECTURES),
    ("26b-a4b", "f32"),
    ("12b", "f16"),
    ("e4b", "q8_0"),
    ("e2b", "q5_1"),
]
SAMPLED = {"temperature": 0.8, "seed": 5, "top_k": 50, "top_p": 0.95}


def tokens(model: gemtp.Model, prompt: list[int], n: int = 8, draft: int = 2, **sampling):
    return model.generate(prompt, max_tokens=n, ignore_eos=True, draft=draft, **sampling).tokens


def faults() -> int:
    """How many are tried; GEMTP_FAULTS=1000 for as many as a release should survive."""
    return int(os.environ.get("GEMTP_FAULTS", "100"))


def sentence_of(stream) -> str:
    """Keeps nothing of the error: its frames would keep the model."""
    try:
        for _ in stream:
            pass
    except gemtp.DeviceError as e:
        return str(e)
    raise AssertionError("the stream ended well")


class DeviceTests:
    """The tests of a device are a subclass."""

    KIND: ClassVar[Kind]
    LOST: ClassVar[dict[str, int]] = {}  # settings of the stand-in when a GPU is lost
    LOST_SENTENCE: ClassVar[str]  # what is said then

    @pytest.fixture(scope="class")
    @classmethod
    def stand_in(cls) -> Iterator[StandIn]:
        one = StandIn(cls.KIND)
        one.set(slow=30, gpus=1)
        yield one
        one.set(slow=0, gpus=0)  # "auto" finds none
        del os.environ[cls.KIND.variable]

    def test_auto_and_split_models(self, pairs, clean, caplog) -> None:
        pair = pairs("e2b")
        prompt = checkpoints.random_prompt("e2b", 24, 7)
        expected = tokens(open_on("cpu", pair), prompt)
        for layers in (None, 0, 4):
            with open_on("auto", pair, gpu_layers=layers) as model:
                device, on_gpu = model.device, model.gpu_layers
                assert tokens(model, prompt) == expected
            assert device.startswith(self.KIND.device)
            assert on_gpu == (6 if layers is None else layers)
        assert not caplog.records

    @pytest.fixture
    def clean(self, stand_in: StandIn) -> Iterator[StandIn]:
        """The stand-in; in the end no call was wrong, and nothing is left on the GPU."""
        yield stand_in
        stand_in.check()

    @pytest.fixture(scope="class")
    @classmethod
    def pairs(cls, tmp_path_factory) -> Pairs:
        return Pairs(tmp_path_factory.mktemp(cls.KIND.device))

    def open(self, pair: checkpoints.Pair, **options) -> gemtp.Model:
        return open_on(self.KIND.device, pair, **options)

    @pytest.mark.parametrize(("arch", "outtype"), CASES)
    def test_texts_logits_and_drafts(self, pairs, clean, arch: str, outtype: str) -> None:
        pair = pairs(arch, outtype)
        prompt = checkpoints.random_prompt(arch, 24, 1)  # longer than every window
        kv_type = "f32" if outtype == "f32" else "f16"
        cpu = open_on("cpu", pair, kv_type=kv_type)
        with self.open(pair, kv_type=kv_type) as gpu:
            assert gpu.device == self.KIND.name
            np.testing.assert_array_equal(gpu.logits(prompt[:12]), cpu.logits(prompt[:12]))
            assert gpu.draft(prompt, 3) == cpu.draft(prompt, 3)
            assert tokens(gpu, prompt, 12, 3) == tokens(cpu, prompt, 12, 0)
            assert tokens(gpu, prompt, 8, 1, **SAMPLED) == tokens(cpu, prompt, 8, 0, **SAMPLED)

    def test_work_that_begins_when_it_is_waited_for(self, pairs, clean) -> None:
        """Whoever does not wait reads what was there before."""
        pair = pairs("e2b")
        prompt = checkpoints.random_prompt("e2b", 24, 2)
        cpu = open_on("cpu", pair)
        with clean.setting("lazy", 1), self.open(pair) as gpu:
            assert tokens(gpu, prompt, 12, 3) == tokens(cpu, prompt, 12, 0)

    def test_several_sequences_and_prompts_in_chunks(self, pairs, clean) -> None:
        pair = pairs("e2b")
        prompts = [checkpoints.random_prompt("e2b", n, n) for n in (50, 33, 21)]
        cpu = open_on("cpu", pair)
        expected = [tokens(cpu, p) for p in prompts]
        for chunk in (7, 64):
            with self.open(pair, prefill_chunk=chunk) as gpu, ThreadPoolExecutor(3) as pool:
                assert list(pool.map(lambda p, gpu=gpu: tokens(gpu, p), prompts)) == expected

    def test_sessions_go_from_device_to_device(self, pairs, clean, tmp_path: Path) -> None:
        prompt = checkpoints.random_prompt("e4b", 30, 3)
        check_sessions_travel(pairs("e4b"), self.KIND.device, prompt, tmp_path)

    def test_cancelling(self, pairs, clean) -> None:
        """A stream that is closed in a pass stops; the next text is the right one."""
        pair = pairs("e2b")
        prompt = checkpoints.random_prompt("e2b", 60, 4)
        expected = tokens(open_on("cpu", pair), prompt)
        with clean.setting("slow", 3000, 30), self.open(pair, prefill_chunk=16) as gpu:
            for seconds in (0.0, 0.01, 0.05, 0.1):
                stream = gpu.stream(prompt, max_tokens=50, ignore_eos=True)
                timer = threading.Timer(seconds, stream.close)
                timer.start()
                with contextlib.suppress(gemtp.CancelledError):  # or it was between two pieces
                    list(stream)
                timer.join()
            assert tokens(gpu, prompt) == expected

    def test_the_server(self, pairs, clean, tmp_path: Path) -> None:
        pair = pairs("e2b")
        args = (pair.target, "--drafter", pair.drafter, "--device", self.KIND.device)
        with serving(tmp_path, *args, **self.KIND.environment()) as server:
            got = server.complete([2, 17, 33, 41], max_tokens=6)
            expected = open_on("cpu", pair).generate([2, 17, 33, 41], max_tokens=6)
            assert got["choices"][0]["text"] == expected.text

    def test_the_server_when_its_gpu_is_lost(self, pairs, clean, tmp_path: Path) -> None:
        """Requests end with a sentence, and its health says that it must be started again."""
        pair = pairs("e2b")
        prompt = [2, 17, 33, 41]
        self.open(pair).close()  # which proves
        before = clean.get("calls")
        self.open(pair).close()
        environment = self.KIND.environment(
            gpus=1, lose_at=3 * (clean.get("calls") - before), **self.LOST
        )
        args = (pair.target, "--drafter", pair.drafter, "--device", self.KIND.device)
        with serving(tmp_path, *args, **environment) as server:
            assert server.ask("/health").status == 200
            for _ in range(100):
                answer = server.ask("/v1/completions", {"prompt": prompt, "max_tokens": 20})
                if answer.status != 200:
                    break
            for _ in range(2):
                assert (answer.status, answer.error["code"]) == (500, "device_failed")
                assert self.LOST_SENTENCE in answer.error["message"]
                health = server.ask("/health")
                assert health.status == 503
                said = {"status": "failed", "message": answer.error["message"]}
                assert health.json == said
                answer = server.ask("/v1/completions", {"prompt": prompt, "max_tokens": 2})

    # ---- faults ----

    def test_faults(self, pairs, stand_in: StandIn) -> None:
        """Allocations that fail and GPUs that are lost, at a random moment of opening and
        generating: one sentence, nothing left behind, and afterwards the right bytes on the GPU and
        on the CPU."""
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

        self.open(pair).close()  # the self-test is over before anything is counted
        counts = {}
        for name in kinds:
            counted = "calls" if name == "lose_at" else "allocations"
            before = stand_in.get(counted)
            with self.open(pair) as gpu:
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
                gpu = self.open(pair)
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
        assert all(s.startswith(f"{self.KIND.name} (Stand-in) ") for s in sentences), sentences
        assert seen["fail_from"] > faults() / 5, seen
        assert seen["lose_at"] > faults() / 5, seen
        work(cpu)
        with self.open(pair) as gpu:
            work(gpu)

    def test_a_gpu_that_is_lost_in_a_generation(self, pairs, stand_in: StandIn) -> None:
        pair = pairs("e2b")
        prompts = [checkpoints.random_prompt("e2b", 20, n) for n in range(3)]
        cpu = open_on("cpu", pair)
        gpu = self.open(pair)
        streams = [gpu.stream(p, max_tokens=30, ignore_eos=True) for p in prompts]
        for stream in streams:
            next(stream)
        stand_in.set(**self.LOST, lose_at=40)
        said = {sentence_of(stream) for stream in streams}
        (sentence,) = said  # the same to all
        assert self.LOST_SENTENCE in sentence
        assert sentence.endswith("; open the model again, or on the device cpu")
        assert sentence_of(gpu.stream(prompts[0])) == sentence
        gpu.close()
        stand_in.check()
        with self.open(pair) as gpu:
            assert tokens(gpu, prompts[0]) == tokens(cpu, prompts[0])
        stand_in.check()
