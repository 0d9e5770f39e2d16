"""PgQueuer on asyncpg, with the batches of its own benchmarks."""

from __future__ import annotations

import asyncio
from typing import Any

from bench.systems.base import System, database


class Pgqueuer10(System):
    name = "pgqueuer-10"
    batch = 10
    requirements = ("pgqueuer==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0")
    keeps = "rows in its log; it stores no results"
    done = "SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'"
    rate = 2000.0
    sleepers = 0
    #: An entrypoint has a `concurrency_limit`; there are no keys, and no rates since 1.0.
    limited = {"one-key": 200.0}

    @property
    def settings(self) -> str:  # type: ignore[override]
        return (
            f"asyncpg, uvloop, one process for each worker with `batch_size` {self.batch}, async entrypoints without a "
            "limit; many: one `enqueue` of 1,000"
        )

    def worker_commands(self, python: str, workers: int) -> list[list[str]]:
        # Not by its command `pgq run`: that of 1.6.0 fails with today's typer.
        return [[python, "-m", "bench.apps.pgqueuer", str(self.batch)]] * workers

    def prepare(self) -> None:
        async def install() -> None:
            import asyncpg
            from pgqueuer.db import AsyncpgDriver
            from pgqueuer.queries import Queries

            connection = await asyncpg.connect(**connection_parameters())
            await Queries(AsyncpgDriver(connection)).install()
            await connection.close()

        asyncio.run(install())

    def open(self) -> None:
        import uvloop

        async def connect() -> Any:
            import asyncpg
            from pgqueuer.db import AsyncpgDriver
            from pgqueuer.queries import Queries

            return Queries(AsyncpgDriver(await asyncpg.connect(**connection_parameters())))

        self._loop = uvloop.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._queries = self._loop.run_until_complete(connect())

    def enqueue_one(self, task: str, *args: int) -> None:
        payload = str(args[0]).encode() if args else None
        self._loop.run_until_complete(self._queries.enqueue(task, payload))

    def enqueue_many(self, task: str, count: int) -> None:
        self._loop.run_until_complete(self._queries.enqueue([task] * count, [None] * count, [0] * count))


class Pgqueuer100(Pgqueuer10):
    name = "pgqueuer-100"
    batch = 100
    rate = 4000.0


def connection_parameters() -> dict[str, Any]:
    given: dict[str, Any] = dict(database())
    given["database"] = given.pop("dbname")
    return given
