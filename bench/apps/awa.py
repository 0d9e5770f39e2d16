"""A worker process: ``python -m bench.apps.awa``."""

import asyncio
import signal
from dataclasses import dataclass
from typing import Any

from awa import AsyncClient

from bench import tasks
from bench.systems.awa import CONCURRENCY
from bench.systems.base import url

QUEUE = "bench"


@dataclass
class Noop:
    pass


@dataclass
class Cpu:
    pass


@dataclass
class Sleep:
    pass


@dataclass
class Stamp:
    number: int


JOBS = {"noop": Noop, "cpu": Cpu, "sleep": Sleep, "stamp": Stamp}


async def main(seconds: float | None = None) -> None:
    """Work until SIGTERM, or for so many seconds in a new database."""
    client = AsyncClient(url())
    if seconds:
        await client.migrate()

    @client.task(Noop, queue=QUEUE)
    async def noop(job: Any) -> None:
        tasks.noop()

    @client.task(Cpu, queue=QUEUE)
    async def cpu(job: Any) -> None:
        tasks.cpu()

    @client.task(Sleep, queue=QUEUE)
    async def sleep(job: Any) -> None:
        await tasks.sleep_async()

    @client.task(Stamp, queue=QUEUE)
    async def stamp(job: Any) -> None:
        tasks.stamp(job.args.number)

    await client.start([(QUEUE, CONCURRENCY)])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if seconds:
        await asyncio.sleep(seconds)
    else:
        await stop.wait()
    await client.shutdown()
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())
