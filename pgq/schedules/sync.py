"""Brings the table of schedules in step with the schedules in code, by name; docs/guide/schedules.md has the cases.

An operator's pause and edits stay; nothing fires because of it; what the code does not name any more is paused, and
deleted only on demand. All of it is one transaction, and one follows another.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from pgq.codec import signing
from pgq.conf import Settings, get_settings, places
from pgq.enqueue import discovery
from pgq.models import Schedule
from pgq.recurrence import Recurrence, anchored, missed, moments
from pgq.recurrence.moments import as_project, aware
from pgq.schedules import code, define
from pgq.schedules.code import CodeSchedule
from pgq.store import schedules
from pgq.store.caller import callers_cursor

_TIMES = ("schedule_type", "minutes", "seconds", "cron", "time_zone", "at", "next_run")


class Did(enum.StrEnum):
    """What became of one schedule."""

    INSERTED = "inserted"
    UPDATED = "updated"
    ADOPTED = "adopted"
    PAUSED = "paused"
    RESUMED = "resumed"
    STALE = "paused, since the code does not name it any more"
    PRUNED = "deleted"
    #: Nothing is to be done, though there may be something to say.
    SAME = "as it is"
    #: An operator edited the row, and the code has changed since. The row stays.
    DRIFT = "kept: edited here, and changed in the code"
    #: Something else has the name. The row stays.
    TAKEN = "refused: the name is taken"


@dataclass(frozen=True, slots=True)
class Change:
    """What became, or would become, of one schedule."""

    name: str
    did: Did
    #: For each field: what it was, and what it is now, or would be.
    fields: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    note: str = ""

    @property
    def differs(self) -> bool:
        """Whether the row is not what the code says, or was not."""
        return self.did is not Did.SAME


@dataclass(slots=True)
class Synced:
    """What a sync did, or would do."""

    changes: list[Change] = field(default_factory=list)
    #: Why nothing was done: a newer release has synced before, or the code is wrong.
    refused: str | None = None

    @property
    def differs(self) -> bool:
        """Whether the table is not in step, or was not."""
        return self.refused is not None or any(change.differs for change in self.changes)


def sync(
    *, dry_run: bool = False, prune: bool = False, force: bool = False, adopt: bool = False, is_automatic: bool = False
) -> Synced:
    """Bring the table in step with the code; the tables, if there are several databases: a transaction for each.

    Args:
        dry_run: Only return what would be done.
        prune: Delete what the code does not name any more.
        force: Write what the code says also over an operator's edits.
        adopt: Take over rows that have a name of the code and come from elsewhere.
        is_automatic: Not asked for by a person: code of an older release than the last one does nothing.

    Raises:
        ImproperlyConfigured: The settings are wrong.
    """
    found = code.read()
    if errors := found.errors():
        return Synced(refused="; ".join(errors))

    def here() -> Synced:
        settings = get_settings()
        wanted = [each for each in found.schedules if define.database_of_queue(each.row) == settings.database]
        with transaction.atomic(using=settings.database):
            with callers_cursor(settings.database) as cursor:
                schedules.lock_sync(cursor)
            done = _Sync(settings, force=force, adopt=adopt).run(wanted, prune=prune, is_automatic=is_automatic)
            if dry_run:
                transaction.set_rollback(True, using=settings.database)
        return done

    done = places.each(here)
    refused = [each.refused for each in done if each.refused is not None]
    return Synced([change for each in done for change in each.changes], "; ".join(dict.fromkeys(refused)) or None)


class _Sync:
    """One sync, inside its transaction."""

    def __init__(self, settings: Settings, *, force: bool, adopt: bool) -> None:
        self.settings, self.force, self.adopt = settings, force, adopt
        self.rows = Schedule.objects.using(settings.database)
        self.source = settings.schedules_source
        self.release = None if settings.release is None else str(settings.release)
        self.now = moments.now()

    def run(self, wanted: list[CodeSchedule], *, prune: bool, is_automatic: bool) -> Synced:
        names = [each.name for each in wanted]
        # Upkeep skips locked rows, and an operator waits for the end of this transaction, or this one for the other.
        locked = self.rows.select_for_update().order_by("pk")
        own = {row.name: row for row in locked.filter(source=self.source)}
        others = {row.name: row for row in locked.filter(name__in=names) if row.name not in own}
        newest = max((row.release for row in own.values()), key=order, default=None)
        if is_automatic and order(self.release) < order(newest):
            said = f"release {newest!r} has written the schedules, and this is {self.release!r}"
            return Synced(refused=f"{said}; to go back to the schedules of this one: manage.py pgq_schedules sync")
        done = Synced([self._one(each, own.get(each.name) or others.get(each.name)) for each in wanted])
        gone = [row for name, row in own.items() if name not in set(names)]
        done.changes += [self._gone(row, prune=prune) for row in gone]
        self.rows.filter(source=self.source).exclude(release=self.release).update(release=self.release)
        return done

    # --------------------------------------------------------------------------------------------- in the code

    def _one(self, wanted: CodeSchedule, row: Schedule | None) -> Change:
        if row is None:
            return self._insert(wanted)
        if row.source != self.source and not self.adopt:
            whose = f"the code of {row.source!r} made it" if row.source else "it was not made by code"
            return Change(wanted.name, Did.TAKEN, note=f"{whose}; to take it over: pgq_schedules sync --adopt")
        said, present = row.spec or {}, code.lasting(row)
        differing = {name: (value, wanted.spec[name]) for name, value in present.items() if value != wanted.spec[name]}
        is_edited = bool(said and differing) and any(value != said.get(name) for name, value in present.items())
        turned = self._turn(wanted, row, said)
        back = "the code names it again" if row.stale_since is not None else ""
        changed = {
            name: (said.get(name), wanted.spec[name]) for name in wanted.spec if said.get(name) != wanted.spec[name]
        }
        row.source, row.release, row.stale_since = self.source, self.release, None
        if changed.keys() == {"enabled"} or (is_edited and changed and not self.force):
            row.spec = {**said, "enabled": wanted.is_enabled}
        elif changed or (self.force and is_edited):
            shown = differing | {name: pair for name, pair in changed.items() if name not in present and said}
            self._write(wanted, row, said)
            return Change(wanted.name, Did.UPDATED if said else Did.ADOPTED, shown, note=back)
        elif not differing and not signing.verify_schedule_row(row):
            # The key has changed, or the signature was taken away; the row holds what the code says.
            self._write(wanted, row, said)
            return Change(wanted.name, Did.UPDATED, note="signed anew")
        self._save_state(row)
        if is_edited and changed.keys() - {"enabled"}:
            return Change(wanted.name, Did.DRIFT, differing, note="to have it as the code says: --force")
        if turned is not None:
            return Change(wanted.name, turned, note=back)
        note = "edited by an operator" if is_edited else ""
        return Change(wanted.name, Did.UPDATED if back else Did.SAME, note=back or note)

    def _insert(self, wanted: CodeSchedule) -> Change:
        if not wanted.is_enabled:
            return Change(wanted.name, Did.SAME, note="not enabled here, so there is none")
        row = Schedule(name=wanted.name, source=self.source, release=self.release)
        self._write(wanted, row, {})
        return Change(wanted.name, Did.INSERTED, note="" if row.repeats else "its time is over, so it will not fire")

    def _write(self, wanted: CodeSchedule, row: Schedule, said: dict[str, Any]) -> None:
        """Write what the code says into a row. Its next run stays unless its times change, its count unless it does."""
        left = row.repeats
        times_change = any(said.get(name) != wanted.spec[name] for name in _TIMES) if said else True
        if not said and not row._state.adding:
            times_change = not define.same_times(row, wanted.row)
        if row._state.adding or times_change:
            first = wanted.first_run(self.now)
            row.next_run = _of_row(first if first is not None else wanted.given_first)
            left = wanted.row.repeats if first is not None else 0
        elif said.get("repeats") != wanted.spec["repeats"]:
            left = wanted.row.repeats
        row.spec = wanted.spec
        define.write(row, wanted.row, self.settings.database, repeats=left)

    def _turn(self, wanted: CodeSchedule, row: Schedule, said: dict[str, Any]) -> Did | None:
        """Pause or resume a row as the code says. What an operator paused stays paused."""
        if not wanted.is_enabled:
            if row.paused or not said.get("enabled", True):
                return None
            row.paused = row.auto_paused = True
            return Did.PAUSED
        if not (row.paused and row.auto_paused):
            return None
        row.paused = row.auto_paused = False
        row.next_run, row.repeats = self._without_missed(row)
        return Did.RESUMED

    def _without_missed(self, row: Schedule) -> tuple[datetime | None, int]:
        """Return next run and count of a row that is resumed, so that nothing fires for the time it was paused."""
        if row.next_run is None or aware(row.next_run) > self.now:
            return row.next_run, row.repeats
        first = aware(row.next_run)
        following = missed(anchored(Recurrence.of(row, self.settings.zone), first), first, self.now, 1)[1]
        return (row.next_run, 0) if following is None else (as_project(following), row.repeats)

    def _save_state(self, row: Schedule) -> None:
        names = ("source", "release", "stale_since", "spec", "paused", "auto_paused", "next_run", "repeats")
        self.rows.filter(pk=row.pk).update(**{name: getattr(row, name) for name in names})

    # --------------------------------------------------------------------------------------------- not in the code

    def _gone(self, row: Schedule, *, prune: bool) -> Change:
        name = str(row.name)
        module = row.func.rpartition(".")[0]
        if any(f"{module}.".startswith(f"{left}.") for left in discovery.left_out):
            return Change(name, Did.SAME, note=f"{module} could not be imported, so it may be in the code still")
        if row.stale_since is not None and not row.paused:
            return Change(name, Did.SAME, note="not in the code any more; an operator resumed it")
        if prune:
            row.delete(using=self.settings.database)
            return Change(name, Did.PRUNED, note="not in the code any more")
        if row.stale_since is not None:
            note = f"not in the code since {row.stale_since:%Y-%m-%d}; to delete it: --prune"
            return Change(name, Did.SAME, note=note)
        # Only these columns; and a row that an operator has paused is not for the code to resume.
        changes: dict[str, Any] = {} if row.paused else {"paused": True, "auto_paused": True}
        self.rows.filter(pk=row.pk).update(stale_since=Now(), **changes)
        return Change(name, Did.STALE, note="to delete it: --prune")


def _of_row(moment: datetime | None) -> datetime | None:
    return None if moment is None else as_project(moment)


def order(release: str | None) -> tuple[Any, ...]:
    """Return what releases are ordered by: numbers in them as numbers; none before all."""
    if release is None:
        return ()
    parts: Iterable[str] = re.findall(r"\d+|\D+", release)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)
