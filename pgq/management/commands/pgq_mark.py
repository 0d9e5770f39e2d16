"""manage.py pgq_mark: marks this moment in the charts."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from pgq.management.command import PgqCommand, operator
from pgq.store import metrics
from pgq.store.caller import callers_cursor


class Command(PgqCommand):
    help = (
        "Marks this moment in the charts, for instance a deploy: manage.py pgq_mark 'v1.2'. A new release that "
        'pools start with (PGQ["release"]) is marked without it.'
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("label", help="what to show, 200 characters at most")
        parser.add_argument("--release", action="store_true", help="it is a release, which is marked once")
        self.add_json(parser)

    def run(self, options: dict[str, Any]) -> None:
        label = options["label"].strip()
        if not 0 < len(label) <= metrics.LENGTH or "\0" in label:
            raise CommandError(f"the label must have 1 to {metrics.LENGTH} characters")
        kind = "release" if options["release"] else "mark"
        with callers_cursor(self.settings.database) as cursor:
            is_new = metrics.mark(cursor, label=label, kind=kind, author=operator())
        if options["json"]:
            self.print_json({"label": label, "kind": kind, "new": is_new})
        else:
            self.stdout.write(f"Marked: {label}" if is_new else f"Release {label} was marked before.")
