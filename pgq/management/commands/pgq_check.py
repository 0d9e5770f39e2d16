"""manage.py pgq_check: checks what should hold, and prints what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import connections

from pgq.conf import asked, database_of
from pgq.management.command import PgqCommand, explain
from pgq.management.output import Column, emit, message, table, text
from pgq.schedules import drift
from pgq.status import databases, findings, snapshot
from pgq.status.databases import Away
from pgq.store.caller import callers_cursor
from pgq.store.connection import Cursor
from pgq.store.overview import Finding

_WHAT = "What was found, and what to do"
_STYLES = {findings.OK: "green", findings.WARNING: "yellow", findings.PROBLEM: "red"}


class Command(PgqCommand):
    help = (
        "Checks what should hold, while the pools run, and says what to do. Reads only. Exit code 0: there is no "
        "problem (a warning is none); 1: there is one; 2: nothing could be checked, because PostgreSQL or the "
        "tables are not there."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            super().handle(*args, **options)
        except CommandError as error:
            raise CommandError(*error.args, returncode=2) from error

    def run(self, options: dict[str, Any]) -> None:
        if len(asked()) > 1:
            self._run_several(options)
            return
        with callers_cursor(self.settings.database) as cursor:
            found = _findings(cursor)
        status = findings.overall(found)
        if options["json"]:
            self.print_json({"status": status, "checks": [dataclasses.asdict(finding) for finding in found]})
        else:
            self._show(found, options)
        if status == findings.PROBLEM:
            raise SystemExit(1)

    def _run_several(self, options: dict[str, Any]) -> None:
        seen = databases.look(_findings_of_one, "pgq check")
        found = {alias: _away(alias, each) if isinstance(each, Away) else each for alias, each in seen.items()}
        status = findings.overall(finding for each in found.values() for finding in each)
        if options["json"]:
            checks = [{"database": alias, **dataclasses.asdict(one)} for alias, each in found.items() for one in each]
            self.print_json({"status": status, "checks": checks})
        else:
            self._show_several(found, options)
        if all(isinstance(each, Away) for each in seen.values()):
            raise CommandError("none of the databases could be checked")
        if status == findings.PROBLEM:
            raise SystemExit(1)

    def _show(self, found: list[Finding], options: dict[str, Any]) -> None:
        out = self.console(options)
        emit(out, table(out, [Column("Check"), Column("Status"), Column(_WHAT)], _rows(found)))

    def _show_several(self, found: Mapping[str, list[Finding]], options: dict[str, Any]) -> None:
        out = self.console(options)
        rows = [[text(alias), *row] for alias, each in found.items() for row in _rows(each)]
        emit(out, table(out, [Column("Database"), Column("Check"), Column("Status"), Column(_WHAT)], rows))


def _findings(cursor: Cursor) -> list[Finding]:
    return [*findings.findings(cursor), drift.finding()]


def _rows(found: Iterable[Finding]) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for finding in found:
        style = _STYLES.get(finding.status, "")
        rows.append([text(finding.check), text(finding.status, style), message(finding.detail)])
        if finding.advice:
            rows.append(["", "", message(finding.advice, "bold")])
    return rows


def _findings_of_one(alias: str, cursor: Cursor) -> list[Finding]:
    try:
        found = _findings(cursor)
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
