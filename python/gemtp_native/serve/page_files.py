"""The page at /: the files in page/, read when the server starts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from .errors import Header

_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".mjs": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".png": b"image/png",
    ".ico": b"image/x-icon",
    ".webmanifest": b"application/manifest+json",
    ".woff2": b"font/woff2",
    ".txt": b"text/plain; charset=utf-8",
}

_POLICY = (
    b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    b"object-src 'none'"
)
_HEADERS: list[Header] = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
]


@dataclass(frozen=True)
class PageFile:
    data: bytes
    headers: list[Header]
    etag: bytes


def page_files(folder: Path | None = None) -> dict[str, PageFile]:
    """Maps URL paths to files."""
    folder = folder or Path(__file__).parent.parent / "page"
    out: dict[str, PageFile] = {}
    for file in sorted(folder.rglob("*")) if folder.is_dir() else []:
        kind = _TYPES.get(file.suffix)
        if kind is None or not file.is_file():
            continue
        data = file.read_bytes()
        etag = b'"' + hashlib.sha256(data).hexdigest()[:32].encode() + b'"'
        found = PageFile(data, [*_HEADERS, (b"content-type", kind), (b"etag", etag)], etag)
        path = "/" + file.relative_to(folder).as_posix()
        out[path] = found
        if path == "/index.html":
            out["/"] = found
    return out
