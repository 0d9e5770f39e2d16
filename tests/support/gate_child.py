"""What a process does in tests/pool/test_gate.py. Imported there without Django."""

from __future__ import annotations

import time

from pgq.pool.activity import ActivityCell
from pgq.pool.gate import LARGE, Gate


def hold(gate: Gate, cell: ActivityCell) -> None:
    """Go in and stay."""
    with gate.passage(cell, LARGE):
        time.sleep(600)
