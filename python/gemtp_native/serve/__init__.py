"""An HTTP server that speaks OpenAI's protocol: `gemtp serve`, and serve() for other programs.

A request passes through in this order: `http` (the connection), `guard` (who may ask), `fields` and
`requests` (what is asked for), `slots` (its turn), `sequence` (a worker thread generates),
`channel` (back to the event loop), `answers` (the protocol's shapes).
"""

from __future__ import annotations

from .settings import ServerSettings

__all__ = ["ServerSettings"]
