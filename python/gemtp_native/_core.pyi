import os
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

_Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

def available_cores() -> int: ...
def physical_memory() -> int: ...
def isas() -> list[str]: ...
def selected_isa() -> str: ...
def choose_many(
    logits: NDArray[np.float32],
    positions: Sequence[int],
    history: Sequence[int],
    params: SamplingParams,
) -> NDArray[np.int32]: ...

class GgufFile:
    def __init__(self, path: _Path, mmap: bool = True) -> None: ...
    @property
    def version(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def keys(self) -> list[str]: ...
    def value(self, key: str) -> Any: ...
    def array_length(self, key: str) -> int | None: ...
    @property
    def tensors(self) -> list[tuple[str, str, list[int], int, bool]]: ...

class Tokenizer:
    def __init__(self, path: _Path) -> None: ...
    def encode(
        self, text: str | bytes, add_bos: bool = False, special: bool = False
    ) -> list[int]: ...
    def decode(self, ids: Sequence[int], special: bool = False) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def bos(self) -> int: ...
    @property
    def end_tokens(self) -> list[int]: ...
    def find(self, token_text: str) -> int: ...
    def token_text(self, id: int) -> str: ...

class SamplingParams:
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    penalty_last_n: int
    seed: int
    logit_bias: list[tuple[int, float]]
    def __init__(self) -> None: ...

class Engine:
    def __init__(
        self,
        target: _Path,
        drafter: _Path | None,
        threads: int,
        context: int,
        prefill_chunk: int,
        kv_f16: bool,
        mmap: bool,
        isa: str,
    ) -> None: ...
    @property
    def has_drafter(self) -> bool: ...
    @property
    def context(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def backend(self) -> str: ...
    @property
    def target_bytes(self) -> int: ...
    @property
    def drafter_bytes(self) -> int: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def has_tokenizer(self) -> bool: ...
    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]: ...
    def draft(
        self, ids: Sequence[int], k: int
    ) -> tuple[list[int], NDArray[np.float32], NDArray[np.float32]]: ...

class _Stats(TypedDict):
    rounds: int
    drafted: int
    accepted: int
    prompt_tokens: int
    cached_tokens: int
    prompt_seconds: float
    tokens: int
    decode_seconds: float
    tokens_per_second: float
    depth_histogram: list[int]
    drafted_at: list[int]
    accepted_at: list[int]

class Generation:
    def __init__(
        self,
        engine: Engine,
        prompt: Sequence[int],
        sampling: SamplingParams,
        max_tokens: int,
        stop: Sequence[str | bytes],
        draft: int,
        ignore_eos: bool,
    ) -> None: ...
    def step(self) -> list[tuple[int, bool, str]]: ...
    @property
    def done(self) -> bool: ...
    @property
    def finish_reason(self) -> str: ...
    @property
    def tail(self) -> str: ...
    @property
    def stats(self) -> _Stats: ...
