"""F1-F8: processes of a pool are killed, frozen, signalled and kept from starting."""

from __future__ import annotations

import pytest


@pytest.mark.fault("F1", short=3, full=30)
def test_a_busy_worker_is_killed(site, rounds, note):
    pool = site.start(workers=2)
    for _ in range(rounds):
        site.enqueue("work", 20, 0.05)
        site.kill(site.busy_pid())
        pool.worker_pids()
        note.round(recovery=site.recovery())
    site.drain()
    note.violations += site.check().violations + site.stop()
