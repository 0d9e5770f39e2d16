"""manage.py pgq_schedules: list, show, pause, resume, run and remove schedules."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError, CommandParser
from django.db import transaction
from django.utils import timezone

from pgq import recurrence, schedule, timing
from pgq.conf import get_settings
from pgq.console import PgqCommand, emit, message, span, text, visible
from pgq.models import Schedule, Task
from pgq.timing import aware

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: Firings shown of each schedule.
_NEXT = 5
#: Names among which a mistyped one is looked for.
_NAMES = 5_000


class Command(PgqCommand):
    help = (
        "Lists schedules (when in words, the next five firings, the last result, errors), or shows, pauses, resumes, "
        "runs or removes the ones named. A running task of a schedule goes on in any case."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "action", nargs="?", default="list", choices=["list", "show", "pause", "resume", "run", "remove"],
            help="list (default): all, or those named; show: with arguments and options; pause: fire no more; resume: "
            "fire again; run: enqueue one task now, the next slot stays; remove: delete",
        )  # fmt: skip
        parser.add_argument("schedule", nargs="*", help="name or id")
        parser.add_argument("--all", action="store_true", help="all schedules, for pause and resume")
        parser.add_argument(
            "--skip-missed",
            action="store_true",
            help="resume: leave out the slots missed meanwhile, if they would be caught up",
        )
        parser.add_argument(
            "--no-input", "--noinput", action="store_false", dest="interactive", help="remove without asking"
        )
        self.add_json(parser)

    def run(self, options: dict[str, Any]) -> None:
        action, named = options["action"], options["schedule"]
        if options["all"] and (named or action not in ("pause", "resume")):
            raise CommandError("--all goes with pause or resume, and with no names.", returncode=2)
        if options["skip_missed"] and action != "resume":
            raise CommandError("--skip-missed goes with resume.", returncode=2)
        if not named and not options["all"] and action != "list":
            raise CommandError(f"{action}: name a schedule, by its name or id.", returncode=2)
        rows = Schedule.objects.using(self.settings.database)
        # All names are looked up before anything is done.
        chosen = [_find(name) for name in named] or list(rows.order_by("paused", "next_run", "id"))
        if action in ("list", "show"):
            self._list(chosen, options, arguments=action == "show")
            return
        if action == "remove" and not self._confirmed(chosen, options):
            raise CommandError("Nothing was removed.")
        do: Callable[[Schedule], str] = {
            "pause": _pause, "resume": _resume_skipping if options["skip_missed"] else _resume, "run": _run,
            "remove": _remove,
        }[action]  # fmt: skip
        done = []
        with transaction.atomic(using=self.settings.database):
            for row in chosen:
                id = row.pk
                done.append({"id": id, "name": row.name, "func": row.func, "done": do(row)})
        if options["json"]:
            self.print_json(done)
            return
        out = self.console(options)
        if not done:
            emit(out, text("There are no schedules."))
        for item in done:
            emit(out, message(f"{item['id']}  {visible(item['name'] or item['func'])}: {item['done']}"))

    def _confirmed(self, chosen: Sequence[Schedule], options: dict[str, Any]) -> bool:
        if not options["interactive"] or options["json"] or not sys.stdin.isatty():
            return True
        names = ", ".join(visible(row) for row in chosen)
        return input(f"Remove {names}? [y/N] ").strip().lower() in ("y", "yes")

    def _list(self, chosen: Sequence[Schedule], options: dict[str, Any], *, arguments: bool) -> None:
        last = _last_tasks(chosen)
        if options["json"]:
            self.print_json([_as_json(row, last) for row in chosen])
            return
        out = self.console(options)
        if not chosen:
            emit(out, text("There are no schedules."))
        for row in chosen:
            emit(out, *_block(out, row, last, arguments=arguments))


# ------------------------------------------------------------------------------------------------- finding


def _find(name: str) -> Schedule:
    """Return the schedule of that name, or else of that id.

    Raises:
        CommandError: There is none; the message has names that are nearly so.
    """
    rows = Schedule.objects.using(get_settings().database)
    # PostgreSQL has no such text.
    found = rows.filter(name=name).first() if "\0" not in name else None
    if found is None and name.isascii() and name.isdigit() and len(name) < 19:
        found = rows.filter(pk=int(name)).first()
    if found is not None:
        return found
    known = [str(known) for known in rows.exclude(name=None).values_list("name", flat=True)[:_NAMES]]
    close = difflib.get_close_matches(name, known, n=3)
    hint = f" Did you mean {' or '.join(repr(visible(match)) for match in close)}?" if close else ""
    if not close:
        hint = " manage.py pgq_schedules lists those there are." if rows.exists() else " There are no schedules at all."
    raise CommandError(f"There is no schedule {visible(name)!r}.{hint}")


def _last_tasks(chosen: Sequence[Schedule]) -> dict[str, Task]:
    """Return the last finished tasks of schedules, by their ids."""
    ids = [row.task for row in chosen if row.task]
    tasks = Task.objects.using(get_settings().database).filter(pk__in=ids)
    return {task.pk: task for task in tasks.only("id", "success", "stopped", "exception", "message")}


# ------------------------------------------------------------------------------------------------- doing


def _set(row: Schedule, **values: Any) -> None:
    # Only these columns: upkeep may be moving the schedule on just now.
    Schedule.objects.using(get_settings().database).filter(pk=row.pk).update(**values)


def _pause(row: Schedule) -> str:
    if row.paused:
        return "was paused before"
    _set(row, paused=True)
    return "paused"


def _resume(row: Schedule, *, skipping: bool = False) -> str:
    if not row.paused:
        return "was not paused"
    try:
        resumed = schedule.resume(row, skip_missed=skipping)
    except ValueError as error:
        raise CommandError(f"{visible(row)} cannot be resumed: {visible(error)}") from None
    if resumed.missed:
        return f"resumed; {resumed.missed} missed firing{'s' if resumed.missed > 1 else ''} will follow at once"
    if resumed.next_run is None:
        return "resumed, but it has no firing left"
    return f"resumed, next at {_moment(row, resumed.next_run)}"


def _resume_skipping(row: Schedule) -> str:
    return _resume(row, skipping=True)


def _run(row: Schedule) -> str:
    return f"enqueued as {schedule.run_now(row)}"


def _remove(row: Schedule) -> str:
    row.delete()
    return "removed"


# ------------------------------------------------------------------------------------------------- showing


def _zone(row: Schedule) -> tzinfo:
    try:
        return recurrence.Recurrence.of(row, get_settings().zone).zone
    except ValueError:
        # Of a schedule whose zone is unknown here; `_words` says so.
        return UTC


def _moment(row: Schedule, moment: datetime) -> str:
    """Return a moment by the clock the schedule goes by."""
    local = aware(moment).astimezone(_zone(row))
    # Whole minutes are the rule; seconds only where they say something.
    shown = f"{local:%a %Y-%m-%d %H:%M}" if not local.second else f"{local:%a %Y-%m-%d %H:%M:%S}"
    return f"{shown} {local:%Z}"


def _words(row: Schedule) -> str:
    try:
        return row.describe()
    except ValueError as error:
        return f"cannot be read: {error}"


def _doubt(row: Schedule) -> str | None:
    try:
        return recurrence.doubt(recurrence.Recurrence.of(row, get_settings().zone))
    except ValueError:
        return None


def _upcoming(row: Schedule) -> list[datetime]:
    try:
        return [aware(slot) for slot in row.upcoming(_NEXT)]
    except ValueError:
        return []


def _state(row: Schedule) -> str:
    if row.paused:
        return "paused"
    if row.repeats == 0 or row.next_run is None:
        return "ended"
    return "active"


def _last(row: Schedule, last: dict[str, Task]) -> tuple[str, str]:
    """Return what became of the last task, and its colour."""
    if not row.task:
        return "never fired", ""
    task = last.get(row.task)
    if task is None:
        return f"{row.task} (not finished, or its result is gone)", ""
    ago = span((timezone.now() - task.stopped).total_seconds())
    if task.success:
        return f"succeeded {ago} ago", "green"
    return f"failed {ago} ago: {task.exception}: {task.message}", "red"


def _block(out: Console, row: Schedule, last: dict[str, Task], *, arguments: bool) -> list[RenderableType]:
    """Return the lines about one schedule."""
    active = _state(row)
    title = text(f"{row.pk}  ", "dim")
    title.append_text(text(row.name or "(no name)", "bold"))
    title.append_text(text(f"  {row.func}"))
    if active != "active":
        title.append_text(text(f"  {active}", "yellow"))
    soon = _upcoming(row)
    result, style = _last(row, last)
    lines: list[tuple[str, str, str]] = [("when", f"{_words(row)} ({_zone(row)})", "")]
    if doubt := _doubt(row):
        lines.append(("warning", doubt, "yellow"))
    if row.repeats > 0:
        lines.append(("left", f"{row.repeats} times", ""))
    if soon:
        due = (soon[0] - timing.now()).total_seconds()
        first = f"in {span(due)}" if due > 0 else f"due for {span(-due)}"
        lines.append(("next", f"{_moment(row, soon[0])} ({first})", ""))
        lines += [("", _moment(row, slot), "dim") for slot in soon[1:]]
    lines.append(("last", result, style))
    if row.error:
        lines.append(("error", row.error, "red"))
    if arguments:
        lines += _details(row)
    made: list[RenderableType] = [title]
    for label, value, style in lines:
        line = text(f"    {label:<10}", "cyan")
        line.append_text(text(value, style, limit=None if arguments else 300))
        made.append(line)
    return made


def _details(row: Schedule) -> list[tuple[str, str, str]]:
    fields = [
        ("queue", row.queue or "default"), ("priority", row.priority), ("args", _plain(row, "args")),
        ("kwargs", _plain(row, "kwargs")), ("options", _plain(row, "options")), ("hook", row.hook),
        ("overlap", row.overlap), ("jitter", f"{row.jitter:g} s" if row.jitter else None),
        ("catch_up", {None: None, True: "yes", False: "no"}[row.catch_up]),
        ("kwarg", row.intended_date_kwarg), ("task", row.task),
        ("signed", "yes" if row.signature else "no: its function must be registered with @task"),
    ]  # fmt: skip
    return [(label, str(value), "") for label, value in fields if value not in (None, "")]


def _plain(row: Schedule, field: str) -> str:
    try:
        return repr(getattr(row, field))
    except Exception as error:  # what is stored may be gone, and an argument has a repr of its own
        return f"<cannot be shown: {error}>"


def _as_json(row: Schedule, last: dict[str, Task]) -> dict[str, Any]:
    task = last.get(row.task) if row.task else None
    return {
        "id": row.pk, "name": row.name, "func": row.func, "queue": row.queue, "state": _state(row), "when": _words(row),
        "time_zone": str(_zone(row)), "repeats": row.repeats, "next": _upcoming(row), "error": row.error,
        "last": {
            "task": row.task, "success": None if task is None else task.success,
            "stopped": None if task is None else task.stopped,
            "error": None if task is None or task.success else f"{task.exception}: {task.message}",
        },
    }  # fmt: skip
