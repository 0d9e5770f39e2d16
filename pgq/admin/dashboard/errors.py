"""Failures by what they have in common, and all of one kind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.http import Http404
from django.utils.translation import gettext as _

from pgq.admin import display
from pgq.admin.dashboard import widgets
from pgq.admin.dashboard.visit import Visit
from pgq.admin.dashboard.widgets import Block
from pgq.store import failures as store
from pgq.store.connection import Cursor
from pgq.store.failures import FailureGroup, FailureRow

#: Failures that are looked at: those that were enqueued last.
WINDOW = 10_000
_GROUPS, _ROWS = 200, 50
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


def groups(cursor: Cursor, *, most: int = _GROUPS, fingerprint: str | None = None) -> list[FailureGroup]:
    """Return the groups of the newest failures."""
    return store.fingerprints(cursor, limit=WINDOW, most=most, fingerprint=fingerprint)


def checked(fingerprint: str) -> str:
    """Return a fingerprint that came in an address.

    Raises:
        Http404: It is none.
    """
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise Http404
    return fingerprint


def build(visit: Visit) -> list[Block]:
    """Return the parts of the page of all errors."""
    note = _("The newest %s failures, by function, exception and message without its numbers.") % f"{WINDOW:,}"
    return [visit.block(_("Errors"), groups, lambda found: table(visit, found), note=note)]


def table(visit: Visit, found: Sequence[FailureGroup]) -> Any:
    """Show groups, the most recent first."""
    rows = [
        (
            visit.link(title(group), "error", group.fingerprint),
            visit.func(group.func),
            display.cut(group.message, 160),
            f"{group.count:,}",
            widgets.when(group.last),
        )
        for group in found
    ]
    headings = (_("error"), _("function"), _("message of the last"), _("times"), _("last"))
    return widgets.table(headings, rows, empty=_("No task has failed."), numbers=(3,))


def title(group: FailureGroup) -> str:
    return group.exception.rpartition(".")[2] or _("no exception")


def build_one(visit: Visit, fingerprint: str) -> list[Block]:
    """Return the parts of the page of one kind of error."""
    checked(fingerprint)
    seen = visit.look("group", lambda cursor: groups(cursor, fingerprint=fingerprint))
    if seen.fault is None and not seen.value:
        gone = _("There is none of this kind any more among the newest %s failures.") % f"{WINDOW:,}"
        return [Block(_("Error"), display.link(visit.address("errors"), gone))]
    links = []
    if visit.may("operate_dashboard") and visit.may("retry_task"):
        links.append((_("Retry all…"), visit.address("retry_alike", fingerprint)))
    return [
        visit.shown(
            title(seen.value[0]) if seen.value else _("Error"), seen, lambda found: _facts(visit, found[0]), links=links
        ),
        visit.block(
            _("The newest of them"),
            lambda cursor: store.alike(cursor, fingerprint=fingerprint, limit=WINDOW, most=_ROWS),
            lambda found: _rows(visit, found),
            name="alike",
        ),
    ]


def _facts(visit: Visit, group: FailureGroup) -> Any:
    return widgets.join(
        widgets.facts(
            [
                (_("function"), visit.func(group.func)),
                (_("exception"), display.func_path(group.exception) if group.exception else display.EMPTY),
                (_("times"), f"{group.count:,}"),
                (_("first"), widgets.when(group.first)),
                (_("last"), widgets.when(group.last)),
                (_("ran on average for"), widgets.ago(group.seconds)),
                (_("queues"), display.cut(", ".join(group.queues), 300)),
            ]
        ),
        widgets.code(group.message),
    )


def _rows(visit: Visit, found: Sequence[FailureRow]) -> Any:
    rows = [
        (visit.task(row.id, row.name), visit.queue(row.queue), display.cut(row.message, 160), widgets.when(row.stopped))
        for row in found
    ]
    return widgets.table((_("task"), _("queue"), _("message"), _("stopped")), rows)
