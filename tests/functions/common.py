"""What the tests of this folder enqueue: plain functions, by their paths, as users of Django-Q have them."""

from __future__ import annotations

import time
from typing import Any

from pgq.errors import Discard, Retry
from pgq.tasks import task
from tests.app.models import Note

#: What ran in this process, for tests that run tasks in their own.
seen: list[Any] = []


class TaskError(Exception):
    pass


def multiply(x, y):
    return x * y


def count_letters(words):
    return sum(len(word) for word in words)


def hello(name="you", **kwargs):
    return f"hello {name}"


def echo(*args, **kwargs):
    return args, kwargs


def nothing():
    return None


def falsy(value):
    return value


def fail(message="on purpose"):
    raise TaskError(message)


def fail_first(times):
    """Fails that many times."""
    from pgq.tasks import current_task

    if current_task().attempt <= times:
        raise TaskError(f"attempt {current_task().attempt}")
    return current_task().attempt


def ask_again(delay=None):
    raise Retry(delay)


def discard():
    raise Discard("no use")


def leave(status=0):
    raise SystemExit(status)


def note(text):
    seen.append(text)
    return Note.objects.create(text=text).pk


def note_text(note):
    return note.text


def note_and_fail(text):
    Note.objects.create(text=text)
    raise TaskError("after writing")


@task(atomic=True)
def note_and_fail_atomically(text):
    note_and_fail(text)


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def backoff(attempt, error):
    return 100 * attempt


def hook(task):
    """Says that it was called, and with what."""
    seen.append((task.id, task.success, task.result))
    Note.objects.create(text=f"hook of {task.name}: {task.success}")


def broken_hook(task):
    raise TaskError("the hook is broken")


@task
def registered(x=1):
    return x + 1


@task(queue="mail", priority=5, max_attempts=3, retry_backoff=[1, 2], timeout=30)
def configured(x=1):
    return x + 1


def call_out(a, b, *, loud=False):
    return f"{a} {b}{'!' if loud else ''}"


def dated(when=None):
    return when


class Sums:
    @staticmethod
    def add(a, b=0):
        return a + b


async def coroutine(x):
    return x * 2


def find_me(user):
    return user.get_username()
