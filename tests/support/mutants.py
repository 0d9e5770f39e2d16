"""Mutants: pgq with one guard removed, put in from outside. Each must be caught by the suite, or it is untested.

PGQ_MUTANT names one. `tests.faults.apps` puts it into the processes of a pool, and this module, as a plugin of pytest
(``-p tests.support.mutants``), into the process of a test. `test_mutants.py` runs for each the test that must catch it;
``python -m tests.support.mutants`` prints what they are as rows of Markdown.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

#: The mutant that removes nothing.
NONE = "none"
#: How a test fails that has caught something; not by an error of its own, nor of a pool that does not start.
ASSERTION = r"(?!.*the pool ended)(assert|AssertionError|Failed)"


class MutantError(Exception):
    """The guard to be removed is no longer where it was."""


@dataclass(frozen=True)
class Mutant:
    """One guard less."""

    #: What is removed, for people.
    removed: str
    install: Callable[[], None]
    #: Node id of the test that must fail.
    caught_by: str
    #: What its message matches.
    sign: str = ASSERTION
    #: A statement run in the test's database.
    schema: str = ""


# ------------------------------------------------------------------------------------------------- ways to remove


def edit(name: str, old: str, new: str) -> Callable[[], None]:
    """Replace what a regular expression finds in the text of a statement."""

    def install() -> None:
        from pgq.store import texts

        inner = texts.text_of
        if not re.search(old, inner(name)):
            raise MutantError(f"{name}.sql has no {old}")

        def text_of(asked: str) -> str:
            return re.sub(old, new, inner(asked)) if asked == name else inner(asked)

        texts.text_of = text_of  # type: ignore[assignment]  # not every attribute of a cached function
        texts.sql.cache_clear()

    return install


def replace(path: str, make: Callable[[Any], Any]) -> Callable[[], None]:
    """Replace a function, ``module:name`` or ``module:Class.name``, by what is made of it."""

    def install() -> None:
        import importlib

        module, _, names = path.partition(":")
        owner: Any = importlib.import_module(module)
        *parents, name = names.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        if not hasattr(owner, name):
            raise MutantError(f"there is no {path}")
        setattr(owner, name, make(getattr(owner, name)))

    return install


def both(*installs: Callable[[], None]) -> Callable[[], None]:
    def install() -> None:
        for each in installs:
            each()

    return install


def nothing(inner: Any) -> Any:
    return lambda *_, **__: None


def always(value: Any) -> Callable[[Any], Any]:
    return lambda inner: lambda *_, **__: value


def with_arguments(**fixed: Any) -> Callable[[Any], Any]:
    return lambda inner: lambda *args, **kwargs: inner(*args, **{**kwargs, **fixed})


# ------------------------------------------------------------------------------------------------- larger ones


def _on_its_own_connection(_: Any) -> Any:
    @contextlib.contextmanager
    def cursor(alias: str) -> Iterator[Any]:
        from pgq.store import connection as store_connection

        with store_connection.connect(alias, "mutant") as connection:
            yield connection.cursor()

    return cursor


def _on_the_tasks_connection(connect: Any) -> Any:
    wrappers: dict[str, Any] = {}

    def shared(alias: str, role: str, **options: Any) -> Any:
        from django.db import connections

        if role != "pgq worker":
            return connect(alias, role, **options)
        # The main thread's, whichever thread asks: each thread has Django connections of its own.
        wrapper = wrappers.setdefault(alias, connections[alias])
        wrapper.ensure_connection()
        wrapper.connection.cursor_factory = psycopg.Cursor
        return wrapper.connection

    return shared


_RESULT = """
INSERT INTO pgq_task (id, success, attempt_count, started, stopped, enqueued_at, func, queue, result)
VALUES (%s, true, %s, now(), now(), %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""


def _save_results(connection: psycopg.Connection[Any], reports: Sequence[Any]) -> None:
    for report in reports:
        claim = report.claim
        connection.execute(
            _RESULT, (claim.id, claim.attempts, claim.enqueued_at, claim.func, claim.queue, report.outcome.result)
        )


def _result_first(inner: Any) -> Any:
    @contextlib.contextmanager
    def transaction(connection: Any, reports: Sequence[Any], cluster: str, **more: Any) -> Iterator[Any]:
        _save_results(connection, reports)
        with inner(connection, reports, cluster, **more) as cursor:
            yield cursor

    return transaction


def _result_later(inner: Any) -> Any:
    @contextlib.contextmanager
    def transaction(connection: Any, reports: Sequence[Any], cluster: str, **more: Any) -> Iterator[Any]:
        with inner(connection, reports, cluster, **more) as cursor:
            yield cursor
        _save_results(connection, reports)

    return transaction


def _without_limit_of_crashes(refuse: Any) -> Any:
    return lambda claim, settings: refuse(claim, dataclasses.replace(settings, max_crashes=10**6))


def _forgetting_what_was_lost(_: Any) -> Any:
    return lambda session: session.children.lost.clear()


def _forgetting_reports(put_back_on_error: Any) -> Any:
    @contextlib.contextmanager
    def put_back(exchange: Any) -> Iterator[Any]:
        try:
            with put_back_on_error(exchange) as reports:
                yield reports
        except psycopg.Error:
            exchange.finished.clear()
            raise

    return put_back


def _keeping_what_it_claimed(_: Any) -> Any:
    def finish(worker: Any) -> None:
        from pgq.pool import protocol

        worker.exchange.settle(insist=True)
        worker.post(protocol.BYE)

    return finish


def _strict_results(inner: Any) -> Any:
    from pgq import codec

    return lambda value, **_: codec.encode(value)


# ------------------------------------------------------------------------------------------------- all of them

SAME_RECEIPT = r"q\.id = r\.id AND q\.receipt = r\.receipt"
INTERLEAVINGS, KEYED = "tests/store/test_interleavings.py", "tests/store/test_keyed.py"
SLOT_TEST = "tests/schedules/test_schedules.py::test_a_slot_is_fired_once"

MUTANTS = {
    "settle unfenced": Mutant(
        "settle does not ask for the receipt",
        edit("settle", r"q\.id = r\.claimed_id AND q\.receipt = r\.claimed_receipt", "q.id = r.claimed_id"),
        "tests/execution/test_settle.py::test_outcome_of_a_lost_lease_is_not_written",
    ),
    "retry unfenced": Mutant(
        "retry does not ask for the receipt",
        edit("retry", SAME_RECEIPT, "q.id = r.id"),
        "tests/execution/test_settle.py::test_wrong_receipt_writes_nothing",
    ),
    "park unfenced": Mutant(
        "park does not ask for the receipt",
        edit("park", SAME_RECEIPT, "q.id = r.id"),
        "tests/execution/test_settle.py::test_wrong_receipt_writes_nothing",
    ),
    "release unfenced": Mutant(
        "release does not ask for the receipt",
        edit("release", SAME_RECEIPT, "q.id = r.id"),
        "tests/upkeep/test_watermarks.py::test_wrong_receipt_gives_nothing_back",
    ),
    "progress unfenced": Mutant(
        "what a task says of its progress does not ask for the receipt",
        edit("write_progress", r"q\.id = g\.task AND q\.receipt = g\.receipt", "q.id = g.task"),
        "tests/store/test_progress.py::test_only_with_the_receipt",
    ),
    "renew unfenced": Mutant(
        "a pool renews the leases of others",
        edit("renew", r"AND worker = ANY \(%\(workers\)s[^)]*\)", "AND %(workers)s::uuid[] IS NOT NULL"),
        "tests/faults/test_guards.py::test_the_lease_of_a_dead_pool_runs_out",
    ),
    "claim waits": Mutant(
        "the claim's SKIP LOCKED",
        edit("claim", "FOR UPDATE SKIP LOCKED", "FOR UPDATE"),
        "tests/store/test_claim.py::test_open_claim_of_another_session_is_skipped",
        sign="psycopg.errors.LockNotAvailable",
    ),
    "claim without lock": Mutant(
        "the claim's FOR UPDATE SKIP LOCKED, and that rows are updated where they were found (by ctid)",
        both(edit("claim", "FOR UPDATE SKIP LOCKED", ""), edit("claim", r"\bctid\b", "id")),
        "tests/store/test_claim.py::test_two_sessions_never_claim_the_same_row",
    ),
    "claim keeps the unique key": Mutant(
        "a claim takes the key of a task away that is unique until it starts",
        edit("claim", r"CASE WHEN q\.unique_until = 'end' THEN q\.unique_key END", "q.unique_key"),
        "tests/enqueue/test_unique.py::test_a_claim_that_is_being_committed",
    ),
    "cancel of what runs": Mutant(
        "cancelling ends only what no worker holds",
        edit("take", r"AND lock IS NULL\n", "\n"),
        "tests/execution/test_ending.py::test_races_with_claim_settle_and_rescue",
    ),
    "bulk in the order of the calls": Mutant(
        "unique tasks are written in the order of their keys",
        edit("enqueue_unique_many", r"ORDER BY t\.unique_key COLLATE \"C\", t\.place", "ORDER BY t.place"),
        "tests/enqueue/test_unique.py::test_bulk_producers_in_opposite_orders_do_not_deadlock",
    ),
    "expiry of what has started": Mutant(
        "only a task that has not started expires",
        edit("take_ended", "AND attempts = 0 AND NOT cancelled", "AND NOT cancelled"),
        "tests/execution/test_ending.py::test_a_task_that_has_started_does_not_expire",
    ),
    "limits are not locked": Mutant(
        "a claim locks the limits under which it counts",
        edit(
            "choose",
            r"CASE WHEN NOT %\(locking\)s THEN true",
            "CASE WHEN NOT %(locking)s THEN true WHEN true THEN true",
        ),
        f"{INTERLEAVINGS}::test_never_over_the_limit",
    ),
    "limits are counted with their locks": Mutant(
        "a claim counts in a statement of its own, whose snapshot is younger than the locks",
        edit("claim_keyed", r"> bound\.low\b", "> bound.low + 1000000000"),
        f"{INTERLEAVINGS}::test_what_was_counted_before_the_lock_was_there_is_counted_anew",
    ),
    "limits are counted before their locks": Mutant(
        "the same; here the locks come in a statement after the count",
        edit("claim_keyed", r"> bound\.low\b", "> bound.low + 1000000000"),
        f"{INTERLEAVINGS}::test_found_if_what_was_counted_before_the_lock_is_believed",
    ),
    "limits of lanes that are left out": Mutant(
        "only the limits of lanes that a claim takes are locked: LIMIT comes before the locks",
        both(
            edit("lanes_with_room", r"LIMIT \{lanes\}", ""),
            edit("choose", r"  FROM held\s*$", "  FROM (SELECT * FROM held ORDER BY turn, n LIMIT {lanes}) held"),
        ),
        f"{KEYED}::test_a_claim_locks_no_more_limits_than_it_uses",
    ),
    "limits set in the meantime": Mutant(
        "a limit that was set since the lanes were chosen, and is not locked, leaves its lanes out",
        edit("claim_keyed", r"l\.name IS NULL OR \(k\.key_locked AND k\.turn = 1\)", "true"),
        f"{INTERLEAVINGS}::test_a_limit_that_is_set_between_choosing_and_claiming_holds",
    ),
    "a key in several queues": Mutant(
        "of a limited key one lane has its turn in a claim",
        edit("claim_keyed", r"k\.turn = 1", "true"),
        f"{KEYED}::test_a_key_in_several_queues_has_its_room_once",
    ),
    "strand outlives its lease": Mutant(
        "a rescued task gives its place up",
        edit("rescue_expired", r"strand = NULL, ", ""),
        f"{KEYED}::test_a_task_that_is_given_back_frees_its_place_and_keeps_its_turn",
        schema="ALTER TABLE pgq_queue DROP CONSTRAINT IF EXISTS pgq_queue_strand_check",
    ),
    "a key's own attempts overtake it": Mutant(
        "of a strict key a task that waits for another attempt holds back the others",
        both(
            edit("claim_keyed", r"AND NOT \(coalesce\(l\.strict, false\)", "AND NOT (false"),
            edit("lanes_with_room", r"WHERE NOT \(coalesce\(l\.strict, false\)", "WHERE NOT (false"),
        ),
        f"{KEYED}::test_of_a_strict_key_a_task_that_is_tried_again_holds_back_the_others",
    ),
    "idle lanes are not swept": Mutant(
        "a lane that was marked as idle is looked at again when what was open then has ended",
        edit("stray_keyed", "WHERE NOT EXISTS", "WHERE false AND NOT EXISTS"),
        f"{INTERLEAVINGS}::test_no_row_is_lost_in_an_idle_lane",
    ),
    "hasty watermark of strands": Mutant(
        "the watermark of strands stays below each that runs",
        edit("raise_strand_low", r"SELECT q\.strand - 1", "SELECT q.strand"),
        "tests/upkeep/test_keyed.py::test_the_watermark_of_strands_stays_below_each_that_runs",
    ),
    "sixty cells": Mutant(
        "a start counts for a rate from the end of its sixtieth of the window",
        edit("count_starts", r"/ win\.length\) \+ 1\)", "/ win.length))"),
        f"{KEYED}::test_a_start_counts_at_no_time_before_it_was",
    ),
    "released with its unique key": Mutant(
        "a task that is given back is unique no more",
        edit("release", r"strand = NULL,", "strand = NULL, unique_key = 'k', unique_until = 'start',"),
        f"{INTERLEAVINGS}::test_giving_back_never_meets_another_task_s_unique_key",
        sign=".*UniqueViolation",
    ),
    "no renewal": Mutant(
        "the renewal of leases",
        edit("renew", r"SET lock = clock_timestamp\(\)", "SET lock = q.lock"),
        "tests/execution/test_settle.py::test_renewed_lease_is_not_rescued",
    ),
    "rescue of living leases": Mutant(
        "rescue does not ask how old a lease is",
        edit("rescue_expired", r"AND lock < [^\n]*\n", "\n"),
        "tests/execution/test_settle.py::test_renewed_lease_is_not_rescued",
    ),
    "hasty watermark": Mutant(
        "a watermark does not wait for open transactions",
        edit("writers", "WHERE locktype", "WHERE false AND locktype"),
        "tests/upkeep/test_watermarks.py::test_watermark_waits_for_a_transaction_that_drew_a_position",
    ),
    "release past the watermark": Mutant(
        "a released row below the watermark does not lower it",
        edit("kept_places", r"AND lane\.low >= first\.place", "AND false"),
        "tests/upkeep/test_watermarks.py::test_given_back_row_below_the_watermark_is_claimed_again",
    ),
    "rescue without patience": Mutant(
        "a rescue waits a moment for lanes that are locked",
        replace("pgq.store.leases:_make_ready", with_arguments(wait=False)),
        "tests/upkeep/test_watermarks.py::test_a_rescue_waits_for_watermarks_that_move[release_worker-None]",
    ),
    "no sweep": Mutant(
        "the sweep",
        edit("sweep", "WHERE NOT EXISTS", "WHERE false AND NOT EXISTS"),
        "tests/upkeep/test_watermarks.py::test_sweep_makes_the_lane_whose_maker_rolled_back",
    ),
    "slots twice": Mutant(
        "UNIQUE (schedule, slot), and the step only from the slot that was read",
        edit("fire", r"AND next_run = %\(slot\)s", "AND %(slot)s::timestamptz IS NOT NULL"),
        SLOT_TEST,
        schema="DROP INDEX pgq_queue_slot",
    ),
    "settle in two transactions": Mutant(
        "the row leaves the queue in one transaction, its result is written in the next",
        both(
            edit("settle", r"WHERE keep\b", "WHERE false"),
            replace("pgq.execution.settle:transaction", _result_later),
        ),
        "tests/faults/test_guards.py::test_killed_at_a_step_of_its_receipt",
    ),
    "result first": Mutant(
        "the result is written in one transaction, the row leaves the queue in the next",
        replace("pgq.execution.settle:transaction", _result_first),
        "tests/faults/test_guards.py::test_killed_at_a_step_of_its_receipt",
    ),
    "crashes uncounted": Mutant(
        "a crash is charged to no task",
        edit("rescue_expired", r"crashes = q\.crashes \+ 1", "crashes = q.crashes"),
        "tests/execution/test_settle.py::test_crashes_are_charged_apart_from_failures",
    ),
    "no max_crashes": Mutant(
        "the limit of crashes",
        replace("pgq.execution.prepare:_refuse_unrun", _without_limit_of_crashes),
        "tests/pool/test_pool.py::test_task_that_kills_its_worker_three_times_has_failed",
    ),
    "dead workers keep theirs": Mutant(
        "the supervisor does not release what a dead worker held",
        replace("pgq.pool.session:Session._release_lost", _forgetting_what_was_lost),
        "tests/pool/test_pool.py::test_killed_busy_worker_is_replaced_and_its_task_runs_again",
    ),
    "signature unread": Mutant(
        "signatures are not verified",
        replace("pgq.codec.signing:verify_claim", always(True)),
        "tests/enqueue/test_enqueue.py::test_changed_row_is_parked",
        sign=".*QueuedTask.DoesNotExist",  # It has run instead of being parked.
    ),
    "unsigned rows name anything": Mutant(
        "who writes to the table names what is run",
        replace("pgq.enqueue.registry:resolve", with_arguments(signed=True)),
        "tests/enqueue/test_enqueue.py::test_unsigned_row_gets_nothing_run_that_it_may_not_name",
    ),
    "one connection": Mutant(
        "reports are written on the connection that tasks use",
        replace("pgq.store.connection:connect", _on_the_tasks_connection),
        "tests/faults/test_guards.py::test_reports_do_not_roll_back_with_a_task",
    ),
    "no clean-up": Mutant(
        "connections are left as a task left them",
        replace("pgq.pool.worker.connections:_clean", nothing),
        "tests/faults/test_poison_state.py::test_the_next_task_finds_a_clean_session",
    ),
    "odd results fail": Mutant(
        "a task whose result cannot be stored has failed, and is retried",
        replace("pgq.codec:encode_result", _strict_results),
        "tests/faults/test_poison_values.py::test_a_task_succeeds_whatever_it_returns",
    ),
    "reports forgotten": Mutant(
        "a report whose commit is unknown is not written again",
        replace("pgq.pool.worker.exchange:Exchange._put_back_on_error", _forgetting_reports),
        "tests/pool/test_pool.py::test_terminated_connections_are_opened_anew",
    ),
    "enqueue apart": Mutant(
        "enqueue has a connection of its own",
        replace("pgq.enqueue.write:callers_cursor", _on_its_own_connection),
        "tests/enqueue/test_enqueue.py::test_rolled_back_transaction_enqueues_nothing",
    ),
    "no waking": Mutant(
        "notifications and the polls of the queue",
        replace("pgq.pool.sleepers:Sleepers.wake", nothing),
        "tests/faults/test_guards.py::test_an_idle_pool_hears_of_a_task",
    ),
    "STOP keeps": Mutant(
        "a worker that stops does not give back",
        replace("pgq.pool.worker.loop:Worker._finish", _keeping_what_it_claimed),
        "tests/faults/test_guards.py::test_a_stopped_pool_gives_back",
    ),
    "respawn at once": Mutant(
        "the pause before a child that did nothing is replaced",
        replace("pgq.pool.seats:Child.was_of_use", lambda _: property(lambda child: True)),
        "tests/faults/test_boot.py::test_workers_die_with_their_first_claim",
    ),
    "fork at any rate": Mutant(
        "the check that a process is to be had",
        replace("pgq.pool.children:_check_for_room", nothing),
        "tests/faults/test_boot.py::test_no_process_is_to_be_had",
    ),
}

#: Those of the short form: none of their tests starts a pool.
QUICK = ("settle unfenced", "claim without lock", "hasty watermark", "signature unread")


def install(name: str) -> None:
    """Remove a guard in this process and in what it forks.

    Raises:
        MutantError: It is not where it was.
    """
    if name != NONE:
        MUTANTS[name].install()


# ------------------------------------------------------------------------------------------------- a plugin of pytest


def pytest_collection_finish(session: Any) -> None:
    from tests.support import pools

    install(os.environ["PGQ_MUTANT"])
    if os.environ["PGQ_MUTANT"] != NONE:
        # What a mutant keeps from happening is not waited for as long as usual.
        pools.wait_for.__defaults__ = ("", 15.0, 0.01)
    start = pools.Pool.__init__

    @functools.wraps(start)
    def with_the_app(self: Any, *args: Any, env: Any = None, **kwargs: Any) -> None:
        start(self, *args, env={"DJANGO_SETTINGS_MODULE": "tests.support.fault_settings", **(env or {})}, **kwargs)

    pools.Pool.__init__ = with_the_app  # type: ignore[method-assign]


def pytest_runtest_call(item: Any) -> None:
    mutant = MUTANTS.get(os.environ["PGQ_MUTANT"])
    if mutant is not None and mutant.schema:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(mutant.schema)


def pytest_runtest_logreport(report: Any) -> None:
    """Note how tests failed: only what fails by itself, not while it is set up or taken down."""
    if report.when == "call" and report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        with Path(os.environ["PGQ_MUTANT_NOTES"]).open("a") as notes:
            notes.write(json.dumps([report.nodeid, crash.message if crash else str(report.longrepr)]) + "\n")


def table() -> str:
    """Return the table of docs/explain/reliability.md."""
    tests = [(mutant.removed, re.split(r"::|\[", mutant.caught_by)[1]) for mutant in MUTANTS.values()]
    return "\n".join(["| removed | caught by |\n|---|---|", *(f"| {removed} | `{test}` |" for removed, test in tests)])


if __name__ == "__main__":
    print(table())  # noqa: T201
