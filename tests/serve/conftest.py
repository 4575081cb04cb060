"""What the tests of the page share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fake_gemtp_server import FakeServer, Script


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeServer]]:
    """serve(**script) starts a stand-in for the server; all of them end with the test."""
    servers = []

    def start(**script: object) -> FakeServer:
        servers.append(FakeServer(Script(**script)))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
