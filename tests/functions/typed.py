"""Tasks with options of every kind."""

from __future__ import annotations

from pgq import task


@task(queue="mail", priority=5, timeout=30, max_attempts=3, backoff=[1, 2])
def add(x, y=1):
    return x + y


@task
async def double(x):
    return x * 2


@task(takes_context=True)
def with_context(context, x):
    return x
