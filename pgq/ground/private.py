"""All undocumented parts of Python and Django that pgq uses, each with the reason. No other module uses any.

A new release may take one away: tests/project/test_private.py checks that each is there and does what this module
says. What belongs to Django is reached through an object that the caller has, so this module needs no Django.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import pickle
import sys
import threading

# signal.getsignal makes enums of the handlers, which takes a microsecond; a worker calls it after each task.
from _signal import getsignal  # type: ignore[import-not-found]

# What json.JSONDecoder.decode calls between two searches for white space, which take half of the time for a short text.
from json.scanner import make_scanner
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from multiprocessing.heap import Arena

__all__ = [
    "PythonUnpickler",
    "arena",
    "clear_connection_pools",
    "end_threads",
    "environment",
    "fork_server_pids",
    "get_running_loop",
    "getsignal",
    "is_called_by_command_line",
    "make_scanner",
    "option_strings",
    "raw_stream",
    "router_hints",
    "run_exit_functions",
    "set_alias",
    "set_running_loop",
    "settings_below",
]

# ------------------------------------------------------------------------------------------------- Python's

#: pickle.Unpickler, the one in C, makes room for as many entries as a pickle of ten bytes may ask for.
PythonUnpickler = pickle._Unpickler

#: asyncio.get_running_loop raises where there is none, and nothing public sets it: a task may leave one behind.
get_running_loop, set_running_loop = asyncio._get_running_loop, asyncio._set_running_loop


def environment() -> dict[Any, Any]:
    """Return the dict inside os.environ: comparing it costs nothing, comparing os.environ takes 20 microseconds."""
    return os.environ._data  # type: ignore[attr-defined,no-any-return]


def option_strings(parser: ArgumentParser) -> set[str]:
    """Return the options of a command line, with their dashes. A parser tells them in no other way than in its help."""
    return set(parser._option_string_actions)


def arena(size: int) -> Arena:
    """Return memory that is shared with child processes of any start method; mmap alone is shared by fork only."""
    # Only a pool's processes should import this: the import registers a function that runs at exit.
    from multiprocessing.heap import Arena

    return Arena(size)


def fork_server_pids() -> set[int]:
    """Return the pids of the helpers that multiprocessing has started: children of a process, not orphans of a task."""
    found = (
        _attributes("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
        _attributes("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
    )
    return {pid for pid in found if pid is not None}


def _attributes(module: str, owner: str, name: str) -> int | None:
    pid: int | None = getattr(getattr(sys.modules.get(module), owner, None), name, None)
    return pid


def end_threads() -> None:
    """Wait for the threads that are no daemons, as Python does at exit. No public function ends those of executors."""
    threading._shutdown()  # type: ignore[attr-defined]


def run_exit_functions() -> None:
    """Run what atexit has registered, as Python does at exit, in a process that ends by os._exit."""
    atexit._run_exitfuncs()


# ------------------------------------------------------------------------------------------------- Django's


def settings_below(settings: Any) -> Any:
    """Return the object behind django.conf.settings: the LazySettings itself holds neither values nor overrides."""
    return settings._wrapped


def clear_connection_pools(wrapper: type) -> None:
    """Forget psycopg's pools, which Django keeps on a class: in a forked process they are those of the parent.

    Args:
        wrapper: The class of a connection. Only that of PostgreSQL has pools.
    """
    getattr(wrapper, "_connection_pools", {}).clear()


def raw_stream(stdout: Any) -> Any:
    """Return the stream below a command's stdout: the wrapper adds a newline to each write."""
    return getattr(stdout, "_out", stdout)


def is_called_by_command_line(command: Any) -> bool:
    """Whether a command was started by manage.py, not by call_command."""
    return bool(getattr(command, "_called_from_command_line", False))


def set_alias(queryset: Any) -> str | None:
    """Return the alias that using() has set; None: a router decides. `QuerySet.db` does not tell the two apart."""
    alias: str | None = queryset._db
    return alias


def router_hints(queryset: Any) -> dict[str, Any]:
    """Return the hints that Django would give the routers for a query."""
    hints: dict[str, Any] = queryset._hints
    return hints
