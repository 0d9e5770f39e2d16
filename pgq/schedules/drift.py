"""In what the table of schedules differs from the schedules in code, for `pgq_check`. It only reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import ProgrammingError, transaction
from psycopg import errors as errors_of_postgresql

from pgq.conf import get_settings
from pgq.models import Schedule
from pgq.schedules import code, define
from pgq.schedules.code import CodeSchedule
from pgq.schedules.sync import order
from pgq.store.overview import Finding

CHECK = "code"
#: So many names are told of each kind.
_TOLD = 3
#: What may be found of a schedule, in the order of the report, and what to do.
_ADVICE = {
    "wrong in the code": "Correct them: manage.py check.",
    "not synced": "Run manage.py migrate, or manage.py pgq_schedules sync; --dry-run shows what that does.",
    "refused, since the name is taken": "Take them over: manage.py pgq_schedules sync --adopt; or give other names.",
    "edited here and changed in the code since": (
        "Write the edits into the code, or have what it says: manage.py pgq_schedules sync --force."
    ),
    "edited by an operator": "Write the edits into the code, so that the next deploy does not meet them.",
    "not in the code any more and paused": "Delete them: manage.py pgq_schedules sync --prune.",
}
_WRONG, _UNSYNCED, _TAKEN, _DRIFT, _EDITED, _LEFT = _ADVICE


def finding() -> Finding:
    """Compare code and table: that of the database at hand, with the schedules that belong there.

    Raises:
        ImproperlyConfigured: The settings are wrong.
        django.db.Error: PostgreSQL is gone, or the tables are missing.
    """
    wanted = code.read()
    if errors := wanted.errors():
        return _found({_WRONG: errors})
    here = get_settings().database
    try:
        with transaction.atomic(using=here):
            return _compared([each for each in wanted.schedules if define.database_of_queue(each.row) == here])
    except ProgrammingError as error:
        if not isinstance(error.__cause__, errors_of_postgresql.InsufficientPrivilege):
            raise
        # An inspector sees no arguments, neither of a schedule nor of what the code gave for it.
        return Finding(CHECK, "ok", "this role may not see what the schedules hold", "")


def _compared(wanted: list[CodeSchedule]) -> Finding:
    settings = get_settings()
    rows = Schedule.objects.using(settings.database)
    source, names = settings.schedules_source, {each.name for each in wanted}
    own = {str(row.name): row for row in rows.filter(source=source)}
    newest = max((row.release for row in own.values()), key=order, default=None)
    release = None if settings.release is None else str(settings.release)
    if order(release) < order(newest):
        # An old pod, or the host of an operator that has the old code: the rows are right, and this code is not.
        return Finding(CHECK, "ok", f"release {newest!r} wrote the schedules, and this is {release!r}", "")
    others = {str(row.name): row for row in rows.filter(name__in=names - own.keys())}
    found: dict[str, list[str]] = {}
    for each in wanted:
        kind = _kind(each, own.get(each.name), others.get(each.name))
        if kind is not None:
            found.setdefault(kind, []).append(each.name)
    left = [name for name, row in own.items() if name not in names]
    gone = [name for name in left if own[name].stale_since is not None and own[name].paused]
    found[_LEFT] = gone
    found[_UNSYNCED] = [*found.get(_UNSYNCED, []), *(name for name in left if own[name].stale_since is None)]
    return _found(found)


def _kind(wanted: CodeSchedule, row: Schedule | None, other: Schedule | None) -> str | None:
    """Return in what a schedule differs from its row; None: in nothing that matters."""
    if row is None:
        return _TAKEN if other is not None else _UNSYNCED if wanted.is_enabled else None
    said: Mapping[str, Any] = row.spec or {}
    is_edited = any(value != said.get(name) for name, value in code.lasting(row).items())
    is_changed = row.stale_since is not None or wanted.spec != said
    if is_edited:
        # The sync of a changed schedule keeps the edit, and remembers what the code said before it.
        return _DRIFT if is_changed else _EDITED
    return _UNSYNCED if is_changed else None


def _found(found: Mapping[str, list[str]]) -> Finding:
    kinds = [kind for kind in _ADVICE if found.get(kind)]
    if not kinds:
        return Finding(CHECK, "ok", "", "")
    told = [f"{len(found[kind])} {kind}: {_some(found[kind])}" for kind in kinds]
    advice = " ".join(_ADVICE[kind] for kind in kinds)
    return Finding(CHECK, "problem" if _WRONG in kinds else "warning", "; ".join(told), advice)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return ", ".join(names[:_TOLD]) + more
