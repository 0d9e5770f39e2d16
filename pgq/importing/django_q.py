"""From Django-Q's tables into pgq's. Django-Q itself need not be installed: its tables are read as they are.

It can be repeated. A schedule notes its id there in its options. A task gets an id made from the old one and its time,
so it is always the same, and stands in the right place among the others. A queued task is also marked as taken in
Django-Q's own table (its lock is set to the year 9000), so that no cluster there runs it a second time.

What is trusted:

* The payload of a queued task is signed with SECRET_KEY. It is unpickled once that is verified, as Django-Q does.
* Schedules are not signed. Whoever could write to that table could have any function called. So a schedule is imported
  only if its function is registered here, or if the operator says that the table can be trusted.
* Pickles of finished tasks are not signed. They are read with a few harmless types only (see `pgq.importing.unpickle`),
  unless the operator says that the table can be trusted.
"""

from __future__ import annotations

import base64
import binascii
import json
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from django.conf import settings as django_settings
from django.core import signing as django_signing
from django.core.exceptions import ValidationError
from django.db import connections, transaction

from pgq import calls as public
from pgq import codec, enqueue, flow, literals, registry, signing, store, timing
from pgq.codec import Unstorable
from pgq.conf import Settings, get_settings
from pgq.db import callers_cursor
from pgq.errors import EnqueueError, NotStorable, PgqError
from pgq.importing import unpickle
from pgq.models import Schedule
from pgq.options import TaskOptions
from pgq.records import NewTask
from pgq.stored import StoredText, stored_text

TABLES = {"results": "django_q_task", "queued": "django_q_ormq", "schedules": "django_q_schedule"}
#: Rows read and written at a time.
BATCH = 500
#: A task whose lock says so has been imported: no cluster of Django-Q takes it before that.
TAKEN = datetime(9000, 1, 1, tzinfo=UTC)
#: Skipped rows that are named one by one.
_EXAMPLES = 50
_SMALLINT = 2**15 - 1
#: How Django-Q writes a failure: the message, a colon, the traceback.
_FAILURE = re.compile(r"^(?P<message>.*?) : (?P<traceback>Traceback \(most recent call last\):.*)$", re.DOTALL)
_EXCEPTION = re.compile(r"^([A-Za-z_][\w.]*)(?::|$)")

Row = dict[str, Any]


class Skip(Exception):
    """This row is not imported; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to import, and how far to trust it."""

    kinds: Sequence[str] = tuple(TABLES)
    #: Alias of the database that has Django-Q's tables.
    source: str
    dry_run: bool = False
    trust_schedules: bool = False
    trust_results: bool = False
    #: Also tasks that a cluster has taken and not finished.
    include_locked: bool = False
    #: Import schedules paused.
    pause: bool = False
    #: Q_CLUSTER["name"] there: the salt of the signatures, and the queue of tasks that name none.
    name: str | None = None


@dataclass(slots=True)
class Tally:
    """What became of one kind of rows."""

    imported: int = 0
    present: int = 0
    skipped: int = 0
    #: (which, why) of the first ones.
    examples: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def read(self) -> int:
        return self.imported + self.present + self.skipped

    def skip(self, which: str, why: str) -> None:
        self.skipped += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append((which, why))

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


class Import:
    """One run of the import."""

    def __init__(self, plan: Plan, progress: Callable[[str, int], None] = lambda kind, read: None) -> None:
        self.plan, self.progress = plan, progress
        self.settings: Settings = get_settings()
        self.tallies: dict[str, Tally] = {}
        given = getattr(django_settings, "Q_CLUSTER", None)
        configured = given.get("name") if isinstance(given, dict) else None
        #: What signatures may have been salted with. Never what a row says: other things are signed with SECRET_KEY.
        self.salts = (
            [plan.name] if plan.name else list(dict.fromkeys([configured or "default", self.settings.name, "default"]))
        )
        self.default_cluster = plan.name or configured or "default"
        #: The tasks that schedules name, and what they are called here.
        self.wanted: set[str] = set()
        self.new_ids: dict[str, UUID] = {}

    def run(self) -> dict[str, Tally]:
        """Import what was asked for and is there; return what became of it, by kind.

        Raises:
            LookupError: The database has none of the tables.
        """
        with callers_cursor(self.plan.source) as cursor:
            there = set(connections[self.plan.source].introspection.table_names(cursor))
        kinds = [kind for kind in TABLES if kind in self.plan.kinds and TABLES[kind] in there]
        if not kinds:
            names = ", ".join(TABLES[kind] for kind in self.plan.kinds)
            raise LookupError(f"the database {self.plan.source!r} has no table {names}")
        schedules = list(self._read("schedules")) if "schedules" in kinds else []
        self.wanted = {str(row["task"]) for row in schedules if row.get("task")}
        for kind in kinds:
            self.tallies[kind] = Tally()
        if "results" in kinds:
            self._each_batch("results", self._import_results)
        if "queued" in kinds:
            self._each_batch("queued", self._import_queued)
        if "schedules" in kinds:
            self._import_schedules(schedules)
        return self.tallies

    # --------------------------------------------------------------------------------------------- rows

    def _read(self, kind: str) -> Iterator[Row]:
        after: int | str = "" if kind == "results" else 0
        while True:
            with callers_cursor(self.plan.source) as cursor:
                rows = store.django_q_rows(cursor, kind, after=after, limit=BATCH)
            yield from rows
            if len(rows) < BATCH:
                return
            after = rows[-1]["id"]

    def _each_batch(self, kind: str, do: Callable[[list[Row]], None]) -> None:
        batch: list[Row] = []
        for row in self._read(kind):
            batch.append(row)
            if len(batch) == BATCH:
                self._in_transaction(do, batch)
                self.progress(kind, self.tallies[kind].read)
                batch = []
        if batch:
            self._in_transaction(do, batch)

    def _in_transaction(self, do: Callable[[list[Row]], None], batch: list[Row]) -> None:
        # The outer one is the source's: should we die between the two commits, the tasks are here, and a second run
        # finds them.
        with transaction.atomic(using=self.plan.source), transaction.atomic(using=self.settings.database):
            do(batch)
            if self.plan.dry_run:
                for alias in {self.plan.source, self.settings.database}:
                    transaction.set_rollback(True, using=alias)

    # --------------------------------------------------------------------------------------------- results

    def _import_results(self, rows: list[Row]) -> None:
        tally = self.tallies["results"]
        made = []
        for row in rows:
            try:
                result = self._result(row)
            except Skip as skip:
                tally.skip(f"result {row['id']} ({row.get('func')})", str(skip))
                continue
            made.append(result)
            if row["id"] in self.wanted:
                self.new_ids[row["id"]] = result["id"]
        if made:
            with callers_cursor(self.settings.database) as cursor:
                new = store.import_results(cursor, made)
            tally.imported += len(new)
            tally.present += len(made) - len(new)

    def _result(self, row: Row) -> Row:
        started, stopped = _moment(row["started"]), _moment(row["stopped"])
        if started is None or stopped is None:
            raise Skip("it has no times")
        id = derived_id("result", row["id"], started)
        func = _text(row["func"]) or "unknown"
        success = bool(row["success"])
        args, kwargs, whole = self._arguments(row)
        failure = self._failure(row["result"]) if not success else {}
        new: Row = {
            "id": id, "success": success, "attempt_count": min(max(row.get("attempt_count") or 0, 0), _SMALLINT),
            "started": started, "stopped": stopped, "func": func, "queue": self._queue(row.get("cluster")),
            "args": args, "kwargs": kwargs, "options": codec.encode({"django_q_id": _text(row["id"])}),
            "result": self._stored_result(id, row["result"]) if success else None, "name": _text(row["name"]),
            "group": _text(row.get("group")), "hook": _text(row.get("hook")), "cluster": _text(row.get("cluster")),
            "exception": None, "message": None, "traceback": None, "signature": None, **failure,
        }  # fmt: skip
        if self.plan.trust_results and whole:
            # So that it can be run again.
            names = ("id", "func", "args", "kwargs", "options", "queue", "name", "group", "hook")
            new["signature"] = signing.sign_task(NewTask(**{name: new[name] for name in names}))
        return new

    def _value(self, text: Any) -> tuple[Any, list[str]]:
        """Return what picklefield stored, and what was replaced in it.

        Raises:
            Unreadable: That cannot be read.
        """
        if text is None:
            return None, []
        try:
            data = base64.b64decode(text)
        except (binascii.Error, ValueError, TypeError):
            raise unpickle.Unreadable("it is not base64") from None
        if not self.plan.trust_results:
            return unpickle.load(data)
        try:
            return _unpickle(data), []  # the operator said so
        except Exception as error:  # unpickling runs any code
            raise unpickle.Unreadable(f"{type(error).__name__}: {error}"[:500]) from None

    def _failure(self, text: Any) -> dict[str, str]:
        try:
            return _failure(self._value(text)[0])
        except unpickle.Unreadable as error:
            return _failure(f"<not imported: {error}>")

    def _stored_result(self, id: UUID, text: Any) -> str:
        try:
            value, refused = self._value(text)
        except unpickle.Unreadable as error:
            self._note_refused()
            value, refused = _unstorable(text, str(error)), []
        if refused:
            self._note_refused()
        stored = codec.encode_result(
            value, limit=self.settings.max_payload, allow_pickle=self.settings.allow_pickle,
            sign=signing.sign_blob if self.settings.allow_pickle else None,
        )  # fmt: skip
        return signing.seal(id, stored)

    def _note_refused(self) -> None:
        self.tallies["results"].note(
            "Some results or arguments hold objects of types that are not loaded from unsigned pickles: text stands "
            "for them. --trust-results loads them, and with them any code that somebody may have put there."
        )

    def _arguments(self, row: Row) -> tuple[str, str, bool]:
        """Return args and kwargs in their stored form, and whether they are what they were."""
        try:
            (args, refused), (kwargs, refused_too) = self._value(row["args"]), self._value(row["kwargs"])
            args, kwargs = () if args is None else args, {} if kwargs is None else kwargs
            if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
                # async_iter's results have the iterable itself.
                args = (args,) if not isinstance(args, list | tuple) else args
                kwargs = kwargs if isinstance(kwargs, dict) else {}
            if refused or refused_too:
                self._note_refused()
            texts = codec.encode_args(
                tuple(args), {str(key): value for key, value in kwargs.items()}, strict=False,
                allow_pickle=self.settings.allow_pickle, limit=self.settings.max_payload,
                sign=signing.sign_blob if self.settings.allow_pickle else None,
            )  # fmt: skip
            return *texts, not (refused or refused_too)
        except (unpickle.Unreadable, NotStorable) as error:
            self._note_refused()
            return codec.encode([f"<not imported: {codec.clean_text(str(error), 300)}>"]), "{}", False

    # --------------------------------------------------------------------------------------------- queued tasks

    def _import_queued(self, rows: list[Row]) -> None:
        tally = self.tallies["queued"]
        made: list[tuple[Row, NewTask]] = []
        for row in rows:
            try:
                task = self._queued(row)
            except Skip as skip:
                tally.skip(f"queued task {row['id']}", str(skip))
                continue
            if task is None:
                tally.present += 1
            else:
                made.append((row, task))
        if made:
            self._enqueue(made)

    def _enqueue(self, made: list[tuple[Row, NewTask]]) -> None:
        tally = self.tallies["queued"]
        with callers_cursor(self.settings.database) as cursor:
            known = store.known_tasks(cursor, [task.id for _, task in made])
        ops = connections[self.plan.source].ops
        mark = ops.adapt_datetimefield_value(TAKEN)
        new = []
        with callers_cursor(self.plan.source) as cursor:
            for row, task in made:
                # First, so that a cluster which takes it at the same moment is seen.
                if not store.django_q_take(cursor, row["id"], lock=row["lock"], mark=mark):
                    tally.skip(_label(row, task), "a Django-Q cluster has just taken it")
                elif task.id in known:
                    tally.present += 1
                else:
                    new.append(task)
                    known.add(task.id)
        if new:
            with callers_cursor(self.settings.database) as cursor:
                store.enqueue_many(cursor, new)
        tally.imported += len(new)

    def _queued(self, row: Row) -> NewTask | None:
        """Return the task of a row of Django-Q's queue; None: it was imported before.

        Raises:
            Skip: It cannot be imported, or should not.
        """
        lock = _moment(row["lock"])
        if lock == TAKEN:
            return None
        locked = lock is not None and lock > timing.now()
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
            Skip: Nobody who knows SECRET_KEY signed it, or it cannot be unpickled here.
        """
        for salt in self.salts:
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
                f"than {' or '.join(map(repr, self.salts))} (see --name)"
            )
        try:
            package = _unpickle(data)  # signed with our key
        except Exception as error:  # unpickling runs any code
            raise Skip(f"its payload cannot be unpickled here: {type(error).__name__}: {error}") from None
        if not isinstance(package, dict) or not {"id", "func", "started"} <= package.keys():
            raise Skip("its payload is not a task of Django-Q")
        return package

    def _task(self, package: dict[str, Any], row: Row, run_after: datetime | None) -> NewTask:
        started = _moment(package["started"])
        if started is None:
            raise Skip("its payload has no time")
        group = package.get("group")
        options = TaskOptions.of(
            queue=self._queue(row["key"]), name=package.get("name"), group=None if group is None else str(group),
            hook=package.get("hook"), timeout=package.get("timeout"), save=package.get("save"),
            cached=package.get("cached"), ack_failure=package.get("ack_failure"), run_after=run_after,
        )  # fmt: skip
        task = enqueue.make_task(
            package["func"], tuple(package.get("args") or ()), package.get("kwargs") or {}, options
        )
        if package.get("iter_count"):
            self.tallies["queued"].note(
                "Parts of an async_iter were imported as tasks of their own: Django-Q collects their results in its "
                "cache, and nobody does so here."
            )
        if package.get("chain"):
            links = [
                public.link_task(link, task.group or task.id.hex, package.get("cached")) for link in package["chain"]
            ]
            # As Django-Q does, on to the next link whatever becomes of this one.
            chain = flow.chained([task, *links], pass_results=False, continue_on_failure=True)
            task = chain._replace(run_after=run_after)
        noted = codec.canonical({**json.loads(task.options), "django_q_id": str(package["id"])})
        id = derived_id("queued", str(package["id"]), started)
        return enqueue.signed(task._replace(id=id, options=noted, signature=None))

    def _queue(self, cluster: Any) -> str:
        """Return our queue for a cluster's name."""
        return (
            self.settings.default_queue if cluster in (None, "", self.default_cluster) else _text(cluster) or "default"
        )

    # --------------------------------------------------------------------------------------------- schedules

    def _import_schedules(self, rows: list[Row]) -> None:
        tally = self.tallies["schedules"]
        database = self.settings.database
        with transaction.atomic(using=database):
            with callers_cursor(database) as cursor:
                present = store.imported_schedules(cursor)
            known = list(Schedule.objects.using(database).all())
            names = {schedule.name for schedule in known}
            # What the project's own code has made here, at a start or in a migration, is not made twice.
            made_here = {_identity(schedule) for schedule in known if "django_q_id" not in schedule.options}
            for row in rows:
                which = f"schedule {row['id']} ({', '.join(filter(None, (row['name'], row['func'])))})"
                if str(row["id"]) in present:
                    tally.present += 1
                    continue
                try:
                    with transaction.atomic(using=database):
                        new = self._schedule(row)
                        if _identity(new) in made_here:
                            tally.present += 1
                            tally.note(f"The schedule {new} is here already, made by the project: it stays as it is.")
                            continue
                        new.name = self._free_name(row, names)
                        new.save(using=database)
                except Skip as skip:
                    tally.skip(which, str(skip))
                except ValidationError as error:
                    tally.skip(which, " ".join(error.messages))
                except (EnqueueError, ValueError) as error:
                    tally.skip(which, str(error))
                else:
                    names.add(new.name)
                    tally.imported += 1
            if self.plan.dry_run:
                transaction.set_rollback(True, using=database)

    def _schedule(self, row: Row) -> Schedule:
        """Return our row for one of Django-Q's, checked and not saved."""
        func, hook, args, kwargs, q_options = self._call(row)
        next_run, repeats = _moment(row["next_run"]), max(row["repeats"], -1)
        if next_run is None:
            raise Skip("it has no next run, so Django-Q never fires it")
        kind = row["schedule_type"]
        # Kept after it has run, or a second import would run it again.
        repeats = 1 if kind == Schedule.ONCE and repeats < 0 else repeats
        args_text, kwargs_text = enqueue.encode_arguments(args, kwargs, self.settings)
        options = codec.encode(self._schedule_options(row, q_options))
        cluster = row.get("cluster") or q_options.get("cluster") or q_options.get("broker_name")
        queue = None if cluster in (None, "", self.default_cluster) else _text(cluster)
        new = Schedule(
            name=_text(row["name"]) or None, func=func, hook=hook, args=StoredText(args_text),
            kwargs=StoredText(kwargs_text), options=StoredText(options), queue=queue, schedule_type=kind,
            minutes=row["minutes"] or (1 if kind == Schedule.MINUTES else None), cron=_text(row.get("cron")) or None,
            repeats=repeats, next_run=next_run, intended_date_kwarg=_text(row.get("intended_date_kwarg")) or None,
            paused=self.plan.pause, task=self._last_task(row),
        )  # fmt: skip
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
            func, hook = enqueue.path("func", func), enqueue.path("hook", hook) if hook else None
        return func, hook or None, args, kwargs, q_options

    def _is_registered(self, func: str) -> bool:
        return registry.registered(func) is not None or func in self.settings.allowed

    def _schedule_options(self, row: Row, q_options: dict[str, Any]) -> dict[str, Any]:
        extra = TaskOptions.of(**{name: q_options.get(name) for name in ("save", "cached", "ack_failure")}).stored()
        # Without a name, Django-Q's group is the schedule's id there.
        group = q_options.get("group") or (None if row["name"] else row["id"])
        options = {
            "group": None if group is None else str(group), "task_name": q_options.get("task_name"),
            "timeout": q_options.get("timeout"), "extra": extra or None, "django_q_id": str(row["id"]),
        }  # fmt: skip
        return {key: value for key, value in options.items() if value is not None}

    def _free_name(self, row: Row, names: set[Any]) -> str | None:
        """Return a name that is free; in Django-Q several schedules can have the same."""
        name = _text(row["name"]) or None
        if name is None or name not in names:
            return name
        other = f"{name} (django-q {row['id']})"
        self.tallies["schedules"].note(
            f"There is a schedule {name!r} already; the one from Django-Q is called {other!r}."
        )
        return other

    def _last_task(self, row: Row) -> str | None:
        id = self.new_ids.get(str(row.get("task")))
        return None if id is None else id.hex


def _identity(schedule: Schedule) -> tuple[str | None, ...]:
    """Return what tells schedules apart: function and name; without a name, function and arguments."""
    if schedule.name:
        return (schedule.func, schedule.name)
    return (schedule.func, None, stored_text(schedule, "args"), stored_text(schedule, "kwargs"))


def _unpickle(data: bytes) -> Any:
    """Unpickle what is trusted. Of a model's instance only the key is kept, so it may come from another Django."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Pickled model instance's Django version", RuntimeWarning)
        return pickle.loads(data)  # noqa: S301  # signed with our key, or the operator said so


class _Raw:
    """The bytes that were signed, for signing.loads."""

    def loads(self, data: bytes) -> bytes:
        return data

    def dumps(self, value: bytes) -> bytes:
        return value


def derived_id(kind: str, source_id: str, at: datetime) -> UUID:
    """Return the id that stands for one of Django-Q's: of its moment, and the same each time.

    Args:
        kind: "queued" or "result": a task that failed and waits for its retry is both there, and two rows here.
    """
    milliseconds = min(max(int(at.timestamp() * 1000), 0), 2**48 - 1)
    noise = int.from_bytes(sha256(f"pgq.django_q\0{kind}\0{source_id}".encode()).digest()[:10], "big")
    return UUID(int=(milliseconds << 80) | (noise & ~(0xF << 76) & ~(0x3 << 62)) | (0x7 << 76) | (0x2 << 62))


def _moment(value: Any) -> datetime | None:
    """Return a time as the source's driver gives it: SQLite's are text, and not only its own have no zone."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def _text(value: Any) -> str | None:
    return None if value is None else codec.clean_text(str(value), 1000)


def _unstorable(text: Any, reason: str) -> Unstorable:
    return Unstorable(
        type="pickle", reason=f"not imported from Django-Q: {reason}", repr=f"<{len(str(text)):,} characters>"
    )


def _failure(value: Any) -> dict[str, str]:
    """Return exception, message and traceback of a failure's text."""
    text = value if isinstance(value, str) else repr(value)
    found = _FAILURE.match(text)
    message, traceback = (found["message"], found["traceback"]) if found else (text, "")
    last = traceback.rstrip().splitlines()[-1:] or [""]
    named = _EXCEPTION.match(last[0])
    exception = named[1] if named else "Exception"
    return {
        "exception": exception if "." in exception else f"builtins.{exception}",
        "message": codec.clean_text(message, 10_000), "traceback": codec.clean_text(traceback, 100_000),
    }  # fmt: skip


def _label(row: Row, task: NewTask) -> str:
    return f"queued task {row['id']} ({task.func})"
