"""The oracle of limits: from the oracle's file, and from what triggers in the test's database note of each claim, which
promises were broken. It asks pgq's Python nothing.

The triggers note, by PostgreSQL's clock, each insert, each claim and each end of a lease. A run counts only while its
lease holds: a frozen process whose lease was rescued may run on, which is documented.
"""

from __future__ import annotations

import bisect
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

NOTES = """
CREATE TABLE noted_insert (
    id uuid, key text, queue text, position bigint, unique_key text, unique_until text, at timestamptz
);
CREATE TABLE noted_claim (id uuid, receipt uuid, key text, queue text, strand bigint, position bigint, at timestamptz);
CREATE TABLE noted_end (receipt uuid, id uuid, at timestamptz);
CREATE INDEX ON noted_claim (key, at);
CREATE INDEX ON noted_claim (queue, at);
CREATE FUNCTION note_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO noted_insert
    SELECT n.id, n.key, n.queue, n.position, n.unique_key, n.unique_until, clock_timestamp() FROM fresh n;
    RETURN NULL;
END $$;
CREATE FUNCTION note_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO noted_end SELECT o.receipt, o.id, clock_timestamp() FROM former o JOIN fresh n USING (id)
     WHERE o.receipt IS NOT NULL AND n.receipt IS DISTINCT FROM o.receipt;
    -- `lock` is the time at which the claim takes effect; the statement that counts for a rate comes after it.
    INSERT INTO noted_claim SELECT n.id, n.receipt, n.key, n.queue, n.strand, n.position, n.lock
      FROM former o JOIN fresh n USING (id)
     WHERE n.receipt IS NOT NULL AND n.receipt IS DISTINCT FROM o.receipt;
    RETURN NULL;
END $$;
CREATE FUNCTION note_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO noted_end SELECT o.receipt, o.id, clock_timestamp() FROM former o WHERE o.receipt IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER note_insert AFTER INSERT ON pgq_queue REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION note_insert();
CREATE TRIGGER note_update AFTER UPDATE ON pgq_queue REFERENCING OLD TABLE AS former NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION note_update();
CREATE TRIGGER note_delete AFTER DELETE ON pgq_queue REFERENCING OLD TABLE AS former
    FOR EACH STATEMENT EXECUTE FUNCTION note_delete();
"""
#: Seconds: a claim's snapshot may be that much older than the time it notes.
GRACE = 0.5
_NEVER = float("inf")


@dataclass
class History:
    """The values that a limit may have had, with the time since which, and until which, each may have been in force."""

    values: list[tuple[float, float, int]] = field(default_factory=list)

    def set(self, value: int, began: float, confirmed: float | None) -> None:
        """Note a new value. `confirmed` None: it is not known whether it was set, so the former ones may be, too."""
        if confirmed is not None:
            self.values = [(since, min(until, confirmed), old) for since, until, old in self.values]
        self.values.append((began, _NEVER, value))

    def most(self, at: float) -> int:
        """Return the largest that a claim of that time may have read."""
        return max((value for since, until, value in self.values if since <= at and until >= at - GRACE), default=0)

    def forget(self, before: float) -> None:
        self.values = [each for each in self.values if each[1] >= before]


@dataclass(frozen=True)
class Promise:
    """What a limit promises. `name` is a queue, or the part of keys before their first colon."""

    scope: str
    name: str
    concurrency: History | None = None
    rate: History | None = None
    #: Seconds.
    period: float = 1.0
    smooth: bool = False
    #: fifo: tasks start in their order; strict: each is over before the next one starts.
    order: str = ""


@dataclass
class Claimed:
    key: str | None
    queue: str
    strand: int | None
    position: int
    at: float
    over: float = _NEVER


@dataclass
class Run:
    """The part of a run under a valid lease."""

    id: str
    claim: Claimed
    began: float
    ended: float


@dataclass
class Notes:
    """What the triggers and the oracle's file say."""

    #: (key, position when inserted, unique key, until, time) of each id.
    inserts: dict[str, tuple[Any, ...]]
    claims: dict[tuple[str, str], Claimed]
    runs: list[Run]
    starts: int
    #: Starts whose lease was over: of processes that were frozen.
    late: int
    wrong: list[str]


def read(session: psycopg.Connection[Any], path: Path) -> Notes:
    """Read all that is noted."""
    epoch = "extract(epoch FROM at)::float8"
    rows = session.execute(f"SELECT id, key, position, unique_key, unique_until, {epoch} FROM noted_insert").fetchall()  # type: ignore[arg-type]
    inserts = {row[0].hex: tuple(row[1:]) for row in rows}
    rows = session.execute(f"SELECT id, receipt, key, queue, strand, position, {epoch} FROM noted_claim").fetchall()  # type: ignore[arg-type]
    claims = {(row[0].hex, row[1].hex): Claimed(*row[2:]) for row in rows}
    for id_, receipt, at in session.execute(f"SELECT id, receipt, {epoch} FROM noted_end").fetchall():  # type: ignore[arg-type]
        if (claim := claims.get((id_.hex, receipt.hex))) is not None:
            claim.over = min(claim.over, at)
    notes = Notes(inserts, claims, [], 0, 0, [])
    open_: dict[tuple[str, str, str], float] = {}
    for line in path.read_text().splitlines():
        event, id_, receipt, pid, text = line.split()
        at = int(text) / 1e9
        if event == "start":
            notes.starts += 1
            open_[id_, receipt, pid] = at
        elif (began := open_.pop((id_, receipt, pid), None)) is not None:
            _add(notes, id_, receipt, began, at)
    for (id_, receipt, _), began in open_.items():
        _add(notes, id_, receipt, began, _NEVER)
    notes.runs.sort(key=lambda run: run.began)
    return notes


def _add(notes: Notes, id_: str, receipt: str, began: float, ended: float) -> None:
    claim = notes.claims.get((id_, receipt))
    if claim is None:
        notes.wrong.append(f"{id_} ran under a receipt that no claim gave")
    elif began >= claim.over:
        notes.late += 1
    else:
        notes.runs.append(Run(id_, claim, began, min(ended, claim.over)))


def check(notes: Notes, promises: Iterable[Promise]) -> list[str]:
    """Return what was broken."""
    wrong = list(notes.wrong)
    for promise in promises:
        groups = _by_group(notes, promise)
        for name, (runs, claims) in groups.items():
            if promise.concurrency is not None:
                wrong += _too_many(name, runs, promise.concurrency)
            if promise.rate is not None:
                wrong += _too_fast(name, claims, promise.rate, promise.period)
            if promise.order:
                wrong += _out_of_order(name, runs, notes, strict=promise.order == "strict")
    return wrong + _doubled(notes)


def _by_group(notes: Notes, promise: Promise) -> dict[str, tuple[list[Run], list[float]]]:
    def group(claim: Claimed) -> str | None:
        if promise.scope == "queue":
            return claim.queue if claim.queue == promise.name else None
        return claim.key if claim.key is not None and claim.key.partition(":")[0] == promise.name else None

    found: dict[str, tuple[list[Run], list[float]]] = defaultdict(lambda: ([], []))
    for run in notes.runs:
        if (name := group(run.claim)) is not None:
            found[name][0].append(run)
    for claim in notes.claims.values():
        if (name := group(claim)) is not None:
            found[name][1].append(claim.at)
    return found


def _too_many(name: str, runs: list[Run], concurrency: History) -> list[str]:
    """At each start: the youngest claim of those that run has counted the others, under the limit of its time."""
    wrong, running = [], list[Run]()
    for run in runs:
        running = [other for other in running if other.ended > run.began] + [run]
        allowed = concurrency.most(max(each.claim.at for each in running))
        if len(running) > allowed:
            wrong.append(f"{name}: {len(running)} ran at {run.began:.3f}, {allowed} may: {[r.id for r in running]}")
    return wrong


def _too_fast(name: str, claims: list[float], rate: History, period: float) -> list[str]:
    wrong, times = [], sorted(claims)
    for place, at in enumerate(times):
        # A microsecond: what PostgreSQL's clock shows no more.
        count = place + 1 - bisect.bisect_right(times, at - period + 2e-6)
        if count > (allowed := rate.most(at)):
            wrong.append(f"{name}: {count} claims within {period} s before {at:.6f}, {allowed} may")
    return wrong


def _out_of_order(name: str, runs: list[Run], notes: Notes, *, strict: bool) -> list[str]:
    """A task that takes workers down again and again goes to the end of its lane, so its place is that of its claim.

    But of a strict key it stays where it was inserted.
    """
    wrong, seen = [], set[str]()
    last = -1
    for run in runs:
        place = notes.inserts[run.id][1] if strict else run.claim.position
        if place < last and (strict or run.id not in seen):
            wrong.append(f"{name}: {run.id} of place {place} started after one of place {last}")
        seen.add(run.id)
        last = max(last, place)
    return wrong


def _doubled(notes: Notes) -> list[str]:
    """Of a unique key, until its end: no two runs at a time; until its start: no two that were not claimed yet."""
    wrong: list[str] = []
    first = dict[str, float]()
    for (id_, _), claim in notes.claims.items():
        first[id_] = min(first.get(id_, _NEVER), claim.at)
    spans: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for run in notes.runs:
        if run.id in notes.inserts:
            _, _, unique, until, _ = notes.inserts[run.id]
            if unique is not None and until == "end":
                spans[unique].append((run.began, run.ended, run.id))
    for id_, (_, _, unique, until, at) in notes.inserts.items():
        if unique is not None and until == "start":
            spans[unique].append((at, first.get(id_, _NEVER), id_))
    for unique, several in spans.items():
        last = -1.0
        for began, ended, id_ in sorted(several):
            if began < last:
                wrong.append(f"unique {unique}: {id_} beside another one at {began:.3f}")
            last = max(last, ended)
    return wrong


#: Keys that have a ready task and room, by all of their limits.
IDLE = """
SELECT r.key || ' in ' || r.queue, coalesce((SELECT extract(epoch FROM max(c.at))::float8 FROM noted_claim c
                                              WHERE c.key = r.key AND c.queue = r.queue), 0),
       r.queue, CASE WHEN m.rate IS NOT NULL THEN count(*) OVER (PARTITION BY r.queue) ELSE 0 END
  FROM (SELECT DISTINCT key, queue FROM pgq_queue
         WHERE key IS NOT NULL AND lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL) r
  LEFT JOIN pgq_limit l ON l.scope = 'key' AND l.name = split_part(r.key, ':', 1)
  LEFT JOIN pgq_limit m ON m.scope = 'queue' AND m.name = r.queue
 CROSS JOIN LATERAL (
       SELECT count(DISTINCT strand) FILTER (WHERE q.key = r.key) AS of_key,
              count(DISTINCT strand) FILTER (WHERE q.queue = r.queue) AS of_queue,
              bool_or(q.key = r.key AND (q.lock IS NOT NULL OR (q.attempts > 0 AND q.run_after IS NOT NULL))) AS blocked
         FROM pgq_queue q) now
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE c.key = r.key AND c.at > clock_timestamp() - l.period * interval '1.1 s')
              AS of_key,
              count(*) FILTER (WHERE c.queue = r.queue AND c.at > clock_timestamp() - m.period * interval '1.1 s')
              AS of_queue
         FROM noted_claim c) lately
 WHERE coalesce(l.concurrency > now.of_key, true) AND coalesce(m.concurrency > now.of_queue, true)
   AND coalesce(l.rate > lately.of_key, true) AND coalesce(m.rate > lately.of_queue, true)
   AND NOT coalesce(l.smooth, false) AND NOT (coalesce(l.strict, false) AND now.blocked)
"""


#: What is known of a lane that is left alone.
WHY_IDLE = """
SELECT clock_timestamp(), row_to_json(l), row_to_json(r), row_to_json(k), (
           SELECT json_agg(json_build_array(q.key, q.queue, q.position, q.attempts, q.strand)) FROM pgq_queue q
            WHERE q.queue = k.queue AND (q.strand IS NOT NULL OR q.key = k.key))
  FROM pgq_keyed k
  LEFT JOIN pgq_limit l ON l.name = CASE l.scope WHEN 'key' THEN split_part(k.key, ':', 1) ELSE k.queue END
  LEFT JOIN pgq_rate r ON r.scope = l.scope AND r.name IN (k.key, k.queue)
 WHERE k.key || ' in ' || k.queue = %(name)s
"""


def clear(session: psycopg.Connection[Any], path: Path) -> None:
    """Forget all that is noted."""
    session.execute("TRUNCATE noted_insert, noted_claim, noted_end")
    os.truncate(path, 0)
