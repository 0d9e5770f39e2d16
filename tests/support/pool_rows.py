"""Rows of pools, as a supervisor writes them."""

from __future__ import annotations

import os
import socket
from typing import Any
from uuid import UUID

from django.db import connection
from psycopg.types.json import Jsonb

ID = UUID("00000000-0000-4000-8000-000000000001")


def make_pool(id: UUID = ID, *, silent: float = 1, workers: Any = (), **values: Any) -> None:
    """Write a row as a supervisor would."""
    row = {
        "name": "shop",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "queues": None,
        "status": "working",
    } | values
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO pgq_worker (id, name, host, pid, queues, status, version, workers, started_at, heartbeat)"
            " VALUES (%s, %s, %s, %s, %s, %s, '9', %s, clock_timestamp() - interval '1 hour',"
            " clock_timestamp() - %s * interval '1 second')",
            [id, row["name"], row["host"], row["pid"], row["queues"], row["status"], Jsonb(workers), silent],
        )


WORKERS = [
    {
        "number": 0,
        "id": "a" * 32,
        "pid": 11,
        "state": "working",
        "task": "b" * 32,
        "seconds": 2.5,
        "succeeded": 5,
        "failed": 1,
    },
    {"number": 1, "state": "restarting"},
]
