"""Listening, and stopping without losing anything."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from types import FrameType
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from clothing_classifier.service.app import Service
from clothing_classifier.service.decoder import STOPPING
from clothing_classifier.service.guard import HEADERS
from clothing_classifier.service.problems import MEDIA_TYPE, Problem

_HEAD_SECONDS: Final = 10.0
"""Seconds that a request's head may take to come."""

_IDLE_SECONDS: Final = 75
"""Seconds that a connection is kept without a request: longer than proxies keep theirs, a minute as a rule. Otherwise
one might send a request just as the connection is closed."""

_MOST_CONNECTIONS: Final = 4096
"""Connections that are open at once, where there are file descriptors for them. An idle one takes four kilobytes."""

_RESERVE: Final = 128
"""File descriptors that connections leave to all else: to decoders, and to connections that are closed at once."""

_ACCEPTED: Final = 16
"""Connections that are accepted at one go. Until then none of them can be closed again."""

_QUEUE: Final = 1024
"""Connections that wait to be accepted, in the kernel."""

_GRACE: Final = 0.3
"""Seconds for which a service that stops still answers, so that whoever asks is told and goes elsewhere."""

_LONGEST_STOP: Final = 22.0
"""Seconds that what is under way gets to be finished. Most supervisors kill after thirty, and uvicorn adds five."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: an address or a name of this machine.
        port: 0 for any that is free.

    Raises:
        OSError: it cannot listen there.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:  # what cannot even be asked for
        raise socket.gaierror(socket.EAI_NONAME, "this is not a name or an address") from error
    family, _, _, _, address = found[0]
    # With the protocol named: only then does asyncio send small answers at once (TCP_NODELAY), 40 ms sooner.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would let two services share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_QUEUE)
    except OSError:
        listener.close()
        raise
    return listener


def serve(service: Service, listener: socket.socket, *, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or SIGINT. What is under way then is finished; a second signal ends it.

    Args:
        service: what is served.
        listener: what it is served on.
        ready: called as soon as requests are answered.

    Raises:
        OSError: it cannot be started; the log says why.
    """
    # What clients send is no news for the log; what fails in here is.
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)
    config = uvicorn.Config(
        service.app,
        http=_Protocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        backlog=_ACCEPTED,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=5,
    )
    server = _Server(config, service, ready)
    with suppress(SystemExit):  # which is how newer uvicorns end a start that failed
        server.run([listener])
    if not server.started:
        raise OSError("the service could not be started; the lines above say why")


def _most_connections() -> int:
    """Return how many connections may be open at once, so that file descriptors are left for all else."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return _MOST_CONNECTIONS
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return min(_MOST_CONNECTIONS, max(descriptors - _RESERVE, descriptors // 4))


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._service = service
        self._ready = ready
        self._stopped: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            for listener in sockets or ():
                listener.listen(_QUEUE)  # which asyncio has made as short as what it accepts at one go
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Unlike uvicorn's own, this one does not send the signal again once all is done: the process ends with 0.
        handlers = {number: signal.signal(number, self.handle_exit) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._stopped is not None:
            self.should_exit = self.force_exit = True
        else:
            self._stopped = monotonic()
            self._service.admission.stopping = True

    async def on_tick(self, counter: int) -> bool:
        if self._stopped is not None:
            passed = monotonic() - self._stopped
            if (passed > _GRACE and not self._service.admission.under_way) or passed > _LONGEST_STOP:
                self.should_exit = True
        return await super().on_tick(counter)


class _Protocol(H11Protocol):
    """HTTP/1.1 of a limited number of connections, whose heads must come in time, and whose errors are problems too."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _most_connections():
            transport.abort()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Give the head of a request that has begun some seconds to be complete."""
        waiting = self.conn.their_state is h11.IDLE
        if waiting and self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(_HEAD_SECONDS, self.transport.close)
        elif not waiting and self._late is not None:
            self._late.cancel()
            self._late = None

    def send_400_response(self, msg: str) -> None:
        problem = Problem("malformed", "This is not an HTTP request that can be read, or its head is too large.")
        body = problem.body()
        further = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), "Connection": "close"}
        headers: Any = list((HEADERS | further).items())
        head = h11.Response(status_code=400, reason="Bad Request", headers=headers)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
