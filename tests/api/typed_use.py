"""Typical use, for `mypy --strict`; nothing here runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

import gemtp_native as gemtp


def complete(prompt: str) -> str:
    target, drafter = gemtp.demo_models()
    model = gemtp.Model(target, drafter=drafter, threads=2, context=1024, kv_type="f32")
    out: gemtp.Output = model.generate(prompt, max_tokens=8, draft="auto", stop=["\n"])
    accepted: int = out.stats.accepted
    ids: list[int] = out.tokens
    return f"{out.text} {accepted} {ids} {out.finish_reason}"


def watch(model: gemtp.Model, prompt: list[int]) -> list[str]:
    with model.stream(prompt, temperature=0.7, logit_bias={5: -1.0}, draft=3) as stream:
        guessed = [token.text for step in stream.steps() for token in step if token.drafted]
    pieces: list[str] = list(model.stream(b"bytes", stop="end"))
    return guessed + pieces


def talk(model: gemtp.Model) -> list[gemtp.ToolCall]:
    messages = [{"role": "user", "content": "hello"}]
    options: gemtp.ChatOptions = {"thinking": True, "tools": [{"name": "f"}], "seed": 1}
    reply: gemtp.Reply = model.chat(messages, **options)
    reply = model.chat(messages, thinking=True, tools=[{"name": "f"}], seed=1)
    with model.chat_stream([*messages, reply.message], suppress_tokens=[5]) as stream:
        pieces: list[gemtp.ReplyPiece] = list(stream)
    calls = [piece.call for piece in pieces if piece.call is not None]
    return reply.tool_calls + calls + stream.reply.tool_calls


async def wait(model: gemtp.Model, seed: int) -> list[str]:
    out: gemtp.Output = await model.agenerate("x", max_tokens=4, seed=seed)
    async with model.stream("x", on_prompt=lambda done, total: None) as stream:
        pieces: list[str] = [piece async for piece in stream]
    reply: gemtp.Reply = await model.achat([{"role": "user", "content": "x"}], logprobs=2)
    async for step in model.chat_stream([], thinking=True).asteps():
        pieces += [piece.text for _, found in step for piece in found]
    best: tuple[int, float] = reply.top_logprobs[0][0]
    return [*pieces, out.text, str(best)]


def continue_text(model: gemtp.Model, file: Path) -> float:
    def processor(tokens: Sequence[int], logits: np.ndarray) -> None:
        logits[tokens[-1]] = -np.inf

    with model.session() as session, session.fork() as other:
        session.append([1, 2])
        out: gemtp.Output = session.generate("x", logprobs=0, logits_processor=processor)
        session.rewind(len(session) - 1)
        other.stream(temperature=1.0).cancel()
        session.save(file)
    restored: gemtp.Session = model.restore(file)
    options: gemtp.GenerationOptions = {"max_tokens": 3, "draft": 2}
    restored.generate(**options)
    return out.logprobs[0]


def evaluate(model: gemtp.Model, text: str) -> npt.NDArray[np.float32]:
    ids = model.tokenize(text)
    proposals: list[int] = model.draft(ids, 4)
    return model.logits(ids + proposals)


def look(path: Path) -> int:
    try:
        return gemtp.Tokenizer(path).encode("a", add_bos=True)[0]
    except (gemtp.FileError, gemtp.ModelError) as e:
        raise SystemExit(str(e)) from None


def threads() -> int:
    found: int = gemtp.system_info()["threads"]
    return found
