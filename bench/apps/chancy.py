import logging

from chancy import Chancy, Queue, job

from bench import tasks
from bench.systems.base import url
from bench.systems.chancy import CONCURRENCY

QUEUE = "bench"
app = Chancy(url(), log=logging.getLogger("chancy"))


@job(queue=QUEUE)
async def noop() -> None:
    tasks.noop()


@job(queue=QUEUE)
async def cpu() -> None:
    tasks.cpu()


@job(queue=QUEUE)
async def sleep() -> None:
    await tasks.sleep_async()


@job(queue=QUEUE)
async def stamp(*, number: int) -> None:
    tasks.stamp(number)


JOBS = {"noop": noop, "cpu": cpu, "sleep": sleep, "stamp": stamp}


async def prepare() -> None:
    async with app:
        await app.migrate()
        executor = Chancy.Executor.Async
        await app.declare(
            Queue(QUEUE, concurrency=CONCURRENCY, executor=executor, polling_interval=1, eager_polling=True)
        )
