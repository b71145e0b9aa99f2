"""What every request passes before the application sees it: who asks, how much, and the headers of the answer."""

import asyncio
import hashlib
import hmac
from collections.abc import Collection
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quickstudy.serve.limits import Limits, shortened
from quickstudy.serve.refusal import Refusal, error_response

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_CONTENT = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _CONTENT,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_SAFE = ("GET", "HEAD", "OPTIONS")
_SWALLOWED = 8  # times the limit of a body that is read and thrown away, so that the client sees the answer
_SWALLOWING = 5.0  # seconds


class Guard:
    """Pure ASGI middleware.

    It refuses a Host that is not this server's (DNS rebinding), a change that another site's page asks for, a missing
    or wrong token, a body that is too large or too slow whatever its Content-Length says, and more requests at once
    than the limit. The application behind it gets the body in one piece. Only who passed by host and token takes up
    room among the requests at once, and the open paths, which have room of their own, read no body.

    Args:
        app: the application.
        limits: of body and of requests at once.
        token: what ``Authorization: Bearer`` must carry; None asks for none.
        hosts: names this server may be called by; None allows all.
        open_paths: need no token, and take no body.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        token: str | None,
        hosts: Collection[str] | None,
        open_paths: Collection[str],
    ):
        self.app, self.limits, self.hosts, self.open_paths = app, limits, hosts, open_paths
        self._token = None if token is None else _digest(token.encode())
        beside = max(1, limits.at_once // 4)
        self._admitted, self._open, self._swallowing = _Room(limits.at_once), _Room(beside), _Room(beside)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, body = Headers(scope=scope), _Body(receive)
        try:
            self._check(scope, headers)
            if scope["path"] in self.open_paths:  # reads no body, so that nobody can hold it by one that never comes
                answer = _with_headers(send, scope, closing=_has_body(headers))
                with self._open:
                    await self.app(scope, _once(b"", receive), answer)
                return
            with self._admitted:
                content = await self._read(body, headers)
                if not body.left:
                    await self.app(scope, _once(content, receive), _with_headers(send, scope))
        except Refusal as refusal:  # of the guard's own: the application answers its own
            if headers.get("expect", "").lower() != "100-continue":
                with suppress(Refusal), self._swallowing:
                    await self._swallow(body)
            answer = _with_headers(send, scope, closing=True)
            await error_response(refusal.status, refusal.message, refusal.headers)(scope, receive, answer)

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            raise Refusal(
                403,
                f"the request is for host {shortened(host)}; required is {' or '.join(sorted(self.hosts))}: call it by "
                "that name, or add yours with --allow-host",
            )
        origin = headers.get("origin")
        if scope["method"] not in _SAFE and origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise Refusal(403, f"a page of {shortened(origin)} asks for a change; only this server's own page may")
        if self._token is not None and scope["path"] not in self.open_paths:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(_digest(given.strip().encode()), self._token):
                what = "a wrong token" if given else "no token"
                raise Refusal(
                    401,
                    f"{what} was sent; required is the header Authorization: Bearer TOKEN, with the token that the "
                    "server was started with",
                    {"WWW-Authenticate": "Bearer"},
                )

    async def _read(self, body: "_Body", headers: Headers) -> bytes:
        """The whole body, or what there is of it if the client went away."""
        declared = headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > self.limits.body_bytes:
            raise self._too_large()
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while body.more:
                    parts.append(await body.part())
                    size += len(parts[-1])
                    if size > self.limits.body_bytes:
                        raise self._too_large()
        except TimeoutError as error:
            raise Refusal(
                408, f"the request did not arrive within {self.limits.body_seconds:g} seconds: send it again"
            ) from error
        return b"".join(parts)

    async def _swallow(self, body: "_Body") -> None:
        """Take what the client still sends, within reason: one that cannot send on may never see the answer."""
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_SWALLOWING):
                while body.more and size <= _SWALLOWED * self.limits.body_bytes:
                    size += len(await body.part())

    def _too_large(self) -> Refusal:
        return Refusal(
            413,
            f"the request is larger than {self.limits.body_bytes:,} bytes; send fewer or smaller images at a time",
        )


class _Room:
    """Room for so many at once; one more is refused."""

    def __init__(self, most: int):
        self._most, self._inside = most, 0

    def __enter__(self) -> None:
        if self._inside >= self._most:
            message = f"{self._most + 1} requests at once; required are at most {self._most}: try again in a second"
            raise Refusal(429, message, {"Retry-After": "1"})
        self._inside += 1

    def __exit__(self, *_: object) -> None:
        self._inside -= 1


class _Body:
    """A body as it arrives: whether ``more`` is to come, and whether the client has ``left``."""

    def __init__(self, receive: Receive):
        self._receive, self.more, self.left = receive, True, False

    async def part(self) -> bytes:
        message = await self._receive()
        self.left = message["type"] != "http.request"
        self.more = not self.left and message.get("more_body", False)
        return message.get("body", b"")


def _once(body: bytes, receive: Receive) -> Receive:
    """The body, and after it whatever comes: that the client went away."""
    pieces = [body]

    async def again() -> Message:
        if pieces:
            return {"type": "http.request", "body": pieces.pop(), "more_body": False}
        return await receive()

    return again


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _with_headers(send: Send, scope: Scope, *, closing: bool = False) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in {**HEADERS, "Cache-Control": "no-store"}.items():
                headers.setdefault(name, value)
            if closing or scope["app"].state.closing:
                headers["Connection"] = "close"
        await send(message)

    return answer


def _name(host: str) -> str:
    """A Host header without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
