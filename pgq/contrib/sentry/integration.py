"""The integration that `sentry_sdk.init` takes: it listens to the events of pgq."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any
from uuid import UUID

import sentry_sdk
from sentry_sdk.integrations import Integration
from sentry_sdk.scope import Scope, add_global_event_processor, use_isolation_scope, use_scope
from sentry_sdk.types import Event, Hint

from pgq.contrib.sentry import failures, spans
from pgq.contrib.sentry.monitors import Monitors
from pgq.errors import Control, TaskCancelled
from pgq.ground import events
from pgq.records import Call, Failed, NewTask, Report, Retried

#: Seconds in which events are sent before a process of a pool ends.
FLUSH_SECONDS = 1.5


class PgqIntegration(Integration):
    """Reports tasks that have failed, traces queues, and checks schedules in.

    What a task does on purpose (`Retry`, `Discard`), or is done to it on purpose (cancelling), is no error. An attempt
    after which the task is tried again is none either, unless `report_retries` says so. Arguments are sent only if
    ``sentry_sdk.init`` says so (``data_collection={"queues": True}``, or ``send_default_pii``); of a task that is
    ``sensitive``, neither they nor local variables are.

    Args:
        propagate_traces: Attempts belong to the trace in which their task was enqueued.
        report_retries: Report each attempt that fails, those that are tried again as warnings.
        group_by_function: One issue for each function and kind of exception. Else as Sentry groups.
        monitor_schedules: Check the tasks of schedules in with Sentry's monitors. A schedule that recurs within less
            than a minute has none.
        exclude: Names of schedules that have no monitor.
    """

    identifier = "pgq"
    origin = spans.ORIGIN

    def __init__(
        self,
        *,
        propagate_traces: bool = True,
        report_retries: bool = False,
        group_by_function: bool = True,
        monitor_schedules: bool = False,
        exclude: Collection[str] = (),
    ) -> None:
        self.propagate_traces, self.report_retries = propagate_traces, report_retries
        self.group_by_function = group_by_function
        self.monitors = Monitors(frozenset(exclude)) if monitor_schedules else None

    @staticmethod
    def setup_once() -> None:
        """Listen from now on, in this process and those that are forked from it."""
        install()
        add_global_event_processor(_without_logged_failures)


def install() -> None:
    """Put the hooks upon pgq's events. They do nothing while the client has no `PgqIntegration`."""
    events.around_enqueue.add(_enqueueing)
    events.around_run.add(_running)
    events.end.listen(_ended)
    events.before_exit(_flush)


def uninstall() -> None:
    """Take them off again."""
    events.around_enqueue.remove(_enqueueing)
    events.around_run.remove(_running)
    events.end.forget(_ended)


def _integration() -> PgqIntegration | None:
    return sentry_sdk.get_client().get_integration(PgqIntegration)


def _flush() -> None:
    sentry_sdk.flush(timeout=FLUSH_SECONDS)


#: Isolation and current scope of attempts whose outcome is not known yet: what the function has noted in them belongs
#: to the event. Process-wide, as the hooks are.
_scopes: dict[UUID, tuple[Scope, Scope]] = {}


@contextlib.contextmanager
def _enqueueing(tasks: tuple[NewTask, ...]) -> Iterator[dict[str, str] | None]:
    integration = _integration()
    if integration is None:
        yield None
        return
    with spans.publishing(tasks) as headers:
        yield headers if integration.propagate_traces else None


@contextlib.contextmanager
def _running(call: Call) -> Iterator[None]:
    integration = _integration()
    if integration is None:
        yield
        return
    claim = call.claim
    if integration.monitors is not None and claim.schedule is not None:
        integration.monitors.began(claim)
    control: Control | None = None
    with sentry_sdk.isolation_scope() as scope:
        scope.clear_breadcrumbs()
        failures.describe(scope, call)
        trace = call.options.trace if integration.propagate_traces else None
        with spans.processing(claim, trace or {}) as conclude:
            # A copy, in which the span stays the current one.
            _scopes[claim.id] = scope, sentry_sdk.get_current_scope().fork()
            try:
                yield
                conclude("ok")
            except Control as error:
                # The span would take it for an error.
                control = error
                conclude("aborted")
    if control is not None:
        raise control


def _ended(report: Report) -> None:
    scopes = _scopes.pop(report.claim.id, None)
    integration = _integration()
    if integration is None:
        return
    outcome = report.outcome
    if integration.monitors is not None and report.claim.schedule is not None:
        integration.monitors.ended(report)
    if not isinstance(outcome, Failed) and not (isinstance(outcome, Retried) and integration.report_retries):
        return
    if isinstance(report.error, Control | TaskCancelled) or outcome.failure.exception == failures.CANCELLED:
        return
    with contextlib.ExitStack() as stack:
        if scopes is None:
            failures.describe_claim(stack.enter_context(sentry_sdk.isolation_scope()), report.claim)
        else:
            isolation, current = scopes
            stack.enter_context(use_isolation_scope(isolation))
            stack.enter_context(use_scope(current))
        failures.capture(report, outcome.failure, by_function=integration.group_by_function)


def _without_logged_failures(event: Event, hint: Hint) -> Event | None:
    """Drop what Sentry makes of pgq's log line about a failure: `_ended` has reported it, or it is no error."""
    record: Any = hint.get("log_record")
    if record is None or record.name != "pgq" or record.funcName != "report" or _integration() is None:
        return event
    return None if str(record.msg).endswith(" failed: %s: %s") else event
