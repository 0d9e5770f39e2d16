"""Settings: `settings.PGQ`, or Django-Q's `Q_CLUSTER` when there is no `PGQ`.

Read when used, never at import: `get_settings()` builds one frozen `Settings` and keeps it until a setting changes.
A wrong value raises `ImproperlyConfigured` at use and is named by ``manage.py check`` before that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, tzinfo
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from pgq import backoff, recurrence

#: Keys of Q_CLUSTER that mean nothing here, and why.
WITHOUT_MEANING = {
    **dict.fromkeys(
        (
            "redis",
            "django_redis",
            "disque_nodes",
            "disque_auth",
            "disque_fastack",
            "iron_mq",
            "sqs",
            "mongo",
            "mongo_db",
        ),
        "the only broker is PostgreSQL",
    ),
    "broker_class": "the only broker is PostgreSQL",
    "has_replica": "tasks are claimed on the primary",
    "daemonize_workers": "tasks may always start processes of their own",
    "guard_cycle": "the supervisor waits for events instead of looking round",
    "queue_limit": "claims are sized by time, so no task waits in a worker's memory",
    "bulk": "claims are sized by time",
    "rollbar": "use error_reporter",
    "testing": "there is nothing to switch",
}


def _cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of pgq. Times are seconds unless the name says otherwise."""

    #: Name of the pool, shown in the admin and kept with each result; with ALT_CLUSTERS also the queue it serves.
    name: str = "default"
    #: Alias in DATABASES that holds the tables. Django-Q's `orm` is understood.
    database: str = "default"
    #: Queues that workers serve; None: all of them, and so does an empty list in the settings.
    queues: tuple[str, ...] | None = None
    #: Queue of a task that names none.
    default_queue: str = "default"
    #: Worker processes of a pool.
    workers: int = field(default_factory=_cpus)
    #: `async def` tasks that one worker runs at a time, on one event loop; 1: one after the other, as all others.
    coroutines: int = 100
    #: Other tasks that one worker runs at a time, each in a thread; 1: one after the other, in the main thread.
    threads: int = 1
    #: A worker is replaced after so many tasks; 0: never.
    recycle: int = 500_000
    #: A worker is replaced once its resident memory exceeds this many kilobytes; None: no limit.
    max_rss: int | None = None
    #: Seconds one attempt of a task may run; None: no limit.
    timeout: float | None = None
    #: Seconds between the exception raised in a task at its timeout and the SIGKILL for its worker.
    kill_after: float = 3.0
    #: Length of a lease. It is renewed while the worker lives, so this is only how long a dead *host's* tasks wait.
    retry: float = 60.0
    #: Attempts of a task that fails by an exception; 0: no limit (Django-Q's default, and its users' complaint).
    max_attempts: int = 1
    #: Seconds before the next attempt: a number, a list, or a dict (see `pgq.backoff`).
    retry_backoff: Any = None
    #: Times a task may take its worker down with it before it has failed.
    max_crashes: int = 3
    #: Django-Q: a failure is final, whatever attempts are left.
    ack_failures: bool = False
    #: Successful tasks to keep; 0: all; negative: none. This deletes no failures.
    save_limit: int = 250
    #: Count save_limit per "group", "name" or "func"; None: over all.
    save_limit_per: str | None = None
    #: Days after which results go, failures too, a week of them at a time; None: never.
    keep_days: float | None = None
    #: Fire the missed slots of a schedule, or only one for all of them.
    catch_up: bool = True
    #: Missed slots fired at most.
    catch_up_limit: int = 100
    #: Whether this pool fires schedules.
    scheduler: bool = True
    #: Zone in which schedules count days; None: TIME_ZONE.
    time_zone: str | None = None
    #: Run tasks at once in the caller instead of enqueuing them.
    sync: bool = False
    #: Keep results in the cache instead of the database: seconds, True (for ever) or False.
    cached: bool | int = False
    #: Alias in CACHES for `cached`.
    cache: str = "default"
    #: Compress arguments that are larger than a few kilobytes.
    compress: bool = False
    #: Largest stored form of one task's arguments, and of one result, in bytes.
    max_payload: int = 16 * 1024 * 1024
    #: Allow signed pickles for arguments and results that JSON cannot hold.
    allow_pickle: bool = False
    #: Dotted paths that rows nobody signed may name, besides functions registered with @task.
    allowed: tuple[str, ...] = ()
    #: Longest interval between two looks at the queue when no notification comes.
    poll: float = 1.0
    #: Interval of upkeep: schedules, due rows, rescue, watermarks, pruning.
    tick: float = 1.0
    #: Milliseconds of work a worker claims ahead.
    claim_ms: float = 50.0
    #: Milliseconds after which a finished task is settled at the latest.
    settle_ms: float = 50.0
    #: Seconds that running tasks get when the pool is told to stop; None: as long as they need.
    grace: float | None = None
    #: Port on which the supervisor answers GET /health; None: on none.
    health_port: int | None = None
    #: Address for that.
    health_host: str = "127.0.0.1"
    #: How worker processes are made: "forkserver" or "spawn".
    start_method: str = "forkserver"
    #: Processors a worker is bound to; 0: any.
    cpu_affinity: int = 0
    #: Error reporters: {name: arguments}.
    error_reporter: Mapping[str, Any] = field(default_factory=dict)
    #: Level of the logger "pgq" in workers.
    log_level: str = "INFO"
    #: Title of the app in the admin.
    label: str = "pgq"

    @property
    def zone(self) -> tzinfo:
        """The zone in which schedules count days unless they name one: `time_zone`, or the project's TIME_ZONE.

        Raises:
            ValueError: `time_zone` is unknown.
        """
        if self.time_zone:
            return recurrence.parse_zone(self.time_zone, UTC)
        return ZoneInfo(django_settings.TIME_ZONE) if django_settings.TIME_ZONE else UTC


#: Other names for a key: Django-Q's on the left.
ALIASES = {"orm": "database", "cluster_name": "name"}

_POSITIVE = {
    "workers",
    "coroutines",
    "threads",
    "retry",
    "poll",
    "tick",
    "claim_ms",
    "settle_ms",
    "max_payload",
    "max_crashes",
    "catch_up_limit",
}
_NOT_NEGATIVE = {"recycle", "max_attempts", "cpu_affinity", "kill_after"}
_POSITIVE_OR_NONE = {"max_rss", "timeout", "grace"}
#: Kilobytes that Python and Django take before they do anything.
_LEAST_RSS = 20_000
#: Longer ago than that, PostgreSQL's and Python's calendars end.
_MOST_DAYS = 365_000
_BOOLEAN = {"ack_failures", "catch_up", "scheduler", "sync", "compress", "allow_pickle"}
_INTEGER = {
    "workers",
    "coroutines",
    "threads",
    "recycle",
    "max_attempts",
    "max_crashes",
    "catch_up_limit",
    "save_limit",
    "max_payload",
    "cpu_affinity",
}
_TEXT = {"name", "database", "default_queue", "cache", "label", "health_host"}
_CHOICE = {
    "save_limit_per": (None, "group", "name", "func"),
    "start_method": ("forkserver", "spawn"),
    "log_level": ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
}


def _wrong(key: str, value: Any) -> str | None:
    """Say what a value should have been, or None if it is right."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in _INTEGER and not (number and isinstance(value, int)):
        return "a whole number"
    if key in _POSITIVE and not (number and value > 0):
        return "a number above 0"
    if key in _NOT_NEGATIVE and not (number and value >= 0):
        return "a number, 0 or above"
    if key in _POSITIVE_OR_NONE and not (value is None or (number and value > 0)):
        return "a number above 0, or None"
    if key == "keep_days" and not (value is None or (number and 0 < value <= _MOST_DAYS)):
        return f"a number of days above 0, {_MOST_DAYS} at most, or None"
    if key in _BOOLEAN and not isinstance(value, bool):
        return "True or False"
    if key in _TEXT and not (isinstance(value, str) and value):
        return "a text that is not empty"
    if key in _CHOICE and value not in _CHOICE[key]:
        return "one of " + ", ".join(repr(choice) for choice in _CHOICE[key])
    if key == "health_port" and not (value is None or (number and isinstance(value, int) and 0 < value < 65536)):
        return "the number of a port, or None"
    if key == "time_zone" and not (value is None or _is_zone(value)):
        return "the name of a time zone, such as 'Europe/Paris', or None"
    if key == "retry_backoff" and not callable(value):
        try:
            backoff.validate(value)
        except ValueError:
            return "seconds, a list of seconds, a dict (see docs/settings.md), a function, or None"
    if key in ("queues", "allowed") and not (
        (value is None and key == "queues")
        or (isinstance(value, list | tuple | set) and all(isinstance(item, str) and item for item in value))
    ):
        return "a list of texts"
    if key == "cached" and not (isinstance(value, bool) or (number and value > 0)):
        return "True, False or a number of seconds"
    if key == "error_reporter" and not (
        isinstance(value, Mapping) and all(isinstance(item, Mapping) for item in value.values())
    ):
        return "a dict {name: {argument: value}}"
    return None


def _is_zone(value: Any) -> bool:
    try:
        recurrence.parse_zone(value, UTC)
    except (ValueError, AttributeError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the settings: the setting, its key, and what to do."""

    setting: str
    key: str
    message: str
    hint: str
    #: False: the key has no meaning here, and that is all.
    serious: bool = True


def _source() -> tuple[str, Any]:
    if hasattr(django_settings, "PGQ"):
        return "PGQ", getattr(django_settings, "PGQ")  # noqa: B009  # unknown to the type checker
    return "Q_CLUSTER", getattr(django_settings, "Q_CLUSTER", {})


def _alternative(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides of the ALT_CLUSTERS entry that the environment asks for, as in Django-Q."""
    chosen = os.environ.get("PGQ_NAME") or os.environ.get("Q_CLUSTER_NAME")
    if not chosen:
        return {}
    entries = given.get("ALT_CLUSTERS")
    if not entries:
        # Only a name, then.
        return {"name": chosen}
    return _overrides(chosen, entries.get(chosen) if isinstance(entries, Mapping) else None)


def _overrides(name: str, entry: Any) -> dict[str, Any]:
    """Return what an entry of ALT_CLUSTERS, or a name that has none, puts in the place of the other keys."""
    overrides = dict(entry) if isinstance(entry, Mapping) else {}
    overrides.pop("cluster_name", None)
    return {"queues": (name,), **overrides, "name": name}


def _unknown_name(setting: str, given: Mapping[str, Any]) -> list[Problem]:
    """Say so if the environment names a pool of which ALT_CLUSTERS, which is in use, knows nothing."""
    entries = given.get("ALT_CLUSTERS")
    chosen = _alternative(given).get("name")
    known = {str(given.get(key) or "default") for key in ("name", "default_queue")}
    if chosen is None or not isinstance(entries, Mapping) or not entries or chosen in {*known, *entries}:
        return []
    return [
        Problem(
            setting, "ALT_CLUSTERS",
            f"{setting}['ALT_CLUSTERS'] has no entry {chosen!r}: a pool of that name serves the queue {chosen!r} and "
            "no other, by the settings outside ALT_CLUSTERS.",
            _nearest(chosen, set(map(str, entries)), otherwise=f"There are {', '.join(map(str, entries))}."),
            serious=False,
        )
    ]  # fmt: skip


def read(setting: str, given: Any) -> tuple[dict[str, Any], list[Problem]]:
    """Return the right values among those given, and a problem for each of the others."""
    if not isinstance(given, Mapping):
        return {}, [
            Problem(setting, "", f"settings.{setting} must be a dict, not {type(given).__name__}.", "Make it a dict.")
        ]
    values, problems = _read(setting, {**given, **_alternative(given)})
    return values, problems + _unknown_name(setting, given)


def _read(setting: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    known = {item.name for item in fields(Settings)}
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for written, value in given.items():
        key = ALIASES.get(written, written)
        if written == "ALT_CLUSTERS":
            problems += _alternatives(setting, value)
        elif written in ALIASES and key in given:
            continue
        elif key in WITHOUT_MEANING:
            problems.append(
                Problem(setting, written, f"{setting}[{written!r}] has no meaning in pgq: {WITHOUT_MEANING[key]}.",
                        "Remove the key.", serious=False)
            )  # fmt: skip
        elif key not in known:
            problems.append(
                Problem(setting, written, f"{setting} has no key {written!r}.", _nearest(str(written), known))
            )
        elif (wanted := _wrong(key, value)) is not None:
            problems.append(Problem(setting, written, f"{setting}[{written!r}] is {value!r}.", f"Make it {wanted}."))
        else:
            if key == "max_rss" and value is not None and value < _LEAST_RSS:
                problems.append(
                    Problem(setting, written, f"{setting}[{written!r}] is {value!r} kB, less than a worker takes before"
                            " its first task.", f"It is in kilobytes: {value} MB are {value * 1000}.", serious=False)
                )  # fmt: skip
            values[key] = _LISTS[key](value) if key in _LISTS else value
    return values, problems


#: How a list is kept. No queues in particular are all of them, as for QUEUES of a backend in TASKS.
_LISTS: Mapping[str, Callable[[Any], Any]] = {
    "queues": lambda value: tuple(dict.fromkeys(value or ())) or None,
    "allowed": tuple,
}


def _alternatives(setting: str, entries: Any) -> list[Problem]:
    """Look at all of ALT_CLUSTERS, also at what only another pool uses."""
    if not isinstance(entries, Mapping):
        return [Problem(setting, "ALT_CLUSTERS", f"{setting}['ALT_CLUSTERS'] is {entries!r}.",
                        "Make it a dict {name: {key: value}}.")]  # fmt: skip
    problems: list[Problem] = []
    for name, overrides in entries.items():
        where = f"{setting}['ALT_CLUSTERS'][{name!r}]"
        if not isinstance(overrides, Mapping):
            problems.append(Problem(setting, "ALT_CLUSTERS", f"{where} is {overrides!r}.", "Make it a dict."))
        elif "ALT_CLUSTERS" in overrides:
            problems.append(Problem(setting, "ALT_CLUSTERS", f"{where} holds ALT_CLUSTERS itself.", "Remove the key."))
        else:
            problems += _read(where, overrides)[1]
    return problems


def _nearest(
    written: str, known: set[str], otherwise: str = "Remove it, or see docs/settings.md for the keys there are."
) -> str:
    import difflib

    close = difflib.get_close_matches(written, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else otherwise


@cache
def get_settings() -> Settings:
    """Return the settings as they are now.

    Raises:
        ImproperlyConfigured: A value is wrong; the message names the key and what to do.
    """
    setting, given = _source()
    values, problems = read(setting, given)
    serious = [problem for problem in problems if problem.serious]
    if serious:
        raise ImproperlyConfigured(" ".join(f"{problem.message} {problem.hint}" for problem in serious))
    return Settings(**values)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a task gets whose call and whose function say nothing of it. Times are seconds."""

    timeout: float | None
    max_attempts: int
    ack_failures: bool
    #: None: as the pool says that runs it.
    retry_backoff: Any = None


def policy_of(queue: str) -> Policy:
    """Return the policy of a queue: that of the entry of ALT_CLUSTERS that serves it, else that of the other keys.

    Whichever pool this process belongs to: what it enqueues for others is theirs.
    """
    policies = _policies()
    # What is no text, and perhaps not hashable, is refused by those who ask.
    return (policies.get(queue) if isinstance(queue, str) else None) or policies[_OTHERS]


#: No queue has this name.
_OTHERS = ""


@cache
def _policies() -> Mapping[str, Policy]:
    setting, given = _source()
    others = Settings(**_read(setting, given)[0])
    policies = {_OTHERS: Policy(others.timeout, others.max_attempts, others.ack_failures)}
    for name, entry in (given.get("ALT_CLUSTERS") or {}).items():
        pool = Settings(**_read(setting, {**given, **_overrides(str(name), entry)})[0])
        # Only what the entry says itself need travel with its tasks; a pool knows the rest.
        own = pool.retry_backoff if "retry_backoff" in entry else None
        policy = Policy(pool.timeout, pool.max_attempts, pool.ack_failures, own)
        for queue in pool.queues or ():
            policies.setdefault(queue, policy)
    return policies


def problems() -> list[Problem]:
    """Return what is wrong with the settings, for ``manage.py check``."""
    return read(*_source())[1]


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("PGQ", "Q_CLUSTER"):
        get_settings.cache_clear()
        _policies.cache_clear()


setting_changed.connect(_forget)


#: What Django-Q's users import from its `conf`, and what they have instead.
_INSTEAD = {
    "Conf": "pgq.conf.get_settings(), whose attributes are the keys in lower case; the states are in pgq.status",
    "logger": 'logging.getLogger("pgq")',
}


def __getattr__(name: str) -> Any:
    if name in _INSTEAD:
        raise ImportError(f"pgq.conf has no {name}: use {_INSTEAD[name]} (see docs/from-django-q.md)")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
