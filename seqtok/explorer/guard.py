"""Who may ask, how much, and what the page may do: the Host, the Origin, the size of a request, and the headers.

A page of another site can make a browser send requests to this machine. One that points its own name here (DNS
rebinding) is known by the Host it asks for; one that posts across sites by its Origin.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 32 * 2**20  # of a request: a picture, or the latents of one
_SWALLOWED = 8  # times as many are read, and thrown away, before a refusal
_HERE = frozenset({"localhost", "127.0.0.1", "::1"})
_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A report has its style and its pictures inside it, and no script; the explorer shows it in a frame.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


async def _swallow(receive: Receive, most: int) -> None:
    """Read the rest of a body that is refused: who is still sending would see a broken connection, not the reason."""
    more = True
    while more and most > 0:
        message = await receive()
        most -= len(message.get("body", b""))
        more = message.get("more_body", False)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def may_be_asked(host: str, listens: str) -> bool:
    """Whether a server that listens at `listens` answers for `host`, as the Host header names it, port and all.

    Where it listens for other machines, every plain address is one of its own: rebinding needs a name.
    """
    name = _name_of(host)
    if is_loopback(listens):
        return name in _HERE or name == listens
    return name in _HERE or name in (listens.lower(), socket.gethostname().lower()) or _address(name) is not None


def _name_of(host: str) -> str:
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class Guard:
    """Around an application. Refusals are {"error": one sentence}."""

    def __init__(self, app: ASGIApp, listens: str, most_bytes: int = MOST_BYTES) -> None:
        self.app, self.listens, self.most_bytes = app, listens, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refused = self._refusal(Headers(scope=scope))

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", _PAGE)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        if refused is not None:
            status, reason = refused
            await _swallow(receive, _SWALLOWED * self.most_bytes)
            await JSONResponse({"error": reason}, status)(scope, receive, with_headers)
            return
        await self.app(scope, self._counted(receive), with_headers)

    def _refusal(self, headers: Headers) -> tuple[int, str] | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not may_be_asked(host, self.listens):
            return (
                421,
                f"this is not {_name_of(host)[:80] or 'a server without a name'}; use the address that was printed",
            )
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return 403, "another site asks; only the explorer's own page may"
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return 403, "another site asks; only the explorer's own page may"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.most_bytes:
            return 413, self._too_much()
        return None

    def _counted(self, receive: Receive) -> Receive:
        """A body without a length, too, ends at the limit."""
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.most_bytes:
                if message.get("more_body"):
                    await _swallow(receive, _SWALLOWED * self.most_bytes)
                raise HTTPException(413, self._too_much())
            return message

        return counted

    def _too_much(self) -> str:
        return f"more than {self.most_bytes // 2**20} MiB; choose a smaller picture"
