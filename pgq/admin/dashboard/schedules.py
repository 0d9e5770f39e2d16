"""The schedules: what they have fired, when they fire next, and the coming day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any

from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from pgq import recurrence
from pgq.admin import display
from pgq.admin.dashboard import charts, widgets
from pgq.admin.dashboard.visit import Visit
from pgq.admin.dashboard.widgets import Block
from pgq.conf import get_settings
from pgq.models import Schedule
from pgq.recurrence import moments
from pgq.schedules.overview import ACTIVE, PAUSED, ScheduleOverview, overview
from pgq.store.firings import Firing, firings

#: Schedules of a page; tasks of each that are shown; firings of each that are foretold.
_SHOWN, _LAST, _FORETOLD = 100, 60, 60
#: Seconds that foretelling may take.
_BUDGET = 0.3


def soonest(alias: str, count: int, offset: int = 0) -> list[ScheduleOverview]:
    """Return the schedules that fire next."""
    rows = Schedule.objects.using(alias).defer("args", "kwargs", "options", "spec")
    return overview(rows.order_by("paused", "next_run", "pk")[offset : offset + count])


def short_table(visit: Visit, found: Sequence[ScheduleOverview]) -> Any:
    """Show what fires next."""
    rows = [
        (
            _named(visit, one),
            display.cut(one.words, 80),
            widgets.when(one.upcoming[0]) if one.upcoming and one.state == ACTIVE else _state(one),
        )
        for one in found
    ]
    return widgets.table((_("schedule"), _("fires"), _("next")), rows, empty=_("There is no schedule."))


def build(visit: Visit) -> list[Block]:
    """Return the parts of the page."""
    page = visit.asked("page")
    number = int(page) if page.isascii() and page.isdigit() and len(page) < 6 else 0
    seen = visit.look("schedules", lambda cursor: soonest(visit.alias, _SHOWN + 1, number * _SHOWN))
    some = (seen.value or [])[:_SHOWN]
    fired = visit.look(
        "firings", lambda cursor: firings(cursor, [one.schedule.pk for one in some], limit=_LAST) if some else []
    )
    by_schedule: dict[int, list[Firing]] = {}
    for firing in fired.value or ():
        by_schedule.setdefault(firing.schedule, []).append(firing)
    address = display.url(visit.site, Schedule, "changelist") or ""
    links = [(_("Run, pause, change"), address)] if address and visit.may("view_schedule") else []
    further = len(seen.value or ()) > _SHOWN

    def show(found: Sequence[ScheduleOverview]) -> Any:
        table = _table(visit, found[:_SHOWN], by_schedule)
        older = widgets.more(visit.address("schedules", page=number + 1), _("More schedules"))
        return widgets.join(table, older if further else "")

    return [
        visit.shown(_("Schedules"), seen, show, links=links),
        visit.shown(_("The next 24 hours"), seen, lambda found: _day(visit, found[:_SHOWN])),
    ]


def _named(visit: Visit, one: ScheduleOverview) -> Any:
    address = display.url(visit.site, Schedule, "change", one.schedule.pk) if visit.may("view_schedule") else None
    return display.link(address, display.cut(one.schedule.name or f"#{one.schedule.pk}", 60))


def _state(one: ScheduleOverview) -> Any:
    return display.badge("paused" if one.state == PAUSED else "idle", display.state_word(one.state))


def _table(visit: Visit, found: Sequence[ScheduleOverview], fired: dict[int, list[Firing]]) -> Any:
    rows = []
    for one in found:
        last = fired.get(one.schedule.pk, [])
        failed = sum(1 for firing in last if not firing.success)
        words = ngettext("%(count)d firing, %(failed)d failed", "%(count)d firings, %(failed)d failed", len(last))
        bars = [charts.Bar(firing.seconds, "good" if firing.success else "bad", _said(firing)) for firing in last]
        trouble = one.schedule.error or one.doubt
        rows.append(
            (
                _named(visit, one),
                visit.func(one.schedule.func),
                display.cut(one.words, 100),
                _next(one),
                widgets.join(
                    charts.spark(bars, words % {"count": len(last), "failed": failed}),
                    visit.link(_("last"), "task", last[-1].id.hex) if last else display.EMPTY,
                ),
                _source(one),
                widgets.join(display.badge("parked", display.cut(trouble, 200))) if trouble else _state(one),
            )
        )
    headings = (_("schedule"), _("function"), _("fires"), _("next"), _("last firings"), _("kept in"), _("state"))
    return widgets.table(headings, rows, empty=_("There is no schedule."))


def _said(firing: Firing) -> str:
    became = _("succeeded") if firing.success else _("failed")
    began = timezone.localtime(moments.aware(firing.started))
    return f"{began:%Y-%m-%d %H:%M:%S}: {became}, {widgets.ago(firing.seconds)}"


def _next(one: ScheduleOverview) -> Any:
    if one.state != ACTIVE or not one.upcoming:
        return display.EMPTY
    first, *others = one.upcoming[:3]
    later = ", ".join(f"{widgets.weekday(slot.astimezone(one.zone))}" for slot in others)
    return widgets.join(widgets.when(first), format_html(" <span>{}</span>", later) if later else "")


def _source(one: ScheduleOverview) -> str:
    return _("database") if one.schedule.source is None else _("code")


def _day(visit: Visit, found: Sequence[ScheduleOverview]) -> Any:
    """Show by hour what fires in the next day; each schedule is followed so far as time allows."""
    began, now = perf_counter(), moments.now()
    hours: dict[datetime, Counter[str]] = {}
    cut = False
    for one in found:
        if one.state != ACTIVE:
            continue
        if perf_counter() - began > _BUDGET:
            cut = True
            break
        slots = _slots(one, now + timedelta(days=1))
        cut = cut or len(slots) >= _FORETOLD
        for slot in slots:
            hour = timezone.localtime(slot).replace(minute=0, second=0, microsecond=0)
            hours.setdefault(hour, Counter())[one.schedule.name or f"#{one.schedule.pk}"] += 1
    if not hours:
        return widgets.table((), ())
    start = timezone.localtime(now).replace(minute=0, second=0, microsecond=0)
    bars = []
    for number in range(25):
        hour = timezone.localtime(start + timedelta(hours=number))
        bars.append((widgets.weekday(hour), float(sum(hours.get(hour, Counter()).values())), "plain"))
    rows = [
        (widgets.weekday(hour), sum(names.values()), display.cut(_names(names), 300))
        for hour, names in sorted(hours.items())
    ]
    note = _("Of each schedule the next %d firings at most.") % _FORETOLD
    return widgets.join(
        charts.columns(_("Firings by hour"), bars, unit=_("firings")),
        widgets.table((_("hour"), _("firings"), _("schedules")), rows, numbers=(1,)),
        format_html('<p class="pgq-quiet">{}</p>', note) if cut else "",
    )


def _names(names: Counter[str]) -> str:
    return ", ".join(f"{name} ({count})" if count > 1 else name for name, count in names.most_common(20))


def _slots(one: ScheduleOverview, until: datetime) -> list[datetime]:
    row = one.schedule
    try:
        first = moments.aware(row.next_run)
        slots = recurrence.upcoming(recurrence.Recurrence.of(row, get_settings().zone), first, _FORETOLD)
    except (ValueError, TypeError, OverflowError):
        return []
    some = [slot for slot in slots if slot < until]
    return some[: row.repeats] if row.repeats > 0 else some
