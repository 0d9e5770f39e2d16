"""Queued tasks of Django-Q: tasks in pgq_queue, and marked as taken there."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.core import signing as django_signing

from pgq import codec
from pgq.codec import signing
from pgq.conf import Settings
from pgq.contrib.django_q.plan import TAKEN, Plan, Row, Skip, Tally, derived_id, load_trusted, mark_of_taken, moment
from pgq.enqueue import make
from pgq.errors import EnqueueError, PgqError
from pgq.records import NewTask
from pgq.records.options import TaskOptions
from pgq.recurrence import moments
from pgq.store import django_q, queue
from pgq.store.caller import callers_cursor
from pgq.tasks import iter_chain as public
from pgq.workflows import follow_ons


class QueuedTasks:
    """Imports the queued tasks."""

    def __init__(self, plan: Plan, settings: Settings) -> None:
        self.plan, self.settings = plan, settings
        self.tally = Tally()

    def write(self, rows: list[Row]) -> None:
        """Import some of them, in the caller's transaction."""
        made: list[tuple[Row, NewTask]] = []
        for row in rows:
            try:
                task = self._queued(row)
            except Skip as skip:
                self.tally.skip(f"queued task {row['id']}", str(skip))
                continue
            if task is None:
                self.tally.present += 1
            else:
                made.append((row, task))
        if made:
            self._enqueue(made)

    def _enqueue(self, made: list[tuple[Row, NewTask]]) -> None:
        with callers_cursor(self.settings.database) as cursor:
            known = django_q.known_tasks(cursor, [task.id for _, task in made])
        mark = mark_of_taken(self.plan.source)
        new = []
        with callers_cursor(self.plan.source) as cursor:
            for row, task in made:
                # First, so that a cluster which takes it at the same moment is seen.
                if not django_q.django_q_take(cursor, row["id"], lock=row["lock"], mark=mark):
                    self.tally.skip(_label(row, task), "a Django-Q cluster has just taken it")
                elif task.id in known:
                    self.tally.present += 1
                else:
                    new.append(task)
                    known.add(task.id)
        if new:
            with callers_cursor(self.settings.database) as cursor:
                queue.enqueue_many(cursor, new)
        self.tally.imported += len(new)

    def _queued(self, row: Row) -> NewTask | None:
        """Return the task of a row of Django-Q's queue; None: it was imported before.

        Raises:
            Skip: It cannot be imported, or should not.
        """
        lock = moment(row["lock"])
        if lock == TAKEN:
            return None
        locked = lock is not None and lock > moments.now()
        if locked and not self.plan.include_locked:
            raise Skip(
                f"a Django-Q cluster has taken it and may be running it, until {lock:%Y-%m-%d %H:%M:%S %Z}; "
                "if none is running: --include-locked"
            )
        package = self._unsign(row["payload"])
        try:
            return self._task(package, row, lock if locked else None)
        except (EnqueueError, PgqError) as error:
            raise Skip(f"{package.get('func')}: {error}") from None

    def _unsign(self, payload: str) -> dict[str, Any]:
        """Return the package of a payload.

        Raises:
            Skip: It is not signed with SECRET_KEY, or it cannot be unpickled here.
        """
        for salt in self.plan.salts:
            try:
                data = django_signing.loads(payload, salt=salt, serializer=_Raw)
                break
            except django_signing.BadSignature:
                continue
            except Exception as error:  # what was signed may be anything else
                raise Skip(f"its payload cannot be read: {error}") from None
        else:
            raise Skip(
                "its signature is wrong: another SECRET_KEY (see SECRET_KEY_FALLBACKS), or another Q_CLUSTER['name'] "
                f"than {' or '.join(map(repr, self.plan.salts))} (see --name)"
            )
        try:
            package = load_trusted(data)  # signed with this key
        except Exception as error:  # unpickling runs any code
            raise Skip(f"its payload cannot be unpickled here: {type(error).__name__}: {error}") from None
        if not isinstance(package, dict) or not {"id", "func", "started"} <= package.keys():
            raise Skip("its payload is not a task of Django-Q")
        return package

    def _task(self, package: dict[str, Any], row: Row, run_after: datetime | None) -> NewTask:
        started = moment(package["started"])
        if started is None:
            raise Skip("its payload has no time")
        group = package.get("group")
        options = TaskOptions.of(
            queue=self.plan.queue(row["key"]),
            name=package.get("name"),
            group=None if group is None else str(group),
            hook=package.get("hook"),
            timeout=package.get("timeout"),
            save=package.get("save"),
            cached=package.get("cached"),
            ack_failure=package.get("ack_failure"),
            run_after=run_after,
        )
        args, kwargs = tuple(package.get("args") or ()), package.get("kwargs") or {}
        # A wrong call is imported as well, and fails as it would have failed there: nothing is lost.
        task = make.make_task(package["func"], args, kwargs, options, first=None)
        if package.get("iter_count"):
            self.tally.note(
                "Parts of an async_iter were imported as tasks of their own: Django-Q collects their results in its "
                "cache, and pgq does not."
            )
        if package.get("chain"):
            links = [
                public.link_task(link, task.group or task.id.hex, package.get("cached"), first=None)
                for link in package["chain"]
            ]
            # As Django-Q does, on to the next link whatever becomes of this one.
            chain = follow_ons.chained([task, *links], pass_results=False, continue_on_failure=True)
            task = chain._replace(run_after=run_after)
        # The row, too, whose payload only Python can read: by it SQL gives back what has not run.
        origin = {"django_q_id": str(package["id"]), "django_q_row": row["id"]}
        noted = codec.canonical({**json.loads(task.options), **origin})
        id = derived_id("queued", str(package["id"]), started)
        return signing.signed(task._replace(id=id, options=noted, signature=None))


class _Raw:
    """The bytes that were signed, for signing.loads."""

    def loads(self, data: bytes) -> bytes:
        return data

    def dumps(self, value: bytes) -> bytes:
        return value


def _label(row: Row, task: NewTask) -> str:
    return f"queued task {row['id']} ({task.func})"
