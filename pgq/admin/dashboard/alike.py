"""Retry all failures of one kind: first how many and how long, then in batches, each a transaction of its own."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from django.db import transaction
from django.http import Http404
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq.admin.dashboard import errors, widgets
from pgq.admin.dashboard.acts import Act, Done, Question
from pgq.status.pools import Stat
from pgq.status.snapshot import up_to
from pgq.store import failures as store
from pgq.store import pools
from pgq.store.caller import callers_cursor
from pgq.store.connection import Cursor
from pgq.store.failures import FailureGroup

if TYPE_CHECKING:
    from pgq.admin.dashboard.visit import Visit

#: Tasks of one transaction, and seconds after which an answer begins no further one.
BATCH, SECONDS = 500, 10.0


def ask(visit: Visit, fingerprint: str) -> Question:
    """Return what would be started, and for how long it would keep the workers busy."""
    errors.checked(fingerprint)
    seen = visit.look("group", lambda cursor: errors.groups(cursor, fingerprint=fingerprint))
    workers = visit.look("workers", _workers)
    if seen.fault is None and not seen.value:
        raise Http404
    back = visit.address("error", fingerprint)
    if not seen.value:
        return Question(seen.fault, back)
    group = seen.value[0]
    text = _("Run again all %(count)s tasks that failed like this: %(error)s in %(func)s?")
    return Question(
        text % {"count": up_to(group.count, errors.WINDOW), "error": errors.title(group), "func": group.func},
        back,
        body=widgets.facts(
            [
                (_("would start"), widgets.tasks_in_words(group.count)),
                (_("in queues"), ", ".join(group.queues)[:300]),
                (_("each ran for about"), widgets.ago(group.seconds)),
                (_("would keep the workers busy for about"), _busy_for(group, workers.value or 0)),
                (_("message of the last"), widgets.code(group.message)),
            ]
        ),
    )


def _workers(cursor: Cursor) -> int:
    return sum(len(stat.workers) for stat in map(Stat.of, pools.pools(cursor)) if stat.is_alive)


def _busy_for(group: FailureGroup, workers: int) -> str:
    if not workers:
        return _("no worker runs")
    words = _("%(time)s, with %(workers)d workers, if they run as long as they did when they failed")
    return words % {"time": widgets.ago(group.count * group.seconds / workers), "workers": workers}


@dataclass(slots=True)
class _Tally:
    done: int = 0
    #: Gone, or run again, by another meanwhile.
    skipped: int = 0
    #: Kept by a foreign key of another table.
    kept: int = 0
    left: int = 0


def do(visit: Visit, fingerprint: str) -> Done:
    """Run again all of that kind among the newest failures, the oldest of them first; as far as time allows."""
    errors.checked(fingerprint)
    with callers_cursor(visit.alias) as cursor:
        groups = errors.groups(cursor, fingerprint=fingerprint)
        rows = store.alike(cursor, fingerprint=fingerprint, limit=errors.WINDOW, most=errors.WINDOW)
    ids, tally, began = [row.id for row in reversed(rows)], _Tally(), monotonic()
    for start in range(0, len(ids), BATCH):
        if monotonic() - began > SECONDS:
            tally.left = len(ids) - start
            break
        with transaction.atomic(using=visit.alias), callers_cursor(visit.alias) as cursor:
            became = list(store.retry_failures(cursor, ids[start : start + BATCH]).values())
        tally.done += became.count(True)
        tally.skipped += became.count(False)
        tally.kept += became.count(None)
    return _told(visit, fingerprint, groups[0] if groups else None, tally)


def _told(visit: Visit, fingerprint: str, group: FailureGroup | None, tally: _Tally) -> Done:
    what = f"{errors.title(group)} in {group.func}" if group is not None else fingerprint
    text = _("%(count)s of %(what)s are in the queue again.") % {
        "count": widgets.tasks_in_words(tally.done),
        "what": what,
    }
    notes = []
    if tally.skipped:
        notes.append(_("%s skipped: they are no failed tasks any more.") % widgets.tasks_in_words(tally.skipped))
    if tally.kept:
        notes.append(_("%s left: another table refers to them.") % widgets.tasks_in_words(tally.kept))
    if tally.left:
        notes.append(_("%s left, for want of time: repeat it for these.") % widgets.tasks_in_words(tally.left))
    facts = {
        "fingerprint": fingerprint,
        "done": tally.done,
        "skipped": tally.skipped,
        "kept": tally.kept,
        "left": tally.left,
    }
    return Done(text if tally.done else "", fingerprint, what, visit.address("error", fingerprint), notes, facts)


RETRY_ALIKE = Act(
    "retry_alike",
    "errors/<str:fingerprint>/retry/",
    ("operate_dashboard", "retry_task"),
    gettext_lazy("Retry all"),
    ask,
    do,
)
