"""What is to be imported, what became of it, and how the rows of Django-Q are read."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from django.conf import settings as django_settings
from django.db import connections

from pgq import codec
from pgq.conf import get_settings

TABLES = {"results": "django_q_task", "queued": "django_q_ormq", "schedules": "django_q_schedule"}
#: What has been imported is not due there before that: the lock of a queued task, the next run of a schedule.
TAKEN = datetime(9000, 1, 1, tzinfo=UTC)
#: Skipped rows that are named one by one.
_EXAMPLES = 50

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

    @property
    def cluster(self) -> str:
        """The cluster whose tasks come into the default queue: tasks there that name no queue are its."""
        return self.name or _configured_name() or "default"

    @property
    def salts(self) -> list[str]:
        """What signatures may have been salted with. Never what a row names: SECRET_KEY signs other things as well."""
        if self.name:
            return [self.name]
        return list(dict.fromkeys([_configured_name() or "default", get_settings().name, "default"]))

    def queue(self, cluster: Any) -> str:
        """Return the queue for a cluster's name."""
        if cluster in (None, "", self.cluster):
            return get_settings().default_queue
        return clean(cluster) or "default"


def _configured_name() -> Any:
    given = getattr(django_settings, "Q_CLUSTER", None)
    return given.get("name") if isinstance(given, dict) else None


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


def moment(value: Any) -> datetime | None:
    """Return a time as the source's driver gives it: SQLite's are text, and not only its own have no zone."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def mark_of_taken(source: str) -> Any:
    """Return TAKEN as that database's driver wants it."""
    ops = connections[source].ops
    try:
        return ops.adapt_datetimefield_value(TAKEN)
    except ValueError:
        # Without USE_TZ, databases other than PostgreSQL take no zone.
        return ops.adapt_datetimefield_value(TAKEN.replace(tzinfo=None))


def clean(value: Any) -> str | None:
    """Return a text that PostgreSQL can store; None: there is none."""
    return None if value is None else codec.clean_text(str(value), 1000)


def derived_id(kind: str, source_id: str, at: datetime) -> UUID:
    """Return the id that stands for one of Django-Q's: of its moment, and the same each time.

    Args:
        kind: "queued" or "result": a task that failed and waits for its retry is both there, and two rows here.
    """
    milliseconds = min(max(int(at.timestamp() * 1000), 0), 2**48 - 1)
    noise = int.from_bytes(sha256(f"pgq.django_q\0{kind}\0{source_id}".encode()).digest()[:10], "big")
    return UUID(int=(milliseconds << 80) | (noise & ~(0xF << 76) & ~(0x3 << 62)) | (0x7 << 76) | (0x2 << 62))


def load_trusted(data: bytes) -> Any:
    """Unpickle what is trusted. Of a model's instance only the key is kept, so it may come from another Django."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Pickled model instance's Django version", RuntimeWarning)
        return pickle.loads(data)  # noqa: S301  # signed with this key, or the operator trusts it
