"""manage.py pgq_worker: runs a pool of workers."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from pgq import conf, discovery, signing
from pgq.child import set_up_logging


class Command(BaseCommand):
    help = (
        "Runs a pool of workers until it is stopped. SIGTERM or Ctrl-C: running tasks finish, then it ends; a second "
        "one gives them a few seconds, a third none. SIGHUP: finish, then start anew with new code and settings."
    )
    requires_migrations_checks = False
    # The settings are checked in handle(); a full check would also ask the database, which may be down just now.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "-w", "--workers", type=int, help="worker processes (default: PGQ['workers'], else one for each processor)"
        )
        parser.add_argument(
            "-q", "--queues", help="queues to serve, separated by commas (default: PGQ['queues'], else all)"
        )
        parser.add_argument("-n", "--name", help="name of the pool; an entry of ALT_CLUSTERS with that name is used")
        parser.add_argument("--database", help="alias in DATABASES (default: PGQ['database'])")
        parser.add_argument(
            "--health-port",
            type=int,
            metavar="PORT",
            help="answer GET /health there, on PGQ['health_host'] (default: PGQ['health_port'], else on none)",
        )
        parser.add_argument("--run-once", action="store_true", help="run what is ready, then end")
        parser.add_argument(
            "--log-format", choices=["plain", "json"], default="plain", help="lines for people or for machines"
        )
        parser.add_argument(
            "--log-level", choices=["DEBUG", "INFO", "WARNING", "ERROR"], help="default: PGQ['log_level']"
        )
        parser.add_argument("--autoreload", action="store_true", help="for development: start anew when code changes")

    def handle(self, *args: Any, **options: Any) -> None:
        from pgq.supervisor import Supervisor

        if options["name"]:
            # By the environment, so that workers see it too.
            os.environ["PGQ_NAME"] = options["name"]
            conf.get_settings.cache_clear()
        settings = self._settings(options)
        try:
            signing.check_keys()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        set_up_logging(options["log_format"], settings.log_level)
        discovery.warn()
        connections.close_all()
        supervisor = Supervisor(
            settings,
            run_once=options["run_once"],
            log_format=options["log_format"],
            reload=_code_changes() if options["autoreload"] else None,
        )
        if supervisor.run():
            sys.stdout.flush()
            sys.stderr.flush()
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # ourselves, as we were started
        if supervisor.failed is not None:
            raise CommandError(f"nothing could be run: {supervisor.failed}")

    def _settings(self, options: dict[str, Any]) -> conf.Settings:
        chosen: dict[str, Any] = {}
        for key in ("workers", "database", "name", "log_level", "health_port"):
            if options[key] is not None:
                chosen[key] = options[key]
        if options["queues"] is not None:
            chosen["queues"] = tuple(name.strip() for name in options["queues"].split(",") if name.strip())
            if not chosen["queues"]:
                raise CommandError("--queues: name at least one queue, or leave the option out to serve all")
        if chosen.get("workers", 1) < 1:
            raise CommandError(f"--workers: must be 1 or more, got {chosen['workers']}")
        if not 0 < chosen.get("health_port", 1) < 65536:
            raise CommandError(f"--health-port: must be a port from 1 to 65535, got {chosen['health_port']}")
        settings = dataclasses.replace(conf.get_settings(), **chosen)
        if settings.database not in connections:
            raise CommandError(f"--database: {settings.database!r} is not in DATABASES")
        if connections[settings.database].vendor != "postgresql":
            raise CommandError(f"--database: {settings.database!r} is not a PostgreSQL database, which pgq needs")
        return settings


def _code_changes() -> Callable[[], bool]:
    """Return a function that says whether a Python file that is loaded has changed since."""
    from django.utils.autoreload import iter_all_python_module_files

    def times() -> dict[str, float]:
        seen = {}
        for file in iter_all_python_module_files():
            try:
                seen[str(file)] = file.stat().st_mtime
            except OSError:
                continue
        return seen

    before = times()

    def changed() -> bool:
        now = times()
        return any(now.get(file) != time for file, time in before.items())

    return changed
