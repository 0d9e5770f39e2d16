"""manage.py pgq_check: checks what should hold, and prints what to do."""

from __future__ import annotations

import dataclasses
from typing import Any

from django.core.management.base import CommandError, CommandParser

from pgq.management.command import PgqCommand
from pgq.management.output import Column, emit, message, table, text
from pgq.schedules import drift
from pgq.status import findings
from pgq.store.caller import callers_cursor
from pgq.store.overview import Finding

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
        with callers_cursor(self.settings.database) as cursor:
            found = [*findings.findings(cursor), drift.finding()]
        status = findings.overall(found)
        if options["json"]:
            self.print_json({"status": status, "checks": [dataclasses.asdict(finding) for finding in found]})
        else:
            self._show(found, options)
        if status == findings.PROBLEM:
            raise SystemExit(1)

    def _show(self, found: list[Finding], options: dict[str, Any]) -> None:
        out = self.console(options)
        rows: list[list[Any]] = []
        for finding in found:
            style = _STYLES.get(finding.status, "")
            rows.append([text(finding.check), text(finding.status, style), message(finding.detail)])
            if finding.advice:
                rows.append(["", "", message(finding.advice, "bold")])
        emit(out, table(out, [Column("Check"), Column("Status"), Column("What was found, and what to do")], rows))
