"""gemtp serve: who may ask, clients that leave, dawdle or come in crowds, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import gemtp_native as gemtp
from gemtp_native.serve.channel import Channel, Closed
from gemtp_native.serve.errors import RequestError
from gemtp_native.serve.slots import Slots
from serving import Server, events, limited, serving

COMPLETE = "/v1/completions"
# Seconds of work for the shipped pair.
LONG = {"prompt": "def f(x):\n", "max_tokens": 2000, "ignore_eos": True, "n": 4, "draft": 0}
SHORT = {"prompt": "def f(x):\n", "max_tokens": 4}


@pytest.fixture(scope="module")
def target():
    return gemtp.demo_models()[0]


# ---------------------------------------------------------------- what it says


def test_it_says_what_it_serves_and_where(tmp_path, target):
    with serving(tmp_path, target, "--context", 256, "--parallel", 2) as server:
        server.complete("def f", max_tokens=2)
        said = server.log.read_text()
    what = "target without a drafter, which completes texts: 2 answers at once, each of up to 256"
    assert what in said
    assert f"a page to chat at {server.url}/, OpenAI's protocol at {server.url}/v1" in said
    assert "POST" not in said


def test_verbose_names_each_request(tmp_path, target):
    with serving(tmp_path, target, "--verbose") as server:
        server.complete("def f", max_tokens=2)
        server.ask("/no%1b[31mthing")
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
        said = server.log.read_text()
    assert re.search(r"POST /v1/completions 200 in \d+\.\d{3} s", said)
    assert re.search(r"GET /no\S*thing 4\d\d in ", said)
    assert "\x1b" not in said


# ---------------------------------------------------------------- who may ask


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost"}, 200),
        ({"Host": "LOCALHOST:8080"}, 200),
        ({"Host": "127.0.0.1:1"}, 200),
        ({"Host": "[::1]:8080"}, 200),
        ({"Host": "rebound.example.org"}, 403),
        ({"Host": "rebound.example.org:8080"}, 403),
        ({"Host": "localhost.example.org"}, 403),
        ({"Host": "192.168.1.5"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost:80", "Origin": "http://localhost:80"}, 200),
        ({"Host": "localhost:80", "Origin": "http://localhost:81"}, 403),
        ({"Host": "127.0.0.1:80", "Origin": "http://localhost:80"}, 200),
        ({"Host": "localhost:80", "Origin": "http://127.0.0.1:80"}, 200),
        ({"Host": "[::1]:80", "Origin": "http://127.0.0.1"}, 200),
        ({"Host": "127.0.0.1:80", "Origin": "http://localhost:81"}, 403),
        ({"Host": "127.0.0.1:80", "Origin": "https://localhost"}, 403),
        ({"Host": "127.0.0.1:80", "Origin": "http://localhost.example.org:80"}, 403),
        ({"Host": "127.0.0.1:80", "Origin": "http://127.0.0.1.example.org:80"}, 403),
        ({"Host": "rebound.example.org:80", "Origin": "http://localhost:80"}, 403),
        ({"Host": "rebound.example.org:80", "Origin": "http://127.0.0.1:80"}, 403),
        ({"Host": "localhost:80", "Origin": "https://example.org"}, 403),
        ({"Host": "localhost:80", "Origin": "null"}, 403),
        ({"Host": "localhost:80", "Origin": "file://localhost:80"}, 403),
        ({"Host": "rebound.example.org", "Origin": "http://rebound.example.org"}, 403),
        ({"Host": "::1"}, 200),
        ({"Host": "127.0.0.2:8080"}, 200),
        ({"Host": "[::ffff:127.0.0.1]:8080"}, 200),
        ({"Host": "[::ffff:192.168.1.5]:8080"}, 403),
        ({"Host": "app.localhost:8080"}, 200),
        ({"Host": "applocalhost:8080"}, 403),
        ({"Host": "localhost."}, 200),
        ({"Host": "localhost", "Origin": "http://localhost:80"}, 200),
        ({"Host": "localhost:443", "Origin": "https://localhost"}, 200),
        ({"Host": "[::1]:80", "Origin": "http://[::1]"}, 200),
        ({"Host": "[localhost].example.org"}, 403),
        ({"Host": "[localhost]"}, 403),
        ({"Host": "[::1].example.org"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": "localhost:80:80"}, 403),
        ({"Host": "localhost:x"}, 403),
        ({"Host": "user@localhost"}, 403),
        ({"Host": "localhost/x"}, 403),
        ({"Host": "localhost:80", "Origin": "http://["}, 403),
        ({"Host": "localhost:80", "Origin": "http://[::1"}, 403),
        ({"Host": "localhost:80", "Origin": "httpevil://localhost:80"}, 403),
        ({"Host": "localhost:80", "Origin": "http://user@localhost:80"}, 403),
        ({"Host": "localhost:80", "Origin": "http://localhost:80/path"}, 403),
        ({"Host": "localhost:80", "Origin": "https://localhost:81"}, 403),
        ({"Host": "localhost:80", "Origin": "://localhost:80"}, 403),
        ({"Host": "localhost:80", "Origin": ""}, 403),
        ({"Host": "localhost:80", "Origin": "\xff\xfe"}, 403),
    ],
)
def test_host_and_origin(demo_server: Server, headers, status):
    for path, body in (("/health", None), ("/", None), (COMPLETE, SHORT)):
        answer = demo_server.ask(path, body, headers=headers)
        assert answer.status == status
        assert "access-control-allow-origin" not in answer.headers
        if status == 403:
            assert answer.error["type"] == "permission_error"


def test_preflights_of_other_pages_are_refused(demo_server: Server):
    headers = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    assert demo_server.ask(COMPLETE, method="OPTIONS", headers=headers).status == 403


def test_keys_cors_and_names(tmp_path, target):
    keys = tmp_path / "keys"
    keys.write_text("first\n\nsecond\n")
    origin = "https://app.example.org"
    options = ["--api-key-file", keys, "--cors", origin, "--allow-host", "box.lan"]
    with serving(tmp_path, target, *options, GEMTP_API_KEY="third") as server:
        for key in ("first", "second", "third"):
            headers = {"Authorization": f"Bearer {key}"}
            assert server.ask(COMPLETE, SHORT, headers=headers).status == 200
        for header in ("Bearer x", "first", "Basic first", "Bearer ", "Bearer f\xe9", ""):
            answer = server.ask(COMPLETE, SHORT, headers={"Authorization": header})
            assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        for path in ("/v1/models", "/props", "/metrics", "/nothing"):
            assert server.ask(path).status == 401
        assert server.ask("/health").status == 200  # probes have no key
        assert server.ask("/").status == 200  # the page asks its user for it

        answer = server.ask("/health", headers={"Origin": origin, "Host": "box.lan:80"})
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == origin
        preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        preflight["Access-Control-Request-Headers"] = "authorization, content-type, x-stainless-os"
        answer = server.ask(COMPLETE, method="OPTIONS", headers=preflight)
        assert answer.status == 204
        assert "x-stainless-os" in answer.headers["access-control-allow-headers"]
        refused = server.ask(COMPLETE, SHORT, headers={"Origin": origin})  # pages read this
        assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, origin)
        assert server.ask("/health", headers={"Origin": "https://example.org"}).status == 403


@pytest.mark.parametrize(
    ("options", "because"),
    [
        (["--parallel", 0], "--parallel is 0"),
        (["--port", 70000], "--port is 70000"),
        (["--timeout", "nan"], "--timeout is nan"),
        (["--max-body", 3], "--max-body"),
        (["--api-key", " "], "API key"),
        (["--api-key-file", Path(gemtp.__file__).parent / "py.typed"], "has no key"),
        (["--api-key-file", os.devnull], "is not a file but a device"),
        (["--host", "no.such.host.invalid"], "no.such.host.invalid"),
    ],
)
def test_wrong_options(gemtp_main, target, options, because):
    code, out, err = gemtp_main("serve", target, *options)
    assert (code, out) == (1, "")
    assert because in err
    assert err.count("\n") == 1


def test_more_sequences_than_there_is_memory_for(tmp_path, target):
    with serving(tmp_path, target, "--parallel", 200, "--context", 2048) as server:
        found = re.search(r"there is memory for (\d+) sequences", server.log.read_text())
        assert found
        assert server.ask("/props").json["parallel"] == int(found[1]) < 200
        request = {"prompt": "def f(x):\n", "max_tokens": 40, "temperature": 1, "seed": 1}
        answer = server.complete(**request, n=int(found[1]) * 2)
        assert (
            answer["choices"][1]["text"]
            == server.complete(**{**request, "seed": 2})["choices"][0]["text"]
        )


def test_a_port_that_is_taken(gemtp_main, target):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        code, _, err = gemtp_main("serve", target, "--port", s.getsockname()[1])
    assert code == 1
    assert "choose another --port" in err


# ---------------------------------------------------------------- clients that leave


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_its_work(demo_server: Server, stream):
    cancelled = demo_server.metric("gemtp_requests_cancelled_total")
    tokens = demo_server.metric("gemtp_tokens_predicted_total")
    s = demo_server.post(COMPLETE, {**LONG, "stream": stream})
    demo_server.wait_for("gemtp_requests_processing", 4)
    if stream:
        assert s.recv(15) == b"HTTP/1.1 200 OK"
    s.close()
    assert demo_server.wait_for("gemtp_requests_processing", 0) < 1
    assert demo_server.metric("gemtp_requests_cancelled_total") == cancelled + 1
    assert demo_server.metric("gemtp_tokens_predicted_total") < tokens + 8000


def test_clients_that_leave_at_any_time(demo_server: Server):
    expected = demo_server.complete("class A:\n", max_tokens=30)["choices"][0]["text"]
    requests = [LONG, {**LONG, "stream": True}, {**LONG, "prompt": [2, 3, 4] * 600}]
    for delay in (0, 0.001, 0.003, 0.01, 0.03, 0.1):
        for request in requests:
            s = demo_server.post(COMPLETE, request)
            time.sleep(delay)
            s.close()
    demo_server.wait_for("gemtp_requests_processing", 0)
    assert demo_server.metric("gemtp_requests_deferred") == 0
    assert demo_server.complete("class A:\n", max_tokens=30)["choices"][0]["text"] == expected
    assert "Traceback" not in demo_server.log.read_text()


def test_who_leaves_the_queue_is_not_run(tmp_path, target):
    with serving(tmp_path, target, "--parallel", 1, "--queue", 2, "--context", 2048) as server:
        running = server.post(COMPLETE, {**LONG, "n": 1})
        server.wait_for("gemtp_requests_processing", 1)
        waiting = server.post(COMPLETE, {**LONG, "n": 2, "stream": True})
        server.wait_for("gemtp_requests_deferred", 2)
        answer = server.ask(COMPLETE, SHORT)
        assert (answer.status, answer.error["code"]) == (503, "overloaded")
        assert answer.headers["retry-after"] == "1"
        waiting.close()
        server.wait_for("gemtp_requests_deferred", 0)
        running.close()
        server.wait_for("gemtp_requests_processing", 0)
        assert server.complete(**SHORT)["choices"]


# ---------------------------------------------------------------- clients that dawdle


def test_a_slow_reader_is_waited_for_and_then_left(tmp_path):
    with limited(tmp_path, send_timeout=1.0, buffer=20_000) as server:
        body = json.dumps({**LONG, "stream": True, "logprobs": 20, "return_tokens": True}).encode()
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", server.port))
            head = f"POST {COMPLETE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
            s.sendall(f"{head}\r\n\r\n".encode() + body)
            server.wait_for("gemtp_requests_processing", 4)
            server.wait_for("gemtp_requests_processing", 0, 30)
        assert server.metric("gemtp_requests_cancelled_total") == 1
        assert server.metric("gemtp_tokens_predicted_total") < 8000
        server.wait_for("gemtp_http_connections", 1)
        assert "Traceback" not in server.log.read_text()


def test_a_reader_that_takes_its_time_gets_everything(tmp_path):
    with limited(tmp_path, buffer=2000) as server:
        request = {"prompt": "def f(x):\n", "max_tokens": 300, "ignore_eos": True}
        whole = server.complete(**request)["choices"][0]["text"]
        s = server.post(COMPLETE, {**request, "stream": True})
        data = b""
        while b"[DONE]" not in data:
            data += s.recv(512)
            time.sleep(0.0005)
        s.close()
        body = data.partition(b"\r\n\r\n")[2]
        pieces = [json.loads(line) for line in _data_lines(body)]
        assert "".join(p["choices"][0]["text"] for p in pieces) == whole


def _data_lines(body: bytes) -> list[bytes]:
    lines = [line.removeprefix(b"data: ") for line in body.split(b"\n") if line[:6] == b"data: "]
    return [line for line in lines if line != b"[DONE]"]


def test_headers_and_bodies_that_do_not_come(tmp_path):
    with limited(tmp_path, header_timeout=0.5, body_timeout=0.5) as server:
        for first in (b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n"):
            with server.connect() as s:
                begin = time.monotonic()
                s.sendall(first)
                with contextlib.suppress(ConnectionError):
                    for _ in range(30):
                        time.sleep(0.1)
                        s.sendall(b"X-A: b\r\n" if first else b"")
                        if not first and s.recv(1) == b"":
                            break
                assert time.monotonic() - begin < 2.5
        with server.connect() as s:
            s.sendall(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
            assert s.recv(12) == b"HTTP/1.1 408"
        with server.connect() as s:  # a second request on a connection has as long
            for _ in range(3):
                s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert s.recv(12) == b"HTTP/1.1 200"
                time.sleep(0.2)
                s.recv(4096)


def spoken(server: Server, head: str, body: bytes = b"") -> bytes:
    """All that comes until the server closes the connection."""
    with server.connect() as s:
        s.sendall(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body)
        data = b""
        with contextlib.suppress(ConnectionError):
            while part := s.recv(65536):
                data += part
    return data


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 2\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\nContent-Length: 200",
        "Content-Length: 2\nContent-Length: 3",
        "Content-Length: -1",
        "Transfer-Encoding: gzip",
        "Origin: http://localhost\nOrigin: http://example.org",
        "Authorization: Bearer a\nAuthorization: Bearer b",
        "Host: example.org",
    ],
)
def test_requests_with_two_meanings_are_refused_and_closed(demo_server: Server, headers):
    head = f"POST /tokenize HTTP/1.1\nHost: localhost\n{headers}"
    data = spoken(demo_server, head, b"2\r\n{}\r\n0\r\n\r\nGET /health HTTP/1.1\r\n\r\n")
    answer, _, body = data.partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"connection: close" in answer.lower()
    assert json.loads(body)["error"]["code"] == "invalid_http"
    assert data.count(b"HTTP/1.1") == 1
    assert "Traceback" not in demo_server.log.read_text()


def test_paths_with_slashes_that_say_nothing(demo_server: Server):
    for path in ("/v1//models", "/v1/models/", "//v1/models//", "/models"):
        assert demo_server.ask(path).json["object"] == "list"
    assert demo_server.ask("//").status == 200


def test_memory_of_large_bodies_is_bounded_and_given_back(tmp_path):
    with limited(tmp_path, max_bodies=8 << 20) as server:
        server.complete(**SHORT)

        def memory() -> int:
            with open(f"/proc/{server.process.pid}/statm") as f:
                return int(f.read().split()[1]) * resource.getpagesize()

        before = most = memory()
        body = json.dumps({"prompt": "ab " * 1_200_000, "unheard_of": 1}).encode()
        with ThreadPoolExecutor(40) as threads:
            answers = [threads.submit(server.ask, COMPLETE, body) for _ in range(40)]
            while not all(a.done() for a in answers):
                most = max(most, memory())
                time.sleep(0.01)
        assert {a.result().status for a in answers} <= {400, 503}
        assert most - before < 120 << 20
        deadline = time.monotonic() + 5
        while memory() - before > 40 << 20 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert memory() - before <= 40 << 20


def test_others_are_answered_while_much_is_done(demo_server: Server):
    body = json.dumps({"content": "ab " * 400_000, "with_pieces": True}).encode()
    demo_server.ask("/health")
    with ThreadPoolExecutor(1) as threads:
        large = threads.submit(demo_server.ask, "/tokenize", body)
        longest = 0.0
        while not large.done():
            begin = time.monotonic()
            assert demo_server.ask("/health").status == 200
            longest = max(longest, time.monotonic() - begin)
        assert large.result().json["count"] > 100_000
    assert longest < 1


def test_what_is_no_http(demo_server: Server):
    for data in (b"\x00" * 100, b"GET\r\n\r\n", b"A" * 100_000, b"GET / HTTP/1.1\r\n\r\n"):
        with demo_server.connect() as s, contextlib.suppress(ConnectionError):
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            s.recv(12)
    with demo_server.connect() as s:
        many = b"".join(b"X-%d: y\r\n" % i for i in range(20_000))
        with contextlib.suppress(ConnectionError):
            s.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + many)
            assert b"200" not in s.recv(12)
    assert demo_server.ask("/health").status == 200


# ---------------------------------------------------------------- crowds


def test_a_thousand_connections(demo_server: Server):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1500:
        pytest.skip(f"this process may open {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1500), hard))
    idle: list[socket.socket] = []
    try:
        for _ in range(1000):
            idle.append(demo_server.connect())
        answer = demo_server.complete(**SHORT)
        assert answer["choices"][0]["text"]
        assert demo_server.metric("gemtp_http_connections") <= 513
    finally:
        for s in idle:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    demo_server.wait_for("gemtp_http_connections", 1)


def test_hundreds_of_requests_at_once(demo_server: Server):
    with ThreadPoolExecutor(100) as threads:
        answers = list(threads.map(lambda _: demo_server.ask(COMPLETE, SHORT), range(400)))
    statuses = {a.status for a in answers}
    assert statuses <= {200, 503}
    texts = {a.json["choices"][0]["text"] for a in answers if a.status == 200}
    assert len(texts) == 1
    assert all(a.error["code"] == "overloaded" for a in answers if a.status == 503)
    demo_server.wait_for("gemtp_requests_processing", 0)


# ---------------------------------------------------------------- its end


def test_running_answers_are_finished(tmp_path, target):
    with serving(tmp_path, target, "--context", 2048, "--drain", 60) as server:
        whole = server.complete(**{**LONG, "n": 1, "max_tokens": 800})["choices"][0]["text"]
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(server.stream, COMPLETE, **{**LONG, "n": 1, "max_tokens": 800})
            server.wait_for("gemtp_requests_processing", 1)
            server.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 5
            while server.ask("/health").status != 503 and time.monotonic() < deadline:
                time.sleep(0.01)
            if not answer.done():
                assert server.ask("/health").json == {"status": "draining"}
                refused = server.ask(COMPLETE, SHORT)
                assert (refused.status, refused.error["code"]) == (503, "draining")
            assert "".join(c["choices"][0]["text"] for c in answer.result()) == whole
        assert server.process.wait(10) == 0


def test_what_takes_too_long_is_ended(tmp_path, target):
    with serving(tmp_path, target, "--context", 2048, "--drain", 0.2) as server:
        s = server.post(COMPLETE, {**LONG, "stream": True})
        server.wait_for("gemtp_requests_processing", 4)
        server.process.send_signal(signal.SIGTERM)
        data = b""
        while part := s.recv(65536):
            data += part
        s.close()
        assert b'"code": "draining"' in data
        assert b"[DONE]" not in data
        assert server.process.wait(10) == 0
        assert "Traceback" not in server.log.read_text()


def test_the_time_of_an_answer_is_limited(tmp_path, target):
    with serving(tmp_path, target, "--context", 2048, "--timeout", 0.2) as server:
        answer = server.ask(COMPLETE, LONG)
        assert (answer.status, answer.error["code"]) == (504, "timeout")
        assert answer.headers["x-should-retry"] == "false"
        streamed = events(server.ask(COMPLETE, {**LONG, "stream": True}).body)
        assert json.loads(streamed[-1])["error"]["code"] == "timeout"
        server.wait_for("gemtp_requests_processing", 0)
        assert server.complete(**SHORT)["choices"]


def test_without_the_extra(tmp_path):
    """A sentence instead of a traceback."""
    target = gemtp.demo_models()[0]
    code = "import sys; sys.modules['uvicorn'] = None; from gemtp_native.cli import main; "
    code += f"sys.exit(main(['serve', {str(target)!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "pip install 'gemtp-native[serve]'" in done.stderr
    assert done.stderr.count("\n") == 1


# ---------------------------------------------------------------- turns, and the way back


def test_nobody_takes_all_turns():
    async def order() -> list[str]:
        slots = Slots(2, 100)
        out: list[str] = []

        async def client(name: str, arrival: int, nth: int) -> None:
            await slots.acquire(arrival, nth)
            out.append(name)
            await asyncio.sleep(0)
            slots.release()
            slots.leave()

        greedy = slots.admit(6)
        tasks = [asyncio.create_task(client(f"greedy{i}", greedy, i)) for i in range(6)]
        for name in "abc":
            tasks.append(asyncio.create_task(client(name, slots.admit(1), 0)))
        await asyncio.gather(*tasks)
        assert (slots.running, slots.waiting) == (0, 0)
        return out

    out = asyncio.run(order())
    assert out[:2] == ["greedy0", "greedy1"]
    assert max(out.index(name) for name in "abc") < out.index("greedy3")


def test_turns_of_many():
    async def run() -> None:
        slots = Slots(1, 100)
        for _ in range(10):
            arrival = slots.admit(3)
            for nth in range(3):
                asyncio.get_running_loop().create_task(slots.acquire(arrival, nth))
        for _ in range(30):
            await asyncio.sleep(0)
            assert slots.running == 1
            slots.release()
            slots.leave()
        assert (slots.running, slots.waiting) == (0, 0)

    asyncio.run(run())


def test_turns_are_not_lost():
    async def run() -> None:
        slots = Slots(1, 2)
        await slots.acquire(slots.admit(1), 0)
        waiting = [asyncio.create_task(slots.acquire(slots.admit(1), 0)) for _ in range(2)]
        await asyncio.sleep(0)
        assert slots.waiting == 2
        with pytest.raises(RequestError, match="busy: 1 sequences run and 2 wait"):
            slots.admit(1)
        waiting[0].cancel()
        slots.leave()
        slots.release()  # goes to the one that is still there, whichever happens first
        slots.leave()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (slots.running, slots.waiting) == (1, 0)
        slots.release()
        slots.leave()
        slots.admit(3)

    asyncio.run(run())


def test_a_channel_holds_so_much():
    async def run() -> None:
        channel: Channel[int] = Channel(limit=10)
        put: list[int] = []

        def work() -> None:
            with contextlib.suppress(Closed):
                for i in range(100):
                    channel.put(i, 4)
                    put.append(i)

        thread = threading.Thread(target=work)
        thread.start()
        await asyncio.sleep(0.1)
        assert put == [0, 1, 2]
        assert await channel.get() == [0, 1, 2]
        got = await channel.get()
        assert got[0] == 3
        channel.end(ValueError("enough"))
        with pytest.raises(ValueError, match="enough"):
            await channel.get()
        thread.join(5)
        assert not thread.is_alive()

    asyncio.run(run())
