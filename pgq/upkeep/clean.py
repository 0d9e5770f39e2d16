"""Deletes old results at once, instead of waiting for upkeep: what manage.py pgq_clean does."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import psycopg

from pgq.conf import Settings, get_settings
from pgq.ground import ids
from pgq.store import connection as store_connection
from pgq.store import overview
from pgq.store import results as store_results
from pgq.store.results import Old
from pgq.upkeep import retention

#: Results read in one statement, each a transaction: few enough to hold no lock for long.
_RESULTS_PER_LOOK = 2000
#: Seconds to rest between two statements, as a share of what the last one took: tasks come first.
_REST = 0.2
#: Tries at a busy table.
_TRIES = 5
_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)
_DAY = timedelta(days=1)
_NOTHING = Old(None, None, None, None)

#: Called with the share of the work that is done (0 to 1) and the number of results deleted.
Progress = Callable[[float, int], None]


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was done, or in a dry run what would be."""

    dry_run: bool
    #: Results, those of dropped partitions among them.
    deleted: int
    #: Results among them whose option `keep` was over.
    expired: int
    #: Partitions made for the coming weeks.
    partitions_made: int
    #: Name and results of each partition that was dropped; in a dry run its results count as deleted one by one.
    dropped: tuple[tuple[str, int], ...]
    #: How many old results stay for each foreign key that refers to them.
    kept: dict[str, int]
    #: Sentences for the operator.
    notes: tuple[str, ...]
    seconds: float


class Interrupted(KeyboardInterrupt):
    """A KeyboardInterrupt ended the cleaning; `cleaned` is what was done before."""

    def __init__(self, cleaned: Cleaned) -> None:
        super().__init__()
        self.cleaned = cleaned


def delete_old(
    *,
    older_than: float | None = None,
    keep: int | None = None,
    failures: bool = False,
    queue: str | None = None,
    dry_run: bool = False,
    progress: Progress = lambda share, deleted: None,
) -> Cleaned:
    """Drop the partitions in which all results are old, delete the rest in small batches, make the coming partitions.

    Results whose option `keep` is over go first; those whose `keep` is not over stay.
    Without `older_than` and `keep`, PGQ['save_limit'] and PGQ['keep_days'] count. With both, a result is deleted only
    if it is older and beyond the number to keep. The call opens its own connection, and each batch is a transaction.

    Args:
        older_than: Days since the results finished.
        keep: How many of the newest results stay.
        failures: Delete failures too; `keep` counts them by themselves. Else only successes.
        queue: Only the results of this queue.
        dry_run: Only count.
        progress: Called after each batch.

    Raises:
        Interrupted: By a KeyboardInterrupt.
        psycopg.Error: PostgreSQL is gone.
    """
    settings = get_settings()
    with contextlib.closing(store_connection.connect(settings.database, "pgq clean")) as connection:
        cleaning = _Cleaning(connection, failures=failures, queue=queue, dry=dry_run, progress=progress)
        try:
            if not dry_run:
                cleaning.make_partitions()
            cleaning.expire()
            if older_than is None and keep is None:
                cleaning.remove_by_settings(settings)
            else:
                cleaning.remove_old(keep, older_than)
        except KeyboardInterrupt:
            cleaning.notes.append("Interrupted; what was deleted stays deleted.")
            raise Interrupted(cleaning.cleaned()) from None
        cleaning.note_references()
        return cleaning.cleaned()


class _Cleaning:
    """One call of `delete_old`, and what it has done so far."""

    def __init__(
        self,
        connection: store_connection.Connection,
        *,
        failures: bool,
        queue: str | None,
        dry: bool,
        progress: Progress,
    ) -> None:
        self.connection, self.failures, self.queue, self.dry, self.progress = connection, failures, queue, dry, progress
        self.began = time.monotonic()
        self.references = store_results.references(connection.cursor())
        self.partitions_made = 0
        self.dropped: list[tuple[str, int]] = []
        self.deleted_singly = self.expired = 0
        self.kept: Counter[str] = Counter()
        self.notes: list[str] = []

    @property
    def deleted(self) -> int:
        return self.expired + self.deleted_singly + sum(results for _, results in self.dropped)

    def cleaned(self) -> Cleaned:
        return Cleaned(
            dry_run=self.dry,
            deleted=self.deleted,
            expired=self.expired,
            partitions_made=self.partitions_made,
            dropped=tuple(self.dropped),
            kept=dict(self.kept),
            notes=tuple(self.notes),
            seconds=time.monotonic() - self.began,
        )

    def note_references(self) -> None:
        if self.dry and any(self.references.values()):
            keeping = ", ".join(name for name, keeps in self.references.items() if keeps)
            self.notes.append(f"What these refer to is counted here, and would stay: {keeping}.")

    # ------------------------------------------------------------------------------------------------- what is old

    def expire(self) -> None:
        """Delete the results whose option `keep` is over, of all queues: upkeep would do so as well."""
        now = retention.by_both_clocks(self.connection.cursor())
        if self.dry:
            self.expired = store_results.expired_count(self.connection.cursor(), now=now)
            return
        done: store_results.Expiry | None = None
        while done is None or done.last is not None:
            began = time.monotonic()
            done = store_results.expire(self.connection.cursor(), now=now, limit=_RESULTS_PER_LOOK, behind=done)
            self.expired += done.count
            self.kept.update(done.kept)
            if done.last is not None:
                time.sleep((time.monotonic() - began) * _REST)

    def remove_by_settings(self, settings: Settings) -> None:
        if settings.keep_days is not None:
            self._retain(settings.keep_days)
        if settings.save_limit > 0 and settings.save_limit_per:
            self._prune_per(settings.save_limit, settings.save_limit_per)
        elif settings.save_limit > 0:
            self.remove_old(settings.save_limit, None)
        elif settings.keep_days is None:
            self.notes.append("PGQ['save_limit'] keeps all results; name --older-than DAYS or --keep N to delete some.")

    def remove_old(self, keep: int | None, days: float | None) -> None:
        now = overview.now(self.connection.cursor())
        before = None if days is None else now - timedelta(days=days)
        failures_to = self._boundary(False, keep) if self.failures else None
        self._remove(Old(self._boundary(True, keep), failures_to, before, self.queue), now)

    def _boundary(self, success: bool, keep: int | None) -> UUID | None:
        if keep is None:
            return _LAST
        return store_results.clean_boundary(self.connection.cursor(), success=success, keep=keep, queue=self.queue)

    def _retain(self, days: float) -> None:
        """Drop old partitions as upkeep does, for a pool whose role may not drop them."""
        now = overview.now(self.connection.cursor())
        old = Old(_LAST, _LAST, now - timedelta(days=days), None)
        if self.references:
            self._remove(old, now)
        else:
            self._drop(old, now)

    def _remove(self, old: Old, now: datetime) -> None:
        if not self.references:
            self._drop(old, now)
        self._delete(old, now)
        if self.references:
            # PostgreSQL reads both tables whole before it drops a partition with rows: so only those empty by now.
            self._drop(_NOTHING, now)

    # ------------------------------------------------------------------------------------------------- partitions

    def make_partitions(self) -> None:
        def make() -> int:
            with self._impatient() as cursor:
                return store_results.make_partitions(cursor)

        self.partitions_made = self._try(make, "partitions of the coming weeks were not made") or 0

    def _drop(self, old: Old, now: datetime) -> None:
        end = ids.smallest_at(old.before or now)
        for partition, upper, _ in store_results.task_partitions(self.connection.cursor()):
            # First without a lock: as a rule some result is still needed.
            if upper > end or store_results.partition_needed(self.connection.cursor(), partition, old):
                continue
            if self.dry:
                self.dropped.append((partition, 0))
                continue

            def drop(partition: str = partition) -> int | None:
                with self.connection.transaction():
                    return store_results.drop_partition(self.connection.cursor(), partition, old)

            results = self._try(drop, f"{partition} was not dropped; its rows are deleted instead")
            if results is not None:
                self.dropped.append((partition, results))

    def _try(self, do: Callable[[], int | None], otherwise: str) -> int | None:
        """Call a function that needs a lock, several times: it gives up soon, so that workers do not wait behind it."""
        for number in range(_TRIES):
            try:
                return do()
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                time.sleep(0.2 * (number + 1))
            except psycopg.errors.InsufficientPrivilege:
                self.notes.append(f"This role may not change the tables: {otherwise}.")
                return None
        self.notes.append(f"The tables are busy: {otherwise}.")
        return None

    @contextlib.contextmanager
    def _impatient(self) -> Iterator[store_connection.Cursor]:
        with self.connection.transaction():
            cursor = self.connection.cursor()
            store_connection.limit_lock_wait(cursor, "300ms")
            yield cursor

    # ------------------------------------------------------------------------------------------------- rows

    def _prune_per(self, keep: int, per: str) -> None:
        """Delete as upkeep does, by group, name or function."""
        if self.dry:
            self.notes.append(f"How many are beyond the newest {keep:,} of each {per} was not counted.")
            return
        before: UUID | None = None
        while True:
            deleted = store_results.prune(
                self.connection.cursor(), keep=keep, limit=_RESULTS_PER_LOOK, per=per, before=before
            )
            self._add(deleted)
            before = deleted.last
            if before is None:
                return

    def _delete(self, old: Old, now: datetime) -> None:
        newest = max((to for to in (old.successes_to, old.failures_to) if to is not None), default=None)
        if newest is None:
            return
        # A result that finished before a time has an id from before it. Ids from the future carry no time: all of them
        # are read.
        end = ids.smallest_at(old.before) if old.before is not None else _LAST
        ranges = [(_FIRST, min(newest, end))]
        if old.before is not None:
            ranges.append((ids.smallest_at(now + _DAY), newest))
        for first, to in ranges:
            if first < to:
                self._delete_range(old, first, to)

    def _delete_range(self, old: Old, first: UUID, to: UUID) -> None:
        after: UUID | None = first
        start: int | None = None
        while after is not None:
            began = time.monotonic()
            deleted = store_results.clean(
                self.connection.cursor(), old, after=after, to=to, limit=_RESULTS_PER_LOOK, dry=self.dry
            )
            self._add(deleted)
            after = deleted.last
            if after is None:
                return
            # The share in time: the rows have not been counted.
            at, finish = after.int >> 80, min(to.int >> 80, int(time.time() * 1000))
            start = at if start is None else start
            self.progress(min((at - start) / max(finish - start, 1), 1.0), self.deleted)
            time.sleep((time.monotonic() - began) * _REST)

    def _add(self, deleted: store_results.Deleted) -> None:
        self.deleted_singly += deleted.count
        self.kept.update(deleted.kept)
