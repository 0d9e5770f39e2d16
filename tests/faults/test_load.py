"""F39: more to do than can be done: a big backlog, tasks that always fail, a hot queue beside a healthy one."""

from __future__ import annotations

import signal
import statistics
import time
from itertools import pairwise

import pytest

from pgq.store import queue
from tests.support.pools import wait_for
from tests.support.site import Site

#: What a claim of a task reads, in pages; as EXPLAIN says.
_CLAIM = {"worker": "00000000-0000-0000-0000-000000000001", "receipt": "00000000-0000-0000-0000-000000000002"}


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[-1]


def claim_pages(site: Site) -> int:
    """How many pages a claim of 16 tasks touches."""
    with site.session(autocommit=False) as session:
        text = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + queue.claim_text(16)
        plan = session.execute(text, {**_CLAIM, "queues": None, "after": ""}).fetchone()[0][0]["Plan"]
        session.rollback()
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.fault("F39", short=0, full=1_000_000)
def test_a_claim_costs_the_same_however_long_the_queue_is(site, rounds, note):
    site.enqueue("work", 500)
    claim_pages(site)
    short = claim_pages(site)
    with site.session() as session:
        session.execute(
            "INSERT INTO pgq_queue (func, args) SELECT 'tests.faults.tasks.noop', '[]' FROM generate_series(1, %s)",
            (rounds,),
        )
        session.execute("ANALYZE pgq_queue")
    claim_pages(site)
    long = claim_pages(site)
    assert long <= 2 * short, f"{short} pages with 500 tasks, {long} with {rounds:,}"
    site.start(workers=2, allowed=["tests.faults.tasks.noop"], save_limit=-1)
    began = time.monotonic()
    site.drain(timeout=600)
    note.round(recovery=(time.monotonic() - began) / rounds * 10_000)
    note.violations += site.stop()
    # Those that note their runs came first, and each ran once.
    assert {task: len(runs) for task, runs in site.runs().items()} == dict.fromkeys(site.acknowledged, 1)


@pytest.mark.fault("F39", short=0, full=10_000)
def test_tasks_that_always_fail_spread_out_and_end(site, rounds, note):
    site.start(workers=2)
    backoff = {"kind": "exponential", "base": 1.0, "factor": 2.0, "max": 4.0, "jitter": 0.5}
    failing = site.enqueue("fail", rounds, max_attempts=3, retry_backoff=backoff)
    healthy = [site.recovery() for _ in range(5)]
    site.drain(timeout=300)
    runs = site.runs()
    gaps = [later.started - earlier.started for task in failing for earlier, later in pairwise(runs[task])]
    # Jitter shortens the first pause, of 1 s, by up to a half, and the second, of 2 s; nobody comes back earlier.
    assert len(gaps) == 2 * rounds
    assert min(gaps) >= 0.5
    assert statistics.pstdev([gap for gap in gaps if gap < 1.0] or gaps) > 0.02, "they all came back at once"
    note.round(recovery=max(healthy))
    note.violations += site.check(max_starts=3, may_fail=True).violations + site.stop()


@pytest.mark.fault("F39", short=0, full=2)
def test_a_hot_queue_does_not_delay_a_healthy_one(site, rounds, note):
    """Among the same workers it waits for what they have in hand; with one of its own, for nobody."""
    looks = 100
    together = site.start("--queues", "hot,healthy", workers=2)
    for _ in range(rounds):
        site.enqueue("work", 6_000, 0.005, queue="hot")
        beside = latencies(site, looks)
        assert site.value("SELECT count(*) FROM pgq_queue WHERE queue = 'hot'"), "the hot queue ended too early"
        # A worker claims up to 50 ms of work at a time, and queues of one priority take turns.
        assert statistics.median(beside) <= 0.1, sorted(beside)
        assert p99(beside) <= 0.5, sorted(beside)
        site.drain(timeout=300)
        site.start("--queues", "healthy", workers=1)
        together.signal(signal.SIGSTOP)
        alone = latencies(site, looks)
        together.signal(signal.SIGCONT)
        site.enqueue("work", 6_000, 0.005, queue="hot")
        apart = latencies(site, looks)
        assert site.value("SELECT count(*) FROM pgq_queue WHERE queue = 'hot'"), "the hot queue ended too early"
        assert p99(apart) <= max(2 * p99(alone), 0.05), (sorted(alone), sorted(apart))
        note.round(recovery=p99(apart))
        site.drain(timeout=300)
        site.pools[-1].stop()
    note.violations += site.check(max_starts=1).violations + site.stop()


def latencies(site: Site, number: int) -> list[float]:
    """Seconds from the enqueue to the start of tasks in the healthy queue, 20 a second."""
    sent: dict[str, float] = {}
    for _ in range(number):
        (task,) = site.enqueue("work", 1, queue="healthy")
        sent[task] = time.monotonic()
        time.sleep(0.05)
    runs = wait_for(lambda: (found := site.runs()) and sent.keys() <= found.keys() and found, "all have started")
    return [runs[task][0].started - at for task, at in sent.items()]
