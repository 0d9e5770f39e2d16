"""The settings: a declaration each, with its rule, its default and what it means."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings as django_settings

from pgq import recurrence
from pgq.conf import rules, tokens
from pgq.conf.queues import Queues, are_named, is_pattern
from pgq.conf.rules import Declaration, declare

#: Keys of Q_CLUSTER, and two of django-cfg's, that mean nothing here, and why.
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
    "broker_url": "the only broker is PostgreSQL",
    "has_replica": "tasks are claimed on the primary",
    "daemonize_workers": "tasks may always start processes of their own",
    "guard_cycle": "the supervisor waits for events instead of looking round",
    "queue_limit": "claims are sized by time, so no task waits in a worker's memory",
    "bulk": "claims are sized by time",
    "rollbar": "use error_reporter",
    "testing": "there is nothing to switch",
    "monitor_interval": "pgq_monitor renews what it shows by itself",
}


def _cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 4


#: Kilobytes that Python and Django take before they do anything.
_LEAST_RSS = 20_000


def _too_small_for_a_worker(kilobytes: int | None) -> tuple[str, str] | None:
    if kilobytes is None or kilobytes >= _LEAST_RSS:
        return None
    remark = "kB, less than a worker takes before its first task"
    return remark, f"It is in kilobytes: {kilobytes} MB are {kilobytes * 1000}."


def _kept_schedules(value: Any) -> Any:
    if hasattr(value, "to_schedules"):
        return tuple(value.to_schedules())
    return value if isinstance(value, str) else tuple(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of pgq: each key with its type, default, rule and meaning, from which all else is derived.

    Times are seconds unless the name says otherwise. The page of the settings (docs/reference/settings.md) is written
    from this by ``make docs``.
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
    databases: Mapping[str, Sequence[str]] = declare(
        dict,
        rules.databases,
        "Queues, by name or by pattern, that lie in other databases, each with pgq's tables, on another server or not; "
        "all other queues lie in `database`. See [several-databases.md](../guide/several-databases.md)",
        unit="dict {alias in `DATABASES`: [queues]}",
        read_by="all",
        shown="none",
        keep=lambda value: {alias: tuple(queues) for alias, queues in value.items()},
    )
    queues: tuple[str, ...] | None = declare(
        None,
        rules.texts_or_none,
        "Queues to serve, tasks and schedules alike, by name or by pattern: `mail.*`; `None` or `[]`: all",
        unit="list of texts",
        # No queues in particular are all of them, as for QUEUES of a backend in TASKS.
        keep=lambda value: tuple(dict.fromkeys(value or ())) or None,
    )
    exclude_queues: tuple[str, ...] = declare(
        (),
        rules.texts_or_none,
        "Queues that are not served, neither tasks nor schedules, by name or by pattern; all others are, or those of "
        "`queues`",
        unit="list of texts",
        shown="none",
        keep=lambda value: tuple(dict.fromkeys(value or ())),
    )
    queue_limits: Mapping[str, Mapping[str, Any]] = declare(
        dict,
        rules.queue_limits,
        'What a queue may run at a time, and start in any time, over all pools: `{"mail": {"concurrency": 10, '
        '"rate": "1000/h"}}`; see [limits.md](../guide/limits.md)',
        unit="`{queue: {limit: value}}`",
        shown="none",
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
        "Length of a lease. Renewed while the worker lives, so it only sets how long the tasks of a dead *host* wait",
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
    schedules: Any = declare(  # noqa: RUF009  # a dataclass field
        (),
        rules.schedules,
        "Schedules in code, besides those of `@task(schedule=...)`; see [schedules.md](../guide/schedules.md)",
        unit="list, or dotted path of one",
        read_by="sync",
        shown="none",
        keep=_kept_schedules,
    )
    sync_schedules: str = declare(
        "migrate",
        rules.one_of("migrate", "start", "off"),
        "When the table of schedules is brought in step with them: after `migrate`, when a pool starts, or only by "
        "`pgq_schedules sync`",
        read_by="sync",
    )
    schedules_source: str = declare(
        "code",
        rules.text,
        "Whose they are: give each project its own where several share the tables",
        unit="text",
        read_by="sync",
    )
    release: str | int | None = declare(
        None,
        rules.release,
        "What grows with each deploy, such as a build number: code of an older release does not undo what a newer one "
        "made of the schedules",
        unit="text or number",
        read_by="sync",
    )
    environment: str | None = declare(
        None,
        rules.text_or_none,
        "Which of the `environments` of schedules this is; `None`: what the variable `DJANGO_ENV` says",
        unit="text",
        read_by="sync",
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
    allowed_commands: tuple[str, ...] = declare(
        (),
        rules.texts,
        "Management commands that schedules from psql, the ORM or the admin may run, with any arguments",
        unit="list of names",
        shown="none",
        read_by="pool, admin",
        keep=tuple,
    )
    api_tokens: Mapping[str, tokens.Token] = declare(
        dict,
        tokens.rule,
        "Tokens for the REST routes: `manage.py pgq_token NAME --scope read` prints one; see [rest.md](rest.md)",
        unit="`{name: {'sha256': ..., 'scopes': [...]}}`",
        read_by="REST",
        shown="none",
        keep=tokens.keep,
    )
    poll: float = declare(
        1.0,
        rules.positive,
        "Longest pause between two reads of the queue when no notification comes",
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
        "What running tasks get when the pool has to stop; `None`: as long as they need",
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
    def served(self) -> Queues:
        """The queues that the pool serves: `queues` without `exclude_queues`."""
        excluded = self.exclude_queues
        if self.queues is None:
            return Queues(excluded=excluded)
        only = tuple(queue for queue in self.queues if not are_named(queue, excluded))
        return Queues(only, excluded if any(map(is_pattern, only)) else ())

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
