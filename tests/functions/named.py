"""Objects that can be named, and such that cannot: what their names lead to is another object, or nothing."""

from __future__ import annotations

import functools

from pgq.tasks import task


def add(a=1, b=2):
    return a + b


def logged(func):
    """A decorator as people write them: the wrapper says that it is the function."""

    @functools.wraps(func)
    def wrapper(*args, **kwargs):
        return ["logged", func(*args, **kwargs)]

    return wrapper


@logged
def decorated(a=1, b=2):
    return a + b


@task(queue="named", priority=3)
def registered(a=1, b=2):
    return a + b


@logged
@task
def wrapped_task(a=1, b=2):
    return a + b


class Base:
    def __init__(self, *args, **kwargs):
        pass

    @classmethod
    def run(cls, *args):
        return cls.__name__

    @staticmethod
    def plain(*args):
        return "plain"

    def method(self, *args):
        return "method"

    def __call__(self, *args):
        return "called"

    @classmethod
    @task
    def mixed(cls, *args):
        return cls.__name__


class Child(Base):
    pass


class Overriding(Base):
    @classmethod
    def run(cls, *args):
        return "overridden"


def replaced(kind):
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, "__qualname__": kind.__qualname__})


class Original(Exception):
    pass


below = Original
#: What a class decorator does that returns another class.
Original = replaced(Original)


def nested():
    def inner(*args):
        return "inner"

    return inner


def local_exception():
    class Local(Exception):
        pass

    return Local


def of_main(*args):
    return "main"


of_main.__module__ = "__main__"

instance = Base()
bound = instance.method
half = functools.partial(add, 1)
