"""A proxy between pgq and PostgreSQL that understands enough of the protocol to do harm at the right moment.

``loses`` is called at each commit: if true, PostgreSQL commits, and the reply never arrives: both sides are cut.
``stops`` is called then, too: if true, PostgreSQL never gets that commit, and both sides are cut.
``swallows`` is called at each message: if true, the message is taken, and nothing ever comes back.

All are given what the session calls itself (application_name) and, for a commit, the statements of its transaction.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_CANCEL_REQUEST = 80877102


def _never(*_: Any) -> bool:
    return False


class Proxy:
    """Listens on a port of its own, for plain connections only.

    Attributes:
        dsn: What to connect to instead of the DSN of PostgreSQL.
        lost: Of each reply or commit that was kept back, the session and the statements it was for.
        accepted: How many connections have come.
    """

    def __init__(self, dsn: str) -> None:
        server = conninfo_to_dict(dsn)
        self.target = str(Path(str(server["host"])) / f".s.PGSQL.{server.get('port', 5432)}")
        self.loses: Callable[[str, Sequence[str]], bool] = _never
        self.stops: Callable[[str, Sequence[str]], bool] = _never
        self.swallows: Callable[[str], bool] = _never
        self.lost: list[tuple[str, list[str]]] = []
        self.accepted = 0
        self.sessions: set[_Session] = set()
        self.threads: list[threading.Thread] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        port = self.listener.getsockname()[1]
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")
        self.acceptor = threading.Thread(target=self._accept, daemon=True)
        self.acceptor.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.accepted += 1
                self.threads.append(threading.Thread(target=_Session(self, client).run, daemon=True))
                self.threads[-1].start()

    def close(self) -> None:
        # This ends accept(), which close() would not.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.acceptor.join()
        self.listener.close()
        for session in list(self.sessions):
            session.cut()
        for thread in self.threads:
            thread.join()


class _Session:
    """One connection of a client, and the one to PostgreSQL that belongs to it."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self.proxy, self.client = proxy, client
        self.server = socket.socket(socket.AF_UNIX)
        self.name = ""
        #: Texts of prepared statements by name; of this transaction; of the messages since the last Sync.
        self.prepared: dict[str, str] = {}
        self.statements: list[str] = []
        self.in_transaction = False
        #: The reply that comes next is lost.
        self.losing = False

    def run(self) -> None:
        self.proxy.sessions.add(self)
        replies = threading.Thread(target=self._to_client, daemon=True)
        with self.client, self.server:
            with contextlib.suppress(OSError):
                self.server.connect(self.proxy.target)
                replies.start()
                self._to_server()
            self.cut()
            if replies.ident is not None:
                replies.join()

    def cut(self) -> None:
        self.proxy.sessions.discard(self)
        for side in (self.client, self.server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def _to_server(self) -> None:
        with self.client.makefile("rb") as stream:
            self._forward(stream)

    def _forward(self, stream: Any) -> None:
        head = stream.read(8)
        if len(head) < 8:
            return
        length, code = struct.unpack("!ii", head)
        rest = stream.read(length - 8)
        if code != _CANCEL_REQUEST:
            words = rest.decode().split("\0")
            self.name = dict(zip(words[::2], words[1::2], strict=False)).get("application_name", "")
        self.server.sendall(head + rest)
        for kind, message in _messages(stream):
            if self.proxy.swallows(self.name):
                continue
            self._note(kind, message[5:])
            self.server.sendall(message)

    def _note(self, kind: bytes, body: bytes) -> None:
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self.prepared[name.decode()] = text.decode()
        elif kind == b"B":
            name = body.split(b"\0", 2)[1]
            self.statements.append(self.prepared.get(name.decode(), ""))
        elif kind == b"Q":
            self.statements.append(body.rstrip(b"\0").decode())
        if kind in (b"S", b"Q") and self._is_commit(kind):
            statements, self.statements = self.statements, []
            if statements and self.proxy.stops(self.name, statements):
                self.proxy.lost.append((self.name, statements))
                raise ConnectionAbortedError("the proxy was asked to stop this commit")
            # Before it is sent, or the reply might be through.
            if statements and self.proxy.loses(self.name, statements):
                self.losing = True
                self.proxy.lost.append((self.name, statements))

    def _is_commit(self, kind: bytes) -> bool:
        if self.in_transaction:
            return bool(self.statements) and self.statements[-1].upper().startswith("COMMIT")
        return not (self.statements and self.statements[-1].upper().startswith("BEGIN"))

    def _to_client(self) -> None:
        with contextlib.suppress(OSError), self.server.makefile("rb") as stream:
            for kind, message in _messages(stream):
                if kind == b"Z":
                    if self.losing:
                        break
                    self.in_transaction = message[5:6] != b"I"
                    if not self.in_transaction:
                        self.statements = []
                if not self.losing and not self.proxy.swallows(self.name):
                    self.client.sendall(message)
        self.cut()


def _messages(stream: Any) -> Iterator[tuple[bytes, bytes]]:
    while len(head := stream.read(5)) == 5:
        length = struct.unpack("!i", head[1:])[0]
        yield head[:1], head + stream.read(length - 4)
