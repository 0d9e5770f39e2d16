"""Numbers over time: adds up what workers have counted, notes once a minute how much waits, and runs the checks.

What a worker has flushed is marked and added in one transaction, so each flush is added once, also if this process
dies in between, or two of them take themselves for the leader. The additions are relative (``x = x + y``): a row that
another process changes meanwhile loses nothing.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import psycopg

from pgq.conf import Settings
from pgq.ground import histogram
from pgq.status import findings
from pgq.status.series import floor
from pgq.store import connection as store_connection
from pgq.store import metrics
from pgq.store.connection import Cursor
from pgq.store.metrics import LENGTH, OTHER, OUTCOMES, SPANS, Pair
from pgq.store.overview import Finding
from pgq.upkeep import gauges
from pgq.upkeep.leadership import Leadership

logger = logging.getLogger("pgq")

#: Seconds between two foldings.
EVERY = 15.0
#: Flushes that are added up in one transaction.
FLUSHES = 300
#: Queues with their functions that are told apart in one minute, ten minutes or hour, and in the counters.
PAIRS, TOTALS = 200, 2000
#: Beyond those, queues that are told apart without their functions.
QUEUES = 500
#: Seconds that a flush which was added up stays: its worker may not know that it was committed, and send it again.
KEEP_RAW = 900.0
#: Days without a settlement after which a function's counters go.
KEEP_TOTALS = 90
#: Seconds between two runs of the checks, and milliseconds that one may take.
CHECK_EVERY, CHECK_MILLISECONDS = 55.0, 2000
#: Seconds between two looks for rows that are too old.
_EXPIRE_EVERY = 600.0
_ROWS = 10_000
#: Larger numbers no worker counts: whatever wrote them, sums of them might not fit.
_LARGEST = 1 << 53
#: Where platforms say which release runs.
_RELEASE_VARIABLES = ("SENTRY_RELEASE", "GIT_SHA", "HEROKU_SLUG_COMMIT", "RENDER_GIT_COMMIT", "K_REVISION")


class Sum:
    """What is added to one row of pgq_metric or pgq_total."""

    __slots__ = ("numbers", "run_max", "run_sum", "runs", "wait_max", "wait_sum", "waits")

    def __init__(self) -> None:
        self.numbers = dict.fromkeys(OUTCOMES, 0)
        self.run_sum = self.run_max = self.wait_sum = self.wait_max = 0
        self.runs: dict[int, int] = {}
        self.waits: dict[int, int] = {}

    def add(self, outcome: str, counted: _Counted) -> None:
        number, run_sum, run_max, runs, wait_sum, wait_max, waits = counted
        self.numbers[outcome] += number
        self.run_sum += run_sum
        self.run_max = max(self.run_max, run_max)
        self.wait_sum += wait_sum
        self.wait_max = max(self.wait_max, wait_max)
        for total, more in ((self.runs, runs), (self.waits, waits)):
            for bucket, count in more.items():
                total[bucket] = total.get(bucket, 0) + count

    def columns(self) -> dict[str, Any]:
        run_from, run_hist = histogram.dense(self.runs)
        wait_from, wait_hist = histogram.dense(self.waits)
        return {
            **self.numbers,
            "run_us_sum": self.run_sum,
            "run_us_max": self.run_max,
            "run_from": run_from,
            "run_hist": run_hist,
            "wait_us_sum": self.wait_sum,
            "wait_us_max": self.wait_max,
            "wait_from": wait_from,
            "wait_hist": wait_hist,
        }


_Counted = tuple[int, int, int, dict[int, int], int, int, dict[int, int]]


def _read(entry: Any) -> tuple[str, str, str, _Counted]:
    """Return queue, function, outcome and numbers of one entry of a flush, as `pgq.execution.tally` has written it.

    Raises:
        ValueError, TypeError: It is none: whatever may write the table has written it.
    """
    queue, func, outcome, number, run_sum, run_max, runs, wait_sum, wait_max, waits = entry
    if not (isinstance(queue, str) and isinstance(func, str) and queue and func) or outcome not in OUTCOMES:
        raise ValueError("no queue, function and outcome")
    numbers = (number, run_sum, run_max, wait_sum, wait_max)
    counts = (_histogram(*runs), _histogram(*waits))
    for value in (*numbers, *counts[0].values(), *counts[1].values()):
        if type(value) is not int or not 0 <= value < _LARGEST:
            raise ValueError("no number")
    return (
        queue[:LENGTH],
        func[:LENGTH],
        outcome,
        (number, run_sum, run_max, counts[0], wait_sum, wait_max, counts[1]),
    )


def _histogram(first: Any, counts: Any) -> dict[int, int]:
    if first is None:
        return {}
    if type(first) is not int or first < 0 or first + len(counts) > histogram.SIZE:
        raise ValueError("no histogram")
    return histogram.merged([(first, counts)])


def fold(cursor: Cursor, *, limit: int = FLUSHES) -> int:
    """Add up flushes, oldest first, in the caller's transaction; return how many."""
    taken = metrics.take_raw(cursor, limit=limit)
    counted: list[tuple[datetime, tuple[str, str], str, _Counted]] = []
    for at, body in taken:
        try:
            entries = [_read(entry) for entry in body]
        except (ValueError, TypeError) as error:
            logger.warning("a row of pgq_metric_raw was written by no worker and is left out: %s", error)
            continue
        counted += [(at, (queue, func), outcome, numbers) for queue, func, outcome, numbers in entries]
    if counted:
        _add_metrics(cursor, counted)
        _add_totals(cursor, counted)
    return len(taken)


def _add_metrics(cursor: Cursor, counted: list[tuple[datetime, tuple[str, str], str, _Counted]]) -> None:
    times = {(span, floor(at, 60 * span)) for at, *_ in counted for span in SPANS}
    known: dict[tuple[int, datetime], set[tuple[str, str]]] = {time: set() for time in times}
    for pair in metrics.metric_pairs(cursor, sorted(times)):
        known[pair.span, pair.at].add((pair.queue, pair.func))
    sums: dict[Pair, Sum] = {}
    for at, name, outcome, numbers in counted:
        for span in SPANS:
            begin = floor(at, 60 * span)
            queue, func = _told_apart(name, known[span, begin], PAIRS)
            sums.setdefault(Pair(span, begin, queue, func), Sum()).add(outcome, numbers)
    rows = ({**pair._asdict(), **total.columns()} for pair, total in sums.items())
    metrics.add_counted(cursor, "pgq_metric", rows)


def _add_totals(cursor: Cursor, counted: list[tuple[datetime, tuple[str, str], str, _Counted]]) -> None:
    known = metrics.total_pairs(cursor)
    sums: dict[tuple[str, str], Sum] = {}
    for _, name, outcome, numbers in counted:
        sums.setdefault(_told_apart(name, known, TOTALS), Sum()).add(outcome, numbers)
    rows = ({"queue": queue, "func": func, **total.columns()} for (queue, func), total in sums.items())
    metrics.add_counted(cursor, "pgq_total", rows)


def _told_apart(name: tuple[str, str], known: set[tuple[str, str]], most: int) -> tuple[str, str]:
    """Return the names under which a queue and a function are counted, so that there are not more than so many.

    Args:
        known: Those that have a row. The one returned is added.
    """
    if name not in known and len(known) >= most:
        name = name[0], OTHER
        if name not in known and len(known) >= most + QUEUES:
            name = OTHER, OTHER
    known.add(name)
    return name


def release_of(settings: Settings) -> str | None:
    """Return the name of the release that runs here: PGQ["release"], or what the platform says; None: not known."""
    if settings.release is not None:
        return str(settings.release)[:LENGTH]
    given: Iterable[str] = (os.environ.get(name, "").strip() for name in _RELEASE_VARIABLES)
    return next((value[:LENGTH] for value in given if value), None)


class Metrics:
    """The chore of one upkeep process. Several may do it: each does what is there to do."""

    def __init__(self, settings: Settings, leadership: Leadership) -> None:
        self.settings, self.leadership = settings, leadership
        self._is_release_marked = False
        self._expire_at = time.monotonic() + EVERY

    def do(self, connection: store_connection.Connection) -> float | None:
        """Do what is due; return in how many seconds to go on, or None: at the usual time."""
        again = self._fold(connection)
        with self.leadership.leading(connection) as cursor:
            if cursor is None:
                return again
            if not self._is_release_marked:
                self._mark_release(cursor)
            gauges.note(connection)
            if metrics.findings_due(cursor, age=CHECK_EVERY):
                _check(connection)
        if time.monotonic() >= self._expire_at:
            self._expire_at = time.monotonic() + _EXPIRE_EVERY
            self._expire(connection)
        return again

    def _fold(self, connection: store_connection.Connection) -> float | None:
        with self.leadership.leading(connection) as cursor:
            # Behind thousands of workers, or of cancels, there may be more than one transaction adds up.
            return 0.1 if cursor is not None and fold(cursor) == FLUSHES else None

    def _mark_release(self, cursor: Cursor) -> None:
        release = release_of(self.settings)
        if release is not None and metrics.mark(cursor, label=release, kind="release", author=None):
            logger.info("release %s is new, and marked in the charts", release)
        self._is_release_marked = True

    def _expire(self, connection: store_connection.Connection) -> None:
        deletions: list[Callable[[Cursor], int]] = [
            lambda cursor: metrics.drop_raw(cursor, age=KEEP_RAW, limit=_ROWS),
            *(_drop(table, span, hours) for table in ("pgq_metric", "pgq_gauge") for span, hours in SPANS.items()),
            lambda cursor: metrics.drop_totals(cursor, days=KEEP_TOTALS),
        ]
        for delete in deletions:
            with self.leadership.leading(connection) as cursor:
                if cursor is None:
                    return
                if delete(cursor) == _ROWS:
                    # There is more.
                    self._expire_at = 0.0


def _drop(table: str, span: int, hours: int) -> Callable[[Cursor], int]:
    return lambda cursor: metrics.drop_span(cursor, table, span=span, hours=hours, limit=_ROWS)


def _check(connection: store_connection.Connection) -> None:
    """Run the checks and keep what they find. If they take too long, that is what is found."""
    try:
        with connection.transaction():
            cursor = connection.cursor()
            metrics.limit_time(cursor, milliseconds=CHECK_MILLISECONDS)
            found = findings.findings(cursor)
    except psycopg.errors.QueryCanceled:
        logger.warning("the checks took longer than %d ms and were given up", CHECK_MILLISECONDS)
        advice = "Run them by hand: manage.py pgq_check."
        detail = f"the checks took longer than {CHECK_MILLISECONDS} ms"
        found = [Finding("checks", findings.WARNING, detail, advice)]
    metrics.save_findings(connection.cursor(), found)
