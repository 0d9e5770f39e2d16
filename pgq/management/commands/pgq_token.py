"""manage.py pgq_token: makes a token for the REST routes."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from pgq.conf import tokens
from pgq.management.command import PgqCommand, refusals


class Command(PgqCommand):
    help = (
        "Makes a token for the REST routes: prints its secret, once, and the line for PGQ['api_tokens'], which holds "
        "only a digest of it. Nothing is stored, and no database is needed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="whose it is: letters, digits and . : - _; it is in the log of what was done")
        parser.add_argument(
            "--scope",
            action="append",
            choices=tuple(tokens.SCOPES),
            required=True,
            help="; ".join(f"{scope}: {meaning}" for scope, meaning in tokens.SCOPES.items()) + ". May be repeated",
        )
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals():
            name = options["name"]
            if not tokens.is_name(name):
                raise CommandError("NAME must be 1 to 100 letters, digits, dots, colons, dashes and underscores.")
            secret = tokens.new_secret()
            entry = {"sha256": tokens.digest(secret), "scopes": list(dict.fromkeys(options["scope"]))}
            if options["json"]:
                self.print_json({"name": name, "secret": secret, "setting": entry})
                return
            self.stdout.write("The secret, shown this once. Send it as a header, Authorization: Bearer SECRET\n")
            self.stdout.write(f"    {secret}\n")
            self.stdout.write('For the settings, in PGQ["api_tokens"]:\n')
            self.stdout.write(f"    {name!r}: {entry!r},")
