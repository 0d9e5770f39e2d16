"""Plain functions, to be enqueued by their paths as users of Django-Q do."""

import time

from tests.app.models import Note
from tests.functions import oracle as oracle_tasks  # noqa: F401  registers what it has, in each process


def add(a=0, b=0, *rest, **named):
    return a + b


def fail(msg):
    raise ValueError(msg)


def noop(*args, **kwargs):
    pass


def sleep(seconds):
    time.sleep(seconds)


def note(text):
    return Note.objects.create(text=text).pk
