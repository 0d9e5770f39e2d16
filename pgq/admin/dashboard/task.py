"""One task, wherever it is: why it does not run, what it did, what it says, and what can be done about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import TextField
from django.db.models.functions import Cast
from django.http import Http404
from django.utils.html import format_html
from django.utils.translation import gettext as _

from pgq import codec
from pgq.admin import display
from pgq.admin.dashboard import verdicts, widgets
from pgq.admin.dashboard.visit import Visit
from pgq.admin.dashboard.widgets import Block
from pgq.ground import ids
from pgq.models import Progress, QueuedTask, Schedule, Task
from pgq.status import values, why
from pgq.store.connection import Cursor


@dataclass(frozen=True, slots=True)
class _Found:
    """What the tables hold of a task."""

    verdict: why.Verdict
    #: A `QueuedTask` or a `Task`; None: neither.
    row: Any
    progress: Any
    #: Its schedule: id and name.
    schedule: tuple[int, str] | None

    @property
    def is_live(self) -> bool:
        return isinstance(self.row, QueuedTask)


def build(visit: Visit, id: str) -> list[Block]:
    """Return the parts of the page."""
    wanted = ids.parse_id(id)
    if wanted is None:
        raise Http404
    seen = visit.look("task", lambda cursor: _read(visit.alias, cursor, wanted))
    if seen.value is None:
        return [visit.shown(_("Task"), seen, lambda found: "")]
    found = seen.value
    name = display.named(found.row.name if found.row is not None else None, wanted.hex)
    first = Block(display.cut(name, 200), _verdict(visit, found), links=_links(visit, found))
    if found.row is None:
        return [first]
    blocks = [
        first,
        Block(_("What it is"), _facts(visit, found), size="half"),
        Block(_("Attempts"), _attempts(found), size="half"),
    ]
    if not _may_read(visit, found):
        text = _("Its arguments, result, traceback and log are shown to users who may view the tasks themselves.")
        return [*blocks, Block(_("What it holds"), format_html('<p class="pgq-quiet">{}</p>', text))]
    if found.progress is not None:
        blocks.append(Block(_("Progress and log"), _progress(found)))
    return [*blocks, *_values(found), *_relatives(visit, found)]


def _read(alias: str, cursor: Cursor, id: UUID) -> _Found:
    verdict = why.verdict(cursor, id)
    # JSON may hold numbers that Python refuses to read.
    row: Any = _row(QueuedTask, alias, id)
    if row is None:
        row = _row(Task, alias, id)
    said = Progress.objects.using(alias).filter(pk=id).defer("log").annotate(lines=Cast("log", TextField())).first()
    schedule = None
    if row is not None and row.schedule is not None:
        names = Schedule.objects.using(alias).filter(pk=row.schedule).values_list("name", flat=True).first()
        schedule = (row.schedule, names or f"#{row.schedule}")
    return _Found(verdict, row, said, schedule)


def _row(model: Any, alias: str, id: UUID) -> Any:
    rows = model.objects.using(alias).filter(pk=id).defer("history")
    return rows.annotate(attempts_text=Cast("history", TextField())).first()


def _may_read(visit: Visit, found: _Found) -> bool:
    if found.is_live:
        return visit.may("view_queuedtask")
    return visit.may("view_task") or visit.may("view_success" if found.row.success else "view_failure")


def _verdict(visit: Visit, found: _Found) -> Any:
    state = why.UNKNOWN if found.row is None else display.state_of(found.row)
    badge = display.badge("parked", display.state_word(state)) if found.verdict.is_stuck else display.state_badge(state)
    return format_html('<p class="pgq-verdict">{} {}</p>', badge, verdicts.sentence(found.verdict))


def _links(visit: Visit, found: _Found) -> Sequence[tuple[Any, str]]:
    """Return what the user may do to it: each leads to a page that asks."""
    links: list[tuple[Any, str]] = []
    id, row = found.verdict.id.hex, found.row
    if row is None:
        return links
    if not found.is_live:
        if visit.may("retry_task"):
            links.append((_("Run again…"), visit.address("retry", id)))
        return links
    if row.lock is None and (row.parked is not None or row.run_after is not None) and visit.may("run_queuedtask"):
        links.append((_("Run now…"), visit.address("run_now", id)))
    if not row.cancelled and visit.may("cancel_queuedtask"):
        links.append((_("Cancel…"), visit.address("cancel", id)))
    return links


def _facts(visit: Visit, found: _Found) -> Any:
    row = found.row
    pairs: list[tuple[Any, Any]] = [
        (_("id"), format_html("<code>{}</code>", found.verdict.id.hex)),
        (_("function"), visit.func(row.func)),
        (_("queue"), visit.queue(row.queue)),
        (_("priority"), row.priority),
        (_("enqueued"), widgets.when(row.enqueued_at)),
    ]
    if found.is_live:
        pairs += [
            (_("run after"), widgets.when(row.run_after)),
            (_("claimed"), widgets.when(row.lock)),
        ]
    else:
        pairs += [
            (_("started"), widgets.when(row.started)),
            (_("stopped"), widgets.when(row.stopped)),
            (_("ran for"), widgets.ago((row.stopped - row.started).total_seconds())),
            (_("pool"), display.cut(row.cluster, 60)),
        ]
    attempts = _("any number") if row.max_attempts == 0 else row.max_attempts
    pairs += [
        (_("attempts allowed"), attempts),
        (_("timeout"), display.EMPTY if row.timeout is None else widgets.ago(row.timeout)),
    ]
    if row.group:
        pairs.append((_("group"), visit.link(display.cut(row.group, 100), "flow", row.group)))
    if found.schedule is not None:
        address = display.url(visit.site, Schedule, "change", found.schedule[0]) if visit.may("view_schedule") else None
        pairs.append((_("schedule"), display.link(address, display.cut(found.schedule[1], 100))))
    if row.hook:
        pairs.append((_("hook"), display.func_path(row.hook)))
    return widgets.facts(pairs)


def _attempts(found: _Found) -> Any:
    """Show each attempt: when, and how it ended."""
    row = found.row
    entries = codec.decode_for_display(row.attempts_text or "[]")
    rows: list[Sequence[Any]] = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            said = {
                key: display.cut(display.plain(entry.get(key)), 160)
                for key in ("attempt", "started", "at", "exception")
            }
            ended = _("not known here") if "postponed" in entry else said["exception"].rpartition(".")[2]
            rows.append((said["attempt"], _clock(said["started"]), _clock(said["at"]), display.badge("parked", ended)))
    if found.is_live:
        if row.lock is not None:
            rows.append((row.attempts, display.moment(row.lock), display.EMPTY, display.badge("running", _("running"))))
    else:
        ended = _("succeeded") if row.success else (row.exception or "").rpartition(".")[2]
        badge = display.badge("idle" if row.success else "parked", display.cut(ended, 160))
        rows.append((row.attempt_count, display.moment(row.started), display.moment(row.stopped), badge))
    headings = (_("attempt"), _("started"), _("ended"), _("how"))
    return widgets.table(headings, rows, empty=_("It has not been started yet."))


def _clock(text: str) -> str:
    return text[:19].replace("T", " ")


def _progress(found: _Found) -> Any:
    said = found.progress
    hidden = values.is_sensitive(found.row)
    lines = values.hidden_text(said.lines) if hidden else display.log_text(said.lines)
    doing = values.hidden_text(said.text or "") if hidden else display.cut(said.text, 1000)
    return widgets.join(
        widgets.facts(
            [(_("progress"), display.bar(said)), (_("doing"), doing), (_("said last"), widgets.when(said.updated_at))]
        ),
        widgets.code(lines),
    )


def _values(found: _Found) -> list[Block]:
    """Show what the row stores, with secrets masked."""
    row = found.row

    def value(field: str) -> Any:
        return widgets.code(display.stored_value(row, field, values.HIDDEN_NAMES))

    blocks = []
    if not found.is_live:
        if row.success:
            blocks.append(Block(_("Result"), value("value")))
        else:
            blocks.append(Block(_("Error"), widgets.join(widgets.code(row.message), widgets.code(row.traceback))))
    earlier = display.history(codec.decode_for_display(row.attempts_text or "[]"))
    blocks.append(Block(_("Arguments"), widgets.join(value("args"), value("kwargs"))))
    options = display.stored_value(row, "options", values.HIDDEN_NAMES)
    if options and options != "{}":
        blocks.append(Block(_("Options"), widgets.code(options)))
    if earlier != display.EMPTY:
        blocks.append(Block(_("Earlier attempts"), earlier))
    return blocks


def _relatives(visit: Visit, found: _Found) -> list[Block]:
    """Link what it waits for, what waits for it, and what follows it."""
    options = found.row.options if isinstance(found.row.options, dict) else {}
    rows: list[tuple[Any, Any]] = []
    collector = ids.parse_id(options.get("collector"))
    if collector is not None:
        rows.append((_("waits for it"), visit.task(collector)))
    collects = options.get("collects")
    if isinstance(collects, str):
        rows.append((_("collects"), visit.link(display.cut(collects, 60), "flow", collects)))
    chain = options.get("chain")
    if isinstance(chain, list) and chain:
        rows.append((_("links of its chain that follow"), len(chain)))
    return [Block(_("What belongs to it"), widgets.facts(rows))] if rows else []
