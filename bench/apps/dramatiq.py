import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench import tasks

broker = RedisBroker(url=os.environ["BENCH_REDIS"])
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BENCH_REDIS"]), store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor
def noop() -> None:
    tasks.noop()


@dramatiq.actor
def cpu() -> None:
    tasks.cpu()


@dramatiq.actor
def sleep() -> None:
    tasks.sleep()


@dramatiq.actor
def stamp(number: int) -> None:
    tasks.stamp(number)
