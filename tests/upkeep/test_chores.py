"""The chores of a pool when PostgreSQL refuses them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pgq.conf import Settings
from pgq.upkeep.chores import Upkeep
from tests.support.pools import test_dsn

pytestmark = pytest.mark.django_db(transaction=True)


def test_what_all_chores_are_refused_for_is_one_line_and_one_traceback_a_second(
    session: Callable[..., psycopg.Connection[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    upkeep = Upkeep(Settings(tick=0.1), "default")
    holder = session()
    with holder.transaction():
        holder.execute("LOCK TABLE pgq_queue, pgq_lane, pgq_schedule, pgq_worker IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        while sum(chore.failures for chore in upkeep.chores) < 12:
            # A chore that failed has closed its connection.
            with psycopg.connect(test_dsn(), autocommit=True, options="-c statement_timeout=20ms") as own:
                upkeep.tick(own)
        lasted = time.monotonic() - began
    failed = [chore.name for chore in upkeep.chores if chore.failures]
    assert len(failed) > 3, failed
    lines = [record for record in caplog.records if "times in a row" in record.getMessage()]
    assert 1 <= len(lines) <= 1 + lasted
