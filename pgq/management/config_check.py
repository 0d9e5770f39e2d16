"""`pgq_worker --check-config`: whether a pool could run with these settings, on this database, just now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import psycopg
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, OutputWrapper
from django.core.management.color import Style

from pgq.codec import signing
from pgq.conf import Settings
from pgq.management import checks
from pgq.management.command import explain
from pgq.status import findings
from pgq.store import schema
from pgq.store.connection import Connection, connect
from pgq.store.listener import shares_sessions

#: PostgreSQL 14, as `server_version` counts.
_OLDEST_SERVER = 140_000


def run(
    out: OutputWrapper,
    style: Style,
    settings: Callable[[], Settings],
    databases: Callable[[Settings], Sequence[str]],
) -> None:
    """Print a line for each thing that was looked at.

    Args:
        settings: Returns those of the pool, with what the command line says.
        databases: Returns the aliases of the databases that are served with them.

    Raises:
        CommandError: A pool could not run.
    """
    problems = 0
    for subject, found, trouble in _look(settings, databases):
        if trouble:
            problems += 1
            out.write(style.ERROR(f"{subject}: {found}"))
        else:
            out.write(f"{subject}: {found}")
    if problems:
        raise CommandError(f"a pool could not run: {problems} problem{'s' * (problems > 1)}, see above")


def _look(
    settings: Callable[[], Settings], databases: Callable[[Settings], Sequence[str]]
) -> Iterator[tuple[str, str, bool]]:
    """Yield what was looked at, what was found, and whether no pool could run with it."""
    found = [
        message
        for check in (checks.check_settings, checks.check_cache, checks.check_names, checks.check_tasks)
        for message in check(None)
    ]
    for message in found:
        yield "settings", _one_line(message), message.is_serious()
    if any(message.is_serious() for message in found):
        return
    try:
        chosen = settings()
    except (ImproperlyConfigured, CommandError) as error:
        yield "settings", str(error), True
        return
    aliases = databases(chosen)
    for alias in aliases:
        pool = f"pool {chosen.name}, {chosen.workers} workers, queues {chosen.served}, database {alias}"
        yield "settings", pool, False
    try:
        signing.check_keys()
        yield "keys", "rows can be signed", False
    except ImproperlyConfigured as error:
        yield "keys", str(error), True
    for alias in aliases:
        try:
            yield from _look_at_database(alias)
        except psycopg.Error as error:
            yield "database", explain(error) if len(aliases) == 1 else f"{alias}: {explain(error)}", True


def _look_at_database(alias: str) -> Iterator[tuple[str, str, bool]]:
    def another() -> Connection:
        return connect(alias, "pgq check")

    with another() as connection:
        info = connection.info
        version = f"PostgreSQL {info.server_version // 10_000}.{info.server_version % 10_000}"
        where = f"{version} at {info.host or 'localhost'}:{info.port}, database {info.dbname}, role {info.user}"
        old = info.server_version < _OLDEST_SERVER
        yield "database", where + (f"; pgq needs {_OLDEST_SERVER // 10_000} or later" if old else ""), old
        if shares_sessions(connection, another):
            pooled = "a pooler in transaction mode stands between, so workers poll; let the pool connect past it"
            yield "notifications", pooled, False
        try:
            findings.require_tables(connection.cursor(), alias)
            yield "tables", f"of version {schema.VERSION} or later, as this release needs", False
        except findings.Outdated as error:
            yield "tables", str(error), True


def _one_line(message: CheckMessage) -> str:
    return " ".join(f"{message.id}: {message.msg} {message.hint or ''}".split())
