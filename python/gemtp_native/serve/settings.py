"""What a server allows and assumes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ServerSettings:
    """Times are seconds, sizes bytes."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0: any that is free."""
    name: str = "gemtp"
    """Of the model, as /v1/models and answers give it."""
    parallel: int = 4
    """Sequences that are generated at once."""
    queue: int = 64
    """Sequences that may wait for their turn."""
    timeout: float = 600
    """From the arrival of a request to the end of its answer."""
    drain: float = 30
    """How long running answers may go on when the server is told to end."""
    keys: tuple[str, ...] = ()
    """Any of them is asked for; none: nothing is."""
    origins: tuple[str, ...] = ()
    """Web pages that may use the API, besides those of this server; "*": all."""
    hosts: tuple[str, ...] = ()
    """Names that this server goes by, besides those of the loopback interface."""
    lenient: bool = False
    """Ignore members of requests that are not known."""
    max_tokens: int | None = None
    """Most that an answer may have."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """What requests that say nothing get, where it is not what the model's file recommends; unless
    there is a seed, each gets a new one."""
    draft: Any = "auto"

    max_body: int = 4 << 20
    max_bodies: int = 32 << 20
    """Of the larger requests that are in work together, those that wait for their turn included."""
    max_stops: int = 64
    max_sequences: int = 64
    """Of one request: prompts times n."""
    header_timeout: float = 10
    body_timeout: float = 30
    send_timeout: float = 30
    """How long a client may read nothing."""
    keep_alive: float = 30
    connections: int = 512
    buffer: int = 1 << 20
    """Of an answer, before its generation waits for the client."""
