"""The functions: how often, how long, how often in vain; and one of them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.http import Http404
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq.admin import display
from pgq.admin.dashboard import charts, errors, numbers, widgets
from pgq.admin.dashboard.visit import Visit
from pgq.admin.dashboard.widgets import Block
from pgq.enqueue import registry
from pgq.ground import histogram
from pgq.status import metrics
from pgq.status.metrics import FunctionStats
from pgq.store import failures
from pgq.store.connection import Cursor

#: Rows of the table.
_SHOWN = 200
#: What the table is sorted by: the key of the address, and what is compared.
_SORTS: dict[str, Any] = {
    "failures": lambda one: (one.counts.failures, one.counts.ended),
    "calls": lambda one: one.counts.ended,
    "time": lambda one: one.run.total,
    "p95": lambda one: one.run.p95 or 0.0,
    "wait": lambda one: one.wait.p95 or 0.0,
    "retried": lambda one: one.counts.retried,
}
_SORT_LABELS = {
    "failures": gettext_lazy("by failures"),
    "calls": gettext_lazy("by number"),
    "time": gettext_lazy("by worker time"),
    "p95": gettext_lazy("by run p95"),
    "wait": gettext_lazy("by wait p95"),
    "retried": gettext_lazy("by retries"),
}


def build(visit: Visit) -> list[Block]:
    """Return the parts of the page of all functions."""
    name, sort = numbers.chosen(visit), visit.asked("sort")
    sort = sort if sort in _SORTS else "failures"

    def read(cursor: Cursor) -> Sequence[FunctionStats]:
        asked = numbers.of(name)
        return metrics.functions(cursor, start=asked.start, end=asked.end)

    tabs = widgets.chosen(_SORT_LABELS, sort, lambda key: visit.address("functions", range=name, sort=key))
    note = _("As workers have counted them; half a minute behind.")
    return [
        Block("", widgets.join(numbers.tabs(visit, "functions", sort=sort), tabs)),
        visit.block(_("Functions"), read, lambda found: _table(visit, found, sort), note=note),
    ]


def _table(visit: Visit, found: Sequence[FunctionStats], sort: str) -> Any:
    everything = sum(one.run.total for one in found) or 1.0
    ordered = sorted(found, key=_SORTS[sort], reverse=True)[:_SHOWN]
    rows = [
        (
            visit.func(one.func),
            visit.queue(one.queue),
            f"{one.counts.ended:,}",
            _failures(one),
            f"{one.counts.retried:,}",
            widgets.ago(one.run.median),
            widgets.ago(one.run.p95),
            widgets.ago(one.run.longest),
            widgets.ago(one.wait.p95),
            widgets.meter(one.run.total, everything, f"{100 * one.run.total / everything:.0f} %"),
        )
        for one in ordered
    ]
    headings = (
        _("function"),
        _("queue"),
        _("ended"),
        _("failed"),
        _("retried"),
        _("run p50"),
        _("p95"),
        _("longest"),
        _("wait p95"),
        _("worker time"),
    )
    return widgets.table(headings, rows, empty=_("Nothing was settled in this time."), numbers=range(2, 9))


def _failures(one: FunctionStats) -> str:
    failed, ended = one.counts.failures, one.counts.ended
    return f"{failed:,} ({100 * failed / ended:.1f} %)" if failed and ended else f"{failed:,}"


@dataclass(frozen=True, slots=True)
class _Told:
    stats: Sequence[FunctionStats]
    runs: Mapping[int, int]
    waits: Mapping[int, int]


def build_one(visit: Visit, path: str) -> list[Block]:
    """Return the parts of the page of one function."""
    if "\0" in path:
        raise Http404
    name = numbers.chosen(visit)

    def read(cursor: Cursor) -> _Told:
        asked = numbers.of(name)
        stats = metrics.functions(cursor, start=asked.start, end=asked.end, func=path)
        everywhere = [one for one in metrics.totals(cursor) if one.func == path]
        return _Told(stats, _added(one.runs for one in everywhere), _added(one.waits for one in everywhere))

    seen = visit.look("function", read)
    links = [(_("Its tasks"), visit.address("tasks", q=f"func:{path}"))]
    return [
        Block(display.cut(path, 200), _registered(path), links=links),
        numbers.block(visit, _("Over time"), "function", path, func=path),
        visit.shown(_("Queues"), seen, lambda found: _table(visit, found.stats, "calls")),
        visit.shown(_("How long it ran, ever"), seen, lambda found: _histogram(_("Runs"), found.runs), size="half"),
        visit.shown(
            _("How long it waited, ever"), seen, lambda found: _histogram(_("Waits"), found.waits), size="half"
        ),
        visit.block(
            _("Its errors"),
            lambda cursor: failures.fingerprints(cursor, limit=errors.WINDOW, most=20, func=path),
            lambda found: errors.table(visit, found),
        ),
    ]


def _added(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    total: dict[int, int] = {}
    for one in histograms:
        for bucket, count in one.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


def _histogram(title: str, counts: Mapping[int, int]) -> Any:
    filled = [bucket for bucket, count in counts.items() if count]
    if not filled:
        return widgets.table((), (), empty=_("Nothing was counted yet."))
    bars = [
        (widgets.ago(histogram.begin(bucket)), float(counts.get(bucket, 0)), "plain")
        for bucket in range(min(filled), max(filled) + 1)
    ]
    return charts.columns(title, bars, unit=_("tasks"))


def _registered(path: str) -> Any:
    """Say what this process knows of the function. Nothing is imported for it: the path is what a row says."""
    module, _dot, name = path.rpartition(".")
    # Not getattr, for which a module may import.
    found = vars(sys.modules[module]).get(name) if module in sys.modules else None
    task = registry.registered(path)
    pairs: list[tuple[Any, Any]] = [
        (_("registered with @task"), _("yes") if task is not None else _("not that this process knows"))
    ]
    function = getattr(found, "func", found)
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    if code is not None:
        pairs.append((_("source"), f"{module}, {_('line %d') % code.co_firstlineno}"))
    return widgets.facts(pairs)
