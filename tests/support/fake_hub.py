"""A server that speaks the hub's protocol for the calls made to find models: the files of a
repository, the facts of a file (HEAD), and its bytes, from any position on."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    url: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)  # repo -> status, error code
    cut: dict[str, int] = field(default_factory=dict)  # file -> bytes after which GETs break off
    cuts: int = 1 << 30  # how many GETs break off
    short: dict[str, int] = field(default_factory=dict)  # file -> bytes that a GET returns instead
    log: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, range

    def gets(self, file: str) -> list[str | None]:
        """Returns the ranges that were requested."""
        return [r for method, path, r in self.log if method == "GET" and path.endswith(file)]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.log.append((self.command, path, self.headers.get("Range")))
        pieces = path.strip("/").split("/")
        if pieces[:2] == ["api", "models"]:
            self._info("/".join(pieces[2:4]))
        elif len(pieces) > 4 and pieces[2] == "resolve":
            self._file("/".join(pieces[:2]), "/".join(pieces[4:]), with_body)
        else:
            self._fail(404, "EntryNotFound")

    def _info(self, repo: str) -> None:
        if self._refused(repo):
            return
        files = [
            {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
            for name, data in self.hub.repos[repo].items()
        ]
        self._send(json.dumps({"id": repo, "modelId": repo, "sha": COMMIT, "private": False,
                               "tags": [], "siblings": files}).encode())  # fmt: skip

    def _file(self, repo: str, name: str, with_body: bool) -> None:
        if self._refused(repo):
            return
        data = self.hub.repos[repo].get(name)
        if data is None:
            self._fail(404, "EntryNotFound")
            return
        start = 0
        given = self.headers.get("Range")
        if given:
            start = int(given.removeprefix("bytes=").split("-")[0])
        body = data[start : self.hub.short.get(name)] if with_body else b""
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) if with_body else len(data)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if not with_body:
            return
        end = self.hub.cut.get(name)
        if end is not None and start < end and self.hub.cuts > 0:
            self.hub.cuts -= 1
            body = body[: end - start]
            self.close_connection = True
        self.wfile.write(body)

    def _refused(self, repo: str) -> bool:
        if repo in self.hub.refused:
            self._fail(*self.hub.refused[repo])
        elif repo not in self.hub.repos:
            self._fail(401, "RepoNotFound")
        else:
            return False
        return True

    def _fail(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
