#!/usr/bin/env python3
"""Hashes of what gemtp makes of the models in the tree, to compare two of its versions by.

    python tools/hash_outputs.py before.json
    python tools/hash_outputs.py after.json --compare before.json

Every golden checkpoint is converted in several types and the shipped pair is taken as it is. Of
each: the converted files, texts under many sampling parameters with every way of drafting, logits,
log-probabilities, drafts, session files, and of the shipped pair the answers of a server. Only the
command line and the public API are used, so that any two versions can be compared. Exit 1 when a
name that both have has another hash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gemtp_native as gemtp

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
TYPES = ("f32", "bf16", "q8_0", "q4_0", "q4_k_m")
PROMPTS = {
    "short": [2, 7, 9, 11],
    "long": [2, *(5 + (i * i) % 200 for i in range(150))],
    "chunks": [2, *(5 + (i * i) % 200 for i in range(1000))],  # of 512 positions, two of them
}
TEXT = "def fibonacci(n):\n    if n <"
SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "warm": {"temperature": 0.7, "seed": 1},
    "hot": {"temperature": 1.3, "seed": 2},
    "top_k": {"temperature": 1.0, "top_k": 40, "seed": 3},
    "top_p": {"temperature": 1.0, "top_p": 0.9, "seed": 4},
    "min_p": {"temperature": 1.0, "min_p": 0.05, "seed": 5},
    "all": {"temperature": 0.9, "top_k": 64, "top_p": 0.95, "min_p": 0.01, "seed": 6},
    "penalties": {
        "temperature": 0.8,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.2,
        "seed": 7,
    },
    "bias": {"logit_bias": {17: 5.0, 23: -5.0}},
}
DRAFTS: tuple[Any, ...] = ("auto", 0, 1, 4, 15)


def digest(*parts: Any) -> str:
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part if isinstance(part, bytes) else json.dumps(part).encode())
    return hashed.hexdigest()[:20]


def convert(folder: Path, out: Path, type_: str) -> Path:
    command = [sys.executable, "-m", "gemtp_native", "convert", str(folder), str(out)]
    subprocess.run(
        [*command, "--outtype", type_, "--no-tokenizer"],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=300,
    )
    return out


def of_model(name: str, target: Path, drafter: Path, prompts: dict[str, Any]) -> Iterator[Any]:
    """Yields (name, hash) of everything that a pair generates."""
    with gemtp.Model(target, drafter=drafter, context=1024) as model:
        for prompt_name, prompt in prompts.items():
            for sampling_name, sampling in SAMPLINGS.items():
                for draft in DRAFTS:
                    out = model.generate(
                        prompt, max_tokens=40, ignore_eos=True, draft=draft, **sampling
                    )
                    key = f"{name}/text/{prompt_name}/{sampling_name}/{draft}"
                    yield key, digest(out.tokens, out.text)
            ids = model.tokenize(prompt) if isinstance(prompt, str) else prompt
            yield f"{name}/logits/{prompt_name}", digest(model.logits(ids).tobytes())
            yield f"{name}/score/{prompt_name}", digest(model.score(ids).tobytes())
            yield f"{name}/draft/{prompt_name}", digest(model.draft(ids, 6))
            yield f"{name}/session/{prompt_name}", session_file(model, ids)


def session_file(model: gemtp.Model, ids: list[int]) -> str:
    with tempfile.TemporaryDirectory() as folder, model.session() as session:
        session.append(ids)
        session.generate(max_tokens=20, ignore_eos=True)
        session.rewind(len(ids) + 10)
        session.generate(max_tokens=5, ignore_eos=True)
        path = Path(folder) / "text.session"
        session.save(path)
        return digest(path.read_bytes())


@contextmanager
def server(target: Path, drafter: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "gemtp_native", "serve", str(target), "--port", "0"]
    with subprocess.Popen(
        [*command, "--drafter", str(drafter), "--context", "1024"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            deadline = time.monotonic() + 60
            for line in process.stdout:
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    yield found.group(0)
                    return
                if time.monotonic() > deadline:
                    break
            raise SystemExit("the server did not say where it listens")
        finally:
            process.terminate()


def ask(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def of_server(name: str, target: Path, drafter: Path) -> Iterator[Any]:
    messages = [{"role": "user", "content": "Write a loop."}]
    with server(target, drafter) as url:
        for sampling_name, sampling in SAMPLINGS.items():
            body = {"max_tokens": 30, "temperature": 0, **sampling}
            if "logit_bias" in body:
                body["logit_bias"] = {str(k): v for k, v in body["logit_bias"].items()}
            out = ask(f"{url}/v1/completions", {"prompt": TEXT, "logprobs": 2, **body})
            choice = out["choices"][0]
            yield (
                f"{name}/server/completions/{sampling_name}",
                digest(
                    choice["text"], choice["finish_reason"], choice["logprobs"]["token_logprobs"]
                ),
            )
            out = ask(f"{url}/v1/chat/completions", {"messages": messages, **body})
            choice = out["choices"][0]
            yield (
                f"{name}/server/chat/{sampling_name}",
                digest(choice["message"]["content"], choice["finish_reason"]),
            )


def all_hashes() -> dict[str, str]:
    out: dict[str, str] = {}
    for folder in sorted(GOLDEN.iterdir()):
        for type_ in TYPES:
            name = f"{folder.name}/{type_}"
            with tempfile.TemporaryDirectory() as made:
                target = convert(folder / "target", Path(made) / "target.gguf", type_)
                drafter = convert(folder / "drafter", Path(made) / "drafter.gguf", type_)
                out[f"{name}/files"] = digest(target.read_bytes(), drafter.read_bytes())
                out.update(of_model(name, target, drafter, PROMPTS))
    shipped = tuple(map(Path, gemtp.demo_models()))
    out.update(of_model("shipped", *shipped, {"code": TEXT}))
    out.update(of_server("shipped", *shipped))
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path, help="a JSON file to write")
    parser.add_argument("--compare", type=Path, help="one written before")
    args = parser.parse_args()
    hashes = all_hashes()
    args.out.write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
    print(f"{len(hashes)} hashes in {args.out}")
    if args.compare is None:
        return 0
    before = json.loads(args.compare.read_text(encoding="utf-8"))
    changed = [name for name, value in hashes.items() if before.get(name, value) != value]
    for name in changed:
        print(f"changed: {name}")
    common = len(hashes.keys() & before.keys())
    print(f"{common - len(changed)} of {common} are equal")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
