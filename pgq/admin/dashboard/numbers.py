"""Numbers over time, from what workers have counted: the charts of the pages. The tables of tasks are not read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import dateformat, timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq.admin.dashboard import charts, widgets
from pgq.admin.dashboard.look import Seen
from pgq.admin.dashboard.visit import Visit
from pgq.admin.dashboard.widgets import Block
from pgq.recurrence import moments as clock
from pgq.status import metrics
from pgq.status.counted import Counts, Times
from pgq.status.series import ROWS, floor
from pgq.store import series as store
from pgq.store.connection import Cursor
from pgq.store.metrics import SPANS
from pgq.store.series import Gauge, Mark

#: How far back a page looks, as tabs: a name for the address, and seconds.
RANGES = {"1h": 3600, "8h": 8 * 3600, "3d": 3 * 86400, "14d": 14 * 86400, "1y": 366 * 86400}
#: Seconds until what workers count is added up.
_BEHIND = 30
_LABELS = {
    "1h": gettext_lazy("hour"),
    "8h": gettext_lazy("8 hours"),
    "3d": gettext_lazy("3 days"),
    "14d": gettext_lazy("2 weeks"),
    "1y": gettext_lazy("year"),
}


@dataclass(frozen=True, slots=True)
class Range:
    """From when to when a page looks."""

    name: str
    start: datetime
    end: datetime

    @property
    def step(self) -> int:
        """Seconds from one point to the next, so that there are at most 120: more cannot be told apart."""
        wanted = (self.end - self.start).total_seconds() / 120
        # No five minutes: they would be added up from the rows of minutes, ten times as many as those of ten minutes.
        return next((size for size in (60, 600, 3600, 6 * 3600, 86400) if size >= wanted), 4 * 86400)


def chosen(visit: Visit) -> str:
    """Return the name of the range that the address asks for."""
    asked = visit.asked("range")
    return asked if asked in RANGES else "1h"


def of(name: str) -> Range:
    """Return that range, up to now. By this host's clock, which costs no statement: a chart is no more exact."""
    end = clock.now()
    return Range(name, end - timedelta(seconds=RANGES[name]), end)


def tabs(visit: Visit, page: str, *args: Any, **query: Any) -> Any:
    """Show the ranges."""
    return widgets.chosen(_LABELS, chosen(visit), lambda name: visit.address(page, *args, range=name, **query))


@dataclass(frozen=True, slots=True)
class Numbers:
    """What was counted in a range, a value for each point; None where nothing is known."""

    range: Range
    moments: Sequence[datetime]
    #: Tasks of each point.
    ended: Sequence[float]
    failed: Sequence[float]
    #: Attempts of each point that were followed by another one.
    retried: Sequence[float]
    #: Seconds.
    run: Sequence[float | None]
    wait: Sequence[float | None]
    #: Tasks, as of the begin of a point; empty for a function, of which they are not known.
    ready: Sequence[float | None]
    running: Sequence[float | None]
    marks: Sequence[Mark]


def read(cursor: Cursor, name: str, queue: str | None = None, func: str | None = None) -> Numbers:
    """Read the numbers of a range by six statements, whatever was counted."""
    asked = of(name)
    step = asked.step
    begin = floor(asked.start, step)
    # The coarsest rows that still tell the steps apart.
    span = next(span for span in sorted(SPANS, reverse=True) if step % (60 * span) == 0)
    wanted = store.Wanted(span, begin, asked.end, queue, func)
    counted = {row.at: row for row in store.counts(cursor, wanted, key=None, step=step, limit=ROWS)}
    counts = {at: Counts.of(row) for at, row in counted.items()}
    gauges: dict[datetime, Gauge] = {}
    if func is None:
        one = wanted._replace(queue=queue or "")
        for gauge in store.gauge_series(cursor, one, limit=ROWS):
            gauges.setdefault(floor(gauge.at, step), gauge)
    moments = [
        begin + timedelta(seconds=step * at) for at in range(int((asked.end - begin).total_seconds() // step) + 1)
    ]

    runs, waits = store.histograms(cursor, wanted, "run", "wait", key=None, step=step, limit=ROWS)

    def p95(found: store.Histograms, longest: str) -> list[float | None]:
        times = {
            at: Times.of(hist, 0.0, getattr(counted[at], longest)) for (at, _), hist in found.items() if at in counted
        }
        return [times[at].p95 if at in times else None for at in moments]

    nothing = Counts()
    return Numbers(
        asked,
        moments,
        [float(counts.get(at, nothing).ended) for at in moments],
        [float(counts.get(at, nothing).failures) for at in moments],
        [float(counts.get(at, nothing).retried) for at in moments],
        p95(runs, "run_max"),
        p95(waits, "wait_max"),
        [float(gauges[at].ready) if at in gauges else None for at in moments] if func is None else (),
        [float(gauges[at].running) if at in gauges else None for at in moments] if func is None else (),
        metrics.marks(cursor, start=begin, end=asked.end),
    )


def block(visit: Visit, title: Any, page: str, *args: Any, queue: str | None = None, func: str | None = None) -> Block:
    """Return the charts of all tasks, of a queue's or of a function's."""
    name = chosen(visit)
    seen = visit.look("numbers", lambda cursor: read(cursor, name, queue, func))
    return shown(visit, title, seen, page, *args)


def shown(visit: Visit, title: Any, seen: Seen[Numbers], page: str, *args: Any) -> Block:
    """Show numbers that were read: how many ended and failed, how long they took, how many are left."""
    return visit.shown(title, seen, lambda found: widgets.join(tabs(visit, page, *args), _charts(found)))


def _charts(found: Numbers) -> Any:
    moments, marks = labels(found), placed(found)
    rates = [
        charts.Series(_("ended"), "good", rate(found, found.ended)),
        charts.Series(_("failed"), "bad", rate(found, found.failed)),
        charts.Series(_("attempts retried"), "other", rate(found, found.retried)),
    ]
    times = [charts.Series(_("run, p95"), "plain", found.run), charts.Series(_("wait, p95"), "other", found.wait)]
    left = [charts.Series(_("ready"), "plain", found.ready), charts.Series(_("running"), "good", found.running)]
    return charts.beside(
        charts.lines(_("Tasks a second"), moments, rates, unit=_("tasks/s"), marks=marks),
        charts.lines(_("How long they took"), moments, times, unit="s", marks=marks),
        charts.lines(_("Tasks that are left"), moments, left, unit=_("tasks"), marks=marks) if found.ready else "",
    )


def rate(found: Numbers, counted: Sequence[float]) -> list[float | None]:
    """Return how many a second: at a point that is not over, in the time that was counted; None: too short."""
    known = found.range.end - timedelta(seconds=_BEHIND)
    # What was counted since then may be among it: of a short time that would be a peak that never was.
    enough = min(found.range.step, max(found.range.step / 2, 10 * _BEHIND))
    lengths = [min((known - at).total_seconds(), found.range.step) for at in found.moments]
    return [value / length if length >= enough else None for value, length in zip(counted, lengths, strict=True)]


def labels(found: Numbers) -> list[str]:
    """Return what is said of each point: its time, and its day where the range is longer."""
    seconds = RANGES[found.range.name]
    form = "H:i" if seconds <= 86400 else "D d M H:i" if seconds < 86400 * 30 else "Y-m-d"
    return [dateformat.format(timezone.localtime(at), form) for at in found.moments]


def placed(found: Numbers) -> list[tuple[int, str]]:
    """Return at which point each mark is."""
    first = found.moments[0]
    return [(int((mark.at - first).total_seconds() // found.range.step), mark.label[:100]) for mark in found.marks]
