"""The marks: releases and what operators noted, which the charts show."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.utils.translation import gettext as _

from pgq.admin import display
from pgq.admin.dashboard import widgets
from pgq.admin.dashboard.visit import Visit
from pgq.admin.dashboard.widgets import Block
from pgq.status import metrics
from pgq.status.metrics import Mark
from pgq.store.connection import Cursor

_DAYS = 400


def build(visit: Visit) -> list[Block]:
    """Return the parts of the page."""
    note = _("Set one by SELECT pgq_mark('v1.2'); a pool of a new release sets one by itself.")
    return [visit.block(_("Marks"), _read, _table, note=note)]


def _read(cursor: Cursor) -> Sequence[Mark]:
    now = metrics.now(cursor)
    return metrics.marks(cursor, start=now - timedelta(days=_DAYS), end=now + timedelta(days=1))


def _table(found: Sequence[Mark]) -> Any:
    rows = [
        (widgets.when(mark.at), display.cut(mark.label, 200), mark.kind, display.cut(mark.author, 60)) for mark in found
    ]
    return widgets.table((_("when"), _("what"), _("kind"), _("who")), rows, empty=_("There is none yet."))
