"""Why a task is not running: the verdict of the SQL function pgq_why, for the command, the dashboard and programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from uuid import UUID

from pgq.conf import get_settings, places
from pgq.ground import ids
from pgq.store import why as store_why
from pgq.store.caller import callers_cursor
from pgq.store.connection import Cursor

__all__ = ["STUCK", "Verdict", "why"]

#: What a verdict may say. Of a task that is not there, or has ended:
UNKNOWN, SUCCEEDED, FAILED = "unknown", "succeeded", "failed"
#: Of one that a worker has claimed: it runs; it begins, or has just ended; it was told to stop; its worker is silent.
RUNNING, CLAIMED, STOPPING, LOST = "running", "claimed", "stopping", "lost"
#: Of one that waits: for an operator, for upkeep to end what was cancelled, for other tasks, for its time, for
#: its next attempt, for a worker that knows the function, for upkeep.
PARKED, CANCELLED, OTHERS, TIME = "parked", "cancelled", "others", "time"
RETRY, UNKNOWN_FUNCTION, DUE = "retry", "unknown_function", "due"
#: Of one that is ready: nothing claims from its queue; others go first; all workers are busy; it is the next one.
PAUSED, NO_POOL, UNSERVED, BEHIND, BUSY, NEXT = "paused", "no_pool", "unserved", "behind", "busy", "next"
#: The same: a limit of its queue, or of its key, holds it.
HELD = "held"

#: Those that call for an operator: time alone changes nothing.
STUCK = frozenset({PARKED, PAUSED, NO_POOL, UNSERVED})


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a task is not running, or what became of it, as of one moment."""

    #: The task's.
    id: UUID
    #: One of the constants of this module.
    code: str
    #: The same for people, in English.
    sentence: str
    #: What it rests on, by name; which names there are depends on the code. Times are texts, as JSON has them.
    facts: Mapping[str, Any]

    @property
    def is_stuck(self) -> bool:
        """Whether it stays as it is until an operator does something."""
        return self.code in STUCK

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it; the id is 32 hex digits."""
        return {"id": self.id.hex, "code": self.code, "sentence": self.sentence, "facts": dict(self.facts)}


def why(task: str | UUID) -> Verdict:
    """Return why the task of that id is not running, or what became of it.

    Raises:
        ValueError: It is no id.
        django.db.Error: PostgreSQL is gone, or the tables are missing.
    """
    id = ids.parse_id(task)
    if id is None:
        raise ValueError(f"task: must be the id of a task, 32 hex digits, got {task!r}")

    def known() -> Verdict | None:
        found = _here(id)
        return None if found.code == UNKNOWN else found

    return places.first(known) or _here(id)


def _here(id: UUID) -> Verdict:
    with callers_cursor(get_settings().database) as cursor:
        return verdict(cursor, id)


def verdict(cursor: Cursor, id: UUID) -> Verdict:
    """Return the verdict on the task of that id; one statement, bounded whatever the tables hold."""
    code, sentence, facts = store_why.why(cursor, id)
    return Verdict(id, code, sentence, MappingProxyType(json.loads(facts)))
