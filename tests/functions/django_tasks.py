"""What the tests of tests/backend enqueue: tasks of django.tasks, Django's own or the backport's."""

from __future__ import annotations

import os
import time

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task

from tests.app.models import Note


@task
def nothing(*args, **kwargs):
    return None


@task(priority=7, queue_name="special")
def placed(*args, **kwargs):
    return None


@task
async def nothing_async(*args, **kwargs):
    return None


@task
def meaning():
    return "42"


@task
async def meaning_async():
    return "42"


@task
def echo(*args, **kwargs):
    return [args, kwargs]


@task
def fail(text="on purpose"):
    raise ValueError(text)


@task
async def fail_async():
    raise ValueError("on purpose, on a loop")


@task
def fail_hard():
    raise ValueError(ValueError("inner"), lambda: None)


@task
def return_lambda():
    return lambda: None


@task
def leave():
    raise SystemExit("leaving")


@task
def interrupt():
    raise KeyboardInterrupt("^C")


@task(takes_context=True)
def look(context, *args):
    """What the function sees of its own attempt."""
    result = context.task_result
    return {
        "attempt": context.attempt,
        "attempts": result.attempts,
        "id": result.id,
        "status": str(result.status),
        "workers": result.worker_ids,
        "errors": [error.exception_class_path for error in result.errors],
        "args": list(args),
    }


@task(takes_context=True)
async def look_async(context):
    return context.attempt


@task(takes_context=True)
def fail_first(context, times):
    if context.attempt <= times:
        raise ValueError(f"attempt {context.attempt}")
    return look.func(context)


@task
def sleep(seconds):
    time.sleep(seconds)


@task
def note(text):
    return Note.objects.create(text=text).pk


@task
def die():
    os._exit(1)


class Holder:
    @task
    def inside(x):
        return x * 2
