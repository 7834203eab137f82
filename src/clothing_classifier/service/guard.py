"""What holds for every request, whatever its address: who may ask, what each answer's head says, what is counted."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Set
from ipaddress import ip_address
from time import perf_counter
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clothing_classifier.service.admission import Admission
from clothing_classifier.service.metrics import Metrics
from clothing_classifier.service.problems import MEDIA_TYPE, Problem
from clothing_classifier.service.settings import Settings

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    # Where an answer says nothing else: nothing may be loaded by it, and nothing keeps it.
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""Headers of every answer that has none of the same name."""

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_LINGER: Final = 2.0
"""Seconds for which the rest of a refused body is read and thrown away, so that the client gets to read the answer."""

_logger = logging.getLogger("clothing_classifier.service")
_access = logging.getLogger("clothing_classifier.service.access")


def respond(problem: Problem) -> Response:
    """Return a problem as an answer."""
    return Response(problem.body(), problem.status, problem.headers, MEDIA_TYPE)


class Guard:
    """Stands around the app.

    Args:
        app: the app.
        settings: hosts and key are asked for.
        paths: the addresses that are counted by their names; all others are one.
        metrics: what counts.
        admission: says whether the service is stopping.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, paths: Set[str], metrics: Metrics, admission: Admission
    ) -> None:
        self._app = app
        self._settings = settings
        self._paths = paths
        self._metrics = metrics
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; the signature is ASGI's."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        exchange = _Exchange(scope, receive, send, self._admission)
        try:
            self._check(scope)
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except Problem as problem:
            self._metrics.errors.labels("request", problem.kind).inc()
            await respond(problem)(scope, exchange.receive, exchange.send)
        except Exception:  # the app has answered it
            _logger.exception("%s %r failed", scope["method"], scope["path"])
        path, method = scope["path"], scope["method"]
        if self._settings.access_log:
            client, taken = (scope.get("client") or ("-",))[0], (perf_counter() - started) * 1e3
            _access.info("%s %s %r %d, %.0f ms", client, method, path, exchange.status, taken)
        if path not in self._paths:
            path = "/page" if path.startswith("/page/") else "other"
        method = method if method in ("GET", "HEAD", "POST") else "other"
        self._metrics.requests.labels(path, method, str(exchange.status)).inc()
        self._metrics.seconds.labels(path).observe(perf_counter() - started)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if "transfer-encoding" in headers and "content-length" in headers:
            # A proxy that believes the other of them takes a part of the body for the next request (RFC 9112, 6.1).
            raise Problem("malformed", "The request tells the length of its body in two ways.")
        host = headers.get("host")  # only a client of HTTP/1.0 may leave it out, and no browser does
        if host is not None and not self._goes_by(_host(host)):
            raise Problem(
                "misdirected",
                "The service does not go by the name in the Host header; who runs it adds names with --allow-host.",
            )
        if scope["method"] not in _SAFE and not _same_site(headers):
            raise Problem(
                "cross-site",
                "A page of another site sent this request; only the service's own page may. A proxy must leave the "
                "Host header as it is.",
            )
        path = scope["path"]
        if self._settings.key is not None and (path in ("/v1", "/metrics") or path.startswith("/v1/")):
            _check_key(headers, self._settings.key)

    def _goes_by(self, name: str) -> bool:
        """Return whether the service may be called so, see `allowed_hosts`."""
        names = self._settings.hosts
        return not names or name in names or _is_address(name)


class _Exchange:
    """One request and its answer: fills in the answer's head, and sees to it that a refused body is read out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, admission: Admission) -> None:
        headers = Headers(scope=scope)
        # Whatever answers GET answers HEAD; the server leaves the body away.
        self.scope: Scope = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        self.status = 0
        self._receive = receive
        self._send = send
        self._admission = admission
        self._unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self._expects = "expect" in headers  # the client waits for a word before it sends the body
        self._closing = False

    async def receive(self) -> Message:
        self._expects = False
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if headers.get("allow") == "GET":
                headers["Allow"] = "GET, HEAD"
            self._closing = self._unread
            if self._closing or self._admission.stopping:
                headers["Connection"] = "close"
            await self._send(message)
        elif self._closing and not self._expects and not message.get("more_body"):
            # A connection that is closed on bytes unread is reset, and the client may lose the answer.
            await self._send({**message, "more_body": True})
            await self._read_out()
            await self._send({"type": "http.response.body"})
        else:
            await self._send(message)

    async def _read_out(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + _LINGER
        while self._unread and (left := end - loop.time()) > 0:
            try:
                await asyncio.wait_for(self.receive(), left)
            except asyncio.TimeoutError:
                return


def _host(value: str) -> str:
    """Return the name in a ``Host`` header, without the port."""
    try:
        return (urlsplit(f"//{value}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _same_site(headers: Headers) -> bool:
    """Return whether a request comes from the service's own page, or from no page at all."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host")


def _check_key(headers: Headers, key: str) -> None:
    scheme, _, shown = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        shown = headers.get("x-api-key", "")
    # latin-1 is how header bytes became text, so any text goes back.
    if not hmac.compare_digest(shown.strip().encode("latin-1"), key.encode()):
        raise Problem(
            "unauthorized",
            "Send the API key as Authorization: Bearer KEY, or as X-API-Key: KEY.",
            # No browser shows a dialogue for it, as it would for Basic: the page has its own.
            headers={"WWW-Authenticate": "Bearer"},
        )


def allowed_hosts(host: str, others: Set[str]) -> frozenset[str]:
    """Return the names by which a service that listens on ``host`` may be called; empty if by any.

    A page of another site can have its own name resolve to this machine and then reads what it likes (DNS rebinding);
    but it cannot make the browser send another name than its own. An IP address is no name and resolves to nothing
    else, so the service may always be called by one, as load balancers and Kubernetes do that ask how it is.

    Args:
        host: the address that is listened on.
        others: further names. On an address that means all of the machine's, they are the only ones, if there are any.

    Raises:
        ValueError: one of the others is no name.
    """
    for other in others:
        if not _host(other) or set(other) & set("/?#@*"):
            raise ValueError(f"{other!r} is not the name of a host, such as shop.example")
    if is_everywhere(host) and not others:
        return frozenset()
    return frozenset({"localhost", host.lower(), *(_host(other) for other in others)})


def is_everywhere(host: str) -> bool:
    """Return whether to listen on ``host`` is to listen on all of the machine's addresses."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
