"""Management commands as tasks. What a command prints is the result of its task.

The paths of `run` and `run_listed` are stored in rows, so they must never move.

`run` is not registered: only signed rows, which `schedule()` and schedules in code make, may name it, since a command
such as ``shell`` runs whatever its arguments say. Rows from psql, the ORM and the admin may name `run_listed`, which
runs only the commands that PGQ["allowed_commands"] lists.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from pgq.conf import get_settings
from pgq.enqueue import registry
from pgq.errors import EnqueueError, NotAllowed
from pgq.records.options import NO_OPTIONS

#: Characters of a command's output that are kept, the last ones.
KEPT = 4096


class _Tail(io.TextIOBase):
    """Keeps the end of what is written."""

    def __init__(self) -> None:
        self._text = ""
        self._is_cut = False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        kept = self._text + text
        self._is_cut = self._is_cut or len(kept) > KEPT
        self._text = kept[-KEPT:]
        return len(text)

    def text(self) -> str:
        return f"…{self._text[1:]}" if self._is_cut else self._text


def run(command: str, *args: Any, **options: Any) -> str:
    """Run a management command; return the end of what it printed to its stdout and stderr.

    Args:
        args: As on the command line, each one apart: "--verbose", "--type=daily".
        options: Those of `call_command`.

    Raises:
        CommandError: It failed, or ended by an exit code other than 0.
        Exception: What the command raises.
    """
    # Not at the top: each process has this module registered, and a web process may need no command.
    from django.core.management import CommandError, call_command

    output = _Tail()
    try:
        call_command(command, *map(str, args), **{"stdout": output, "stderr": output, "no_color": True, **options})
    except SystemExit as end:
        if end.code not in (None, 0):
            raise CommandError(f"{command} ended by exit code {end.code}: {output.text()}".rstrip(": ")) from end
    return output.text()


def run_listed(command: str, *args: Any, **options: Any) -> str:
    """Do the same with a command that PGQ["allowed_commands"] lists; rows that nothing signed may name this function.

    Raises:
        NotAllowed: It does not.
        CommandError, Exception: See `run`.
    """
    if command not in get_settings().allowed_commands:
        raise NotAllowed(
            f"the command {str(command)[:100]!r} is not listed in PGQ['allowed_commands']; list it, or make the "
            "schedule by schedule(command=...) or in code"
        )
    return run(command, *args, **options)


LISTED = registry.register(run_listed, NO_OPTIONS).path


def call_of(
    command: str, func: object, args: Any = (), kwargs: Any = None
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Return the call that runs a management command, as function, args and kwargs.

    Raises:
        EnqueueError: There is no such command, or a function is given as well.
    """
    from django.core.management import get_commands

    if func is not None:
        raise EnqueueError("command", "func is given as well; give one of them")
    if not isinstance(command, str) or command not in get_commands():
        raise EnqueueError("command", f"there is no management command {command!r}; is its app in INSTALLED_APPS?")
    return run, (command, *args), dict(kwargs or {})
