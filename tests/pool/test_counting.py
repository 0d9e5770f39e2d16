"""What a pool counts: each report that was accepted, once, whatever happens to its processes and their connections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from pgq.status import metrics
from pgq.upkeep.metrics import fold
from tests.support import quick_flush
from tests.support.pools import wait_for
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
    for span in (1, 10, 60):
        assert site.value("SELECT sum(succeeded + failed) FROM pgq_metric WHERE span = %s", span) == 110
