"""A pool as a process of django-prodserver (2.4 and 3.0)::

    PRODUCTION_PROCESSES = {
        "worker": {
            "BACKEND": "pgq.contrib.prodserver.PgqWorker",
            "ARGS": {"workers": 4, "queues": ["mail", "default"], "health-port": 8001},
        },
    }

Then ``manage.py worker`` (3.0) or ``manage.py prodserver worker`` (both) runs ``manage.py pgq_worker`` with those
options.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command, load_command_class
from django_prodserver.backends import base

from pgq.ground.private import option_strings

__all__ = ["PgqWorker"]

_COMMAND = "pgq_worker"
#: 3.0 lets `worker` run backends for workers alone, and `server` and its old name `prodserver` those for servers alone.
#: 2.x knows servers only.
_BASES: Any = (base.BaseServerBackend,)
if hasattr(base, "BaseWorkerBackend"):
    _BASES = (base.BaseWorkerBackend, base.BaseServerBackend)


class PgqWorker(*_BASES):  # type: ignore[misc]  # the bases are those of the release that is installed
    """Runs `pgq_worker`.

    ARGS is a dict of that command's options without the dashes. A list is joined by commas; True or None stands for an
    option without a value, False for none. Or it is a text, as in a shell.

    Raises:
        ImproperlyConfigured: pgq is not installed as an app, or ARGS names an option that the command does not have.
    """

    def __init__(self, **server_args: Any) -> None:
        if not apps.is_installed("pgq"):
            raise ImproperlyConfigured("Add 'pgq' to INSTALLED_APPS, which pgq.contrib.prodserver.PgqWorker needs.")
        super().__init__(**{**server_args, "ARGS": {}})
        #: What `prep_server_args` returns.
        self.args = _arguments(server_args.get("ARGS"))

    def start_server(self, *args: str) -> None:
        """Run the pool until it is told to stop."""
        call_command(_COMMAND, *args)


def _arguments(args: str | Mapping[str, Any] | None) -> list[str]:
    if isinstance(args, str):
        return shlex.split(args)
    known = option_strings(load_command_class("pgq", _COMMAND).create_parser("manage.py", _COMMAND))
    return [text for name, value in (args or {}).items() for text in _formatted(str(name), value, known)]


def _formatted(name: str, value: Any, known: set[str]) -> list[str]:
    bare = name.lstrip("-").replace("_", "-")
    option = f"-{bare}" if len(bare) == 1 else f"--{bare}"
    if option not in known:
        near = difflib.get_close_matches(option, known, 1)
        names = ", ".join(sorted(text[2:] for text in known if text.startswith("--")))
        raise ImproperlyConfigured(
            f"ARGS of pgq.contrib.prodserver.PgqWorker names {name!r}, which is no option of {_COMMAND}. "
            + (f"Did you mean {near[0].lstrip('-')!r}? " if near else "")
            + f"It has {names}. What else a pool needs stands in settings.PGQ."
        )
    if value is None or value is True:
        return [option]
    if value is False:
        return []
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    # With the sign of equality a value may begin with a dash.
    return [option + text] if len(bare) == 1 else [f"{option}={text}"]
