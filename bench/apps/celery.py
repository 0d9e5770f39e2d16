import os

from celery import Celery

from bench import tasks
from bench.systems.celery import PREFETCH

app = Celery("bench", broker=os.environ["BENCH_REDIS"], backend=os.environ["BENCH_REDIS"])
app.conf.update(worker_prefetch_multiplier=PREFETCH, broker_connection_retry_on_startup=True)


@app.task
def noop() -> None:
    tasks.noop()


@app.task
def cpu() -> None:
    tasks.cpu()


@app.task
def sleep() -> None:
    tasks.sleep()


@app.task
def stamp(number: int) -> None:
    tasks.stamp(number)
