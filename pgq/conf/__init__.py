"""Settings: `settings.PGQ`, or Django-Q's `Q_CLUSTER` when there is no `PGQ`.

Read when used, never at import: `get_settings()` builds one frozen `Settings` and keeps it until a setting changes.
A wrong value raises `ImproperlyConfigured` at use and is named by ``manage.py check`` before that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from pgq.conf import databases
from pgq.conf.databases import at, at_hand, chosen, serve, served, serving
from pgq.conf.queues import ALL, Queues, are_named, is_pattern
from pgq.conf.settings import ALIASES, ALT_CLUSTERS, DECLARATIONS, WITHOUT_MEANING, Settings

__all__ = [
    "ALIASES",
    "ALL",
    "ALT_CLUSTERS",
    "DECLARATIONS",
    "WITHOUT_MEANING",
    "Policy",
    "Problem",
    "Queues",
    "Settings",
    "aliases",
    "asked",
    "at",
    "chosen",
    "database_of",
    "forget",
    "get_settings",
    "policy_of",
    "problems",
    "read",
    "serve",
    "served",
    "serving",
    "source",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the settings: the key as it is written, what is wrong and what to do."""

    key: str
    message: str
    hint: str
    #: False: the key has no meaning here, and that is all.
    serious: bool = True


def source() -> tuple[str, Any]:
    """Return the name of the setting, and its value as a dict if it is one or can become one."""
    name, given = _source()
    convert = getattr(given, "to_settings", None)
    return name, convert() if callable(convert) else given


def _source() -> tuple[str, Any]:
    if hasattr(django_settings, "PGQ"):
        return "PGQ", getattr(django_settings, "PGQ")  # noqa: B009  # unknown to the type checker
    return "Q_CLUSTER", getattr(django_settings, "Q_CLUSTER", {})


def _cautions() -> list[Problem]:
    """Return what an object in the place of the dict says of what it left out."""
    name, given = _source()
    return [
        Problem(key, f"settings.{name}: {said}.", hint, serious=False)
        for key, said, hint in (given.cautions() if hasattr(given, "cautions") else ())
    ]


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
    # What it says of queues takes the place of both keys. An entry that says which not to serve serves all others.
    queues = None if "exclude_queues" in overrides else (name,)
    return {"queues": queues, "exclude_queues": (), **overrides, "name": name}


def _unknown_name(setting: str, given: Mapping[str, Any]) -> list[Problem]:
    """Return a problem if the environment names a pool that ALT_CLUSTERS, where it is in use, has no entry for."""
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
        return {}, [
            Problem(
                "",
                f"settings.{setting} must be a dict, not {type(given).__name__}.",
                "Make it a dict, or a pgq.config.Config.",
            )
        ]
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
                remark, hint = odd
                problems.append(Problem(written, f"{where} is {value!r} {remark}.", hint, serious=False))
            values[key] = declared.keep(value)
    both = [queue for queue in values.get("exclude_queues", ()) if queue in (values.get("queues") or ())]
    if both:
        message = f"{setting}['exclude_queues'] names {both[0]!r}, which {setting}['queues'] names as well."
        problems.append(Problem("exclude_queues", message, "Name it in one of the two."))
    if values.get("databases") and "ALT_CLUSTERS" in given:
        problems += _moved(setting, given["ALT_CLUSTERS"])
    return values, problems


def _moved(setting: str, entries: Any) -> list[Problem]:
    """Return a problem for each entry of ALT_CLUSTERS that names a database, where PGQ["databases"] does."""
    return [
        Problem(
            "ALT_CLUSTERS",
            f"{setting}['ALT_CLUSTERS'][{name!r}] holds database, and {setting}['databases'] says where queues lie.",
            "Leave it out there: a pool finds the database of the queues that it serves.",
        )
        for name, overrides in (entries.items() if isinstance(entries, Mapping) else ())
        if isinstance(overrides, Mapping) and ("database" in overrides or "orm" in overrides)
    ]


def _alternatives(setting: str, entries: Any) -> list[Problem]:
    """Check all of ALT_CLUSTERS, also what only another pool uses."""
    if (wanted := ALT_CLUSTERS.rule(entries)) is not None:
        return [Problem("ALT_CLUSTERS", f"{setting}['ALT_CLUSTERS'] is {entries!r}.", f"Make it {wanted}.")]
    problems: list[Problem] = []
    for name, overrides in entries.items():
        where = f"{setting}['ALT_CLUSTERS'][{name!r}]"
        if not isinstance(overrides, Mapping):
            problems.append(Problem("ALT_CLUSTERS", f"{where} is {overrides!r}.", "Make it a dict."))
        elif "ALT_CLUSTERS" in overrides:
            problems.append(Problem("ALT_CLUSTERS", f"{where} holds ALT_CLUSTERS itself.", "Remove the key."))
        elif of_all := [key for key in ("schedules", "schedules_source", "databases") if key in overrides]:
            # With schedules, a migrate in the environment of one pool would pause those of the others. With databases,
            # what one pool enqueues would lie where the others do not look for it.
            message = f"{where} holds {of_all[0]}, which belongs to no pool in particular."
            problems.append(Problem("ALT_CLUSTERS", message, "Put it outside, where it holds for all pools."))
        else:
            problems += _read(where, overrides)[1]
    return problems


def _nearest(
    written: str,
    known: Iterable[str],
    otherwise: str = "Remove it, or see docs/reference/settings.md for the keys there are.",
) -> str:
    import difflib

    close = difflib.get_close_matches(written, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else otherwise


def get_settings() -> Settings:
    """Return the settings as they are now. Their `database` is the one at hand, see `pgq.conf.databases`.

    Raises:
        ImproperlyConfigured: A value is wrong; the message names the key and what to do.
    """
    if not databases.in_use or (alias := at_hand()) is None:
        return _configured()
    return _settings_at(alias)


@cache
def _configured() -> Settings:
    """Return the settings as they are configured, whatever database is at hand."""
    setting, given = source()
    values, problems = read(setting, given)
    serious = [problem for problem in problems if problem.serious]
    if serious:
        raise ImproperlyConfigured(" ".join(f"{problem.message} {problem.hint}" for problem in serious))
    return Settings(**values)


@cache
def _settings_at(alias: str) -> Settings:
    return replace(_configured(), database=alias)


@cache
def _places() -> tuple[Mapping[str, str], Sequence[tuple[str, str]]]:
    """Return the alias of each queue that PGQ["databases"] names, and the alias for each of its patterns, in order."""
    named = [(queue, alias) for alias, queues in _configured().databases.items() for queue in queues]
    return dict(named), [pair for pair in named if is_pattern(pair[0])]


def database_of(queue: str) -> str:
    """Return the alias in DATABASES of the database in which the tasks and schedules of a queue lie."""
    names, patterns = _places()
    # What is no text, and perhaps not hashable, is refused by the callers.
    if names and isinstance(queue, str):
        found = names.get(queue)
        if found is None and patterns:
            found = next((alias for pattern, alias in patterns if are_named(queue, (pattern,))), None)
        if found is not None:
            return found
    return _configured().database


def aliases() -> tuple[str, ...]:
    """Return the aliases of all databases that may hold tasks: PGQ["database"], then those of PGQ["databases"].

    In a process of a pool that serves another one (``--database``), that one too, as the last.
    """
    settings, served = _configured(), serving()
    return tuple(dict.fromkeys((settings.database, *settings.databases, *((served,) if served else ()))))


def asked() -> tuple[str, ...]:
    """Return the aliases of the databases to ask for a task of which only the id is known, the likeliest first.

    Inside of `at` it is that one alone; in a process of a pool the one that the pool serves comes first.
    """
    alias = chosen()
    return (alias,) if alias is not None else tuple(dict.fromkeys((get_settings().database, *aliases())))


@dataclass(frozen=True, slots=True)
class Policy:
    """What a task gets that neither its call nor its function sets. Times are seconds."""

    timeout: float | None
    max_attempts: int
    ack_failures: bool
    #: None: that of the pool that runs it.
    retry_backoff: Any = None


def policy_of(queue: str) -> Policy:
    """Return the policy of a queue: that of the entry of ALT_CLUSTERS that serves it, else that of the other keys.

    Whichever pool this process belongs to: what it enqueues for others is theirs.
    """
    policies, patterns = _policies()
    found = None
    # What is no text, and perhaps not hashable, is refused by the callers.
    if isinstance(queue, str):
        found = policies.get(queue)
        if found is None and patterns:
            found = next((policy for served, policy in patterns if served.serves(queue)), None)
    return found or policies[_OTHERS]


#: No queue has this name.
_OTHERS = ""


@cache
def _policies() -> tuple[Mapping[str, Policy], Sequence[tuple[Queues, Policy]]]:
    """Return the policies by the queues' names, and those of pools that serve queues by patterns."""
    setting, given = source()
    others = Settings(**_read(setting, given)[0])
    patterns: list[tuple[Queues, Policy]] = []
    policies = {_OTHERS: Policy(others.timeout, others.max_attempts, others.ack_failures)}
    for name, entry in (given.get("ALT_CLUSTERS") or {}).items():
        pool = Settings(**_read(setting, {**given, **_overrides(str(name), entry)})[0])
        # Only what the entry itself sets need travel with its tasks; a pool reads the rest from its own settings.
        own = pool.retry_backoff if "retry_backoff" in entry else None
        policy = Policy(pool.timeout, pool.max_attempts, pool.ack_failures, own)
        named = pool.served.only or ()
        for queue in named:
            policies.setdefault(queue, policy)
        if any(map(is_pattern, named)):
            patterns.append((pool.served, policy))
    return policies, patterns


def problems() -> list[Problem]:
    """Return what is wrong with the settings, for ``manage.py check``."""
    return read(*source())[1] + _cautions()


def forget() -> None:
    """Have the settings read anew when they are used next."""
    for cached in (_configured, _settings_at, _places, _policies):
        cached.cache_clear()


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("PGQ", "Q_CLUSTER"):
        forget()


setting_changed.connect(_forget)


#: What Django-Q's users import from its `conf`, and what they have instead.
_INSTEAD = {
    "Conf": "pgq.conf.get_settings(), whose attributes are the keys in lower case; the states are in pgq.status",
    "logger": 'logging.getLogger("pgq")',
}


def __getattr__(name: str) -> Any:
    if name in _INSTEAD:
        raise ImportError(f"pgq.conf has no {name}: use {_INSTEAD[name]} (see docs/migrate/django-q.md)")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
