"""manage.py pgq_clean: deletes old results now, instead of waiting for upkeep."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from django.core.management.base import CommandParser

from pgq import db, store
from pgq.console import PgqCommand, emit, message, span, text
from pgq.store import Old

#: Results looked at in one statement, each a transaction: few enough to hold no lock for long.
_BATCH = 2000
#: Seconds to rest between two batches, as a share of what the last one took: tasks come first.
_REST = 0.2
#: How often a busy table is tried.
_TRIES = 5
_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)
_DAY = timedelta(days=1)
_NOTHING = Old(None, None, None, None)

Progress = Callable[[float, int], None]


@dataclass(slots=True)
class Done:
    """What was done."""

    partitions_made: int = 0
    #: Name and rows of each partition that was dropped.
    dropped: list[tuple[str, int]] = field(default_factory=list)
    deleted: int = 0
    #: How many rows stay for each foreign key that refers to them.
    kept: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def add(self, deleted: store.Deleted) -> None:
        self.deleted += deleted.count
        self.kept.update(deleted.kept)

    @property
    def rows(self) -> int:
        return self.deleted + sum(rows for _, rows in self.dropped)


class Command(PgqCommand):
    help = (
        "Deletes old results now: drops whole partitions where all is old, and deletes the rest in small batches. Also "
        "makes the partitions of the coming weeks. Without --older-than and --keep it does as PGQ['save_limit'] and "
        "PGQ['keep_days'] say. "
        "With both, a result goes only if it is older and beyond the number to keep."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than",
            type=_days,
            metavar="DAYS",
            help="delete what finished more than so many days ago (0.5: 12 hours)",
        )
        parser.add_argument("--keep", type=_number, metavar="N", help="keep the newest N results; 0: none")
        parser.add_argument(
            "--failures",
            action="store_true",
            help="failures too; --keep counts them by themselves (default: successes)",
        )
        parser.add_argument("--queue", help="only results of this queue")
        parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
        self.add_json(parser)

    def run(self, options: dict[str, Any]) -> None:
        self.dry: bool = options["dry_run"]
        keep, by_settings = options["keep"], options["keep"] is None and options["older_than"] is None
        if by_settings:
            keep = self.settings.save_limit if self.settings.save_limit > 0 else None
        done = Done()
        began = time.monotonic()
        connection = db.connect(self.settings.database, "pgq clean")
        try:
            self.references = store.references(connection.cursor())
            if not self.dry:
                self._make_partitions(connection, done)
            if by_settings and self.settings.keep_days is not None:
                self._retain(connection, self.settings.keep_days, done)
            if keep is None and options["older_than"] is None:
                if self.settings.keep_days is None:
                    done.notes.append(
                        "PGQ['save_limit'] keeps all results; name --older-than DAYS or --keep N to delete some."
                    )
            elif by_settings and self.settings.save_limit_per:
                self._prune_per(connection, done)
            else:
                now = store.now(connection.cursor())
                before = now - timedelta(days=options["older_than"]) if options["older_than"] is not None else None
                old = self._old(connection, keep, before, options)
                with self._progress(options) as progress:
                    self._remove(connection, old, now, done, progress)
        except KeyboardInterrupt:
            done.notes.append("Interrupted; what was deleted stays deleted.")
            self._report(done, time.monotonic() - began, options)
            raise
        finally:
            connection.close()
        if self.dry and any(self.references.values()):
            keeping = ", ".join(name for name, keeps in self.references.items() if keeps)
            done.notes.append(f"What these refer to is counted here, and would stay: {keeping}.")
        self._report(done, time.monotonic() - began, options)

    # --- what is old

    def _old(
        self, connection: db.Connection, keep: int | None, before: datetime | None, options: dict[str, Any]
    ) -> Old:
        def boundary(success: bool) -> UUID | None:
            if keep is None:
                return _LAST
            return store.clean_boundary(connection.cursor(), success=success, keep=keep, queue=options["queue"])

        return Old(boundary(True), boundary(False) if options["failures"] else None, before, options["queue"])

    # --- partitions

    def _make_partitions(self, connection: db.Connection, done: Done) -> None:
        def make() -> int:
            with _impatient(connection) as cursor:
                return store.make_partitions(cursor)

        done.partitions_made = self._try(make, "partitions of the coming weeks were not made", done) or 0

    def _remove(self, connection: db.Connection, old: Old, now: datetime, done: Done, progress: Progress) -> None:
        if not self.references:
            self._drop(connection, old, now, done)
        self._delete(connection, old, now, done, progress)
        if self.references:
            # PostgreSQL drops what nobody refers to, after a look at all of both tables: so only what is empty by now.
            self._drop(connection, _NOTHING, now, done)

    def _drop(self, connection: db.Connection, old: Old, now: datetime, done: Done) -> None:
        end = _floor(old.before or now)
        for partition, upper, _ in store.task_partitions(connection.cursor()):
            # Looked at first without any lock: as a rule something is still needed.
            if upper > end or store.partition_needed(connection.cursor(), partition, old):
                continue
            if self.dry:
                done.dropped.append((partition, 0))
                continue

            def drop(partition: str = partition) -> int | None:
                with connection.transaction():
                    return store.drop_partition(connection.cursor(), partition, old)

            rows = self._try(drop, f"{partition} was not dropped; its rows are deleted instead", done)
            if rows is not None:
                done.dropped.append((partition, rows))

    def _try(self, do: Callable[[], int | None], otherwise: str, done: Done) -> int | None:
        """Do something that needs a lock nobody can be made to wait for."""
        for number in range(_TRIES):
            try:
                return do()
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                time.sleep(0.2 * (number + 1))
            except psycopg.errors.InsufficientPrivilege:
                done.notes.append(f"This role may not change the tables: {otherwise}.")
                return None
        done.notes.append(f"The tables are busy: {otherwise}.")
        return None

    def _retain(self, connection: db.Connection, days: float, done: Done) -> None:
        """Drop as upkeep does, where the role of the workers may not."""
        now = store.now(connection.cursor())
        old = Old(_LAST, _LAST, now - timedelta(days=days), None)
        if self.references:
            self._remove(connection, old, now, done, lambda share, rows: None)
        else:
            self._drop(connection, old, now, done)

    # --- rows

    def _prune_per(self, connection: db.Connection, done: Done) -> None:
        """Delete as upkeep does, by group, name or function."""
        keep, per = self.settings.save_limit, self.settings.save_limit_per
        if self.dry:
            done.notes.append(f"How many are beyond the newest {keep:,} of each {per} was not counted.")
            return
        before: UUID | None = None
        while True:
            deleted = store.prune(connection.cursor(), keep=keep, limit=_BATCH, per=per, before=before)
            done.add(deleted)
            before = deleted.last
            if before is None:
                return

    def _delete(self, connection: db.Connection, old: Old, now: datetime, done: Done, progress: Progress) -> None:
        newest = max((to for to in (old.successes_to, old.failures_to) if to is not None), default=None)
        if newest is None:
            return
        # A task that finished before was enqueued before. Ids that lie in the future carry no time: they are looked at
        # one by one.
        end = _floor(old.before) if old.before is not None else _LAST
        ranges = [(_FIRST, min(newest, end))]
        if old.before is not None:
            ranges.append((_floor(now + _DAY), newest))
        for first, to in ranges:
            if first < to:
                self._delete_range(connection, old, first, to, done, progress)

    def _delete_range(
        self, connection: db.Connection, old: Old, first: UUID, to: UUID, done: Done, progress: Progress
    ) -> None:
        after: UUID | None = first
        start: int | None = None
        while after is not None:
            began = time.monotonic()
            deleted = store.clean(connection.cursor(), old, after=after, to=to, limit=_BATCH, dry=self.dry)
            done.add(deleted)
            after = deleted.last
            if after is None:
                return
            # How far we are in time, which is known, not in rows, which nobody has counted.
            at, finish = after.int >> 80, min(to.int >> 80, int(time.time() * 1000))
            start = at if start is None else start
            progress((at - start) / max(finish - start, 1), done.rows)
            time.sleep((time.monotonic() - began) * _REST)

    # --- output

    @contextlib.contextmanager
    def _progress(self, options: dict[str, Any]) -> Iterator[Progress]:
        out = None if options["json"] or options["verbosity"] == 0 else self.console(options)
        if out is None or not out.is_interactive:
            yield lambda share, rows: None
            return
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        with Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
            console=out, transient=True, refresh_per_second=4,
        ) as bar:  # fmt: skip
            task = bar.add_task("Looking", total=1.0)

            def show(share: float, rows: int) -> None:
                bar.update(task, completed=min(share, 1.0), description=f"{self._verb(rows)}")

            yield show

    def _verb(self, rows: int) -> str:
        return f"{rows:,} results would be deleted" if self.dry else f"{rows:,} results deleted"

    def _report(self, done: Done, seconds: float, options: dict[str, Any]) -> None:
        if options["json"]:
            self.print_json({
                "dry_run": self.dry, "deleted": done.rows, "partitions_made": done.partitions_made,
                "partitions_dropped": [name for name, _ in done.dropped], "kept": dict(done.kept), "notes": done.notes,
                "seconds": round(seconds, 3),
            })  # fmt: skip
            return
        if options["verbosity"] == 0:
            return
        out = self.console(options)
        emit(out, text(f"{self._verb(done.rows)} in {span(seconds)}.", "bold"))
        for name, rows in done.dropped:
            emit(out, text(f"{name} would be dropped." if self.dry else f"{name} dropped, with {rows:,} results."))
        if done.partitions_made:
            emit(out, text(f"{done.partitions_made} partitions made for the coming weeks."))
        for reference, count in sorted(done.kept.items()):
            stays = f"{count:,} results stay, since rows of another table refer to them: {reference}."
            emit(out, message(stays, "yellow"))
        for note in done.notes:
            emit(out, message(note, "yellow"))


@contextlib.contextmanager
def _impatient(connection: db.Connection) -> Iterator[db.Cursor]:
    with connection.transaction():
        cursor = connection.cursor()
        store.limit_lock_wait(cursor, milliseconds=300)
        yield cursor


def _floor(moment: datetime) -> UUID:
    """Return the smallest id a task enqueued at that moment can have."""
    return UUID(int=max(int(moment.timestamp() * 1000), 0) << 80)


def _days(value: str) -> float:
    try:
        days = float(value)
    except ValueError:
        days = -1.0
    if not 0 <= days <= 365_000:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of days, 0 or more")
    return days


def _number(value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number, 0 or more")
    # As much as OFFSET takes.
    return min(int(value), 2**62)
