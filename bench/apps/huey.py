import os

from huey import RedisHuey

from bench import tasks

huey = RedisHuey("bench", url=os.environ["BENCH_REDIS"], store_none=True)


@huey.task()
def noop() -> None:
    tasks.noop()


@huey.task()
def cpu() -> None:
    tasks.cpu()


@huey.task()
def sleep() -> None:
    tasks.sleep()


@huey.task()
def stamp(number: int) -> None:
    tasks.stamp(number)
