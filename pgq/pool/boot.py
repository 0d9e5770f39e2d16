"""How the processes of a pool come to a Django that is set up as the one of the process that started the pool.

DJANGO_SETTINGS_MODULE need not be all that this takes: the program that runs pgq_worker may install an importer of
settings (the manage.py of django-configurations), change sys.path, or hold the settings itself (settings.configure()).
So the fork server, or a child that was spawned, runs the same program once more, up to the command.

A program that runs no command line of Django's (a script or a test with call_command) is not run again: it has done
more than set Django up by then. There is DJANGO_SETTINGS_MODULE, or PGQ_SETUP: the dotted path of a function to call in
place of `django.setup()`, such as ``configurations.setup``. What settings.configure() was given is handed over.
"""

from __future__ import annotations

import json
import logging
import multiprocessing.spawn
import os
import pickle
import runpy
import sys
import types
from collections.abc import Mapping
from typing import Any

import django
from django.apps import apps
from django.conf import ENVIRONMENT_VARIABLE, UserSettingsHolder, global_settings, settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import ManagementUtility
from django.db import DEFAULT_DB_ALIAS, connections
from django.utils.module_loading import import_string

from pgq.ground.private import clear_connection_pools, settings_below

logger = logging.getLogger("pgq")

#: Of the environment: the program to run again, and the databases to use, both JSON; and a function of the project's.
_PROGRAM, _DATABASES, _SETUP = "PGQ_BOOT_PROGRAM", "PGQ_BOOT_DATABASES", "PGQ_SETUP"


class _Reached(BaseException):
    """The program has come to its command: Django is set up, and the rest is not for a child to run.

    Its argument is the program's main module.
    """


# ------------------------------------------------------------------------------------------------- in the parent


def announce() -> bytes | None:
    """Tell the processes that this one will start, by its environment, how Django is set up here.

    Returns:
        What to hand to `boot` in the children.

    Raises:
        ImproperlyConfigured: They could not do the same.
    """
    os.environ.pop(_PROGRAM, None)
    if is_command_line():
        found = multiprocessing.spawn.get_preparation_data("pgq")
        name, path = found.get("init_main_from_name"), found.get("init_main_from_path")
        if name or path:
            os.environ[_PROGRAM] = json.dumps({"name": name, "path": path, "argv": sys.argv})
            return None
    return None if os.environ.get(_SETUP) else _configured()


def is_command_line() -> bool:
    """Whether this process is one of Django's command line, which ends with its command."""
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is ManagementUtility.execute.__code__:
            return True
        frame = frame.f_back
    return False


def _configured() -> bytes | None:
    """Return the values that settings.configure() was given; None: the settings are those of a module."""
    holder = settings_below(settings)
    while isinstance(holder, UserSettingsHolder):
        # override_settings() puts one upon the other.
        holder = holder.default_settings
    if hasattr(holder, "SETTINGS_MODULE"):
        return None
    names = [name for name in dir(settings) if name.isupper() and name != "SETTINGS_MODULE"]
    values = {name: getattr(settings, name) for name in names}
    try:
        return pickle.dumps(
            {name: value for name, value in values.items() if value != getattr(global_settings, name, None)}
        )
    except Exception as error:
        raise ImproperlyConfigured(
            f"settings.configure() was given something that cannot be handed to workers ({error}): put the settings "
            f"into a module named by {ENVIRONMENT_VARIABLE}, or name a function that sets Django up in {_SETUP}"
        ) from error


def database_names() -> dict[str, str]:
    """Return the name of each database, by its alias: that of a test is not the one in the settings."""
    return {alias: str(database["NAME"]) for alias, database in connections.settings.items()}


def database_variables() -> dict[str, str]:
    """Return environment variables that have another pgq_worker use the same databases."""
    return {_DATABASES: json.dumps(database_names())}


# ------------------------------------------------------------------------------------------------- in the child


def boot(configured: bytes | None = None) -> None:
    """Set up Django as it is in the parent, unless that has been done. What the project raises comes through.

    Args:
        configured: What `announce` has returned.
    """
    program = os.environ.get(_PROGRAM)
    if program is not None and not apps.ready:
        _run_again(**json.loads(program))
    if not apps.ready:
        _set_up(configured)


def run_setup() -> bool:
    """Call the function that PGQ_SETUP names; return False if it names none."""
    setup = os.environ.get(_SETUP)
    if setup:
        import_string(setup)()
    return bool(setup)


def _set_up(configured: bytes | None) -> None:
    if configured is not None and not settings.configured:
        settings.configure(**pickle.loads(configured))  # noqa: S301  # by the pipe of the parent
    if not run_setup():
        django.setup()


def can_boot() -> bool:
    """Whether `boot` needs nothing that only the supervisor can hand over."""
    return any(os.environ.get(name) for name in (_PROGRAM, _SETUP, ENVIRONMENT_VARIABLE))


def use_databases(names: Mapping[str, str] | None = None) -> None:
    """Use the databases of these names; None: those that the environment names, if it does."""
    if names is None:
        # It stays, for a supervisor that starts anew.
        names = json.loads(os.environ.get(_DATABASES, "{}"))
    for alias, name in names.items():
        database = connections.settings.get(alias)
        if database is not None and str(database["NAME"]) != name:
            database["NAME"] = name


def forget() -> None:
    """Take out of the environment what is not for the programs that tasks start."""
    for name in (_PROGRAM, _DATABASES):
        os.environ.pop(name, None)


def _run_again(name: str | None, path: str | None, argv: list[str]) -> None:
    """Run the parent's program until it comes to its command."""

    def stop(self: ManagementUtility, subcommand: str) -> Any:
        raise _Reached(sys.modules["__main__"])

    sys.argv[:] = argv
    fetch_command = ManagementUtility.fetch_command
    ManagementUtility.fetch_command = stop  # type: ignore[method-assign]
    try:
        if name is not None:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        elif path is not None:
            runpy.run_path(path, run_name="__main__")
    except _Reached as end:
        # It stays the main module: a fork that finds its parent's program there does not run it once more.
        sys.modules["__main__"] = end.args[0]
    except (Exception, SystemExit) as error:
        if apps.app_configs:
            # It got as far as Django, which cannot be set up twice.
            raise
        # Not everything can be done twice, such as to listen on a port for a debugger.
        logger.warning("%s cannot be run again to set up a worker: %s: %s", path or name, type(error).__name__, error)
    finally:
        ManagementUtility.fetch_command = fetch_command  # type: ignore[method-assign]


def forget_connections() -> None:
    """In a new process: drop connections that were inherited from its parent, without a word to the server."""
    for connection in connections.all(initialized_only=True):
        connection.connection = None
    clear_connection_pools(type(connections[DEFAULT_DB_ALIAS]))
