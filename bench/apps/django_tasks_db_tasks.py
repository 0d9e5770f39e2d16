from django_tasks import task

from bench import tasks


@task()
def noop() -> None:
    tasks.noop()


@task()
def cpu() -> None:
    tasks.cpu()


@task()
def sleep() -> None:
    tasks.sleep()


@task()
def stamp(number: int) -> None:
    tasks.stamp(number)
