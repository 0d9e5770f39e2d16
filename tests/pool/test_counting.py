"""What a pool counts: each report that was accepted, once, whatever happens to its processes and their connections."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from pgq.status import metrics
from pgq.upkeep.metrics import fold
from tests.support import quick_flush
from tests.support.failpoints import COUNTING
from tests.support.pools import ROOT, wait_for
from tests.support.proxy import Proxy
from tests.support.site import Site

APPS = ["django.contrib.auth", "django.contrib.contenttypes", "pgq", "tests.faults", quick_flush.PATH]
FLUSH, SETTLE, FOLD = "pgq_metric_raw (worker", "INSERT INTO pgq_task", "INTO pgq_metric AS"


@pytest.fixture
def proxy(site: Site) -> Iterator[Proxy]:
    """Between the pools of the site and their database."""
    proxy = Proxy(site.dsn)
    site.pool_dsn = proxy.dsn
    yield proxy
    proxy.close()


def counted(site: Site) -> metrics.Counts:
    """Add up what is left, as the next leader would, and return all counters together."""
    with site.session() as session:
        with session.transaction():
            fold(session.cursor())
        totals = metrics.totals(session.cursor())
    names = ("succeeded", "failed", "retried", "cancelled", "timed_out", "crashed", "parked", "discarded")
    return metrics.Counts(**{name: sum(getattr(one.counts, name) for one in totals) for name in names})


def test_each_accepted_report_is_counted_once(site, proxy):
    """Replies to commits that settle, flush and fold get lost; workers are replaced; the pool is stopped by SIGTERM."""
    seen = {FLUSH: 0, SETTLE: 0, FOLD: 0}

    def loses(_: str, statements: Sequence[str]) -> bool:
        for text in (FOLD, FLUSH, SETTLE):
            if any(text in statement for statement in statements):
                seen[text] += 1
                return seen[text] % 3 == 0 and seen[text] < 13
        return False

    proxy.loses = loses
    site.start(workers=2, recycle=50, claim_ms=10, django={"INSTALLED_APPS": APPS})
    site.enqueue("work", 50, 0.002)
    site.enqueue("fail", 10, max_attempts=2, retry_backoff=0)
    site.enqueue("work", 50, 0.002, queue="other")
    with site.session() as session:
        for _ in range(4):
            # The leader's session ends wherever it is.
            wait_for(lambda: site.left() < 105, "some have ended")
            session.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'pgq upkeep'"
            )
    site.drain()
    assert site.stop() == []
    assert all(seen.values()), f"each fault took place: {seen}"
    assert len(proxy.lost) >= 3
    found = counted(site)
    assert (found.succeeded, found.failed, found.retried, found.all) == (100, 10, 10, 120)
    kept = site.value("SELECT count(*) FROM pgq_task")
    assert found.ended == kept
    # Each is in one row of each span.
    for span in (1, 10, 60, 1440):
        assert site.value("SELECT sum(succeeded + failed) FROM pgq_metric WHERE span = %s", span) == 110


CANCELLER = """
import os, signal, sys
import django
django.setup()
from django.db import transaction
from pgq.tasks import cancel_many
ids = sys.stdin.read().split()
for number, first in enumerate(range(0, len(ids), 5)):
    with transaction.atomic():
        cancel_many(ids[first : first + 5])
        if number == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        transaction.set_rollback(number % 3 == 1)
"""


def test_what_ends_without_a_worker_is_counted_once_though_everybody_is_killed(site: Site) -> None:
    """Cancels in transactions that commit, roll back or die with their process; expiry by an upkeep that is killed."""
    tokens = {point: site.folder / f"token {point}" for point in COUNTING}
    points = [{"at": point, "do": "kill9", "token": str(token)} for point, token in tokens.items()]
    pool = site.start(workers=1, queues=["served"], tick=0.1, failpoints=points, django={"INSTALLED_APPS": APPS})
    cancelled = site.enqueue("work", 200, queue="held")
    # Each of these is ended by upkeep a little later than the one before.
    for number in range(60):
        site.enqueue("work", queue="held", expires=0.1 * number + 0.1)
    site.enqueue("work", 20, queue="served")
    for token in tokens.values():
        token.touch()
        pool.wait_for(lambda: not token.exists(), f"upkeep is killed at {token.name}")  # noqa: B023
    for dies_at in (6, 12, 99):
        code = _cancel_in_another_process(site, cancelled, dies_at)
        assert code == (0 if dies_at == 99 else -signal.SIGKILL)
    # Those whose transactions were rolled back.
    left = site.value("SELECT count(*) FROM pgq_queue WHERE expires_at IS NULL AND queue = 'held'")
    assert 0 < left < 100
    with site.session() as session:
        session.execute("SELECT pgq_cancel(id) FROM pgq_queue WHERE expires_at IS NULL AND queue = 'held'")
    site.drain()
    assert site.stop() == []
    found = counted(site)
    assert (found.succeeded, found.cancelled, found.failed, found.all) == (20, 200, 60, 280)
    assert found.ended == site.value("SELECT count(*) FROM pgq_task")
    for span in (1, 10, 60, 1440):
        assert site.value("SELECT sum(succeeded + cancelled + failed) FROM pgq_metric WHERE span = %s", span) == 280


def _cancel_in_another_process(site: Site, ids: Sequence[str], dies_at: int) -> int:
    """Cancel five by five, each in a transaction, of which every third is rolled back; return the exit code."""
    environment = {
        **os.environ,
        "DATABASE_URL": site.dsn,
        "DJANGO_SETTINGS_MODULE": "tests.support.fault_settings",
        "PGQ_TEST_SETTINGS": "{}",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", CANCELLER, str(dies_at)]
    return subprocess.run(command, input=" ".join(ids), env=environment, cwd=ROOT, text=True, check=False).returncode
