"""Groups: which collector waits for which tasks, and one list of all results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from pgq.codec import signing
from pgq.conf import places
from pgq.ground.ids import parse_id
from pgq.models import Task
from pgq.records import Report


def collect_results(group: str) -> list[Any]:
    """Return the results of a group in the order in which its tasks were enqueued. The collector of `async_iter`."""
    # Any role that may insert can put a row into a group; the rows of `async_iter` are signed.
    # They lie in the database of this task, and the others may be away.
    parts = [part for part in places.here(lambda: Task.get_task_group(group)) if signing.verify_row(part)]
    parts.sort(key=lambda part: part.options.get("index", 0))
    return [part.result for part in parts]


def collectors(finished: Iterable[Report]) -> dict[UUID, tuple[int, int]]:
    """Return how many of the finished tasks each collector was waiting for: signed ones, and others."""
    counts: dict[UUID, tuple[int, int]] = {}
    for report in finished:
        # The option of an unsigned row may be of any type.
        id = parse_id(report.options.collector)
        if id is not None:
            before = counts.get(id, (0, 0))
            counts[id] = (before[0] + report.trusted, before[1] + (not report.trusted))
    return counts
