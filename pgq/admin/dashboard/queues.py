"""The queues, and one queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import Http404
from django.utils.translation import gettext as _

from pgq.admin import display
from pgq.admin.dashboard import numbers, overview, widgets
from pgq.admin.dashboard.visit import Visit
from pgq.admin.dashboard.widgets import Block
from pgq.conf import Queues
from pgq.status.pools import Stat
from pgq.status.snapshot import queue_depths, up_to
from pgq.store import pools as store_pools
from pgq.store import queues as store
from pgq.store.queues import LaneState, ReadyTask

#: Ready tasks counted of each lane, and shown of the queue.
_COUNTED, _SHOWN = 10_000, 20


def build(visit: Visit) -> list[Block]:
    """Return the parts of the page of all queues."""
    return [visit.block(_("Queues"), queue_depths, lambda found: overview.queue_table(visit, found))]


def build_one(visit: Visit, name: str) -> list[Block]:
    """Return the parts of the page of one queue."""
    if "\0" in name:
        raise Http404
    lanes = visit.look("lanes", lambda cursor: store.lanes_of(cursor, name, limit=_COUNTED))
    if lanes.fault is None and not lanes.value:
        raise Http404
    paused = any(lane.paused for lane in lanes.value or ())
    links = []
    if visit.may("pause_queue"):
        links = (
            [(_("Resume…"), visit.address("resume", name))] if paused else [(_("Pause…"), visit.address("pause", name))]
        )
    links.append((_("Its tasks"), visit.address("tasks", q=f"queue:{name}")))
    return [
        visit.shown(_("Queue %s") % display.cut(name, 100), lanes, lambda found: _state(found, paused), links=links),
        numbers.block(visit, _("Over time"), "queue", name, queue=name),
        visit.block(
            _("Pools that serve it"),
            lambda cursor: [stat for stat in map(Stat.of, store_pools.pools(cursor)) if _serves(stat, name)],
            lambda found: overview.pool_table(visit, found),
        ),
        visit.block(
            _("Next to be claimed"),
            lambda cursor: store.head(cursor, name, limit=_SHOWN),
            lambda found: _head(visit, found),
        ),
        overview.running_block(visit, name),
    ]


def _serves(stat: Stat, queue: str) -> bool:
    return stat.is_alive and Queues(stat.queues, stat.exclude_queues).serves(queue)


def _state(lanes: Sequence[LaneState], paused: bool) -> Any:
    rows = [
        (
            lane.priority,
            up_to(lane.ready, _COUNTED),
            widgets.ago(lane.oldest),
            up_to(lane.keyed, _COUNTED),
            f"{lane.low:,}",
        )
        for lane in lanes
    ]
    headings = (_("priority"), _("ready"), _("oldest"), _("with a key"), _("watermark"))
    words = _("Paused: no worker claims from it.") if paused else _("Open: workers claim from it.")
    return widgets.join(
        display.badge("paused" if paused else "idle", words),
        widgets.table(headings, rows, numbers=range(5)),
    )


def _head(visit: Visit, found: Sequence[ReadyTask]) -> Any:
    rows = [
        (
            visit.task(task.id, task.name),
            visit.func(task.func),
            display.cut(task.key, 60),
            task.priority,
            task.attempts,
            widgets.ago(task.seconds),
        )
        for task in found
    ]
    headings = (_("task"), _("function"), _("key"), _("priority"), _("attempts"), _("ready for"))
    return widgets.table(headings, rows, empty=_("No task is ready."), numbers=(3, 4, 5))
