"""A worker process: ``python -m bench.apps.pgqueuer 100``."""

import asyncio
import signal
import sys

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job

from bench import tasks
from bench.systems.pgqueuer import connection_parameters


async def main(batch_size: int) -> None:
    app = PgQueuer(AsyncpgDriver(await asyncpg.connect(**connection_parameters())))

    @app.entrypoint("noop")
    async def noop(job: Job) -> None:
        tasks.noop()

    @app.entrypoint("one-key", concurrency_limit=1)
    async def one_key(job: Job) -> None:
        tasks.noop()

    @app.entrypoint("cpu")
    async def cpu(job: Job) -> None:
        tasks.cpu()

    @app.entrypoint("sleep")
    async def sleep(job: Job) -> None:
        await tasks.sleep_async()

    @app.entrypoint("stamp")
    async def stamp(job: Job) -> None:
        tasks.stamp(int(job.payload or b"0"))

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.shutdown.set)
    await app.run(batch_size=batch_size)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
