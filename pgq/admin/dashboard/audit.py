"""What operators did: Django's log, as far as it is about pgq."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.utils.translation import gettext as _

from pgq.admin import display
from pgq.admin.dashboard import widgets
from pgq.admin.dashboard.visit import Visit
from pgq.admin.dashboard.widgets import Block

#: Entries of the log that are looked at, and entries of a page.
_REACH, _SHOWN = 1_000, 50


def build(visit: Visit) -> list[Block]:
    """Return the parts of the page. The log is in the admin's own database, so it is read beside the look."""
    before = visit.asked("before")
    rows = LogEntry.objects.order_by("-pk")
    newest = rows.values_list("pk", flat=True)[_REACH : _REACH + 1].first() or 0
    rows = rows.filter(
        pk__gt=newest, content_type__in=list(ContentType.objects.filter(app_label="pgq").values_list("pk", flat=True))
    )
    if before.isascii() and before.isdigit() and len(before) < 18:
        rows = rows.filter(pk__lt=int(before))
    user = visit.asked("user")
    if user:
        rows = rows.filter(**{f"user__{_username()}": user})
    found = list(rows.select_related("user", "content_type")[: _SHOWN + 1])
    note = _("Of the newest %s entries of the admin's log.") % f"{_REACH:,}"
    return [Block(_("What was done"), _table(visit, found[:_SHOWN], len(found) > _SHOWN, user), note=note)]


def _username() -> str:
    from django.contrib.auth import get_user_model

    return get_user_model().USERNAME_FIELD


def _table(visit: Visit, found: Sequence[LogEntry], more: bool, user: str) -> Any:
    rows = [
        (
            widgets.when(entry.action_time),
            visit.link(display.cut(entry.user.get_username(), 60), "audit", user=entry.user.get_username()),
            str(entry.content_type),
            display.link(_address(entry), display.cut(entry.object_repr, 80)),
            display.cut(entry.get_change_message() or entry.get_action_flag_display(), 300),
        )
        for entry in found
    ]
    shown = widgets.table(
        (_("when"), _("who"), _("what"), _("which"), _("what was done")), rows, empty=_("Nothing yet.")
    )
    if not more:
        return shown
    query = {"before": found[-1].pk, **({"user": user} if user else {})}
    return widgets.join(shown, widgets.more(visit.address("audit", **query), _("Older ones")))


def _address(entry: LogEntry) -> str | None:
    if entry.content_type is None or entry.content_type.model == "dashboard":
        return None
    found: str | None = entry.get_admin_url()
    return found
