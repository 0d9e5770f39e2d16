"""manage.py pgq_import_django_q: brings schedules, queued tasks and results from Django-Q."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import connections

from pgq.contrib.django_q import importer
from pgq.contrib.django_q.plan import TABLES, Plan, Tally
from pgq.management.command import EXIT_CODES, PgqCommand
from pgq.management.output import Column, emit, message, table, text, visible

_TITLES = {"results": "Results", "queued": "Queued tasks", "schedules": "Schedules"}


class Command(PgqCommand):
    takes_database = False
    help = (
        "Copies schedules, queued tasks and results from the tables of Django-Q, which need not be installed any more. "
        "Stop its clusters first. Can be run again: what is here is left alone. Queued tasks and schedules are marked "
        "in Django-Q's tables (their lock or next run is in the year 9000), so that no cluster runs or fires them a "
        "second time; otherwise nothing changes there. Tasks that wait in Redis or another broker are in no table: let "
        "qcluster finish them."
    )
    exit_codes = {**EXIT_CODES, 1: "rows were left, or there is nothing to import: stderr says why"}

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--schedules", action="append_const", dest="kinds", const="schedules", help="only schedules"
        )
        parser.add_argument(
            "--queued", action="append_const", dest="kinds", const="queued", help="only queued tasks (can be combined)"
        )
        parser.add_argument(
            "--results", action="append_const", dest="kinds", const="results", help="only finished tasks"
        )
        parser.add_argument(
            "--database", help="alias of the database with Django-Q's tables (default: PGQ['database'])"
        )
        parser.add_argument(
            "--name",
            help="Q_CLUSTER['name'] that the tasks were signed under (default: that of the settings, 'default')",
        )
        parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
        parser.add_argument(
            "--trust-schedules",
            action="store_true",
            help="import schedules of any function, signed; without it only of functions registered with @task",
        )
        parser.add_argument(
            "--trust-results",
            action="store_true",
            help="load the pickles of finished tasks as they are. DANGER: they are not signed, so a client that could "
            "write to that table can run code here. Without it text stands for objects of other than plain types",
        )
        parser.add_argument(
            "--include-locked",
            action="store_true",
            help="also queued tasks that a cluster has taken, if none is running",
        )
        parser.add_argument(
            "--pause",
            action="store_true",
            help="import schedules paused, and leave them to Django-Q. Once qcluster has stopped, import again without "
            "it: they go on where it was (see pgq_schedules resume --all)",
        )
        self.add_json(parser)

    def run(self, options: dict[str, Any]) -> None:
        source = options["database"] or self.settings.database
        if source not in connections:
            raise CommandError(f"--database: {source!r} is not in DATABASES.", returncode=2)
        plan = Plan(
            kinds=options["kinds"] or tuple(TABLES),
            source=source,
            dry_run=options["dry_run"],
            trust_schedules=options["trust_schedules"],
            trust_results=options["trust_results"],
            include_locked=options["include_locked"],
            pause=options["pause"],
            name=options["name"],
        )
        with self._progress(options) as progress:
            try:
                tallies = importer.run(plan, progress)
            except LookupError as error:
                raise CommandError(f"Nothing to import: {error}.") from None
        if options["json"]:
            self.print_json({"dry_run": plan.dry_run, **{kind: _as_json(tally) for kind, tally in tallies.items()}})
        else:
            self._report(plan, tallies, options)
        left = {kind: tally for kind, tally in tallies.items() if tally.skipped}
        if left:
            raise CommandError(_left(left))

    @contextlib.contextmanager
    def _progress(self, options: dict[str, Any]) -> Iterator[Callable[[str, int], None]]:
        out = None if options["json"] or options["verbosity"] == 0 else self.console(options)
        if out is None or not out.is_interactive:
            yield lambda kind, read: None
            return
        with out.status(text("Reading ..."), refresh_per_second=4) as status:
            yield lambda kind, read: status.update(text(f"{_TITLES[kind]}: {read:,}"))

    def _report(self, plan: Plan, tallies: dict[str, Tally], options: dict[str, Any]) -> None:
        if options["verbosity"] == 0:
            return
        out = self.console(options)
        if plan.dry_run:
            emit(out, text("Dry run: nothing was changed.", "bold"))
        columns = [
            Column(""),
            *(Column(title, right=True) for title in ("Read", "Imported", "Already here", "Skipped")),
        ]
        rows = [
            [
                text(_TITLES[kind], "bold"),
                *(f"{n:,}" for n in (tally.read, tally.imported, tally.present, tally.skipped)),
            ]
            for kind, tally in tallies.items()
        ]
        emit(out, table(out, columns, rows))
        for tally in tallies.values():
            for why, which in _by_reason(tally).items():
                emit(out, message(f"Skipped: {why}", "yellow"), *[message(f"    {one}") for one in which])
            more = tally.skipped - len(tally.examples)
            if more:
                emit(out, text(f"... and {more:,} more were skipped.", "yellow"))
        for note in [note for tally in tallies.values() for note in tally.notes] + self._advice(plan, tallies):
            emit(out, message(note))

    def _advice(self, plan: Plan, tallies: dict[str, Tally]) -> list[str]:
        advice = []
        schedules, results = tallies.get("schedules"), tallies.get("results")
        if schedules and schedules.imported and not plan.pause:
            advice.append("Django-Q fires these schedules no more: its rows have their next run in the year 9000.")
        keep = self.settings.save_limit
        if results and 0 < keep < results.imported:
            advice.append(f"PGQ['save_limit'] is {keep:,}: upkeep deletes the oldest successes beyond that.")
        missing = [TABLES[kind] for kind in plan.kinds if kind not in tallies]
        if missing:
            advice.append(f"There is no table {', '.join(missing)}.")
        return advice


def _left(tallies: dict[str, Tally]) -> str:
    """Return what was not imported, in one line."""
    count = sum(tally.skipped for tally in tallies.values())
    kinds = ", ".join(f"{_TITLES[kind].lower()} {tally.skipped:,}" for kind, tally in tallies.items())
    reasons = list(dict.fromkeys(why for tally in tallies.values() for _, why in tally.examples))
    others = "; and more" if len(reasons) > 3 else ""
    return (
        f"{count:,} rows are left in the tables of Django-Q ({kinds}): {'; '.join(map(visible, reasons[:3]))}{others}. "
        "What is here now stays; mend them and import again, or delete them there."
    )


def _by_reason(tally: Tally) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for which, why in tally.examples:
        grouped.setdefault(why, []).append(which)
    return grouped


def _as_json(tally: Tally) -> dict[str, Any]:
    return {
        "read": tally.read,
        "imported": tally.imported,
        "present": tally.present,
        "skipped": tally.skipped,
        "examples": [{"which": which, "why": why} for which, why in tally.examples],
        "notes": tally.notes,
    }
