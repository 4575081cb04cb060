"""Replaces llama.cpp's server in tests of tools: its options, /health, /completion, and some
failures (--fake)."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HELP = """\
-m,    --model FNAME       model path
--no-ui                    no user interface
-cram, --cache-ram N       size of the prompt cache
--spec-type none,draft-simple,draft-mtp
--spec-draft-model, -md, --model-draft FNAME
--spec-draft-n-max N       drafts
"""
RATE = 100.0  # tokens/s without drafts


def main() -> None:
    if "--version" in sys.argv:
        print("version: 12345 (fake)")
        return
    if "--help" in sys.argv:
        print(HELP if "FAKE_NO_MTP" not in os.environ else "-m FNAME")
        return
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in ("--host", "--spec-type", "--spec-draft-model", "--fake", "--journal"):
        parser.add_argument(option)
    for option in ("--port", "-t", "-tb", "-c", "-np", "--cache-ram"):
        parser.add_argument(option, type=int)
    parser.add_argument("--spec-draft-n-max", type=int, default=0)
    parser.add_argument("--no-ui", action="store_true")
    parser.add_argument("-m", dest="model")
    args = parser.parse_args()
    with open(args.journal, "a", encoding="utf-8") as journal:
        print(json.dumps({"pid": os.getpid(), **vars(args)}), file=journal)
    Server(args).serve()


class Server:
    def __init__(self, args: argparse.Namespace):
        self.args = args
        drafting = args.spec_type == "draft-mtp"
        self.mode = args.fake or ""
        if self.mode.startswith("drafter:"):
            self.mode = self.mode.partition(":")[2] if drafting else ""
        self.health_requests = 0

    def serve(self) -> None:
        if self.mode == "dies":
            print("something before\nerror: the model does not please me\nsomething after")
            sys.exit(1)
        if self.mode == "stays":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.health_requests += 1
                ready = server.health_requests > 2 and server.mode != "never"
                self._answer(200 if ready else 503, {"status": "ok" if ready else "loading"})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if server.mode == "hangs":
                    time.sleep(60)
                if server.mode == "crashes":
                    print("error: out of luck", flush=True)
                    os._exit(3)
                if server.mode == "refuses":
                    self._answer(400, {"error": {"message": "no\nthank you"}})
                    return
                if self.path == "/v1/completions":
                    self._answer(200, server.complete_openai(body))
                else:
                    self._answer(200, server.complete(body))

            def _answer(self, status: int, content: object) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        ThreadingHTTPServer(("127.0.0.1", self.args.port), Handler).serve_forever()

    def complete(self, body: dict) -> dict:
        assert body["temperature"] == 0
        assert body["ignore_eos"] is True
        assert body["cache_prompt"] is False
        n, depth = body["n_predict"], self.args.spec_draft_n_max
        timings = {
            "prompt_n": len(body["prompt"]),
            "prompt_ms": 2.0 * len(body["prompt"]),  # 500 tokens/s
            "predicted_n": n,
            "predicted_ms": 1000 * (n - 1) / (RATE * (1 + depth / 10)),
        }
        if depth:
            timings |= {"draft_n": 10 * depth, "draft_n_accepted": 9}
        tokens = [7] * (n - 1 if self.mode == "short" else n)
        answer = {"content": "", "tokens": tokens, "timings": timings}
        if "n_probs" in body:
            answer["completion_probabilities"] = [{"id": t, "logprob": -1.5} for t in tokens]
        return answer

    def complete_openai(self, body: dict) -> dict:
        answer = self.complete({**body, "n_predict": body["max_tokens"]})
        tokens = len(answer["tokens"])
        return {"usage": {"completion_tokens": tokens}, "timings": answer["timings"]}


if __name__ == "__main__":
    main()
