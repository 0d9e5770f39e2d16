"""pgq: a task queue, scheduler and worker pool for Django whose only server is PostgreSQL.

Importing this package imports neither models nor settings. The public faces are `pgq.tasks`, `pgq.models`,
`pgq.signals`, `pgq.testing` and the management commands. ``pgq.task`` is `pgq.tasks.task`, which is imported once it is
asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgq.tasks import task as task

__all__ = ["VERSION", "__version__", "task"]

#: The release, as a text.
__version__ = "0.1.0"
#: The same as numbers.
VERSION = tuple(int(part) for part in __version__.split("."))


def __getattr__(name: str) -> Any:
    if name == "task":
        return import_module("pgq.tasks").task
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
