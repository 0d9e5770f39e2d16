"""Callables with every kind of signature, true and false ones."""

from __future__ import annotations

import functools
import inspect

from pgq.tasks import task


def none():
    pass


def two(x, y):
    pass


def optional(x, y=1, *, loud=False):
    pass


def by_name(*, key):
    pass


def placed(x, /, y=2):
    pass


def open_ended(x, *args, **kwargs):
    pass


async def later(x):
    pass


@task
def registered(x, y):
    pass


@task(takes_context=True)
def with_context(context, x, y=1):
    pass


def _adding(func):
    """Give the function one argument more than its caller."""

    @functools.wraps(func)
    def wrapper(*args, **kwargs):
        return func("added", *args, **kwargs)

    return wrapper


@_adding
def added(first, x):
    pass


def _taking(func):
    """Give the function one argument less than its caller, and claim to have its signature."""

    @functools.wraps(func)
    def wrapper(taken, *args):
        return func(*args)

    wrapper.__signature__ = inspect.signature(func)
    return wrapper


@_taking
def taken(x):
    pass


class Klass:
    __hash__ = None

    def __init__(self, x=None):
        pass

    def method(self, x):
        pass

    @classmethod
    def of(cls, x):
        pass

    @staticmethod
    def plain(x):
        pass

    def __call__(self, x):
        pass


class Claiming:
    """Claims to take nothing, as a class of a library for validation may, and takes anything."""

    __signature__ = inspect.Signature()

    def __init__(self, **kwargs):
        pass


class Made:
    def __new__(cls, x):
        return super().__new__(cls)


class Wrapped:
    @_taking
    def __init__(self):
        pass


unhashable = Klass()
half = functools.partial(two, 1)
half.__module__, half.__qualname__ = __name__, "half"
