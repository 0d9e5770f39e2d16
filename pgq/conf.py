"""Settings: `settings.PGQ`, or Django-Q's `Q_CLUSTER` when there is no `PGQ`.

Read when used, never at import: `get_settings()` builds one frozen `Settings` and keeps it until a setting changes.
A wrong value raises `ImproperlyConfigured` at use and is named by ``manage.py check`` before that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, tzinfo
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from pgq import recurrence, rules
from pgq.rules import Declaration, declare

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


#: Kilobytes that Python and Django take before they do anything.
_LEAST_RSS = 20_000


def _too_small_for_a_worker(kilobytes: int | None) -> tuple[str, str] | None:
    if kilobytes is None or kilobytes >= _LEAST_RSS:
        return None
    said = "kB, less than a worker takes before its first task"
    return said, f"It is in kilobytes: {kilobytes} MB are {kilobytes * 1000}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of pgq: each key with its type, default, rule and meaning, from which all else is derived.

    Times are seconds unless the name says otherwise. The page of the settings (docs/settings.md) is written from this
    by ``make docs``.
    """

    name: str = declare(
        "default",
        rules.text,
        "Name of the pool: shown in the admin, kept as `cluster` with each result, and the prefix of keys in the cache",
        unit="text",
        read_by="pool, reader",
        django_q=True,
        alias="cluster_name",
    )
    database: str = declare(
        "default",
        rules.text,
        "Where the tables are. pgq's rows are read and written there, whatever `DATABASE_ROUTERS` says",
        unit="alias in `DATABASES`",
        read_by="all",
        alias="orm",
    )
    queues: tuple[str, ...] | None = declare(
        None,
        rules.texts_or_none,
        "Queues to serve, tasks and schedules alike; `None` or `[]`: all",
        unit="list of texts",
        # No queues in particular are all of them, as for QUEUES of a backend in TASKS.
        keep=lambda value: tuple(dict.fromkeys(value or ())) or None,
    )
    default_queue: str = declare(
        "default", rules.text, "Queue of a task that names none", unit="text", read_by="producer"
    )
    workers: int = declare(
        _cpus, rules.positive_whole, "Worker processes", unit="processes", shown="one for each processor", django_q=True
    )
    coroutines: int = declare(
        100,
        rules.positive_whole,
        "`async def` tasks that one worker runs at a time, on one event loop, see below; `1`: one after the other",
        unit="tasks",
    )
    threads: int = declare(
        1,
        rules.positive_whole,
        "Other tasks that one worker runs at a time, each in a thread; `1`: one after the other, in the main thread",
        unit="tasks",
    )
    recycle: int = declare(
        500_000, rules.not_negative_whole, "A worker is replaced after so many; `0`: never", unit="tasks", django_q=True
    )
    max_rss: int | None = declare(
        None,
        rules.positive_or_none,
        "A worker is replaced once its memory has exceeded this. In kilobytes, and a worker takes 40,000 to 60,000 "
        "before its first task; one that is too large from the start works for a second, a task at least",
        unit="kB",
        django_q=True,
        caution=_too_small_for_a_worker,
    )
    timeout: float | None = declare(
        None,
        rules.positive_or_none,
        "How long one attempt may run; `None`: no limit. Then `TaskTimeout` is raised in the task",
        unit="seconds",
        read_by="producer",
        django_q=True,
    )
    kill_after: float = declare(
        3.0,
        rules.not_negative,
        "After the timeout, or the second signal to stop, until the worker is killed",
        unit="seconds",
    )
    retry: float = declare(
        60.0,
        rules.positive,
        "Length of a lease. Renewed while the worker lives, so it only says how long the tasks of a dead *host* wait",
        unit="seconds",
        django_q=True,
    )
    max_attempts: int = declare(
        1,
        rules.not_negative_whole,
        "How often a task may fail by an exception or at its timeout; `0`: no limit",
        unit="attempts",
        read_by="producer",
        django_q=True,
    )
    retry_backoff: Any = declare(None, rules.pauses, "Pause before the next attempt", unit="see below")  # noqa: RUF009  # a dataclass field
    max_crashes: int = declare(
        3, rules.positive_whole, "How often a task may take its worker down with it", unit="times"
    )
    ack_failures: bool = declare(
        False,
        rules.boolean,
        "A failure is final, whatever attempts are left",
        unit="bool",
        read_by="producer",
        django_q=True,
    )
    save_limit: int = declare(
        250,
        rules.whole,
        "Successes to keep; `0`: all; negative: none. It deletes no failures",
        unit="tasks",
        django_q=True,
    )
    save_limit_per: str | None = declare(
        None,
        rules.one_of(None, "group", "name", "func"),
        "Count `save_limit` for each `'group'`, `'name'` or `'func'`; those without one count together",
        django_q=True,
    )
    keep_days: float | None = declare(
        None, rules.days_or_none, "Results older than this go, **failures too**, see below; `None`: never", unit="days"
    )
    catch_up: bool = declare(
        True, rules.boolean, "Fire each slot that was missed, or only one for all of them", unit="bool", django_q=True
    )
    catch_up_limit: int = declare(
        100, rules.positive_whole, "How many missed slots are fired at most, the latest ones", unit="slots"
    )
    scheduler: bool = declare(True, rules.boolean, "Whether this pool fires schedules", unit="bool", django_q=True)
    time_zone: str | None = declare(
        None,
        rules.zone_or_none,
        "Zone in which schedules count days; `None`: `TIME_ZONE`",
        unit="name",
        read_by="pool, producer",
        django_q=True,
    )
    sync: bool = declare(
        False,
        rules.boolean,
        "Run tasks at once in the caller, raise what they raise",
        unit="bool",
        read_by="producer",
        django_q=True,
    )
    cached: bool | int = declare(
        False,
        rules.boolean_or_seconds,
        "Keep results in the cache instead; `True`: for ever",
        unit="seconds, or bool",
        read_by="producer, reader",
        django_q=True,
    )
    cache: str = declare(
        "default",
        rules.text,
        "The cache for that. One that processes share",
        unit="alias in `CACHES`",
        read_by="pool, reader",
        django_q=True,
    )
    compress: bool = declare(
        False,
        rules.boolean,
        "Compress arguments that are larger than a few kB",
        unit="bool",
        read_by="producer",
        django_q=True,
    )
    max_payload: int = declare(
        16 * 1024 * 1024,
        rules.positive_whole,
        "Largest stored form of one task's arguments, and of one result",
        unit="bytes",
        read_by="producer, pool",
        shown="16 MiB",
    )
    allow_pickle: bool = declare(
        False,
        rules.boolean,
        "Signed pickles for what JSON cannot hold, such as NumPy arrays",
        unit="bool",
        read_by="all",
    )
    allowed: tuple[str, ...] = declare(
        (),
        rules.texts,
        "Functions that rows from psql, the ORM or the admin may name, besides those with `@task`",
        unit="list of dotted paths",
        shown="none",
        keep=tuple,
    )
    poll: float = declare(
        1.0,
        rules.positive,
        "Longest pause between two looks at the queue when no notification comes",
        unit="seconds",
        django_q=True,
    )
    tick: float = declare(
        1.0, rules.positive, "Interval of upkeep: schedules, due tasks, lost leases, pruning", unit="seconds"
    )
    claim_ms: float = declare(50.0, rules.positive, "How much work a worker claims ahead", unit="ms")
    settle_ms: float = declare(50.0, rules.positive, "How long a finished task may wait to be settled", unit="ms")
    grace: float | None = declare(
        None,
        rules.positive_or_none,
        "What running tasks get when the pool is told to stop; `None`: as long as they need",
        unit="seconds",
    )
    health_port: int | None = declare(
        None, rules.port_or_none, "Where the supervisor answers `GET /health`, see below; `None`: nowhere", unit="port"
    )
    health_host: str = declare("127.0.0.1", rules.text, "On which address; `'0.0.0.0'` in a container", unit="address")
    start_method: str = declare("forkserver", rules.one_of("forkserver", "spawn"), "How workers are made; or `'spawn'`")
    cpu_affinity: int = declare(
        0,
        rules.not_negative_whole,
        "How many processors each worker is bound to; `0`: any (Linux)",
        unit="processors",
        django_q=True,
    )
    error_reporter: Mapping[str, Any] = declare(
        dict,
        rules.reporters,
        "Whom to tell of failures, see below",
        unit="`{name: {argument: value}}`",
        shown="none",
        django_q=True,
    )
    log_level: str = declare(
        "INFO",
        rules.one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        "Level of the logger `pgq` in the pool, unless `LOGGING` names one, see below",
        django_q=True,
    )
    label: str = declare("pgq", rules.text, "Title in the admin", unit="text", read_by="admin", django_q=True)

    @property
    def zone(self) -> tzinfo:
        """The zone in which schedules count days unless they name one: `time_zone`, or the project's TIME_ZONE.

        Raises:
            ValueError: `time_zone` is unknown.
        """
        if self.time_zone:
            return recurrence.parse_zone(self.time_zone, UTC)
        return ZoneInfo(django_settings.TIME_ZONE) if django_settings.TIME_ZONE else UTC


#: The one key that is no setting of a pool: it holds those of others.
ALT_CLUSTERS = Declaration(
    rule=rules.pools,
    meaning="Settings of other pools, see below",
    unit="`{name: {key: value}}`",
    read_by="pool, producer",
    default="none",
    django_q=True,
)
#: What is declared of each key.
DECLARATIONS: Mapping[str, Declaration] = {item.name: item.metadata["declaration"] for item in fields(Settings)}
#: Other names for a key: Django-Q's on the left.
ALIASES = {declared.alias: key for key, declared in DECLARATIONS.items() if declared.alias is not None}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the settings: the key as it is written, what is wrong and what to do."""

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
    message = (
        f"{setting}['ALT_CLUSTERS'] has no entry {chosen!r}: a pool of that name serves the queue {chosen!r} and no "
        "other, by the settings outside ALT_CLUSTERS."
    )
    hint = _nearest(chosen, set(map(str, entries)), otherwise=f"There are {', '.join(map(str, entries))}.")
    return [Problem("ALT_CLUSTERS", message, hint, serious=False)]


def read(setting: str, given: Any) -> tuple[dict[str, Any], list[Problem]]:
    """Return the right values among those given, and a problem for each of the others."""
    if not isinstance(given, Mapping):
        return {}, [Problem("", f"settings.{setting} must be a dict, not {type(given).__name__}.", "Make it a dict.")]
    values, problems = _read(setting, {**given, **_alternative(given)})
    return values, problems + _unknown_name(setting, given)


def _read(setting: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for written, value in given.items():
        key = ALIASES.get(written, written)
        where = f"{setting}[{written!r}]"
        if written == "ALT_CLUSTERS":
            problems += _alternatives(setting, value)
        elif written in ALIASES and key in given:
            continue
        elif key in WITHOUT_MEANING:
            message = f"{where} has no meaning in pgq: {WITHOUT_MEANING[key]}."
            problems.append(Problem(written, message, "Remove the key.", serious=False))
        elif (declared := DECLARATIONS.get(key)) is None:
            message = f"{setting} has no key {written!r}."
            problems.append(Problem(written, message, _nearest(str(written), DECLARATIONS)))
        elif (wanted := declared.rule(value)) is not None:
            problems.append(Problem(written, f"{where} is {value!r}.", f"Make it {wanted}."))
        else:
            if (odd := declared.caution(value)) is not None:
                said, hint = odd
                problems.append(Problem(written, f"{where} is {value!r} {said}.", hint, serious=False))
            values[key] = declared.keep(value)
    return values, problems


def _alternatives(setting: str, entries: Any) -> list[Problem]:
    """Look at all of ALT_CLUSTERS, also at what only another pool uses."""
    if (wanted := ALT_CLUSTERS.rule(entries)) is not None:
        return [Problem("ALT_CLUSTERS", f"{setting}['ALT_CLUSTERS'] is {entries!r}.", f"Make it {wanted}.")]
    problems: list[Problem] = []
    for name, overrides in entries.items():
        where = f"{setting}['ALT_CLUSTERS'][{name!r}]"
        if not isinstance(overrides, Mapping):
            problems.append(Problem("ALT_CLUSTERS", f"{where} is {overrides!r}.", "Make it a dict."))
        elif "ALT_CLUSTERS" in overrides:
            problems.append(Problem("ALT_CLUSTERS", f"{where} holds ALT_CLUSTERS itself.", "Remove the key."))
        else:
            problems += _read(where, overrides)[1]
    return problems


def _nearest(
    written: str, known: Iterable[str], otherwise: str = "Remove it, or see docs/settings.md for the keys there are."
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
