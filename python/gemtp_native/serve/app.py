"""The server's paths and their handlers."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..base.log import logger
from ..options import DEFAULTS, INT32_MAX, NUMBERS
from . import metrics
from .errors import RequestError, as_request_error
from .fields import Fields, parse_json
from .guard import Guard
from .http import Gone, Receive, Request, Send, dumps
from .page_files import page_files
from .requests import Work, chat_work, completion_work
from .service import Service
from .settings import ServerSettings

if TYPE_CHECKING:
    from ..model import Model

_log = logger("serve")
_requests = logger("serve.requests")

Handler = Callable[[Request], Awaitable[None]]


class App:
    """An ASGI application."""

    def __init__(self, model: Model, settings: ServerSettings):
        settings = replace(settings, sampling={**model.sampling, **settings.sampling})
        info = {"version": __version__, "model": settings.name, "isa": model.isa}
        self.service = Service(model, settings, info)
        self._model = model
        self._settings = settings
        self._guard = Guard(settings)
        self._files = page_files()
        self._created = int(time.time())
        self._chat = model._engine.chat_template is not None
        self._mode = "completion" if model.completes else "chat"
        self._open: dict[tuple[str, str], Handler] = {("GET", "/health"): self._health}
        for path in self._files:
            self._open["GET", path] = self._page
        self._routes: dict[tuple[str, str], Handler] = {
            ("POST", "/v1/chat/completions"): self._chat_completions,
            ("POST", "/v1/completions"): self._completions,
            ("GET", "/v1/models"): self._models,
            ("GET", f"/v1/models/{settings.name}"): self._one_model,
            ("GET", "/props"): self._props,
            ("GET", "/metrics"): self._metrics,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/detokenize"): self._detokenize,
        }

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive, send)
        begin = time.perf_counter()
        try:
            await self._handle(request)
        except Gone:
            request.abort()
        except RequestError as e:
            await self._refuse(request, e)
        except asyncio.CancelledError:
            request.abort()
            raise
        except Exception as e:
            error = as_request_error(e)
            if error.code == "internal":
                _log.exception("a request failed")
            await self._refuse(request, error)
        if request.status is not None:
            self.service.metrics.responses.add(label=str(request.status))
        _requests.info(
            "%s %s %s in %.3f s",
            request.method,
            ascii(request.path)[1:-1],
            request.status or "went away",
            time.perf_counter() - begin,
        )

    async def _refuse(self, request: Request, error: RequestError) -> None:
        if request.answered:
            request.abort()
        else:
            await request.respond_error(error)

    async def _handle(self, request: Request) -> None:
        request.check()
        self._guard.check(request.headers)
        request.extra += self._guard.cors(request.headers)
        if self.service.draining:
            request.extra.append((b"connection", b"close"))
        method = "GET" if request.method == "HEAD" else request.method
        handler = self._open.get((method, request.path))
        if handler is not None:
            await handler(request)
            return
        if method == "OPTIONS" and b"access-control-request-method" in request.headers:
            await request.respond(204, b"", headers=self._guard.preflight(request.headers))
            return
        self._guard.check_key(request.headers)
        handler = self._routes.get((method, request.path))
        if handler is None:  # clients whose base URL lacks /v1
            handler = self._routes.get((method, f"/v1{request.path}"))
        if handler is None:
            raise self._unknown(request)
        await handler(request)

    def _unknown(self, request: Request) -> RequestError:
        methods = [m for m, path in (*self._open, *self._routes) if path == request.path]
        if methods:
            return RequestError(
                f"{request.path} is asked with {methods[0]}, not {request.method[:20]}",
                code="method_not_allowed",
                status=405,
                headers=[(b"allow", ", ".join(methods).encode())],
            )
        if request.path.startswith("/v1/models/"):
            return RequestError(
                f"there is no such model; this server has {self._settings.name!r}",
                "model",
                "model_not_found",
                404,
            )
        paths = ", ".join(sorted({path for _, path in self._routes}))
        return RequestError(
            f"there is nothing at {request.path[:80]!r}; there is {paths}",
            code="not_found",
            status=404,
        )

    # ---------------------------------------------------------------- generating

    async def _chat_completions(self, request: Request) -> None:
        await self._generate(request, chat_work)

    async def _completions(self, request: Request) -> None:
        await self._generate(request, completion_work)

    async def _generate(
        self, request: Request, read: Callable[[dict[str, Any], ServerSettings], Work]
    ) -> None:
        async with self._body(request) as body:
            work = await self.service.off_loop(partial(self._read, read, body))
            await self.service.answer(request, work)

    def _read(self, read: Callable[[dict[str, Any], ServerSettings], Work], body: bytes) -> Work:
        work = read(parse_json(body), self._settings)
        self.service.check_length(work)
        return work

    async def _written(self, request: Request, answer: Callable[[Fields], Any]) -> None:
        """Answers requests that take more than a moment, but no pass of the model."""
        async with self._body(request) as body:
            out = await self.service.off_loop(lambda: dumps(answer(self._fields(body))))
            await request.respond_written(out)

    def _fields(self, body: bytes) -> Fields:
        return Fields(parse_json(body), lenient=self._settings.lenient)

    @asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        s = self._settings
        async with self.service.bodies.room(request.size(s.max_body), s.body_timeout):
            yield await request.body(s.max_body, s.body_timeout)

    # ---------------------------------------------------------------- the model

    async def _models(self, request: Request) -> None:
        await request.respond_json({"object": "list", "data": [self._description()]})

    async def _one_model(self, request: Request) -> None:
        await request.respond_json(self._description())

    def _description(self) -> dict[str, Any]:
        return {
            "id": self._settings.name,
            "object": "model",
            "created": self._created,
            "owned_by": "gemtp",
            "max_model_len": self._model.context,
        }

    async def _props(self, request: Request) -> None:
        s = self._settings
        await request.respond_json(
            {
                "model": s.name,
                "context": self._model.context,
                "threads": self._model.threads,
                "device": self._model.device,
                "gpu_layers": self._model.gpu_layers,
                "exact": True,  # no model opens on a device that has not proved it
                "isa": self._model.isa,
                "drafter": self._model.has_drafter,
                "version": __version__,
                "chat": self._chat,
                "mode": self._mode,
                "structured": importlib.util.find_spec("llguidance") is not None,
                "auth": bool(s.keys),
                "parallel": s.parallel,
                "max_tokens": s.max_tokens,
                "default_generation_settings": {
                    **{name: DEFAULTS[name] for name in NUMBERS},
                    **{k: v for k, v in s.sampling.items() if _is_json(v)},
                    "draft": s.draft,
                },
                "model_sampling": self._model.sampling,
            }
        )

    async def _tokenize(self, request: Request) -> None:
        await self._written(request, self._tokens_of)

    def _tokens_of(self, f: Fields) -> dict[str, Any]:
        text = f.text("content")
        if text is None:
            f.refuse("content", "it must be a text")
        bos, special = f.boolean("add_special"), f.boolean("parse_special")
        pieces = f.boolean("with_pieces")
        f.take("model")
        f.finish()
        ids = self._model.tokenize(text, add_bos=bool(bos), special=bool(special))
        if pieces:
            named = [{"id": i, "piece": self._model.detokenize([i], True)} for i in ids]
            return {"tokens": named, "count": len(ids)}
        return {"tokens": ids, "count": len(ids)}

    async def _detokenize(self, request: Request) -> None:
        await self._written(request, self._text_of)

    def _text_of(self, f: Fields) -> dict[str, Any]:
        ids = f.list("tokens")
        if ids is None or not all(type(i) is int and 0 <= i <= INT32_MAX for i in ids):
            f.refuse("tokens", "it must be a list of token ids")
        special = f.boolean("special")
        f.take("model")
        f.finish()
        return {"content": self._model.detokenize(ids, bool(special))}

    # ---------------------------------------------------------------- the server

    async def _health(self, request: Request) -> None:
        if self.service.draining:
            await request.respond_json({"status": "draining"}, 503)
        elif failure := self.service.failure:
            await request.respond_json({"status": "failed", "message": failure}, 503)
        else:
            await request.respond_json({"status": "ok"})

    async def _metrics(self, request: Request) -> None:
        await request.respond(200, self.service.metrics.text(), metrics.CONTENT_TYPE.encode())

    async def _page(self, request: Request) -> None:
        file = self._files[request.path]
        known = [tag.strip() for tag in request.headers.get(b"if-none-match", b"").split(b",")]
        if file.etag in known or b"W/" + file.etag in known:
            headers = [h for h in file.headers if h[0] != b"content-type"]
            await request.respond(304, b"", headers=headers)
        else:
            await request.respond(200, file.data, headers=file.headers)


def _is_json(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str, list)) or value is None
