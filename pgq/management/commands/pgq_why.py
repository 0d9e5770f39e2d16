"""manage.py pgq_why: says why a task is not running."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from pgq.management.command import EXIT_CODES, PgqCommand
from pgq.management.output import Column, emit, message, table, text
from pgq.status import why


class Command(PgqCommand):
    help = "Says why a task is not running, or what became of it. Reads only."
    exit_codes = {
        **EXIT_CODES,
        0: "it runs, waits for its turn or has ended",
        1: "it waits until an operator does something; or PostgreSQL cannot be reached",
        2: "there is no such task, or what was given is no id",
    }

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", help="the id of the task: 32 hex digits, or a UUID")
        self.add_json(parser)

    def run(self, options: dict[str, Any]) -> None:
        try:
            verdict = why.why(options["id"])
        except ValueError as error:
            raise CommandError(str(error), returncode=2) from error
        if options["json"]:
            self.print_json(verdict.as_json())
        else:
            self._show(verdict, options)
        if verdict.code == why.UNKNOWN:
            raise SystemExit(2)
        if verdict.is_stuck:
            raise SystemExit(1)

    def _show(self, verdict: why.Verdict, options: dict[str, Any]) -> None:
        out = self.console(options)
        emit(out, message(verdict.sentence, "bold"))
        facts = {"code": verdict.code, **verdict.facts}
        rows = [
            [text(name.replace("_", " ")), message(str(value))] for name, value in facts.items() if value is not None
        ]
        emit(out, table(out, [Column("Fact"), Column("")], rows))
