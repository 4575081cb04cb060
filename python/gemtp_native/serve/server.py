"""The process: a socket, uvicorn on it, and how it ends."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from ..errors import FileError
from .app import App
from .connection import protocol
from .settings import ServerSettings

if TYPE_CHECKING:
    from ..model import Model

_CLOSING = 3  # seconds for sending answers after their work has ended


def listen(host: str, port: int) -> socket.socket:
    """Binds a socket before anything is loaded; connections are refused until the server runs."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, number, _, address = found[0]
        bound = socket.socket(family, kind, number)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except OSError as e:
        raise FileError(
            f"cannot listen on {host} port {port}: {e.strerror}; choose another --port or --host"
        ) from None
    return bound


def serve(
    model: Model,
    settings: ServerSettings,
    sock: socket.socket,
    say: Callable[[str], Any] = lambda _: None,
) -> None:
    """Serves until the process receives SIGTERM or SIGINT; then running answers get
    ``settings.drain`` more seconds. A second signal ends them at once."""
    _allow_files(2 * settings.connections + 256)
    app = App(model, settings)
    config = uvicorn.Config(
        app,
        http=protocol(settings.header_timeout, settings.connections),
        loop="asyncio",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=1024,
        timeout_keep_alive=int(settings.keep_alive),
        timeout_graceful_shutdown=_CLOSING,
        h11_max_incomplete_event_size=64 << 10,
    )
    server = _Server(config, app, say)
    app.service.connections = lambda: len(server.server_state.connections)
    try:
        server.run([sock])
    finally:
        app.service.close()


def _allow_files(count: int) -> None:
    """Raises the limit on open files: more connections may arrive at once than are kept."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= soft < count:
            wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: App, say: Callable[[str], Any]):
        super().__init__(config)
        self._service = app.service
        self._say = say
        self._deadline: float | None = None
        self._signals = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = (sockets or [])[0].getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._say(f"a page to chat at {address}/, OpenAI's protocol at {address}/v1")
        self._say(f"listening on {address}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._signals += 1

    async def on_tick(self, counter: int) -> bool:
        if self._signals and self._deadline is None:
            self._service.draining = True
            self._deadline = time.monotonic() + self._service.settings.drain
            if not self._service.idle:
                self._say(
                    f"finishing what runs, for up to {self._service.settings.drain:g} seconds; "
                    "again to end now"
                )
        if self._deadline is not None and (
            self._service.idle or self._signals > 1 or time.monotonic() > self._deadline
        ):
            self._service.stop()
            return True
        return await super().on_tick(counter)
