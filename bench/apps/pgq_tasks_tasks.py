from django.tasks import task

from bench import tasks


@task
def noop() -> None:
    tasks.noop()


@task
def cpu() -> None:
    tasks.cpu()


@task
async def sleep() -> None:
    await tasks.sleep_async()


@task
def stamp(number: int) -> None:
    tasks.stamp(number)
