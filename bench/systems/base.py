"""What the harness asks of a system.

The upper half is read by the harness; the lower half runs in the system's own virtualenv, inside `bench.agent` and the
system's worker processes. So these modules import their system only inside methods, and nothing but the standard
library elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Of the tasks of the kind "keys".
KEYS = 10_000
ROOT = Path(__file__).parent.parent.parent


class System:
    """One system at its best documented settings."""

    name: str
    #: For pip, with versions. None: it runs in the harness's own environment.
    requirements: tuple[str, ...] | None = None
    #: What the report says about how it runs, and what it keeps of a finished task.
    settings: str
    keeps: str = "a row with the result"
    #: "postgresql" or "redis".
    server = "postgresql"
    #: Counts the finished tasks. On Redis: the number of keys that each one leaves, see `bench.redis`.
    done: str
    #: About how many no-op tasks one worker does in a second here; only for the size of the first round.
    rate = 500.0
    #: How many tasks `enqueue_many` gets at once.
    chunk = 1000
    #: Tasks of 10 ms sleep that one worker runs at a time; 0: without a limit.
    sleepers = 1
    #: What can be measured. The bare loops have no functions to call.
    kinds: Sequence[str] = ("noop", "cpu", "sleep")
    #: The same with limits, and about how many a second a pool does: "one-key": one at a time; "keys": two at a time of
    #: each of KEYS keys; "rated": `per_second`. Of these there are more, since a second's worth starts at once.
    limited: Mapping[str, float] = {}
    per_second = 200
    picks_up = True
    #: A task whose worker was killed starts again within seconds, not when a timeout of minutes has passed.
    rescues = False

    # ------------------------------------------------------------------------------------------- for the harness

    def environment(self) -> dict[str, str]:
        """More environment variables for the agent and the workers."""
        return {}

    def worker_commands(self, python: str, workers: int) -> list[list[str]]:
        """Return the commands that together run a pool of so many workers."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------- in its virtualenv

    def prepare(self) -> None:
        """Make the tables."""

    def open(self) -> None:
        """Connect a client."""

    def enqueue_one(self, task: str, *args: int) -> None:
        """Enqueue one call of a function of `bench.tasks`; it is committed when this returns."""
        raise NotImplementedError

    def enqueue_many(self, task: str, count: int) -> None:
        """Enqueue so many calls, in the way that is best for many."""
        raise NotImplementedError


def database() -> dict[str, str]:
    """Return the database to use, as libpq's keywords."""
    return json.loads(os.environ["BENCH_DATABASE"])


def url() -> str:
    """Return the same as a URL, for those that take nothing else."""
    from urllib.parse import quote, urlencode

    given = dict(database())
    name, user, host = (quote(given.pop(key, ""), safe="") for key in ("dbname", "user", "host"))
    secret = ":" + quote(given.pop("password"), safe="") if "password" in given else ""
    port = f":{given.pop('port')}" if "port" in given else ""
    # A directory of sockets stands for the host, percent-encoded: the one form that all of them read.
    return f"postgresql://{user}{secret}@{host}{port}/{name}" + (f"?{urlencode(given)}" if given else "")


def django_database(**more: object) -> dict[str, object]:
    """Return an entry of Django's DATABASES, with a connection that stays open."""
    given = dict(database())
    entry: dict[str, object] = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": given.pop("dbname"),
        "USER": given.pop("user"),
        "PASSWORD": given.pop("password", ""),
        "HOST": given.pop("host", ""),
        "PORT": given.pop("port", ""),
        "CONN_MAX_AGE": None,
        "OPTIONS": given,
    }
    return entry | more


def django_setup() -> None:
    import django

    django.setup()


def migrate() -> None:
    django_setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0, interactive=False)


def script(python: str, name: str) -> str:
    """Return the path of a console script of that interpreter's virtualenv."""
    beside = Path(python).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name) or name


def log(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)
