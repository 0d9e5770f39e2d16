"""What systemd hears of several pools, with a socket in place of systemd's and messages in place of the pools'."""

from __future__ import annotations

import selectors
import uuid
from collections.abc import Callable, Iterator

import pytest

from pgq.pool.relay import Relay
from pgq.pool.systemd import send
from tests.support.notify import NotifySocket


@pytest.fixture
def systemd(notify_socket: Callable[[object], NotifySocket], monkeypatch: pytest.MonkeyPatch) -> NotifySocket:
    listening = notify_socket(f"@pgq-test-{uuid.uuid4().hex}")
    monkeypatch.setenv("NOTIFY_SOCKET", listening.name)
    return listening


@pytest.fixture
def relay(systemd: NotifySocket) -> Iterator[Relay]:
    relay = Relay(("one", "two"), selectors.DefaultSelector())
    yield relay
    relay.close()


def say(relay: Relay, alias: str, *lines: str, is_heard: bool = True) -> None:
    """Say something as a pool; `is_heard`: and have the main process's loop hear it."""
    address = relay.sockets[alias].getsockname()
    assert send("\0" + address[1:].decode(), *lines)
    if is_heard:
        hear(relay)


def hear(relay: Relay) -> None:
    for key, _ in relay.selector.select(0):
        key.data()


def test_what_is_ready_or_fed_is_so_without_a_pool_that_has_ended(relay: Relay, systemd: NotifySocket) -> None:
    say(relay, "one", "READY=1", "STATUS=1 workers")
    assert systemd.next() == {"STATUS": "one: 1 workers"}
    # The last that it says is read after its end, if at all.
    say(relay, "two", "STATUS=nothing", is_heard=False)
    relay.ended("two")
    assert systemd.next() == {"READY": "1", "STATUS": "one: 1 workers; two: ended"}
    hear(relay)
    for _ in range(2):
        say(relay, "one", "WATCHDOG=1", "STATUS=busy")
        assert systemd.next() == {"WATCHDOG": "1", "STATUS": "one: busy; two: ended"}
    assert systemd.next(0) is None


def test_all_stop_once_each_does(relay: Relay, systemd: NotifySocket) -> None:
    for alias in ("one", "two"):
        say(relay, alias, "READY=1", "STATUS=idle")
    assert "READY" in [systemd.next(), systemd.next()][1]
    say(relay, "one", "STOPPING=1", "STATUS=idle")
    assert systemd.next() == {"STATUS": "one: idle; two: idle"}
    relay.ended("one")
    assert systemd.next() == {"STATUS": "one: ended; two: idle"}
    say(relay, "two", "STOPPING=1", "STATUS=idle")
    assert systemd.next() == {"STOPPING": "1", "STATUS": "one: ended; two: idle"}
    relay.ended("two")
    relay.ended("two")
    assert systemd.next(0) is None
