"""The first page: whether all is well, and what goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.utils.html import format_html
from django.utils.translation import gettext as _

from pgq.admin import display
from pgq.admin.dashboard import errors, numbers, schedules, widgets
from pgq.admin.dashboard.numbers import Numbers
from pgq.admin.dashboard.visit import Visit
from pgq.admin.dashboard.widgets import Block, Tile
from pgq.recurrence import moments
from pgq.status import findings, metrics
from pgq.status.metrics import KeptFinding
from pgq.status.pools import Stat
from pgq.status.snapshot import COUNT_LIMIT, Count, Queued, queue_depths, queued, up_to
from pgq.store import overview as store
from pgq.store import pools as store_pools
from pgq.store.connection import Cursor
from pgq.store.overview import Finding, QueueDepth

#: Seconds for which what upkeep found is good. It looks once a minute.
_FRESH = 150
Known = Finding | KeptFinding

_MOODS = {findings.OK: "idle", findings.WARNING: "waiting", findings.PROBLEM: "parked"}


def build(visit: Visit) -> list[Block]:
    """Return the parts of the page."""
    counted = visit.look("numbers", lambda cursor: numbers.read(cursor, numbers.chosen(visit)))
    stats = visit.look("pools", lambda cursor: [Stat.of(pool) for pool in store_pools.pools(cursor)])
    return [
        visit.block(_("State"), _findings, lambda found: _state(visit, found)),
        visit.block("", queued, lambda found: _tiles(visit, found, stats.value or [], counted.value), name="tiles"),
        numbers.shown(visit, _("Over time"), counted, "changelist"),
        visit.block(
            _("Queues"),
            queue_depths,
            lambda found: queue_table(visit, found),
            links=[(_("All"), visit.address("queues"))],
        ),
        visit.shown(_("Pools"), stats, lambda found: pool_table(visit, found), size="half"),
        visit.block(
            _("Next schedules"),
            lambda cursor: schedules.soonest(visit.alias, 5),
            lambda found: schedules.short_table(visit, found),
            links=[(_("All"), visit.address("schedules"))],
            size="half",
        ),
        visit.block(
            _("Last errors"),
            lambda cursor: errors.groups(cursor, most=5),
            lambda found: errors.table(visit, found),
            links=[(_("All"), visit.address("errors"))],
        ),
        running_block(visit),
    ]


def _findings(cursor: Cursor) -> Sequence[Known]:
    """Return what upkeep found in the last minutes; if there is nothing, since no pool runs, what is found now."""
    kept = metrics.findings(cursor)
    now = moments.now()
    if kept and all((now - one.checked_at).total_seconds() < _FRESH for one in kept):
        return kept
    return findings.findings(cursor)


def _state(visit: Visit, found: Sequence[Known]) -> Any:
    bad = [finding for finding in found if finding.status != findings.OK]
    verdict = findings.overall(found)
    words = {
        findings.OK: _("All is well: %d checks.") % len(found),
        findings.WARNING: _("Something will hurt."),
        findings.PROBLEM: _("Something is wrong."),
    }[verdict]
    lines = widgets.join(
        *(
            format_html(
                "<li>{} {}: {}</li>",
                badge(finding.status),
                finding.check,
                display.cut(finding.detail, 300),
            )
            for finding in sorted(bad, key=lambda finding: finding.status != findings.PROBLEM)[:4]
        )
    )
    return format_html(
        '<p class="pgq-verdict">{} {}</p>{}',
        badge(verdict, words),
        visit.link(_("What to do"), "doctor") if bad else "",
        format_html('<ul class="pgq-plain">{}</ul>', lines) if bad else "",
    )


def badge(status: str, words: Any = None) -> Any:
    """Show how a check ended, by other words if they are given."""
    usual = {findings.OK: _("ok"), findings.WARNING: _("warning"), findings.PROBLEM: _("problem")}
    return display.badge(_MOODS[status], words or usual[status])


def _tiles(visit: Visit, found: Queued, stats: Sequence[Stat], counted: Numbers | None) -> Any:
    alive = [stat for stat in stats if stat.is_alive]
    workers = [process for stat in alive for process in stat.processes if process.pid]
    busy = sum(1 for process in workers if process.task)
    return widgets.tiles(
        [
            Tile(_("Ready"), str(found.ready), link=visit.address("tasks", state="ready")),
            Tile(_("Running"), str(found.running), link=visit.address("tasks", state="running")),
            Tile(_("Waiting"), str(found.waiting), link=visit.address("tasks", state="waiting")),
            Tile(
                _("Parked"),
                str(found.parked),
                link=visit.address("tasks", state="parked"),
                mood="bad" if found.parked.number else "",
            ),
            *_tiles_over_time(visit, counted),
            Tile(
                _("Workers"),
                f"{busy} / {len(workers)}",
                _("busy"),
                visit.address("workers"),
                mood="" if workers else "bad",
            ),
        ]
    )


def _tiles_over_time(visit: Visit, counted: Numbers | None) -> list[Tile]:
    """Return the tiles of the range that is looked at, the hour unless the address says another one."""
    if counted is None:
        return []
    failed, ended = int(sum(counted.failed)), int(sum(counted.ended))
    seconds = (counted.range.end - counted.moments[0]).total_seconds()
    name = counted.range.name
    return [
        Tile(
            _("Failed"),
            f"{failed:,}",
            _("of %(count)s, in %(range)s") % {"count": f"{ended:,}", "range": name},
            visit.address("errors"),
            "bad" if failed else "",
        ),
        Tile(_("Ended"), f"{ended / seconds:,.2g} /s", _("on average in %s") % name, visit.address("functions")),
    ]


def queue_table(visit: Visit, found: Sequence[QueueDepth]) -> Any:
    """Show the queues, those with most to do first."""
    ordered = sorted(found, key=lambda depth: (-depth.ready - depth.running, depth.queue))[:200]
    rows = [
        (
            visit.queue(depth.queue),
            Count(depth.ready, "+" if depth.more else ""),
            widgets.ago(depth.oldest),
            up_to(depth.running, COUNT_LIMIT),
            display.badge("paused", _("paused")) if depth.paused else display.badge("idle", _("open")),
        )
        for depth in ordered
    ]
    headings = (_("queue"), _("ready"), _("oldest"), _("running"), _("state"))
    return widgets.table(headings, rows, empty=_("No task was ever enqueued here."), numbers=(1, 2, 3))


def pool_table(visit: Visit, stats: Sequence[Stat]) -> Any:
    """Show the pools."""
    rows = []
    for stat in stats[:500]:
        workers = [process for process in stat.processes if process.pid]
        busy = sum(1 for process in workers if process.task)
        state = stat.status.lower() if stat.is_alive else "stale"
        words = display.state_word(state) if stat.is_alive else _("silent for %s") % widgets.ago(stat.silent)
        rows.append(
            (
                visit.link(display.cut(f"{stat.name}", 40), "pool", stat.cluster_id),
                display.cut(stat.host, 40),
                display.badge(state, words),
                display.cut(display.served(stat.queues, stat.exclude_queues), 100),
                widgets.meter(busy, len(workers), f"{busy} / {len(workers)}"),
                widgets.ago(stat.uptime()),
            )
        )
    headings = (_("pool"), _("host"), _("state"), _("queues"), _("busy"), _("up"))
    return widgets.table(headings, rows, empty=_("No pool is running. Start one: manage.py pgq_worker."), numbers=(5,))


def running_block(visit: Visit, queue: str | None = None) -> Block:
    """Show what runs now, longest first."""

    def show(found: Sequence[store.RunningTask]) -> Any:
        rows = [
            (
                visit.task(task.id, task.name),
                visit.func(task.func),
                visit.queue(task.queue),
                task.attempt,
                display.cut(f"{task.pool} ({task.host})", 60),
                widgets.ago(task.seconds),
            )
            for task in found
            if queue is None or task.queue == queue
        ][:50]
        headings = (_("task"), _("function"), _("queue"), _("attempt"), _("where"), _("for"))
        return widgets.table(headings, rows, empty=_("No task runs now."), numbers=(3, 5))

    return visit.block(
        _("Running now"), lambda cursor: store.running(cursor, alive=20, limit=200), show, name="running"
    )
