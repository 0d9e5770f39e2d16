"""Answers GET /health, /health/ready and /health/live inside the supervisor's loop: no thread, no user code, and no
client that can hold up the pool.

Sockets never block, requests are small or refused, and each client has two seconds. The answer is that of
a function that reads what the supervisor knows already: it costs no query, and also comes while a statement waits.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

logger = logging.getLogger("pgq")

#: Bytes of a request: a probe sends a line and a few headers.
_REQUEST_BYTES = 8192
#: Seconds a client has from its connection to the answer.
_CLIENT_SECONDS = 2.0
#: Clients at a time. The next one takes the place of the oldest, or slow ones could lock out the probes.
_MAX_CLIENTS = 64
#: Seconds between two attempts to take a port that another process has.
_TRY_AGAIN_SECONDS = 1.0

#: Whether the pool runs tasks; and whether its loop turns, which alone is a reason to kill the process: a pool that
#: PostgreSQL has left, or that finishes its tasks before it stops, is worse off after a restart.
_READY, _LIVE = (b"/health", b"/health/ready"), b"/health/live"

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


@dataclass(eq=False)
class _Client:
    socket: socket.socket
    until: float
    request: bytes = field(default=b"")


class HealthServer:
    """Listens on one port.

    Args:
        trouble: Returns what is wrong, or None. It is logged when it changes; the client reads "ok" or "problem".
    """

    def __init__(self, host: str, port: int, trouble: Callable[[], str | None]) -> None:
        self.host, self.port, self.trouble = host, port, trouble
        #: Of these sockets only, so that they can be served while the loop waits for a statement. An epoll or kqueue
        #: can be watched by another one: this is what the supervisor's loop registers.
        self.selector = selectors.DefaultSelector()
        self.listening: socket.socket | None = None
        self.clients: list[_Client] = []
        self.open_at = 0.0
        self.last_trouble: str | None = None

    def fileno(self) -> int:
        """Return what becomes readable when there is something to do."""
        # All but SelectSelector have it.
        return self.selector.fileno()

    def open(self) -> None:
        """Listen, if the port can be had; a port that another process has keeps no task from running."""
        now = time.monotonic()
        if self.listening is not None or now < self.open_at:
            return
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, address = found[0]
            listening = socket.socket(family, kind, protocol)
            try:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.setblocking(False)
                listening.bind(address)
                listening.listen(_MAX_CLIENTS)
            except OSError:
                listening.close()
                raise
        except OSError as error:
            if not self.open_at:
                logger.error(
                    "/health cannot listen on %s:%d (PGQ['health_host'], PGQ['health_port']): %s; it is tried again",
                    self.host,
                    self.port,
                    error.strerror or error,
                )
            self.open_at = now + _TRY_AGAIN_SECONDS
            return
        self.listening = listening
        self.selector.register(listening, selectors.EVENT_READ, self._accept)
        logger.info("/health is answered on %s:%d", self.host, self.port)

    def close(self) -> None:
        for client in list(self.clients):
            self._drop(client)
        if self.listening is not None:
            self.listening.close()
            self.listening = None
        self.selector.close()

    def serve(self) -> None:
        """Do what can be done without waiting."""
        self.open()
        for key, _ in self.selector.select(0):
            key.data()
        now = time.monotonic()
        for client in [client for client in self.clients if now > client.until]:
            self._drop(client)

    def _accept(self) -> None:
        assert self.listening is not None
        try:
            accepted, _ = self.listening.accept()
        except OSError:
            # It has gone again, or there is no file descriptor left.
            return
        accepted.setblocking(False)
        if len(self.clients) >= _MAX_CLIENTS:
            self._drop(self.clients[0])
        client = _Client(accepted, time.monotonic() + _CLIENT_SECONDS)
        self.clients.append(client)
        self.selector.register(accepted, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: _Client) -> None:
        if client not in self.clients:
            # It was dropped for another one, among the events of the same select.
            return
        try:
            received = client.socket.recv(_REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        client.request += received
        if b"\r\n\r\n" in client.request or b"\n\n" in client.request:
            self._answer(client, *self._decide(client.request))
        elif len(client.request) >= _REQUEST_BYTES:
            self._answer(client, 431, "problem")
        elif not received:
            self._drop(client)

    def _decide(self, request: bytes) -> tuple[int, str]:
        method, _, rest = request.partition(b" ")
        target, _, version = rest.partition(b"\n")[0].partition(b" ")
        if not version.startswith(b"HTTP/1."):
            return 400, "problem"
        path = target.partition(b"?")[0].rstrip(b"/")
        if path not in (*_READY, _LIVE):
            return 404, "problem"
        if method not in (b"GET", b"HEAD"):
            return 405, "problem"
        if path == _LIVE:
            return 200, "ok"
        trouble = self.trouble()
        if trouble != self.last_trouble:
            self.last_trouble = trouble
            logger.warning("/health: %s", trouble) if trouble else logger.info("/health: ok again")
        return (503, "problem") if trouble else (200, "ok")

    def _answer(self, client: _Client, code: int, status: str) -> None:
        body = f'{{"status": "{status}"}}'
        allow = "Allow: GET, HEAD\r\n" if code == 405 else ""
        head = (
            f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Cache-Control: no-store\r\n{allow}Connection: close\r\n\r\n"
        )
        with contextlib.suppress(OSError):
            # It fits into the buffer of any socket, whether the client reads it or not.
            client.socket.send((head + ("" if client.request.startswith(b"HEAD ") else body)).encode())
            client.socket.shutdown(socket.SHUT_WR)
        self._drop(client)

    def _drop(self, client: _Client) -> None:
        self.clients.remove(client)
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(client.socket)
        client.socket.close()
