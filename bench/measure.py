"""What can be seen from outside: /proc for processor time and memory, pg_stat_* for the database."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psycopg

_TICKS = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """One process, as /proc/PID/stat has it; processor time in seconds, with that of its dead children."""

    pid: int
    parent: int
    session: int
    seconds: float


def processes() -> list[Process]:
    """Return all processes of this machine."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name of the program may hold anything, brackets too.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks = sum(map(int, fields[11:15]))
            found.append(Process(int(entry.name), int(fields[1]), int(fields[3]), ticks / _TICKS))
    return found


def family(roots: Iterable[int], everybody: list[Process] | None = None) -> list[Process]:
    """Return these processes and what they have started: their descendants, and whoever is in a session of theirs."""
    everybody = processes() if everybody is None else everybody
    members = set(roots)
    size = -1
    while size != len(members):
        size = len(members)
        members |= {one.pid for one in everybody if one.parent in members or one.session in members}
    return [one for one in everybody if one.pid in members]


def cpu_seconds(roots: Iterable[int], everybody: list[Process] | None = None) -> float:
    """Return the processor time that these processes and their families have had."""
    return sum(one.seconds for one in family(roots, everybody))


def own_nanoseconds(pid: int) -> int | None:
    """Return the processor time of one process alone, exactly; None: this kernel does not say."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def pss_bytes(roots: Iterable[int]) -> int:
    """Return the memory of these processes and their families; what several share counts once in all."""
    total = 0
    for one in family(roots):
        try:
            lines = Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


class Stats(NamedTuple):
    """What a database has counted so far."""

    wal_bytes: int
    transactions: int
    #: Each update and each delete leaves one.
    dead_tuples: int

    def since(self, earlier: Stats) -> Stats:
        return Stats(*(now - then for now, then in zip(self, earlier, strict=True)))


_STATS = """
    SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint,
           (SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database())::bigint,
           (SELECT coalesce(sum(n_tup_upd + n_tup_del), 0) FROM pg_stat_user_tables)::bigint
"""


def stats(dsn: str) -> Stats:
    """Read the counters over a connection of its own: sessions that live report up to a second late, ended ones have.

    This costs two or three transactions itself.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(_STATS).fetchone()
    if row is None:
        raise RuntimeError("PostgreSQL tells no statistics")
    return Stats(*row)


def now() -> str:
    """Return the time as results have it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def minute(when: str) -> str:
    """Return such a time as reports say it."""
    return f"{when[:16].replace('T', ' ')} UTC"


def quantile(ordered: list[float], share: float) -> float:
    """Return the value that `share` of the sorted values do not exceed."""
    # 0.999 of 1000 is the 999th, and not because of a rounding error the 1000th.
    return ordered[max(0, math.ceil(round(share * len(ordered), 6)) - 1)]
