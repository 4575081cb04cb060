"""Checks Host and Origin, against pages of other sites, and API keys."""

from __future__ import annotations

import hmac
import ipaddress
import re

from .errors import Header, RequestError
from .settings import ServerSettings

# A name or an address, and a port. Nothing else is accepted in a Host, or after the scheme of an
# Origin, because other forms could be read in different ways.
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_.-]+))(?::([0-9]{1,5}))?", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}


class Guard:
    """A page of another site can make a browser send requests here. By pointing its own name here
    (DNS rebinding) it can also read the answers. Against the latter, only known names of this
    server are accepted; against the former, an Origin must match the Host.
    """

    def __init__(self, settings: ServerSettings):
        self._keys = [key.encode() for key in settings.keys]
        self._origins = settings.origins
        self._hosts = {name.lower().rstrip(".") for name in ("localhost", *settings.hosts)}
        self._exposed = not is_loopback(settings.host)
        if not is_any(settings.host):
            self._hosts.add(settings.host.lower())

    def check(self, headers: dict[bytes, bytes]) -> None:
        """Raises RequestError for a Host or Origin that is not allowed."""
        given = headers.get(b"host", b"").decode("latin-1")
        host = _place(given)
        if host is None or not self._is_own(host[0]):
            raise RequestError(
                f"this server does not go by the name {given[:80]!r}; use localhost, or start it "
                "with --allow-host NAME",
                code="host_not_allowed",
                status=403,
            )
        origin = headers.get(b"origin")
        if origin is not None and self.allowed_origin(headers) is None:
            text = origin.decode("latin-1")
            if not _is_same(text, host):
                raise RequestError(
                    f"pages of {text[:80]!r} may not use this server; start it with "
                    "--cors ORIGIN to let them",
                    code="origin_not_allowed",
                    status=403,
                )

    def _is_own(self, name: str) -> bool:
        if name in self._hosts or is_loopback(name):
            return True
        return self._exposed and _is_address(name)

    def allowed_origin(self, headers: dict[bytes, bytes]) -> bytes | None:
        """The value of Access-Control-Allow-Origin."""
        origin = headers.get(b"origin")
        if origin is None:
            return None
        if "*" in self._origins:
            return b"*"
        return origin if origin.decode("latin-1") in self._origins else None

    def check_key(self, headers: dict[bytes, bytes]) -> None:
        """Raises RequestError without a valid key, if keys are required."""
        if not self._keys:
            return
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        given = key.strip() if scheme.lower() == b"bearer" else b""
        # Compare with all keys, so that the time does not reveal which one is close.
        if not sum(hmac.compare_digest(given, known) for known in self._keys):
            raise RequestError(
                "the API key is missing or wrong; send it as Authorization: Bearer KEY",
                code="invalid_api_key",
                status=401,
                headers=[(b"www-authenticate", b"Bearer")],
            )

    def cors(self, headers: dict[bytes, bytes]) -> list[Header]:
        """Headers that allow a page to read the answer."""
        allowed = self.allowed_origin(headers)
        if allowed is None:
            return []
        return [(b"access-control-allow-origin", allowed), (b"vary", b"origin")]

    def preflight(self, headers: dict[bytes, bytes]) -> list[Header]:
        asked = headers.get(b"access-control-request-headers", b"authorization, content-type")
        private = headers.get(b"access-control-request-private-network") == b"true"
        return [
            *self.cors(headers),
            *([(b"access-control-allow-private-network", b"true")] if private else []),
            (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
            (b"access-control-allow-headers", asked),
            (b"access-control-max-age", b"600"),
        ]


def is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # names in localhost are this machine's in every browser
        return ("." + host.lower()).endswith(".localhost")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def is_any(host: str) -> bool:
    """Whether a socket bound to this host listens on all addresses."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host == ""


def _place(text: str) -> tuple[str, int | None] | None:
    """Splits a Host into name and port; None if it is malformed."""
    if text.count(":") > 1 and _is_address(text):  # should have been in brackets
        return text.lower(), None
    found = _HOST.fullmatch(text)
    if found is None or (found[1] is not None and not _is_address(found[1])):
        return None
    name = (found[1] or found[2]).lower()
    port = int(found[3]) if found[3] else None
    return name.removesuffix("."), port


def _is_same(origin: str, host: tuple[str, int | None]) -> bool:
    """Whether an Origin matches the Host; all loopback names count as the same."""
    scheme, _, rest = origin.partition("://")
    place = _place(rest)
    if scheme not in _PORTS or place is None:
        return False
    usual = _PORTS[scheme]
    if (place[1] or usual) != (host[1] or usual):
        return False
    return place[0] == host[0] or (is_loopback(place[0]) and is_loopback(host[0]))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
