"""The pools, and one pool with its workers."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from django.utils.translation import gettext as _

from pgq.admin import display
from pgq.admin.dashboard import overview, widgets
from pgq.admin.dashboard.visit import Visit
from pgq.admin.dashboard.widgets import Block
from pgq.ground import ids
from pgq.models import QueuedTask
from pgq.status.pools import Process, Stat
from pgq.store import pools as store

Known = dict[str, tuple[str | None, str]]


def build(visit: Visit) -> list[Block]:
    """Return the parts of the page of all pools."""
    stats = visit.look("pools", lambda cursor: [Stat.of(pool) for pool in store.pools(cursor)])
    return [
        visit.shown(_("Pools"), stats, lambda found: overview.pool_table(visit, found)),
        overview.running_block(visit),
    ]


def build_one(visit: Visit, id: str) -> list[Block]:
    """Return the parts of the page of one pool."""
    wanted = ids.parse_id(id)
    if wanted is None:
        raise Http404
    seen = visit.look("pool", lambda cursor: [Stat.of(pool) for pool in store.pools(cursor, wanted)])
    if seen.fault is None and not seen.value:
        raise Http404
    running = [
        task for stat in seen.value or () for it in stat.processes if it.task and (task := ids.parse_id(it.task))
    ]
    names = visit.look("tasks", lambda cursor: _names(visit.alias, running))
    return [
        visit.shown(_("Pool"), seen, lambda found: _facts(found[0])),
        visit.shown(_("Its workers"), seen, lambda found: _workers(visit, found[0], names.value or {})),
    ]


def _names(alias: str, running: list[Any]) -> Known:
    rows = QueuedTask.objects.using(alias).filter(pk__in=running).values_list("pk", "name", "func")
    return {str(pk): (name, func) for pk, name, func in rows}


def _facts(stat: Stat) -> Any:
    served = ", ".join(stat.queues) if stat.queues is not None else _("all")
    return widgets.facts(
        [
            (_("name"), display.cut(stat.name, 100)),
            (_("host"), display.cut(stat.host, 100)),
            (_("pid"), stat.pid),
            (_("state"), _state(stat)),
            (_("last heard of"), _("%s ago") % widgets.ago(stat.silent)),
            (_("started"), widgets.when(stat.tob)),
            (_("queues"), display.cut(served, 300)),
            (_("but not"), display.cut(", ".join(stat.exclude_queues), 300)),
            (_("version of pgq"), display.cut(stat.version, 40)),
            (_("claimed and not begun"), stat.task_q_size),
            (_("workers replaced"), stat.reincarnations),
        ]
    )


def _state(stat: Stat) -> Any:
    state = stat.status.lower()
    return display.badge(state if stat.is_alive else "stale", display.state_word(state))


def _workers(visit: Visit, stat: Stat, known: Known) -> Any:
    rows = [
        (
            process.number,
            process.pid or display.EMPTY,
            display.badge(
                process.state if process.state in ("working", "idle") else "ready",
                display.state_word(display.cut(process.state, 20)),
            ),
            _task(visit, process, known),
            widgets.ago(process.seconds) if process.task else display.EMPTY,
            f"{process.succeeded:,}",
            f"{process.failed:,}",
            process.restarts if process.restarts is not None else display.EMPTY,
        )
        for process in stat.processes[:1000]
    ]
    headings = (
        _("worker"),
        _("pid"),
        _("state"),
        _("task"),
        _("for"),
        _("succeeded"),
        _("failed"),
        _("replaced"),
    )
    return widgets.table(headings, rows, numbers=(0, 1, 4, 5, 6, 7))


def _task(visit: Visit, process: Process, known: Known) -> Any:
    id = ids.parse_id(process.task) if process.task else None
    if id is None:
        return display.EMPTY
    name, func = known.get(id.hex, (None, ""))
    return widgets.join(visit.task(id, name), " ", visit.func(func) if func else "")
