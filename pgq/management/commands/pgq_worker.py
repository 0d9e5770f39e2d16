"""manage.py pgq_worker: runs a pool of workers."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser
from django.db import connections

from pgq import conf
from pgq.codec import signing
from pgq.conf.queues import are_named, is_pattern
from pgq.enqueue import discovery
from pgq.ground.private import is_called_by_command_line
from pgq.management import config_check
from pgq.management.autoreload import CodeWatch
from pgq.management.command import EXIT_CODES, TellsExitCodes
from pgq.pool import boot
from pgq.pool.logs import set_up_logging
from pgq.pool.signalled import SIGNALS, execute_anew

logger = logging.getLogger("pgq")


class Command(TellsExitCodes):
    help = (
        "Runs a pool of workers until it is stopped. SIGTERM or Ctrl-C: running tasks finish, then it ends; a second "
        "one gives them a few seconds, a third none. SIGHUP: finish, then start anew with new code and settings."
    )
    exit_codes = {
        **{code: EXIT_CODES[code] for code in (0, 1, 2)},
        0: "it was told to stop and has; or --run-once, --max-tasks or --check-config has ended well",
        1: "no pool could run: the settings, a key, PostgreSQL, or its tables; or a pool has failed",
    }
    requires_migrations_checks = False
    # The settings are checked in handle(); a full check would also ask the database, which may be down just now.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "-w", "--workers", type=int, help="worker processes (default: PGQ['workers'], else one for each processor)"
        )
        parser.add_argument(
            "-q",
            "--queues",
            help="queues to serve, separated by commas, by name or by pattern: 'mail.*' "
            "(default: PGQ['queues'], else all)",
        )
        parser.add_argument(
            "--exclude-queues",
            metavar="QUEUES",
            help="queues not to serve, by name or by pattern (default: PGQ['exclude_queues']); all others are served, "
            "or those of PGQ['queues']",
        )
        parser.add_argument(
            "-n",
            "--name",
            "--cluster-name",
            help="name of the pool; an entry of ALT_CLUSTERS with that name is used (--cluster-name: as in Django-Q)",
        )
        parser.add_argument(
            "--database",
            help="alias in DATABASES of the tables to serve (default: PGQ['database'], and those of PGQ['databases'] "
            "that have queues to serve: then a pool for each)",
        )
        parser.add_argument(
            "--health-port",
            type=int,
            metavar="PORT",
            help="answer GET /health there, on PGQ['health_host'] (default: PGQ['health_port'], else on none); of "
            "several pools the next one takes the next port",
        )
        parser.add_argument(
            "--check-config",
            action="store_true",
            help="check settings, keys, database and tables, print what was found, and end: 0; 1 if no pool could run",
        )
        parser.add_argument("--run-once", action="store_true", help="run what is ready, then end")
        parser.add_argument(
            "--max-tasks",
            type=int,
            metavar="N",
            help="end once N tasks were started in all workers together, counting each attempt, and have ended",
        )
        parser.add_argument(
            "--log-format",
            choices=["plain", "json"],
            help="lines for people or for machines on stderr (default: as LOGGING says, else plain)",
        )
        parser.add_argument(
            "--log-level",
            choices=["DEBUG", "INFO", "WARNING", "ERROR"],
            help="of the logger pgq (default: as LOGGING says, else PGQ['log_level'])",
        )
        parser.add_argument("--autoreload", action="store_true", help="for development: start anew when code changes")

    def handle(self, *args: Any, **options: Any) -> None:
        called = not is_called_by_command_line(self)
        with _named(options["name"]), _handlers_kept() if called else contextlib.nullcontext():
            self._run(options)

    def _run(self, options: dict[str, Any]) -> None:
        boot.use_databases()
        if options["check_config"]:
            given = options["database"]
            config_check.run(
                self.stdout,
                self.style,
                lambda: self._settings(options),
                lambda settings: databases_served(settings, given),
            )
            return
        settings = self._settings(options)
        aliases = databases_served(settings, options["database"])
        try:
            signing.check_keys()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        if CodeWatch.is_trial():
            return
        set_up_logging(options["log_format"], options["log_level"])
        discovery.warn()
        if options["queues"] is None:
            warn_of_name()
        connections.close_all()
        if len(aliases) > 1:
            self._run_several(settings, aliases, options)
        else:
            self._run_pool(dataclasses.replace(settings, database=aliases[0]), options)

    def _run_several(self, settings: conf.Settings, aliases: Sequence[str], options: dict[str, Any]) -> None:
        from pgq.pool.several import Several

        def run(alias: str) -> int:
            chosen = dataclasses.replace(settings, database=alias)
            if settings.health_port is not None:
                chosen = dataclasses.replace(chosen, health_port=settings.health_port + aliases.index(alias))
            try:
                # If it starts anew, it is to be this one pool.
                own = ("--database", alias, *_port(chosen.health_port))
                self._run_pool(chosen, options, *own)
            except CommandError as error:
                self.stderr.write(f"{alias}: {error}")
                return 1
            return 0

        logger.info("a pool for each of the databases %s", ", ".join(aliases))
        failed = Several(aliases, run).run()
        if failed:
            raise CommandError(f"the pool of {' and of '.join(failed)} has failed, see above")

    def _run_pool(self, settings: conf.Settings, options: dict[str, Any], *own: str) -> None:
        """Run one pool until it is stopped.

        Args:
            own: What the command line of this pool has besides, if it starts anew.
        """
        from pgq.pool.supervisor import Supervisor

        try:
            supervisor = Supervisor(
                settings,
                run_once=options["run_once"],
                max_tasks=options["max_tasks"],
                log_format=options["log_format"],
                log_level=options["log_level"],
                reload=CodeWatch() if options["autoreload"] else None,
            )
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        if supervisor.run():
            execute_anew(*own)
        if supervisor.failed is not None:
            raise CommandError(f"nothing could be run: {supervisor.failed}")

    def _settings(self, options: dict[str, Any]) -> conf.Settings:
        chosen: dict[str, Any] = {}
        for key in ("workers", "database", "name", "log_level", "health_port"):
            if options[key] is not None:
                chosen[key] = options[key]
        chosen.update(_queues(options["queues"], options["exclude_queues"]))
        if chosen.get("workers", 1) < 1:
            raise CommandError(f"--workers: must be 1 or more, got {chosen['workers']}")
        if options["max_tasks"] is not None and options["max_tasks"] < 1:
            raise CommandError(f"--max-tasks: must be 1 or more, got {options['max_tasks']}")
        if not 0 < chosen.get("health_port", 1) < 65536:
            raise CommandError(f"--health-port: must be a port from 1 to 65535, got {chosen['health_port']}")
        for connection in connections.all(initialized_only=True):
            if connection.in_atomic_block:
                raise CommandError(
                    f"this process is inside a transaction on {connection.alias!r}, as in a TestCase, and workers see "
                    "only what is committed: use pgq.testing.drain(), or a TransactionTestCase "
                    "(pytest.mark.django_db(transaction=True))"
                )
        settings = dataclasses.replace(conf.get_settings(), **chosen)
        if settings.served.only == ():
            raise CommandError("--exclude-queues: nothing is left of PGQ['queues'], so this pool would serve no queue")
        for alias in databases_served(settings, options["database"]):
            if alias not in connections:
                raise CommandError(f"--database: {alias!r} is not in DATABASES")
            if connections[alias].vendor != "postgresql":
                raise CommandError(f"--database: {alias!r} is not a PostgreSQL database, which pgq needs")
        return settings


def databases_served(settings: conf.Settings, given: str | None) -> tuple[str, ...]:
    """Return the aliases of the databases that pools with these settings serve.

    Args:
        given: By ``--database``.
    """
    if given is not None or not settings.databases:
        return (settings.database,)
    if settings.served.only is None:
        return conf.aliases()
    found = dict.fromkeys(map(conf.database_of, settings.served.only))
    for name in filter(is_pattern, settings.served.only):
        # It may match queues of each database that has some of that kind.
        of_kind = (
            alias
            for alias, queues in settings.databases.items()
            if any(is_pattern(queue) or are_named(queue, (name,)) for queue in queues)
        )
        found |= dict.fromkeys(of_kind)
    return tuple(found)


def _port(port: int | None) -> tuple[str, ...]:
    return () if port is None else ("--health-port", str(port))


def _queues(served: str | None, excluded: str | None) -> dict[str, tuple[str, ...]]:
    """Return the settings in whose places the two options are; None: the option was not given."""
    chosen: dict[str, tuple[str, ...]] = {}
    if served is not None:
        chosen["queues"] = _names(served)
        if not chosen["queues"]:
            raise CommandError("--queues: name at least one queue, or leave the option out to serve all")
        # Who names the queues to serve means these, also if the settings exclude one of them.
        chosen["exclude_queues"] = ()
    if excluded is not None:
        chosen["exclude_queues"] = _names(excluded)
        both = [queue for queue in chosen.get("queues", ()) if queue in chosen["exclude_queues"]]
        if both:
            raise CommandError(f"--exclude-queues: {both[0]!r} is named by --queues as well; name it in one of the two")
    return chosen


def _names(given: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))


def warn_of_name() -> None:
    """Warn if the pool serves a queue that may not be meant."""
    for problem in conf.problems():
        if problem.key == "ALT_CLUSTERS":
            logger.warning("%s %s", problem.message, problem.hint)


@contextlib.contextmanager
def _named(name: str | None) -> Iterator[None]:
    """Give this pool a name; by the environment, so that workers see it too."""
    if not name:
        yield
        return
    before = os.environ.get("PGQ_NAME")
    os.environ["PGQ_NAME"] = name
    conf.forget()
    try:
        yield
    finally:
        if before is None:
            del os.environ["PGQ_NAME"]
        else:
            os.environ["PGQ_NAME"] = before
        conf.forget()


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Put the handlers of signals back, which the supervisor leaves ignored for a process that ends with it."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
