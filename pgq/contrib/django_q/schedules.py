"""Schedules of Django-Q: rows of pgq_schedule, signed if the operator trusts that table, and marked as taken there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import transaction

from pgq import codec
from pgq.codec import literals, signing
from pgq.codec.stored import StoredText, stored_text
from pgq.conf import Settings
from pgq.contrib.django_q.plan import TAKEN, Plan, Row, Skip, Tally, clean, mark_of_taken, moment
from pgq.enqueue import make, registry
from pgq.enqueue.options import path
from pgq.errors import EnqueueError
from pgq.models import Schedule
from pgq.records.options import TaskOptions
from pgq.store import django_q
from pgq.store.caller import callers_cursor


class Schedules:
    """Imports the schedules.

    Args:
        new_ids: What the tasks that they name are called here, by the ids there.
    """

    def __init__(self, plan: Plan, settings: Settings, new_ids: Mapping[str, UUID]) -> None:
        self.plan, self.settings, self.new_ids = plan, settings, new_ids
        self.tally = Tally()

    def write(self, rows: list[Row]) -> None:
        """Import them, in a transaction of its own: all that can be, each by itself."""
        with self._transaction():
            with callers_cursor(self.settings.database) as cursor:
                self.present = django_q.imported_schedules(cursor)
            known = list(Schedule.objects.using(self.settings.database).all())
            self.names = {schedule.name for schedule in known}
            # What the project's own code has made here, at a start or in a migration, is not made twice.
            self.made_here = {_identity(schedule) for schedule in known if "django_q_id" not in schedule.options}
            for row in rows:
                which = f"schedule {row['id']} ({', '.join(filter(None, (row['name'], row['func'])))})"
                try:
                    with self._transaction():
                        self._import(row)
                except Skip as skip:
                    self.tally.skip(which, str(skip))
                except ValidationError as error:
                    self.tally.skip(which, " ".join(error.messages))
                except (EnqueueError, ValueError) as error:
                    self.tally.skip(which, str(error))
            if self.plan.dry_run:
                for alias in {self.plan.source, self.settings.database}:
                    transaction.set_rollback(True, using=alias)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with transaction.atomic(using=self.plan.source), transaction.atomic(using=self.settings.database):
            yield

    def _import(self, row: Row) -> None:
        """Import one.

        Raises:
            Skip, ValidationError, EnqueueError, ValueError: It cannot be imported, or should not.
        """
        here = self.present.get(str(row["id"]))
        if here is not None or moment(row["next_run"]) == TAKEN:
            self._take_again(row, here)
            self.tally.present += 1
            return
        new = self._schedule(row)
        self._take(row)
        if _identity(new) in self.made_here:
            self.tally.present += 1
            self.tally.note(f"The schedule {new} is here already, made by the project: it stays as it is.")
            return
        new.name = self._free_name(row, self.names)
        new.save(using=self.settings.database)
        self.names.add(new.name)
        self.tally.imported += 1

    def _take(self, row: Row) -> None:
        """Have Django-Q fire it no more, so that a cluster which still runs fires no slot that is fired here.

        Raises:
            Skip: A cluster has fired it since it was read.
        """
        if self.plan.pause:
            return
        mark = mark_of_taken(self.plan.source)
        with callers_cursor(self.plan.source) as cursor:
            if not django_q.django_q_take_schedule(cursor, row["id"], next_run=row["next_run"], mark=mark):
                raise Skip("a Django-Q cluster has just fired it: import again")

    def _take_again(self, row: Row, here: int | None) -> None:
        """Take one that is here already and is fired there still, since it was imported with `pause`."""
        next_run = moment(row["next_run"])
        if self.plan.pause or next_run in (None, TAKEN):
            return
        self._take(row)
        if here is not None:
            # It goes on where Django-Q was.
            paused = Schedule.objects.using(self.settings.database).filter(pk=here, paused=True)
            paused.update(next_run=next_run, repeats=_repeats(row))

    def _schedule(self, row: Row) -> Schedule:
        """Return the row for one of Django-Q's, checked and not saved."""
        func, hook, args, kwargs, q_options = self._call(row)
        next_run = moment(row["next_run"])
        if next_run is None:
            raise Skip("it has no next run, so Django-Q never fires it")
        kind = row["schedule_type"]
        args_text, kwargs_text = make.encode_arguments(args, kwargs, self.settings)
        options = codec.encode(self._schedule_options(row, q_options))
        cluster = row.get("cluster") or q_options.get("cluster") or q_options.get("broker_name")
        queue = None if cluster in (None, "", self.plan.cluster) else clean(cluster)
        new = Schedule(
            name=clean(row["name"]) or None,
            func=func,
            hook=hook,
            args=StoredText(args_text),
            kwargs=StoredText(kwargs_text),
            options=StoredText(options),
            queue=queue,
            schedule_type=kind,
            minutes=row["minutes"] or (1 if kind == Schedule.MINUTES else None),
            cron=clean(row.get("cron")) or None,
            repeats=_repeats(row),
            next_run=next_run,
            intended_date_kwarg=clean(row.get("intended_date_kwarg")) or None,
            paused=self.plan.pause,
            task=self._last_task(row),
        )
        if self.plan.trust_schedules:
            new.signature = signing.sign_schedule(
                func=func, hook=hook, args=args_text, kwargs=kwargs_text, options=options, queue=queue
            )
        new.full_clean(exclude=["args", "kwargs", "options"], validate_unique=False)
        return new

    def _call(self, row: Row) -> tuple[str, str | None, Any, dict[str, Any], dict[str, Any]]:
        """Return what a schedule calls: function, hook, args, kwargs and Django-Q's options."""
        func = str(row["func"])
        if not self.plan.trust_schedules and not self._is_registered(func):
            raise Skip(
                "its function is not registered with @task, and Django-Q's schedules are not signed; if you know all "
                "of them: --trust-schedules"
            )
        args = literals.read("args", row["args"]) if (row["args"] or "").strip() else ()
        kwargs = literals.read("kwargs", row["kwargs"]) if (row["kwargs"] or "").strip() else {}
        q_options = kwargs.pop("q_options", None) or {}
        if not isinstance(q_options, dict):
            raise Skip("its q_options are not a dict")
        hook = row["hook"] or q_options.get("hook")
        if self.plan.trust_schedules:
            # Imports them. Of functions that are registered, that has been done.
            func, hook = path("func", func), path("hook", hook) if hook else None
        return func, hook or None, args, kwargs, q_options

    def _is_registered(self, func: str) -> bool:
        return registry.registered(func) is not None or func in self.settings.allowed

    def _schedule_options(self, row: Row, q_options: dict[str, Any]) -> dict[str, Any]:
        extra = TaskOptions.of(**{name: q_options.get(name) for name in ("save", "cached", "ack_failure")}).stored()
        # Without a name, Django-Q's group is the schedule's id there.
        group = q_options.get("group") or (None if row["name"] else row["id"])
        options = {
            "group": None if group is None else str(group),
            "task_name": q_options.get("task_name"),
            "timeout": q_options.get("timeout"),
            "extra": extra or None,
            "django_q_id": str(row["id"]),
        }
        return {key: value for key, value in options.items() if value is not None}

    def _free_name(self, row: Row, names: set[Any]) -> str | None:
        """Return a name that is free; in Django-Q several schedules can have the same."""
        name = clean(row["name"]) or None
        if name is None or name not in names:
            return name
        other = f"{name} (django-q {row['id']})"
        self.tally.note(f"There is a schedule {name!r} already; the one from Django-Q is called {other!r}.")
        return other

    def _last_task(self, row: Row) -> str | None:
        id = self.new_ids.get(str(row.get("task")))
        return None if id is None else id.hex


def _repeats(row: Row) -> int:
    repeats: int = max(row["repeats"], -1)
    # Kept after it has run, or a second import would run it again.
    return 1 if row["schedule_type"] == Schedule.ONCE and repeats < 0 else repeats


def _identity(schedule: Schedule) -> tuple[str | None, ...]:
    """Return what distinguishes schedules: function and name; without a name, function and arguments."""
    if schedule.name:
        return (schedule.func, schedule.name)
    return (schedule.func, None, stored_text(schedule, "args"), stored_text(schedule, "kwargs"))
