"""manage.py pgq_check: checks what should hold, and prints what to do."""

from __future__ import annotations

import dataclasses
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import connections

from pgq.conf import asked, database_of
from pgq.management.command import EXIT_CODES, PgqCommand, explain
from pgq.management.output import Column, emit, message, table, text
from pgq.status import databases, findings, snapshot
from pgq.status.databases import Away
from pgq.store.caller import callers_cursor
from pgq.store.connection import Cursor
from pgq.store.overview import Finding
from pgq.tasks.all_findings import all_findings

_COLUMNS = (Column("Check"), Column("Status"), Column("What was found, and what to do"))
_STYLES = {findings.OK: "green", findings.WARNING: "yellow", findings.PROBLEM: "red"}


class Command(PgqCommand):
    help = (
        "Checks what should hold, while the pools run, and says what to do. Reads only. What each check means is in "
        "docs/reference/checks.md."
    )
    exit_codes = {
        **EXIT_CODES,
        0: "there is no problem (a warning is none)",
        1: "there is a problem",
        2: "nothing could be checked, because PostgreSQL or the tables are not there; or the arguments are wrong",
    }

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            super().handle(*args, **options)
        except CommandError as error:
            raise CommandError(*error.args, returncode=2) from error

    def run(self, options: dict[str, Any]) -> None:
        is_one = len(asked()) == 1
        seen = self._one() if is_one else databases.look(_findings_of_one, "pgq check")
        found = {alias: _away(alias, each) if isinstance(each, Away) else each for alias, each in seen.items()}
        checks = [({} if is_one else {"database": alias}, one) for alias, each in found.items() for one in each]
        status = findings.overall(one for _, one in checks)
        if options["json"]:
            shown = [{**where, **dataclasses.asdict(one)} for where, one in checks]
            self.print_json({"status": status, "checks": shown})
        else:
            out = self.console(options)
            columns = (*([] if is_one else [Column("Database")]), *_COLUMNS)
            rows = [[*map(text, where.values()), *row] for where, one in checks for row in _rows(one)]
            emit(out, table(out, columns, rows))
        if all(isinstance(each, Away) for each in seen.values()):
            raise CommandError("none of the databases could be checked")
        if status == findings.PROBLEM:
            raise SystemExit(1)

    def _one(self) -> dict[str, list[Finding] | Away]:
        with callers_cursor(self.settings.database) as cursor:
            return {self.settings.database: all_findings(cursor)}


def _rows(finding: Finding) -> list[list[Any]]:
    style = _STYLES.get(finding.status, "")
    rows: list[list[Any]] = [[text(finding.check), text(finding.status, style), message(finding.detail)]]
    if finding.advice:
        rows.append(["", "", message(finding.advice, "bold")])
    return rows


def _findings_of_one(alias: str, cursor: Cursor) -> list[Finding]:
    try:
        found = all_findings(cursor)
    finally:
        # Django's connection, which this thread has of its own.
        connections[alias].close()
    queues = [each.queue for each in snapshot.queue_depths(cursor) if each.ready or each.running]
    astray = [queue for queue in queues if database_of(queue) != alias]
    if not astray:
        return [*found, Finding("places", findings.OK, "", "")]
    named = ", ".join(f"{queue!r} (of {database_of(queue)!r})" for queue in astray[:10])
    advice = "They are run here, by a pool that serves all queues of this database. It is so after a queue has moved."
    return [*found, Finding("places", findings.WARNING, f"tasks of queues that lie elsewhere: {named}", advice)]


def _away(alias: str, away: Away) -> list[Finding]:
    advice = "Its queues wait until it is back; those of the other databases do not."
    return [Finding("database", findings.PROBLEM, f"{alias}: {explain(away.error)}", advice)]
