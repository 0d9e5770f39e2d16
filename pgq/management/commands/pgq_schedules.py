"""manage.py pgq_schedules: list, show, pause, resume, run, remove and sync schedules."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError, CommandParser
from django.db import transaction
from django.utils import timezone

from pgq.conf import aliases, get_settings, places
from pgq.management import imports
from pgq.management.command import EXIT_CODES, PgqCommand
from pgq.management.imports import IMPORTS
from pgq.management.output import emit, message, span, text, visible
from pgq.models import Schedule
from pgq.recurrence import moments
from pgq.recurrence.moments import aware
from pgq.schedules import fire, sync
from pgq.schedules.overview import ACTIVE, ScheduleOverview, find, overview, pause, zone_of

if TYPE_CHECKING:
    from rich.console import RenderableType


_SYNC_OPTIONS = {
    "dry-run": "only print what would be done",
    "check": "the same, and exit with 3 if the table is not as the code says",
    "prune": "delete what the code does not name any more, which is only paused else",
    "force": "write what the code says also over edits made in the admin or by SQL",
    "adopt": "take over schedules that have a name of the code and were not made by it",
}


class Command(PgqCommand):
    help = (
        "Lists schedules (when in words, the next five firings, the last result, errors), or shows, pauses, resumes, "
        "runs or removes the ones named. A running task of a schedule goes on in any case."
    )
    exit_codes = {**EXIT_CODES, 3: "sync --check: the table is not as the code says"}

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "action",
            nargs="?",
            default="list",
            choices=["list", "show", "pause", "resume", "run", "remove", "sync", *IMPORTS],
            help="list (default): all, or those named; show: with arguments and options; pause: fire no more; resume: "
            "fire again; run: enqueue one task now, the next slot stays; remove: delete; "
            "sync: bring the table in step with the schedules in code; import-crontab FILE, import-django-crontab, "
            "import-celery-beat [APP], import-apscheduler SCHEDULER: make schedules of theirs, and name what cannot be "
            "taken",
        )
        parser.add_argument("schedule", nargs="*", help="name or id; of an import, the file, the app or the scheduler")
        parser.add_argument("--all", action="store_true", help="all schedules, for pause and resume")
        parser.add_argument(
            "--skip-missed",
            action="store_true",
            help="resume: leave out the slots missed meanwhile, if they would be caught up",
        )
        parser.add_argument(
            "--no-input", "--noinput", action="store_false", dest="interactive", help="remove without asking"
        )
        sync = parser.add_argument_group("for sync")
        for option, meaning in _SYNC_OPTIONS.items():
            sync.add_argument(f"--{option}", action="store_true", help=meaning)
        of_imports = parser.add_argument_group("for imports, besides --dry-run")
        of_imports.add_argument(
            "--user-field", action="store_true", help="a user stands before each command of the crontab"
        )
        of_imports.add_argument("--write", metavar="FILE", help="write a module for PGQ['schedules'], and no rows")
        self.add_json(parser)

    def run(self, options: dict[str, Any]) -> None:
        action, named = options["action"], options["schedule"]
        if options["all"] and (named or action not in ("pause", "resume")):
            raise CommandError("--all goes with pause or resume, and with no names.", returncode=2)
        if options["skip_missed"] and action != "resume":
            raise CommandError("--skip-missed goes with resume.", returncode=2)
        given = {option for option in _SYNC_OPTIONS if options[option.replace("-", "_")]}
        is_import = action in IMPORTS
        misplaced = given - {"dry-run"} if is_import else set(named) if action == "sync" else given
        if misplaced or (not is_import and (options["write"] or options["user_field"])):
            only = ", --".join(_SYNC_OPTIONS)
            raise CommandError(
                f"sync takes no names, and only sync takes --{only}; imports take --dry-run, --write and --user-field.",
                returncode=2,
            )
        if is_import:
            self._import(action, named, options)
            return
        if action == "sync":
            self._sync(options)
            return
        if not named and not options["all"] and action != "list":
            raise CommandError(f"{action}: name a schedule, by its name or id.", returncode=2)
        # All names are looked up before anything is done.
        chosen = [_find(name) for name in named] or [row for rows in places.each(_all) for row in rows]
        if action in ("list", "show"):
            self._list(chosen, options, arguments=action == "show")
            return
        if action == "remove" and not self._confirmed(chosen, options):
            raise CommandError("Nothing was removed.")
        do: Callable[[Schedule], str] = {
            "pause": _pause,
            "resume": _resume_skipping if options["skip_missed"] else _resume,
            "run": _run,
            "remove": _remove,
        }[action]
        done = []
        with contextlib.ExitStack() as stack:
            for alias in dict.fromkeys(fire.database_at(row) for row in chosen):
                stack.enter_context(transaction.atomic(using=alias))
            for row in chosen:
                id = row.pk
                done.append({"id": id, "name": row.name, "func": row.func, "done": do(row)})
        for item in done:
            about = item["name"] or item["func"]
            self.tell(f"{action}_schedule", f"{action} schedule {about!r}: {item['done']}", about, schedule=item["id"])
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

    def _import(self, action: str, named: Sequence[str], options: dict[str, Any]) -> None:
        found = imports.imported(action, named, options)
        if options["json"]:
            self.print_json([imports.as_json(each) for each in found])
            return
        out = self.console(options)
        for line, colour in imports.lines(found, options):
            emit(out, text(line, colour))

    def _sync(self, options: dict[str, Any]) -> None:
        done = sync.sync(
            dry_run=options["dry_run"] or options["check"],
            prune=options["prune"],
            force=options["force"],
            adopt=options["adopt"],
        )
        if done.refused is not None and not options["json"]:
            raise CommandError(f"Nothing was synced: {visible(done.refused)}")
        if options["json"]:
            self.print_json({"refused": done.refused, "differs": done.differs, "schedules": _synced_as_json(done)})
        else:
            out = self.console(options)
            for change in done.changes:
                emit(out, *_change(change))
            if not done.differs:
                emit(out, text("The schedules are as the code says."))
        if done.refused is not None:
            raise SystemExit(1)
        if options["check"] and done.differs:
            raise SystemExit(3)

    def _list(self, chosen: Sequence[Schedule], options: dict[str, Any], *, arguments: bool) -> None:
        seen = overview(chosen)
        if options["json"]:
            self.print_json([as_json(one) for one in seen])
            return
        out = self.console(options)
        if not seen:
            emit(out, text("There are no schedules."))
        for one in seen:
            emit(out, *_block(one, arguments=arguments))


def _all() -> list[Schedule]:
    """Return all schedules of the database at hand."""
    return list(Schedule.objects.using(get_settings().database).order_by("paused", "next_run", "id"))


def _find(name: str) -> Schedule:
    try:
        return find(name)
    except Schedule.DoesNotExist as error:
        raise CommandError(str(error)) from None


# ------------------------------------------------------------------------------------------------- doing


def _pause(row: Schedule) -> str:
    return "paused" if pause(row) else "was paused before"


def _resume(row: Schedule, *, skipping: bool = False) -> str:
    try:
        resumed = fire.resume(row, skip_missed=skipping)
    except ValueError as error:
        raise CommandError(f"{visible(row)} cannot be resumed: {visible(error)}") from None
    if not resumed.was_paused:
        return "was not paused"
    if resumed.missed:
        return f"resumed; {resumed.missed} missed firing{'s' if resumed.missed > 1 else ''} will follow at once"
    if resumed.next_run is None:
        return "resumed, but it has no firing left"
    return f"resumed, next at {_moment(resumed.next_run, zone_of(row))}"


def _resume_skipping(row: Schedule) -> str:
    return _resume(row, skipping=True)


def _run(row: Schedule) -> str:
    return f"enqueued as {fire.run_now(row)}"


def _remove(row: Schedule) -> str:
    row.delete()
    return "removed"


# ------------------------------------------------------------------------------------------------- syncing


def _synced_as_json(done: sync.Synced) -> list[dict[str, Any]]:
    return [
        {
            "name": change.name,
            "did": change.did.name.lower(),
            "differs": change.differs,
            "fields": {name: list(pair) for name, pair in change.fields.items()},
            "note": change.note,
        }
        for change in done.changes
    ]


def _change(change: sync.Change) -> list[RenderableType]:
    """Return the lines about what became of one schedule."""
    line = text(change.name, "bold")
    line.append_text(text(f": {change.did}", "yellow" if change.differs else "dim"))
    if change.note:
        line.append_text(text(f" ({change.note})", "dim"))
    made: list[RenderableType] = [line]
    for name, (before, after) in change.fields.items():
        one = text(f"    {name:<14}", "cyan")
        one.append_text(text(f"{before} -> {after}", limit=300))
        made.append(one)
    return made


# ------------------------------------------------------------------------------------------------- showing


def _moment(moment: datetime, zone: tzinfo) -> str:
    """Return a moment by the clock the schedule goes by."""
    local = aware(moment).astimezone(zone)
    # Whole minutes are the rule; seconds are shown only if there are any.
    shown = f"{local:%a %Y-%m-%d %H:%M}" if not local.second else f"{local:%a %Y-%m-%d %H:%M:%S}"
    return f"{shown} {local:%Z}"


def _last(seen: ScheduleOverview) -> tuple[str, str]:
    """Return what became of the last task, and its colour."""
    if not seen.schedule.task:
        return "never fired", ""
    task = seen.last
    if task is None:
        return f"{seen.schedule.task} (not finished, or its result is gone)", ""
    ago = span((timezone.now() - task.stopped).total_seconds())
    if task.success:
        return f"succeeded {ago} ago", "green"
    return f"failed {ago} ago: {task.exception}: {task.message}", "red"


def _block(seen: ScheduleOverview, *, arguments: bool) -> list[RenderableType]:
    """Return the lines about one schedule."""
    row = seen.schedule
    title = text(f"{row.pk}  ", "dim")
    title.append_text(text(row.name or "(no name)", "bold"))
    title.append_text(text(f"  {row.func}"))
    if len(aliases()) > 1:
        title.append_text(text(f"  in {row._state.db}", "dim"))
    if seen.state != ACTIVE:
        title.append_text(text(f"  {seen.state}", "yellow"))
    made: list[RenderableType] = [title]
    for label, value, style in _lines(seen) + (_details(row) if arguments else []):
        line = text(f"    {label:<10}", "cyan")
        line.append_text(text(value, style, limit=None if arguments else 300))
        made.append(line)
    return made


def _lines(seen: ScheduleOverview) -> list[tuple[str, str, str]]:
    """Return label, value and colour of each line about a schedule."""
    row, (last, last_style) = seen.schedule, _last(seen)
    lines = [("when", f"{seen.words} ({seen.zone})", "")]
    if seen.doubt:
        lines.append(("warning", seen.doubt, "yellow"))
    if row.repeats > 0:
        lines.append(("left", f"{row.repeats} times", ""))
    if seen.upcoming:
        soon, *later = seen.upcoming
        due = (soon - moments.now()).total_seconds()
        first = f"in {span(due)}" if due > 0 else f"due for {span(-due)}"
        lines.append(("next", f"{_moment(soon, seen.zone)} ({first})", ""))
        lines += [("", _moment(slot, seen.zone), "dim") for slot in later]
    if row.source is not None:
        gone = f", which does not name it since {row.stale_since:%Y-%m-%d %H:%M}" if row.stale_since is not None else ""
        lines.append(("from", f"the code ({row.source}){gone}", "yellow" if gone else ""))
    lines.append(("last", last, last_style))
    if row.error:
        lines.append(("error", row.error, "red"))
    return lines


def _details(row: Schedule) -> list[tuple[str, str, str]]:
    fields = [
        ("queue", row.queue or "default"),
        ("priority", row.priority),
        ("args", _plain(row, "args")),
        ("kwargs", _plain(row, "kwargs")),
        ("options", _plain(row, "options")),
        ("hook", row.hook),
        ("overlap", row.overlap),
        ("jitter", f"{row.jitter:g} s" if row.jitter else None),
        ("catch_up", {None: None, True: "yes", False: "no"}[row.catch_up]),
        ("kwarg", row.intended_date_kwarg),
        ("task", row.task),
        ("signed", "yes" if row.signature else "no: its function must be registered with @task"),
    ]
    return [(label, str(value), "") for label, value in fields if value not in (None, "")]


def _plain(row: Schedule, field: str) -> str:
    try:
        return repr(getattr(row, field))
    except Exception as error:  # what is stored may be gone, and an argument has a repr of its own
        return f"<cannot be shown: {error}>"


def as_json(seen: ScheduleOverview) -> dict[str, Any]:
    """Return what is known of a schedule, for programs."""
    row, task = seen.schedule, seen.last
    return {
        **({"database": row._state.db} if len(aliases()) > 1 else {}),
        "id": row.pk,
        "name": row.name,
        "func": row.func,
        "queue": row.queue,
        "state": seen.state,
        "when": seen.words,
        "time_zone": str(seen.zone),
        "repeats": row.repeats,
        "next": seen.upcoming,
        "error": row.error,
        "source": row.source,
        "stale_since": row.stale_since,
        "last": {
            "task": row.task,
            "success": None if task is None else task.success,
            "stopped": None if task is None else task.stopped,
            "error": None if task is None or task.success else f"{task.exception}: {task.message}",
        },
    }
