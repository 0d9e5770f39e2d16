"""Which page of docs/reference tells of which public name, in which order. A test holds that no name is left out."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support.reference import members

#: Every module with names that a project may use; what is public in each stands in its ``__all__``.
MODULES = (
    "pgq", "pgq.tasks", "pgq.tasks.bulk", "pgq.config", "pgq.models", "pgq.models.metrics", "pgq.testing", "pgq.status",
    "pgq.status.why", "pgq.status.metrics", "pgq.health", "pgq.errors", "pgq.signals", "pgq.ground.events",
    "pgq.records", "pgq.backend", "pgq.cluster", "pgq.admin", "pgq.urls", "pgq.urls.django_cfg",
    "pgq.contrib.debug_toolbar", "pgq.contrib.embedded", "pgq.contrib.health_check", "pgq.contrib.otel",
    "pgq.contrib.otel.instrumentor", "pgq.contrib.prodserver", "pgq.contrib.sentry",
)  # fmt: skip


@functools.cache
def public(module: str) -> list[str]:
    """Return the public names of a module, with the module's, in its own order."""
    return [f"{module}.{name}" for name in importlib.import_module(module).__all__]


def _kind(full: str) -> int:
    """Classes first, then functions, then constants."""
    value = members.value_of(full)
    return 0 if inspect.isclass(value) else 1 if inspect.isroutine(value) else 2


@dataclass(frozen=True)
class Section:
    """A part of a page: names that are looked for together."""

    title: str
    names: tuple[str, ...] = ()
    #: A module, whose docstring opens the part, and whose names follow those above.
    module: str | None = None
    #: What follows that docstring.
    more: str = ""

    def all_names(self) -> list[str]:
        """Return the names; of those of the module only the ones that have no other place."""
        return [*self.names, *(sorted(public(self.module), key=_kind) if self.module else [])]


@dataclass(frozen=True)
class Page:
    """A page about names of Python."""

    file: str
    title: str
    intro: str
    sections: tuple[Section, ...] = field(default=())


def _tasks(*given: str) -> tuple[str, ...]:
    return tuple(f"pgq.tasks.{name}" for name in given)


FUNCTIONS = Page(
    "functions.md",
    "Functions",
    "What a project calls: to define tasks, to enqueue them, to ask for results, and to act on what waits. What may be "
    "said of a task is on [options.md](options.md).",
    (
        Section("Define a task", _tasks("task", "TaskFunction", "BoundTask", "TaskCall")),
        Section(
            "Enqueue",
            _tasks("async_task", "aenqueue", "enqueue_many", "aenqueue_many", "enqueue_from", "TaskId", "AsyncTask"),
        ),
        Section("Groups and chains", _tasks("async_iter", "async_chain", "Iter", "Chain")),
        Section(
            "Results",
            _tasks(
                "result", "aresult", "fetch", "afetch", "result_cached", "fetch_cached", "delete_cached", "queue_size",
            ),
        ),
        Section(
            "Results of a group",
            _tasks(
                "result_group", "aresult_group", "fetch_group", "afetch_group", "count_group", "delete_group",
                "result_group_cached", "fetch_group_cached", "count_group_cached", "delete_group_cached",
            ),
        ),
        Section("Cancel and retry", _tasks("cancel", "acancel", "cancel_many", "acancel_many", "retry", "aretry")),
        Section("All tasks that match", module="pgq.tasks.bulk"),
        Section("Queues and limits", _tasks("pause", "resume", "set_limit", "drop_limit")),
        Section("Inside of a running task", _tasks("current_task", "Context")),
        Section("Schedules", _tasks("schedule")),
        Section("The package", ("pgq.task", "pgq.__version__", "pgq.VERSION")),
    ),
)  # fmt: skip
PAGES = (
    FUNCTIONS,
    Page(
        "configuration.md",
        "Configuration with types",
        "The settings and the schedules as objects, for settings.py: what each key of the settings means is on "
        "[settings.md](settings.md), how they are used in [configuration.md](../guide/configuration.md).",
        (Section("`pgq.config`", module="pgq.config"),),
    ),
    Page(
        "testing.md",
        "Testing",
        "Helpers for the tests of a project; [testing.md](../guide/testing.md) shows them at work.",
        (Section("`pgq.testing`", module="pgq.testing"),),
    ),
    Page(
        "status.md",
        "Status",
        "What can be read of pools, queues, tasks and numbers over time. All of it is bounded: it takes no longer with "
        "millions of tasks.",
        (
            Section("Pools", module="pgq.status"),
            Section(
                "Why a task is not running",
                module="pgq.status.why",
                more="Each code, what it means and what to do: "
                "[troubleshooting.md](../operate/troubleshooting.md#from-pgq_why).",
            ),
            Section("Numbers over time", module="pgq.status.metrics"),
            Section("For probes", module="pgq.health"),
        ),
    ),
    Page(
        "signals.md",
        "Signals and events",
        "Two ways to hear of what happens. **Signals** are Django's, with the names and the arguments of Django-Q. "
        "**Events** are what tracing and metrics listen to: they cost nothing without a listener, and give the records "
        "that pgq itself works with.",
        (
            Section("Signals", module="pgq.signals"),
            Section("Events", module="pgq.ground.events"),
            Section("What events tell", module="pgq.records"),
        ),
    ),
    Page(
        "backend.md",
        "Backend of django.tasks",
        "[django-tasks.md](../guide/django-tasks.md) shows it at work.",
        (Section("`pgq.backend`", module="pgq.backend"),),
    ),
    Page(
        "integrations.md",
        "Admin, REST and other packages",
        "Classes and modules that a project names in its settings, urls or admin. How to set them up: "
        "[observability.md](../operate/observability.md), [dashboard.md](../operate/dashboard.md), [rest.md](rest.md), "
        "[deployment.md](../operate/deployment.md).",
        (
            Section("The admin", module="pgq.admin"),
            Section("REST", module="pgq.urls"),
            Section("REST in the shapes of django-cfg", module="pgq.urls.django_cfg"),
            Section("OpenTelemetry", module="pgq.contrib.otel"),
            Section("OpenTelemetry's instrumentor", module="pgq.contrib.otel.instrumentor"),
            Section("Sentry", module="pgq.contrib.sentry"),
            Section("django-health-check", module="pgq.contrib.health_check"),
            Section("django-debug-toolbar", module="pgq.contrib.debug_toolbar"),
            Section("django-prodserver", module="pgq.contrib.prodserver"),
            Section("A pool as an object", module="pgq.cluster"),
            Section("A PostgreSQL without an administrator", module="pgq.contrib.embedded"),
        ),
    ),
)
#: Pages that are laid out in modules of their own, and the modules of which they tell.
OTHERS = {
    "options.md": ("pgq.tasks.Unique", "pgq.tasks.Debounce", "pgq.tasks.Rate"),
    "errors.md": tuple(public("pgq.errors")),
    "models.md": (*public("pgq.models"), *public("pgq.models.metrics")),
}


def places() -> Iterator[tuple[str, str]]:
    """Yield each name that a page tells of, and the page. What is told twice has its place on the first page."""
    for page, told in OTHERS.items():
        yield from ((name, page) for name in told)
    for page in PAGES:
        yield from ((name, page.file) for section in page.sections for name in section.all_names())


@functools.cache
def placed() -> dict[str, tuple[str, str]]:
    """Return of each public name the name that is told of it, and the page: of two names of one thing the first."""
    told: list[tuple[str, str, object]] = []
    answer: dict[str, tuple[str, str]] = {}
    for name, page in places():
        value = members.value_of(name)
        before = next((each for each in told if members.is_same(each[2], value)), None)
        if before is None:
            told.append((name, page, value))
        answer.setdefault(name, (name, page) if before is None else before[:2])
    for name in (name for module in MODULES for name in public(module)):
        if name not in answer:
            value = members.value_of(name)
            known = next((each for each in told if members.is_same(each[2], value)), None)
            if known is not None:
                answer[name] = known[:2]
    return answer


def teller(name: str, member: object) -> str:
    """Return the class whose part tells of a member: the first of those that have it from no public class."""
    return _tellers()[name, id(member)]


@functools.cache
def _tellers() -> dict[tuple[str, int], str]:
    tellers: dict[tuple[str, int], str] = {}
    for full, _page in places():
        value = members.value_of(full)
        for name, member, _doc in members.members(value) if inspect.isclass(value) else ():
            tellers.setdefault((name, id(member)), full)
    return tellers


@functools.cache
def _anchors() -> dict[str, str]:
    """Return what the heading of each name is linked by; those that differ only in their letters' case are numbered."""
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[str, str] = {}
    for name, page in places():
        if placed()[name] == (name, page) and name not in found:
            anchor = name.replace(".", "").lower()
            number = counts[page, anchor]
            counts[page, anchor] += 1
            found[name] = f"{anchor}-{number}" if number else anchor
    return found


def link(name: str, page: str = "") -> str:
    """Return a link to where a public name is told of. `page`: on which the link stands."""
    told, there = placed()[name]
    return f"[`{name}`]({'' if there == page else there}#{_anchors()[told]})"
