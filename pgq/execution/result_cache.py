"""Results kept in Django's cache instead of the database (``cached=``), under Django-Q's keys.

``NAME:ID`` holds a finished task, ``NAME:GROUP:keys`` the ids of a group's finished tasks. A worker writes them before
it settles: once the row is gone, the result is found. The list of a group is changed by one settler at a time
(see lock_groups.sql); in Django-Q parallel workers lost entries of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.core.cache import BaseCache, caches

from pgq.codec.stored import StoredText
from pgq.conf import Settings, get_settings
from pgq.ground import ids
from pgq.models import Task
from pgq.records import Failed, Report, Succeeded
from pgq.recurrence.moments import as_project


def _cache(settings: Settings) -> BaseCache:
    return caches[settings.cache]


def _key(settings: Settings, *parts: str) -> str:
    return ":".join((settings.name, *parts))


def _seconds(cached: bool | int) -> int | None:
    return None if cached is True else int(cached)


def deliver(reports: Sequence[Report], now: float) -> None:
    """Put finished tasks into the cache.

    Args:
        now: The monotonic time.
    """
    settings = get_settings()
    cache = _cache(settings)
    groups: dict[str, tuple[list[str], int | None]] = {}
    for report in reports:
        claim, seconds = report.claim, _seconds(report.options.cached)
        entry, key = _entry(report, settings.name, now), _key(settings, claim.id.hex)
        if not report.trusted and cache.get(key) is not None:
            # A row inserted by hand with the id of a finished task must not overwrite that task's result.
            continue
        cache.set(key, entry, seconds)
        if ids.parse_id(claim.name) is None:
            # A task *named* like another task's id must not overwrite that task's entry.
            cache.set(_key(settings, claim.name or ids.task_name(claim.id)), claim.id.hex, seconds)
        if claim.group is not None:
            groups.setdefault(claim.group, ([], seconds))[0].append(claim.id.hex)
    for group, (members, seconds) in groups.items():
        key = _key(settings, group, "keys")
        known = cache.get(key) or []
        cache.set(key, known + [member for member in members if member not in known], seconds)


def _entry(report: Report, cluster: str, now: float) -> dict[str, Any]:
    """Return the fields of a finished task; values stay in their stored form, so no class of pgq is pickled."""
    claim, outcome = report.claim, report.outcome
    wall = datetime.now(UTC)
    fields = {
        "id": claim.id.hex,
        "name": claim.name,
        "func": claim.func,
        "queue": claim.queue,
        "args": claim.args,
        "kwargs": claim.kwargs,
        "options": claim.options,
        "group": claim.group,
        "hook": claim.hook,
        "cluster": cluster,
        "attempt_count": claim.attempts,
        "enqueued_at": claim.enqueued_at,
        "max_attempts": claim.max_attempts,
        "timeout": claim.timeout,
        "signature": claim.signature,
        "started": wall - timedelta(seconds=now - report.started),
        "priority": claim.priority,
        "stopped": wall - timedelta(seconds=now - report.stopped),
        "success": isinstance(outcome, Succeeded),
    }
    if isinstance(outcome, Succeeded):
        return {**fields, "value": outcome.result}
    assert isinstance(outcome, Failed)
    failure = outcome.failure
    return {**fields, "exception": failure.exception, "message": failure.message, "traceback": failure.traceback}


def _task(entry: Mapping[str, Any]) -> Task:
    texts = {
        key: StoredText(entry[key]) for key in ("args", "kwargs", "options", "value") if entry.get(key) is not None
    }
    moments = {key: as_project(entry[key]) for key in ("enqueued_at", "started", "stopped")}
    return Task(**{**entry, **texts, **moments})


def find(id_or_name: str | UUID) -> Task | None:
    """Return a finished task from the cache, not saved in the database; ``.save()`` makes it last."""
    settings = get_settings()
    cache = _cache(settings)
    id = ids.parse_id(id_or_name)
    key = id.hex if id is not None else str(id_or_name)
    entry = cache.get(_key(settings, key))
    if isinstance(entry, str):
        entry = cache.get(_key(settings, entry))
    return _task(entry) if entry is not None else None


def group_ids(group: str) -> list[str]:
    """Return the ids of a group's finished tasks, in the order in which they were settled."""
    settings = get_settings()
    return list(_cache(settings).get(_key(settings, group, "keys")) or [])


def find_group(group: str) -> list[Task]:
    """Return the finished tasks of a group that are still in the cache."""
    settings = get_settings()
    members = group_ids(group)
    entries = _cache(settings).get_many([_key(settings, member) for member in members])
    return [_task(entries[key]) for key in (_key(settings, member) for member in members) if key in entries]


def delete(id: str) -> bool:
    """Take a finished task out of the cache; return whether it was there."""
    settings = get_settings()
    return bool(_cache(settings).delete(_key(settings, id)))


def delete_group(group: str) -> int:
    """Take a group's finished tasks out of the cache; return how many there were."""
    settings = get_settings()
    members = group_ids(group)
    _cache(settings).delete_many([_key(settings, member) for member in members] + [_key(settings, group, "keys")])
    return len(members)
