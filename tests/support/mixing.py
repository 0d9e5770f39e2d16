"""Poison and canaries: enqueues them mixed, and judges what became of both."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pgq.enqueue.make import make_task
from pgq.records.options import TaskOptions
from pgq.store import queue
from tests.support.site import Site

POISON = "tests.support.poison"


@dataclass
class Ended:
    """How a task ended, as PostgreSQL has it."""

    success: bool
    exception: str
    message: str
    attempts: int
    #: What the trace has of it.
    starts: int


class Mixture:
    """Tasks of one fault, in the order in which they are enqueued: after each poison `canaries` canaries.

    Args:
        traced: Whether the poison writes into the trace what the oracle has to know, and returns its receipt.
    """

    def __init__(
        self,
        site: Site,
        func: str,
        poisons: Iterable[str],
        *,
        canaries: int = 20,
        database: bool = False,
        traced: bool = True,
        **options: Any,
    ) -> None:
        self.site = site
        self.ids: dict[str, str] = {}
        self.canaries: list[str] = []
        tasks = []
        for name in poisons:
            poison = make_task(f"{POISON}.{func}", (name,), options=TaskOptions.of(**options))
            birds = [make_task(f"{POISON}.canary", (database,)) for _ in range(canaries)]
            self.ids[name] = poison.id.hex
            self.canaries += [task.id.hex for task in birds]
            tasks += [poison, *birds]
            site.acknowledged += [task.id.hex for task in (birds if not traced else [poison, *birds])]
        with site.session() as session:
            queue.enqueue_many(session.cursor(), tasks)

    def ended(self, names: Collection[str] | None = None) -> dict[str, Ended]:
        """Return how each poison ended; those that are still live are missing."""
        lines = [line.split() for line in self.site.oracle.path.read_text().splitlines()]
        starts = [line[1] for line in lines if line[0] in ("start", "ran")]
        ids = {id: name for name, id in self.ids.items() if names is None or name in names}
        with self.site.session() as session:
            rows = session.execute(
                "SELECT id, success, coalesce(exception, ''), coalesce(message, ''), attempt_count FROM pgq_task"
                " WHERE id = ANY (%s::uuid[])",
                (list(ids),),
            ).fetchall()
        return {ids[id.hex]: Ended(*row, starts.count(id.hex)) for id, *row in rows}

    def children(self) -> dict[str, list[int]]:
        """Return the pids of what each poison has started, by its own account."""
        lines = [line.split() for line in self.site.oracle.path.read_text().splitlines()]
        return {name: [int(line[2]) for line in lines if line[:2] == ["child", id]] for name, id in self.ids.items()}

    def judge(self, expected: Mapping[str, str]) -> list[str]:
        """Return what is wrong, in a queue that was drained, by the oracle, the canaries and what was expected.

        Args:
            expected: For each poison a part of "exception: message", or "" if it has to succeed.

        How often a canary started has no bound: one that had finished, but was not settled when a poison took its
        worker down, runs again, and is charged nothing.
        """
        wrong = self.site.check(may_fail=True).violations
        with self.site.session() as session:
            dead = session.execute(
                "SELECT id, message FROM pgq_task WHERE NOT success AND func = %s", (f"{POISON}.canary",)
            ).fetchall()
        wrong += [f"I8: canary {id} failed: {message}" for id, message in dead]
        ended = self.ended()
        for name, want in expected.items():
            got = ended.get(name)
            if got is None:
                wrong.append(f"I1: {name} has not ended")
            elif want == "" and not got.success:
                wrong.append(f"{name} failed: {got}")
            elif want and (got.success or want not in f"{got.exception}: {got.message}"):
                wrong.append(f"{name} should have failed with {want!r}: {got}")
        return wrong
