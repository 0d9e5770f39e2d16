"""Tasks of either table, newest first, found by one search box."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet
from django.db.models.functions import Left
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq.admin import display
from pgq.admin.dashboard import widgets
from pgq.admin.dashboard.visit import Visit
from pgq.admin.dashboard.widgets import Block
from pgq.admin.lists import WINDOW, by_term, newest
from pgq.admin.queued import PART, STATES
from pgq.ground import ids, spans
from pgq.models import QueuedTask, Task

_SHOWN = 50
#: States, as tabs.
TABS = {
    "": gettext_lazy("All"),
    "ready": gettext_lazy("Ready"),
    "running": gettext_lazy("Running"),
    "waiting": gettext_lazy("Waiting"),
    "parked": gettext_lazy("Parked"),
    "failed": gettext_lazy("Failed"),
    "cancelled": gettext_lazy("Cancelled"),
    "succeeded": gettext_lazy("Succeeded"),
}
_LIVE, _FINISHED = frozenset(STATES), frozenset({"failed", "cancelled", "succeeded"})
#: Qualifiers of the search, and whether an index serves them.
_FIELDS = {"func": False, "queue": False, "group": True, "name": True, "exception": False, "message": False}
_SPAN = re.compile(r"(\d{1,4})([mhdw])")


@dataclass(frozen=True, slots=True)
class Search:
    """What was asked for."""

    #: By qualifier.
    fields: dict[str, str]
    #: The rest.
    term: str = ""
    state: str = ""
    #: Seconds since they were enqueued, at most.
    since: float | None = None
    #: Ids below this one only.
    before: UUID | None = None
    #: What was not understood.
    doubts: tuple[str, ...] = ()


def parse(text: str) -> Search:
    """Return what a text in the search box asks for."""
    search, rest, doubts = Search({}), [], []
    for word in text.split():
        key, colon, value = word.partition(":")
        if not colon or not value:
            rest.append(word)
        elif key in _FIELDS:
            search.fields[key] = value
        elif key == "state" and value in TABS:
            search = replace(search, state=value)
        elif key == "since" and (span := _SPAN.fullmatch(value)):
            search = replace(search, since=float(int(span[1]) * spans.UNITS[span[2]]))
        elif key == "since":
            doubts.append(_("since: is followed by a number and m, h, d or w, as in since:2h"))
        else:
            rest.append(word)
    return replace(search, term=" ".join(rest), doubts=tuple(doubts))


def build(visit: Visit) -> list[Block]:
    """Return the parts of the page."""
    text = visit.asked("q")[:500]
    search = parse(text)
    if visit.asked("state") in TABS and visit.asked("state"):
        search = replace(search, state=visit.asked("state"))
    search = replace(search, before=ids.parse_id(visit.asked("before")))

    def address(state: str, **more: Any) -> str:
        query = {"q": text, "state": state, **more}
        return visit.address("tasks", **{key: value for key, value in query.items() if value})

    seen = visit.look("tasks", lambda cursor: _find(visit, search))

    def show(found: Sequence[Row]) -> Any:
        shown = _table(visit, found[:_SHOWN])
        if len(found) <= _SHOWN:
            return shown
        return widgets.join(
            shown, widgets.more(address(search.state, before=UUID(str(found[_SHOWN - 1].id)).hex), _("Older ones"))
        )

    notes = [*search.doubts]
    if search.term or any(not _FIELDS[key] for key in search.fields):
        notes.append(
            _("Functions, queues, exceptions and messages are looked for among the newest %s.") % f"{WINDOW:,}"
        )
    return [
        Block("", widgets.chosen(TABS, search.state, address)),
        visit.shown(_("Tasks"), seen, show, note=" ".join(notes)),
    ]


@dataclass(frozen=True, slots=True)
class Row:
    """A task of either table, as the list shows it."""

    id: str
    name: str | None
    func: str
    queue: str
    state: str
    enqueued: Any
    #: Seconds it ran; None: it has not ended.
    seconds: float | None
    attempts: int
    error: str


def _find(visit: Visit, search: Search) -> list[Row]:
    """Return the newest that match, one more than a page shows."""
    found: list[Row] = []
    if search.state not in _FINISHED and not search.fields.keys() & {"exception", "message"}:
        found += [_live(row) for row in _queued(visit.alias, search)]
    if search.state not in _LIVE:
        found += [_finished(row) for row in _ended(visit.alias, search)]
    return sorted(found, key=lambda row: UUID(str(row.id)).int, reverse=True)[: _SHOWN + 1]


def _queued(alias: str, search: Search) -> QuerySet[Any]:
    rows = QueuedTask.objects.using(alias).order_by("-pk")
    if search.state:
        state, first = STATES[search.state]
        if first is None:
            rows = rows.filter(state)
        else:
            # Found by the partial index of the state; the table may hold a million that are ready.
            some = QueuedTask.objects.using(alias).filter(state).order_by(first).values("pk")[:PART]
            rows = rows.filter(state, pk__in=some)
    rows = _matching(rows, search, {"func": "func__icontains", "queue": "queue", "group": "group", "name": "name"})
    named = ("id", "name", "func", "queue", "attempts", "enqueued_at")
    return rows.only(*named, "lock", "parked", "run_after", "remaining", "cancelled")[: _SHOWN + 1]


def _ended(alias: str, search: Search) -> QuerySet[Any]:
    rows = Task.objects.using(alias).order_by("-pk")
    if search.state == "succeeded":
        rows = rows.filter(success=True)
    elif search.state == "failed":
        rows = rows.filter(success=False).exclude(exception=display.CANCELLED)
    elif search.state == "cancelled":
        rows = newest(rows.filter(success=False)).filter(exception=display.CANCELLED)
    columns = {
        "func": "func__icontains",
        "queue": "queue",
        "group": "group",
        "name": "name",
        "exception": "exception__icontains",
        "message": "message__icontains",
    }
    rows = _matching(rows, search, columns)
    fields = (
        "id",
        "name",
        "func",
        "queue",
        "success",
        "started",
        "stopped",
        "enqueued_at",
        "attempt_count",
        "exception",
    )
    return rows.only(*fields).annotate(short=Left("message", 160))[: _SHOWN + 1]


def _matching(rows: QuerySet[Any], search: Search, columns: dict[str, str]) -> QuerySet[Any]:
    if search.before is not None:
        rows = rows.filter(pk__lt=search.before)
    if search.since is not None:
        since = timezone.now() - timedelta(seconds=search.since)
        rows = rows.filter(pk__gte=ids.smallest_at(since))
    conditions = {columns[key]: value for key, value in search.fields.items() if key in columns}
    if any(not _FIELDS[key] for key in search.fields):
        rows = newest(rows)
    rows = rows.filter(**conditions)
    if search.term:
        rows = by_term(rows, search.term, Q(func__icontains=search.term))
    return rows


def _live(row: Any) -> Row:
    return Row(
        row.pk,
        row.name,
        row.func,
        row.queue,
        display.state_of(row),
        row.enqueued_at,
        None,
        row.attempts,
        display.cut(row.parked or "", 160),
    )


def _finished(row: Any) -> Row:
    state = display.state_of(row)
    error = "" if row.success else f"{(row.exception or '').rpartition('.')[2]}: {row.short or ''}"
    seconds = (row.stopped - row.started).total_seconds()
    return Row(row.pk, row.name, row.func, row.queue, state, row.enqueued_at, seconds, row.attempt_count, error)


def _table(visit: Visit, found: Sequence[Row]) -> Any:
    rows = [
        (
            format_html("{}", visit.task(row.id, row.name)),
            display.state_badge(row.state, str(TABS.get(row.state, row.state)).lower()),
            visit.func(row.func),
            visit.queue(row.queue),
            widgets.when(row.enqueued),
            widgets.ago(row.seconds),
            row.attempts,
            display.cut(row.error, 160),
        )
        for row in found
    ]
    headings = (
        _("task"),
        _("state"),
        _("function"),
        _("queue"),
        _("enqueued"),
        _("ran for"),
        _("attempts"),
        _("error"),
    )
    return widgets.table(headings, rows, empty=_("No task matches."), numbers=(5, 6))
