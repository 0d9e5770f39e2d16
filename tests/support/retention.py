"""Results of weeks gone by, and what retention leaves of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pgq.upkeep.retention import Retention

Session = psycopg.Connection[Any]

#: Between the end of the week before last and now lie 7 to 14 days.
DAYS = 5.0


def monday(weeks_ago: int) -> datetime:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=today.weekday() + 7 * weeks_ago)


def id_in(weeks_ago: int, number: int = 0) -> UUID:
    return UUID(int=(int(monday(weeks_ago).timestamp() * 1000) + 1000 + number) << 80 | 0x7 << 76 | 0x2 << 62)


@pytest.fixture
def own(session: Callable[..., Session]) -> Session:
    return session()


@pytest.fixture
def weeks(own: Session) -> Iterator[list[str]]:
    """Partitions of the weeks that began four, three and two weeks ago, oldest first."""
    names = []
    for ago in (4, 3, 2):
        names.append(f"pgq_task_{monday(ago):%Y%m%d}")
        bounds = [UUID(int=int(at.timestamp() * 1000) << 80) for at in (monday(ago), monday(ago - 1))]
        own.execute(
            f"CREATE TABLE {names[-1]} PARTITION OF pgq_task FOR VALUES FROM ('{bounds[0]}') TO ('{bounds[1]}')"
        )
    yield names
    own.execute("ROLLBACK")
    for name in names:
        own.execute(f"DROP TABLE IF EXISTS {name}")


def finish(session: Session, ago: int, count: int = 1, *, days: float = 20, options: str = "{}") -> list[UUID]:
    """Write results of tasks from that week, every other one a failure; they ended so many days ago."""
    ids = [id_in(ago, number) for number in range(count)]
    session.execute(
        "INSERT INTO pgq_task (id, success, started, stopped, enqueued_at, func, queue, options, exception)"
        " SELECT id, n %% 2 = 1, at, at, at, 'f', 'q', %s, CASE WHEN n %% 2 = 0 THEN 'builtins.ValueError' END"
        "   FROM unnest(%s::uuid[]) WITH ORDINALITY u (id, n), (SELECT now() - %s * interval '1 day') a (at)",
        [options, ids, days],
    )
    # PostgreSQL counts what an open session has written up to a second late.
    session.execute("SELECT pg_stat_force_next_flush()" if session.info.server_version >= 150000 else "SELECT 1")
    return ids


def there(session: Session) -> set[str]:
    rows = session.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'pgq_task'::regclass")
    return {row[0] for row in rows}


def look_at_all(kept: Retention, session: Session) -> int:
    """Step until there is nothing more to do; return after how many steps."""
    steps = 1
    while kept.step(session.cursor()):
        steps += 1
        assert steps < 1000
    return steps
