"""The settings of a server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ServerSettings:
    """Times are in seconds, sizes in bytes."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0: any free port."""
    name: str = "gemtp"
    """Name of the model in /v1/models and in answers."""
    parallel: int = 4
    """Number of sequences that are generated at once."""
    queue: int = 64
    """Number of sequences that may wait for their turn."""
    timeout: float = 600
    """Longest time from the arrival of a request to the end of its answer."""
    drain: float = 30
    """How long running answers may continue when the server is told to end."""
    keys: tuple[str, ...] = ()
    """Accepted API keys; empty: no key is required."""
    origins: tuple[str, ...] = ()
    """Origins of web pages that may use the API, besides this server's own; "*": all."""
    hosts: tuple[str, ...] = ()
    """Names of this server, besides those of the loopback interface."""
    lenient: bool = False
    """Ignore unknown members of requests."""
    max_tokens: int | None = None
    """Maximum number of tokens of an answer."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """Defaults of sampling options that override what the model's file recommends. Without a seed,
    each request gets a random one."""
    draft: Any = "auto"

    max_body: int = 4 << 20
    max_bodies: int = 32 << 20
    """Total bytes of larger request bodies at a time, including requests that wait for their
    turn."""
    max_stops: int = 64
    max_sequences: int = 64
    """Maximum number of sequences of one request: prompts times n."""
    header_timeout: float = 10
    body_timeout: float = 30
    send_timeout: float = 30
    """How long a client may not read."""
    keep_alive: float = 30
    connections: int = 512
    buffer: int = 1 << 20
    """Unsent bytes of an answer at which its generation waits for the client."""
