"""Errors in the form of OpenAI's protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..errors import (
    ArgumentError,
    CancelledError,
    ContextError,
    DeviceError,
    Error,
    OutOfMemoryError,
    in_one_line,
)

Header = tuple[bytes, bytes]

DEVICE_FAILED = "device_failed"  # a code: from now on every request ends so
_LONGEST = 380  # characters of a message


class RequestError(Exception):
    """An error answer: what is wrong, where, and what to do."""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        headers: Sequence[Header] = (),
    ):
        self.message = in_one_line(message, _LONGEST)
        super().__init__(self.message)
        self.param = param
        self.code = code
        self.status = status
        self.headers = list(headers)

    @property
    def type(self) -> str:
        if self.status == 401:
            return "authentication_error"
        if self.status == 403:
            return "permission_error"
        return "invalid_request_error" if self.status < 500 else "server_error"

    def body(self) -> bytes:
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return json.dumps({"error": error}, ensure_ascii=False).encode("utf-8", "replace")


def busy(message: str, code: str) -> RequestError:
    """An error after which the client may try again soon."""
    return RequestError(message, code=code, status=503, headers=[(b"retry-after", b"1")])


def final(message: str, code: str, status: int) -> RequestError:
    """A server error that clients should not retry, as they do after most server errors."""
    return RequestError(message, code=code, status=status, headers=[(b"x-should-retry", b"false")])


def draining() -> RequestError:
    return busy("the server is shutting down; ask another one", "draining")


def timed_out(seconds: float) -> RequestError:
    return final(
        f"the answer was not complete after {seconds:g} seconds; ask for fewer tokens, or start "
        "the server with a longer --timeout",
        "timeout",
        504,
    )


def as_request_error(e: BaseException, param: str | None = None) -> RequestError:
    """Converts an exception of the engine to an error for the client."""
    if isinstance(e, RequestError):
        return e
    if isinstance(e, ContextError):
        return RequestError(str(e), param, "context_length_exceeded")
    if isinstance(e, ArgumentError):
        return RequestError(str(e), param, "invalid_value")
    if isinstance(e, CancelledError):
        return draining()
    if isinstance(e, (OutOfMemoryError, MemoryError)):
        return busy(f"no memory for another sequence now: {e}", "out_of_memory")
    if isinstance(e, Error):
        code = DEVICE_FAILED if isinstance(e, DeviceError) else "model_error"
        return final(str(e), code, 500)
    return final(
        f"an internal error ({type(e).__name__}); the server's log has it", "internal", 500
    )
