"""What pgq's commands have in common: arguments, errors, JSON."""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections
from django.db.utils import IntegrityError, InterfaceError, OperationalError, ProgrammingError

from pgq import signals
from pgq.conf import Settings, asked, at, get_settings
from pgq.management.output import console, visible
from pgq.store.outage import MISSING, cause_of

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger("pgq")


#: What every command ends with where it says nothing else.
EXIT_CODES: Mapping[int, str] = {
    0: "it is done",
    1: "something went wrong: one line on stderr says what",
    2: "the arguments are wrong",
    130: "it was ended by Ctrl-C",
}


class TellsExitCodes(BaseCommand):
    """A command whose ``--help`` says what its exit codes mean."""

    exit_codes = EXIT_CODES

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        meanings = "; ".join(f"{code}: {meaning}" for code, meaning in self.exit_codes.items())
        kwargs.setdefault("epilog", f"Exit codes: {meanings}.")
        return super().create_parser(prog_name, subcommand, **kwargs)


class PgqCommand(TellsExitCodes):
    """A command that reads the tables. What is wrong it prints in one line, and exits with 1.

    A subclass has `run`, and `exit_codes` if it has others than `EXIT_CODES`.
    """

    requires_migrations_checks = False
    # A command that shows what is wrong must not refuse to start because something is.
    requires_system_checks: list[str] = []

    #: Whether ``--database`` names one of the databases with pgq's tables.
    takes_database = True

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        if self.takes_database:
            parser.add_argument(
                "--database",
                help="alias of one of the databases (default: PGQ['database'], and those of PGQ['databases'])",
            )
        return parser

    def add_json(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = options.get("database") if self.takes_database else None
        with refusals(), at(chosen) if chosen is not None else contextlib.nullcontext():
            self.settings = checked_settings(chosen)
            self.run(options)

    def run(self, options: dict[str, Any]) -> None:
        raise NotImplementedError

    def print_json(self, value: Any) -> None:
        """Print a value on one line, all of it ASCII."""
        self.stdout.write(json.dumps(value, default=_jsonable))
        # The program at the other end of a pipe gets each line at once, also from a command that goes on.
        self.stdout.flush()

    def tell(self, action: str, deed: str, about: str = "", **facts: Any) -> None:
        """Say what was done and by whom: in the log, and to the receivers of `operator_action`.

        Args:
            action: Its name, for receivers of the signal.
            deed: In words.
            about: The id or name of what it was done to.
            facts: How many, which filter.
        """
        by = f"{operator() or 'a user without a name'} at {socket.gethostname()}"
        logger.info("%s, by command: %s", by, deed)
        signals.send(
            signals.operator_action, action=action, user=None, object=about, text=deed, facts={"by": by, **facts}
        )

    def console(self, options: Mapping[str, Any]) -> Console:
        return console(self.stdout, options)


def operator() -> str | None:
    """Return the name of who runs this process, by the operating system."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under an id that has no name.
        return None


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "as_json"):
        return value.as_json()
    if hasattr(value, "hex") and not isinstance(value, float | bytes):
        return value.hex
    return str(value)


def checked_settings(chosen: str | None = None) -> Settings:
    """Return the settings.

    Args:
        chosen: Alias of the database that is at hand, by ``--database``.

    Raises:
        CommandError: They are wrong, or a database is not one that pgq can use.
    """
    try:
        settings = get_settings()
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from None
    for alias in asked():
        if alias not in connections:
            where = "--database" if chosen else "PGQ['databases']" if alias in settings.databases else "PGQ['database']"
            raise CommandError(f"{where} names {alias!r}, which is not in DATABASES.")
        if connections[alias].vendor != "postgresql":
            raise CommandError(f"The database {alias!r} is not PostgreSQL, which pgq needs.")
    return settings


def explain(error: BaseException) -> str:
    """Return an error of the database in one line, for people."""
    cause = cause_of(error)
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    if isinstance(cause, MISSING):
        return f"The tables of pgq are missing or old ({lines[0]}). Run: manage.py migrate pgq"
    if isinstance(cause, psycopg.errors.InsufficientPrivilege):
        return f"PostgreSQL: {lines[0]}"
    if isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        return f"PostgreSQL cannot be reached: {'; '.join(line.strip() for line in lines)}"
    return f"PostgreSQL: {lines[0]}"


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turn what can go wrong outside of pgq into one clear line. Ctrl-C and a closed pipe are no errors."""
    try:
        yield
    except (OperationalError, InterfaceError, ProgrammingError, IntegrityError, psycopg.Error) as error:
        raise CommandError(visible(explain(error))) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        # `| head` has seen enough. Python would complain once more when it flushes stdout.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
