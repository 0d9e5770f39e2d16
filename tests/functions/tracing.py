"""Tasks that fail and succeed in turn, and a view that enqueues; for tests of tracing and of error trackers."""

from __future__ import annotations

import logging
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path

import pgq
from pgq.errors import Discard, Retry
from pgq.tasks import async_task, current_task

#: What each attempt saw, in this process.
seen: list[Any] = []


@pgq.task(max_attempts=3, retry_backoff=0)
def fails_once(order: int) -> int:
    """Fail in the first attempt."""
    from opentelemetry import baggage, trace

    context = current_task()
    assert context is not None
    seen.append((trace.get_current_span().get_span_context(), baggage.get_baggage("tenant")))
    if context.attempt == 1:
        raise LookupError(f"order {order} is not there yet")
    return order


@pgq.task
def fails(secret: str = "") -> None:
    """Fail."""
    raise ValueError("it went wrong")


@pgq.task
def calls_outside(text: str, api_token: str = "") -> None:
    """Need a secret."""


@pgq.task
def notes_and_fails(order: int) -> None:
    """Note something for Sentry, and fail."""
    import sentry_sdk

    sentry_sdk.set_tag("order", str(order))
    logging.getLogger("project").warning("order %d", order)
    raise ValueError("it went wrong")


@pgq.task(max_attempts=3)
def asks_again() -> None:
    """Ask to be run again, and be content the second time."""
    context = current_task()
    assert context is not None
    if context.attempt == 1:
        raise Retry(delay=0)


@pgq.task
def gives_up() -> None:
    """Give up on purpose."""
    raise Discard("no longer wanted")


@pgq.task
async def succeeds_on_loop() -> int:
    """Succeed, as a coroutine."""
    return 1


@pgq.task(atomic=True)
def succeeds_in_a_transaction() -> int:
    """Succeed; its result is written by the same transaction."""
    return 2


def after(task: Any) -> None:
    """Be a hook."""


def view(request: HttpRequest) -> HttpResponse:
    """Enqueue a task that fails once, with a hook and a tenant's baggage."""
    return HttpResponse(async_task(fails_once, 7, hook="tests.functions.tracing.after"))


urlpatterns = [path("order/", view)]
