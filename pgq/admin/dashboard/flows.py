"""Groups and chains: which there are, and one drawn as a graph."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.http import Http404
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from pgq.admin import display
from pgq.admin.dashboard import widgets
from pgq.admin.dashboard.visit import Visit
from pgq.admin.dashboard.widgets import Block
from pgq.ground import ids
from pgq.store import flows as store
from pgq.store.flows import FlowTask, RecentGroup

#: Tasks that the list looks at, groups that it shows; tasks of one group; those of a layer that are drawn one by one.
_WINDOW, _SHOWN, _TASKS, _DRAWN = 10_000, 100, 1_000, 200
#: Of a box, and from one to the next, in pixels.
_WIDE, _TALL, _ACROSS, _DOWN = 150, 36, 200, 46
#: Boxes of one column of a layer.
_COLUMN = 20


def build(visit: Visit) -> list[Block]:
    """Return the parts of the page of all groups."""
    note = _("Among the newest %s tasks, live and finished.") % f"{_WINDOW:,}"
    return [
        visit.block(
            _("Groups and chains"),
            lambda cursor: store.recent_groups(cursor, limit=_WINDOW, most=_SHOWN),
            lambda found: _list(visit, found),
            note=note,
        )
    ]


def _list(visit: Visit, found: Sequence[RecentGroup]) -> Any:
    rows = [
        (
            visit.link(display.cut(_called(one.group), 80), "flow", one.group),
            widgets.meter(one.tasks - one.live, one.tasks, f"{one.tasks - one.live:,} / {one.tasks:,}"),
            f"{one.live:,}",
            f"{one.succeeded:,}",
            f"{one.failed:,}",
            widgets.when(one.last),
        )
        for one in found
    ]
    headings = (_("group"), _("ended"), _("live"), _("succeeded"), _("failed"), _("last enqueued"))
    return widgets.table(headings, rows, empty=_("No task of a group is among them."), numbers=(2, 3, 4))


def _called(group: str) -> str:
    """Return the name of a group; the words of its id, if it has none."""
    id = ids.parse_id(group)
    return group if id is None else display.named(None, id.hex)


def build_one(visit: Visit, group: str) -> list[Block]:
    """Return the parts of the page of one group."""
    if "\0" in group:
        raise Http404
    seen = visit.look("flow", lambda cursor: store.flow(cursor, group, limit=_TASKS))
    if seen.fault is None and not seen.value:
        gone = _("None of its tasks is there any more.")
        return [Block(display.cut(_called(group), 100), format_html('<p class="pgq-quiet">{}</p>', gone))]
    links = [(_("Its tasks"), visit.address("tasks", q=f"group:{group}"))]
    note = _("The first %s tasks of it.") % f"{_TASKS:,}" if len(seen.value or ()) >= _TASKS else ""
    return [
        visit.shown(display.cut(_called(group), 100), seen, lambda it: graph(visit, it), links=links, note=note),
        visit.shown(_("Its tasks, oldest first"), seen, lambda found: _table(visit, found[:100])),
    ]


def _table(visit: Visit, found: Sequence[FlowTask]) -> Any:
    rows = [
        (
            visit.task(task.id, task.name),
            visit.func(task.func),
            display.state_badge(task.state),
            _("collects the others") if task.collects else "",
        )
        for task in found
    ]
    return widgets.table((_("task"), _("function"), _("state"), ""), rows)


# ------------------------------------------------------------------------------------------------- the graph


@dataclass(frozen=True, slots=True)
class _Box:
    """A task, or several of a layer, or a link that is still to come."""

    label: str
    state: str
    words: str
    address: str = ""


def graph(visit: Visit, found: Sequence[FlowTask]) -> SafeString:
    """Draw the tasks from left to right: links of a chain one after the other, collectors behind what they wait for."""
    parts = [task for task in found if not task.collects]
    last = [task for task in found if task.collects]
    if any(task.chain for task in parts) and not last:
        layers = [[_box(visit, task)] for task in parts[:_DRAWN]] + [[box] for box in _to_come(parts[-1])]
    else:
        layers = [_layer(visit, tasks) for tasks in (parts, last) if tasks]
    return _drawn(layers)


def _box(visit: Visit, task: FlowTask) -> _Box:
    label = task.name or task.func.rpartition(".")[2]
    return _Box(
        display.cut(label, 20),
        task.state,
        f"{task.func}: {display.state_word(task.state)}",
        visit.address("task", task.id.hex),
    )


def _to_come(last: FlowTask) -> list[_Box]:
    try:
        links = json.loads(last.chain or "[]")
    except ValueError:
        return []
    # After a link that failed none follows, as a rule.
    state = "waiting" if last.state not in ("failed", "cancelled") else "cancelled"
    words = _("to come") if state == "waiting" else _("will not come")
    return [_Box(display.cut(str(func).rpartition(".")[2], 20), state, f"{func}: {words}") for func in links[:_DRAWN]]


def _layer(visit: Visit, tasks: Sequence[FlowTask]) -> list[_Box]:
    if len(tasks) <= _DRAWN:
        return [_box(visit, task) for task in tasks]
    states = Counter(task.state for task in tasks)
    words = {state: f"{count:,} {display.state_word(state)}" for state, count in states.most_common()}
    return [_Box(said, state, said) for state, said in words.items()]


def _drawn(layers: Sequence[Sequence[_Box]]) -> SafeString:
    boxes: list[Any] = []
    edges: list[Any] = []
    left, before = 0, None
    tallest = max(min(len(layer), _COLUMN) for layer in layers)
    for layer in layers:
        columns = -(-len(layer) // _COLUMN)
        middle = tallest * _DOWN / 2
        top = middle - min(len(layer), _COLUMN) * _DOWN / 2
        if before is not None:
            edges.append((before, middle - 5, left - 8, middle - 5))
        for place, box in enumerate(layer):
            x, y = left + place // _COLUMN * (_WIDE + 10), top + place % _COLUMN * _DOWN
            boxes.append(_rect(box, x, y))
        before = left + columns * (_WIDE + 10) - 10
        left = before + _ACROSS - _WIDE
    width, height = int(before or 0) + 2, int(tallest * _DOWN)
    lines = format_html_join(
        "",
        '<path class="pgq-edge" d="M{0} {1}H{2}"/><path class="pgq-arrow" d="M{3} {1}l-8 -4v8z"/>',
        ((x1, y1, x2, x2 + 8) for x1, y1, x2, _y in edges),
    )
    label = _("A graph of %d boxes in %d layers; the table below says the same.") % (len(boxes), len(layers))
    return format_html(
        # Not an image: there are links in it.
        '<div class="pgq-sideways"><svg class="pgq-graph" viewBox="-1 -1 {0} {1}" width="{0}" height="{1}" role="group"'
        ' aria-label="{2}">{3}{4}</svg></div>',
        width,
        height,
        label,
        lines,
        widgets.join(*boxes),
    )


def _rect(box: _Box, x: float, y: float) -> SafeString:
    drawn = format_html(
        '<rect class="pgq-node pgq-node-{}" x="{}" y="{}" width="{}" height="{}" rx="5"/>'
        '<text x="{}" y="{}">{}</text><text class="pgq-node-state" x="{}" y="{}">{}</text><title>{}</title>',
        box.state,
        x,
        y,
        _WIDE,
        _TALL,
        x + 8,
        y + 15,
        box.label,
        x + 8,
        y + 29,
        display.state_word(box.state),
        box.words,
    )
    return format_html('<a href="{}">{}</a>', box.address, drawn) if box.address else format_html("<g>{}</g>", drawn)
