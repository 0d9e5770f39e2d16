"""What looks at a pool from outside: probes that ask over HTTP, and systemd. Both are answered by the loop alone.

A thread of their own would say that all is well while the loop hangs.
"""

from __future__ import annotations

import selectors

from pgq.conf import Settings
from pgq.pool.children import Children
from pgq.pool.health_endpoint import HealthServer
from pgq.pool.liveness import Pulse
from pgq.pool.systemd import Systemd


class Watchers:
    """The port for probes, if there is one, and the service manager.

    Args:
        selector: Of the supervisor's loop, which a probe wakes.
    """

    def __init__(self, settings: Settings, children: Children, pulse: Pulse, selector: selectors.BaseSelector) -> None:
        self.systemd = Systemd(children, pulse)
        self.health: HealthServer | None = None
        if settings.health_port is not None:
            self.health = HealthServer(settings.health_host, settings.health_port, pulse.trouble)
            selector.register(self.health.fileno(), selectors.EVENT_READ, self.tell)

    def tell(self) -> None:
        """Answer the probes that wait, and tell systemd how the pool is, if that is due."""
        if self.health is not None:
            self.health.serve()
        self.systemd.tell()

    def close(self) -> None:
        """Stop listening."""
        if self.health is not None:
            self.health.close()
