"""A long transaction does not slow the queue down: a short form of `python -m bench.pinned`."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bench import pinned
from tests.support.hand import value
from tests.support.pools import test_dsn


@pytest.mark.django_db
@pytest.mark.xdist_group("plans")
def test_rate_under_a_pinned_horizon():
    parameters = conninfo_to_dict(test_dsn())
    server = make_conninfo(**{**parameters, "dbname": "postgres"})
    with pinned.database(server, f"{parameters['dbname']}_pinned") as dsn:
        run = pinned.drain(dsn, 60_000, 2, pin=True)
        with psycopg.connect(dsn) as session:
            claimed_up_to = value(session, "SELECT min(low) FROM pgq_lane")
    # Loose, since others use this machine too; without watermarks it would be a third.
    assert run.ratio > 0.5, run
    # And they kept up: at most what was claimed in the last second or two is above.
    assert claimed_up_to > 20_000
