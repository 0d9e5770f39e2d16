"""A panel of django-debug-toolbar (8): which tasks a request has enqueued, and what became of them::

DEBUG_TOOLBAR_PANELS = [..., "pgq.contrib.debug_toolbar.PgqPanel"]
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import django
from debug_toolbar.panels import Panel
from django.db import connections, transaction
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext_lazy, ngettext
from django.views.debug import get_default_exception_reporter_filter

import pgq
from pgq.ground import events
from pgq.ground.ids import task_name
from pgq.records import Enqueued, NewTask
from pgq.records.options import TaskOptions
from pgq.recurrence import moments
from pgq.status import values

__all__ = ["PgqPanel"]

#: So many single enqueues of one function are better one enqueue_many.
MANY = 10
#: Rows that a panel shows, and characters of arguments of each.
_ROWS, _CHARACTERS = 200, 300
#: Frames in these folders are not the project's.
_FOREIGN = tuple(
    os.path.join(os.path.dirname(os.path.abspath(str(module.__file__))), "") for module in (pgq, django, contextlib)
)
_MASK = "********"

#: What the request that is handled here has enqueued; None: no panel wants to know.
_enqueues: ContextVar[list[dict[str, Any]] | None] = ContextVar("pgq_debug_toolbar", default=None)


class PgqPanel(Panel):  # type: ignore[misc]  # its base is that of the release that is installed
    """Shows the tasks of a request: function, queue, arguments (masked), in which transaction, and from which line."""

    title = gettext_lazy("Tasks")
    template = "pgq/contrib/debug_toolbar.html"
    is_async = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._enqueues: list[dict[str, Any]] = []

    @classmethod
    def ready(cls) -> None:
        """Put the hooks on, for as long as the process lives: they note something only while a panel wants it."""
        events.around_enqueue.add(_enqueueing)
        events.enqueue.listen(_enqueued)

    @property
    def nav_subtitle(self) -> str:
        """Say how many tasks there were."""
        number = self.get_stats().get("number", 0)
        return ngettext("%(number)d task", "%(number)d tasks", number) % {"number": number}

    def enable_instrumentation(self) -> None:
        """Note from now on what is enqueued by this request, in whichever thread a part of it runs."""
        self.ready()
        _enqueues.set(self._enqueues)

    def disable_instrumentation(self) -> None:
        """Note nothing any more."""
        _enqueues.set(None)

    def generate_stats(self, request: Any, response: Any) -> None:
        """Keep what was noted, as the toolbar can store it."""
        for one in self._enqueues:
            one["arrived"] = _arrived(one)
        shown = [{key: value for key, value in one.items() if key[0] != "_"} for one in self._enqueues[:_ROWS]]
        self.record_stats(
            {
                "number": sum(one["number"] for one in self._enqueues),
                "more": max(len(self._enqueues) - _ROWS, 0),
                "milliseconds": sum(one["milliseconds"] for one in self._enqueues),
                "enqueues": shown,
                "warnings": _warnings(self._enqueues),
            }
        )

    def generate_server_timing(self, request: Any, response: Any) -> None:
        """Tell the browser how long enqueuing has taken."""
        stats = self.get_stats()
        self.record_server_timing("enqueue", f"pgq {stats['number']} tasks", stats["milliseconds"])


@contextlib.contextmanager
def _enqueueing(tasks: tuple[NewTask, ...]) -> Iterator[None]:
    noted = _enqueues.get()
    if noted is None:
        yield
        return
    one = _described(tasks)
    noted.append(one)
    begun = time.perf_counter()
    try:
        yield
    finally:
        one["milliseconds"] = (time.perf_counter() - begun) * 1000


def _enqueued(written: Enqueued) -> None:
    noted = _enqueues.get()
    if not noted:
        return
    one = noted[-1]
    one["number"], one["_using"], one["_written"] = written.number, written.using, True
    if written.number != len(written.tasks):
        # The one model of many calls, whose arguments it does not have.
        one["id"] = one["arguments"] = ""
    if connections[written.using].in_atomic_block:
        one["when"] = "commit"
        transaction.on_commit(lambda: one.update(_committed=True), using=written.using, robust=True)
    else:
        one["when"], one["_committed"] = "at once", True


def _described(tasks: tuple[NewTask, ...]) -> dict[str, Any]:
    first = tasks[0]
    functions = Counter(task.func for task in tasks)
    delay = (moments.aware(first.run_after) - moments.now()).total_seconds() if first.run_after is not None else None
    single = len(tasks) == 1
    return {
        "func": ", ".join(func[:200] for func in list(functions)[:3]) + (", …" if len(functions) > 3 else ""),
        "id": first.id.hex if single else "",
        "name": (first.name or task_name(first.id)) if single else "",
        "url": _url(first) if single else "",
        "queue": first.queue,
        "priority": first.priority,
        "delay": None if delay is None else round(max(delay, 0), 1),
        "arguments": _arguments(first) if single else "",
        "pickled": any('"$pickle"' in task.args or '"$pickle"' in task.kwargs for task in tasks),
        "number": 0,
        "milliseconds": 0.0,
        "when": "",
        "line": _line(),
    }


def _arrived(one: dict[str, Any]) -> str:
    """Return whether the tasks can be claimed: what a transaction writes, its rollback takes back."""
    if not one["number"]:
        return "nothing" if one.get("_written") else "failed"
    if one.get("_committed"):
        return "yes"
    return "open" if connections[one["_using"]].in_atomic_block else "rolled back"


def _warnings(enqueues: list[dict[str, Any]]) -> list[str]:
    singles = Counter(one["func"] for one in enqueues if one["number"] == 1)
    said = [
        f"{func} was enqueued {number} times, one by one: enqueue_many writes all of them by one statement."
        for func, number in singles.items()
        if number >= MANY
    ]
    said += [
        f"Arguments of {func} are pickled: they cannot be read in SQL, nor by another release of their class."
        for func in sorted({one["func"] for one in enqueues if one["pickled"]})
    ]
    lost = sum(one["number"] for one in enqueues if one["arrived"] == "rolled back")
    if lost:
        were = "1 task was rolled back with its" if lost == 1 else f"{lost} tasks were rolled back with their"
        said.append(f"{were} transaction, and never arrived.")
    return said


def _arguments(task: NewTask) -> str:
    """Return the arguments as JSON, with those masked that the project's error pages or pgq's mask."""
    if TaskOptions.parse(task.options).sensitive:
        return _MASK
    hidden = get_default_exception_reporter_filter().hidden_settings
    try:
        args, kwargs = (values.masked_json(json.loads(text), hidden) for text in (task.args, task.kwargs))
        kwargs = values.masked_json(kwargs, values.HIDDEN_NAMES)
        args = values.masked_json(args, values.HIDDEN_NAMES)
        shown = [json.dumps(value, ensure_ascii=False) for value in args]
        shown += [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in kwargs.items()]
    except (ValueError, TypeError, AttributeError, RecursionError):
        # Compressed, or with numbers that Python refuses to read.
        return "…"
    text = ", ".join(part for part in shown if part)
    return text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1] + "…"


def _url(task: NewTask) -> str:
    try:
        return reverse("admin:pgq_queuedtask_change", args=[task.id.hex])
    except NoReverseMatch:  # the project has no admin, or not with pgq
        return ""


def _line() -> str:
    """Return the file and line that enqueued: the innermost one that is the project's own."""
    frame = sys._getframe(1)
    while frame is not None and (
        frame.f_code.co_filename.startswith(_FOREIGN) or frame.f_code.co_filename == contextlib.__file__
    ):
        frame = frame.f_back  # type: ignore[assignment]
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
