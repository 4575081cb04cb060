"""What is run while calls fail: public calls of the Python API and commands, small enough to be
run thousands of times.

Each is a function of a folder of its own, that returns bytes: the same ones every time. Beforehand
make(folder) has written what it reads. Files that it writes lie in the folder under the names of
OUTPUTS.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import gemtp_native as gemtp
from gemtp_native import chat, cli

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

# No process for a template is started while a model is opened, which would take a thread.
chat.expected = False

Operation = Callable[[Path], bytes]

TARGET, DRAFTER = gemtp.demo_models()
PROMPT = "def mean(values):\n    total = 0\n"
OUTPUTS = ["out.gguf", "session", "imatrix.gguf"]
_SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}


def make(folder: Path) -> None:
    """Writes what the operations read."""
    from checkpoints import committed, to_gguf

    checkpoint = committed("e2b", folder / "checkpoint")
    to_gguf(checkpoint, folder / "small", "bf16")
    (folder / "text.txt").write_text(PROMPT * 20)


@cache
def _model() -> gemtp.Model:
    return gemtp.Model(TARGET, DRAFTER, threads=2, context=256)


def _said(output: gemtp.Output) -> bytes:
    return json.dumps([output.tokens, output.text, output.finish_reason]).encode()


def open_and_generate(_: Path) -> bytes:
    with gemtp.Model(TARGET, DRAFTER, threads=2, context=128) as model:
        return _said(model.generate(PROMPT, max_tokens=6))


def generate(_: Path) -> bytes:
    return _said(_model().generate(PROMPT, max_tokens=12, temperature=0.9, seed=3, logprobs=2))


def stream(_: Path) -> bytes:
    with _model().stream(PROMPT, max_tokens=12, stop=["\n\n\n"]) as pieces:
        return "".join(pieces).encode()


def tokenize(_: Path) -> bytes:
    ids = _model().tokenize("for x in é \U0001f600:\n\n")
    return json.dumps(
        [ids, _model().detokenize(ids), gemtp.Tokenizer(TARGET).encode("a b")]
    ).encode()


def reply(_: Path) -> bytes:
    messages = [{"role": "user", "content": "Write a loop."}]
    said = _model().chat(messages, max_tokens=8)
    return json.dumps([said.content, said.tokens]).encode()


def structured(_: Path) -> bytes:
    return _said(_model().generate(PROMPT, max_tokens=30, json_schema=_SCHEMA))


def template(_: Path) -> bytes:
    messages = [{"role": "user", "content": "Write a loop."}]
    text = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}"
    return json.dumps(_model().chat_prompt(messages, template=text)).encode()


def end_helpers() -> None:
    """Ends the processes that this one has started: what they are for needs new ones."""
    tasks = Path("/proc/self/task").glob("*/children")
    for child in {int(c) for path in tasks for c in path.read_text().split()}:
        os.kill(child, signal.SIGKILL)
        while Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2][0] != "Z":
            time.sleep(0.001)


def session(folder: Path) -> bytes:
    path = folder / "session"
    with _model().session() as begun:
        begun.append(PROMPT)
        begun.generate(max_tokens=5)
        begun.save(path)
    with _model().restore(path) as restored, restored.fork() as fork:
        fork.rewind(len(fork) - 2)
        fork.append(" x")
        return _said(fork.generate(max_tokens=5)) + _said(restored.generate(max_tokens=3))


def score(_: Path) -> bytes:
    ids = _model().tokenize(PROMPT)
    return _model().score(ids).tobytes() + _model().logits(ids).tobytes()


def _command(*args: object) -> str:
    """Runs `gemtp args...` in this process. Returns what it prints."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        status = cli.main([str(a) for a in args])
    if status:
        raise Failed(status, errors.getvalue(), out.getvalue())
    return out.getvalue()


class Failed(Exception):
    """A command that ended with an error."""

    def __init__(self, status: int, said: str, printed: str = ""):
        super().__init__(said)
        self.status = status
        self.printed = printed


def convert(folder: Path) -> bytes:
    _command("convert", folder / "checkpoint" / "target", folder / "out.gguf", "--outtype", "q8_0")
    return b""


def quantize(folder: Path) -> bytes:
    source = folder / "small" / "target-bf16.gguf"
    _command("quantize", source, folder / "out.gguf", "q4_k_m", "--quiet")
    return b""


def imatrix(folder: Path) -> bytes:
    text, out = folder / "text.txt", folder / "imatrix.gguf"
    _command("imatrix", TARGET, text, "-o", out, "--context", 64, "--quiet")
    return b""


def perplexity(folder: Path) -> bytes:
    text = folder / "text.txt"
    report = json.loads(_command("perplexity", TARGET, text, "--context", 64, "--json"))
    return json.dumps(report["running"]).encode()


def inspect(_: Path) -> bytes:
    try:
        return _command("inspect", TARGET, DRAFTER, "--json").encode()
    except Failed as e:
        if e.printed:  # its report has the reason
            raise Failed(1, f"gemtp: error: {json.loads(e.printed)['pair']['reasons'][0]}") from e
        raise


def export(_: Path) -> bytes:
    return _command(
        "export", "--to", "llama-server", "--target", TARGET, "--drafter", DRAFTER
    ).encode()


def complete(folder: Path) -> bytes:
    return _command("generate", TARGET, PROMPT, "--drafter", DRAFTER, "-n", 6, "--quiet").encode()


def info(_: Path) -> bytes:
    _command("info", "--json")
    return b"said"


OPERATIONS: dict[str, Operation] = {
    f.__name__: f
    for f in (
        open_and_generate, generate, stream, tokenize, reply, structured, template, session, score,
        convert, quantize, imatrix, perplexity, inspect, export, complete, info,
    )
} | {"structured anew": structured, "template anew": template}  # fmt: skip

BEFORE = {"structured anew": end_helpers, "template anew": end_helpers}
"""What happens before each time that an operation is run, while nothing fails."""

STARTING_THREADS = {
    "structured", "structured anew", "template", "template anew", "convert", "quantize",
}  # fmt: skip
"""Operations that start threads of Python's. One that finds no memory when it begins leaves the
caller of threading.Thread.start() waiting for ever, in every program; so Python's allocator does
not fail in these."""
