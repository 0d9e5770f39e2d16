"""The views of pgq_monitor, its keys, and what an operator does to queues there."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from django.utils import timezone

from pgq.conf import get_settings
from pgq.management.live import allot
from pgq.management.output import Column, clock, message, span, state, table, text
from pgq.recurrence import Recurrence, describe
from pgq.status import snapshot
from pgq.status.snapshot import Snapshot
from pgq.store import lanes
from pgq.store import monitor as store_monitor
from pgq.store.connection import Cursor
from pgq.store.monitor import FailureGroup, Upcoming

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: The views, by the keys 1 to 5.
VIEWS = ("overview", "queues", "workers", "failures", "schedules")
#: Failures that are grouped, and schedules that are shown.
_FAILURES, _SCHEDULES = 1_000, 200
#: Rows of a table where there is no screen to fit.
_ROWS = 20
#: What keys send: an arrow, or a character.
_KEY = re.compile(r"\x1b\[[A-D]|\x1bO[A-D]|.", re.DOTALL)
_DOWN, _UP = {"j", "\x1b[B", "\x1bOB"}, {"k", "\x1b[A", "\x1bOA"}

#: Title, columns and rows of a table.
Table = tuple[str, Sequence[Column], list[list[Any]]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read at one moment."""

    snapshot: Snapshot
    #: For which it was read.
    view: str
    #: Read for their views alone; else empty.
    failures: tuple[FailureGroup, ...] = ()
    schedules: tuple[Upcoming, ...] = ()


class Monitor:
    """Which view is shown, what is chosen in it, and what was asked for and not done yet.

    The main thread changes it by keys; the reader's thread reads what the view needs, and does what was asked for, by
    the reader's connection. So a slow database never keeps the keyboard from being heard.
    """

    def __init__(self, view: str = VIEWS[0]) -> None:
        self.view = view
        #: The chosen row of the view, by what it is called, since rows move; None: the first one.
        self.chosen: str | None = None
        #: What a y would do: in words, and the call.
        self.question: tuple[str, Callable[[Cursor], str]] | None = None
        #: What was done last, or refused.
        self.said = ""
        self._asked: deque[Callable[[Cursor], str]] = deque()

    # --------------------------------------------------------------------------------------------- the reader's thread

    def read(self, cursor: Cursor, before: Seen | None) -> Seen:
        """Do what was asked for, and read what the view shows."""
        while self._asked:
            try:
                self.said = self._asked[0](cursor)
            except (psycopg.OperationalError, psycopg.InterfaceError):
                # Once PostgreSQL is back.
                raise
            except psycopg.Error as error:
                self.said = str(error).partition("\n")[0]
            self._asked.popleft()
        new = snapshot.snapshot(cursor, before.snapshot if before is not None else None)
        view = self.view
        return Seen(
            new,
            view,
            failures=tuple(store_monitor.failure_groups(cursor, limit=_FAILURES)) if view == "failures" else (),
            schedules=tuple(store_monitor.upcoming(cursor, limit=_SCHEDULES)) if view == "schedules" else (),
        )

    # --------------------------------------------------------------------------------------------- the main thread

    def press(self, keys: str, seen: Seen | None) -> bool:
        """Obey keys; return whether something has to be read or done."""
        read = False
        for key in _KEY.findall(keys):
            read |= self._press(key, seen)
        return read

    def _press(self, key: str, seen: Seen | None) -> bool:
        if self.question is not None:
            (_, call), self.question = self.question, None
            if key in ("y", "Y"):
                self._asked.append(call)
                return True
            self.said = ""
            return False
        if key in "12345" or key == "\t":
            number = (VIEWS.index(self.view) + 1) % len(VIEWS) if key == "\t" else int(key) - 1
            self.view, self.chosen, self.said = VIEWS[number], None, ""
            return True
        if self.view != "queues" or seen is None or not seen.snapshot.queues:
            return False
        names = [queue.queue for queue in queues_in_order(seen.snapshot)]
        at = names.index(self.chosen) if self.chosen in names else 0
        if key in _DOWN | _UP:
            self.chosen, self.said = names[max(0, min(at + (1 if key in _DOWN else -1), len(names) - 1))], ""
        elif key == "p":
            queue = next(queue for queue in seen.snapshot.queues if queue.queue == names[at])
            self.chosen = queue.queue
            self.question = _resumption(queue.queue) if queue.paused else _pausing(queue.queue)
        return False


def _pausing(queue: str) -> tuple[str, Callable[[Cursor], str]]:
    def pause(cursor: Cursor) -> str:
        lanes.pause(cursor, queue)
        return f"{queue}: paused"

    return f"Pause {queue}? Running tasks finish. y: yes, any other key: no", pause


def _resumption(queue: str) -> tuple[str, Callable[[Cursor], str]]:
    def resume(cursor: Cursor) -> str:
        lanes.resume(cursor, queue)
        return f"{queue}: resumed"

    return f"Resume {queue}? y: yes, any other key: no", resume


# ------------------------------------------------------------------------------------------------- tables

_WORKERS = (
    Column("Pool"),
    Column("No", right=True),
    Column("State"),
    Column("For", right=True),
    Column("Function"),
    Column("Pid", right=True, from_width=60),
    Column("Done", right=True, from_width=70),
    Column("Failed", right=True, from_width=70),
    Column("RC", right=True, from_width=90),
    Column("Up", right=True, from_width=100),
    Column("Host", from_width=100),
    Column("Task", from_width=150),
)
_FAILED = (
    Column("Times", right=True),
    Column("Last", right=True),
    Column("Function"),
    Column("Exception", from_width=50),
    Column("Message", from_width=70),
    Column("First", right=True, from_width=100),
    Column("Last id", from_width=140),
)
_SCHEDULED = (
    Column("Next", right=True),
    Column("Schedule"),
    Column("When"),
    Column("Last", from_width=50),
    Column("Function", from_width=100),
    Column("Error", from_width=60),
)
_STATES = {"working": "green", "idle": "cyan", "starting": "yellow", "leaving": "yellow", "restarting": "red"}


def queues_in_order(seen: Snapshot) -> list[Any]:
    """Return the queues, busy ones first: there may be many that have been idle for a while."""
    return sorted(seen.queues, key=lambda queue: (-(queue.ready + queue.running), queue.queue))


def workers_table(seen: Seen) -> Table:
    """Return each worker of each pool, with what it runs."""
    funcs = {task.id.hex: task.func for task in seen.snapshot.running}
    rows: list[list[Any]] = []
    for stat in (*seen.snapshot.pools, *seen.snapshot.silent):
        for process in stat.processes:
            shown = text(process.state, _STATES.get(process.state, "")) if stat.is_alive else state("Silent")
            task = process.task or ""
            rows.append(
                [
                    stat.name,
                    process.number,
                    shown,
                    span(process.seconds) if task else "",
                    text(funcs.get(task, ""), limit=100),
                    process.pid or "",
                    f"{process.succeeded:,}",
                    f"{process.failed:,}",
                    "-" if process.restarts is None else process.restarts,
                    clock(stat.uptime()),
                    stat.host,
                    task,
                ]
            )
    return "Workers", _WORKERS, rows


def failures_table(seen: Seen) -> Table:
    """Return the latest failures by function and exception."""
    number = sum(group.number for group in seen.failures)
    title = f"The latest {number:,} failures by function and exception"
    return (
        title,
        _FAILED,
        [
            [
                f"{group.number:,}",
                span(group.last),
                text(group.func, limit=100),
                text(group.exception.rpartition(".")[2], "red", limit=60),
                text(group.message or "", limit=120),
                span(group.first),
                group.id.hex,
            ]
            for group in seen.failures
        ],
    )


def schedules_table(seen: Seen) -> Table:
    """Return when schedules fire, those with errors first."""
    zone = get_settings().zone
    rows: list[list[Any]] = []
    for row in seen.schedules:
        due = "paused" if row.paused else "ended" if row.repeats == 0 or row.due is None else span(row.due)
        if not row.paused and row.due is not None and row.due < 0:
            due = f"-{span(-row.due)}"
        try:
            when = describe(Recurrence.of(row, zone))
        except ValueError as error:
            when = f"cannot be read: {error}"
        last = "" if row.ago is None else f"{'succeeded' if row.succeeded else 'failed'} {span(row.ago)} ago"
        rows.append(
            [
                text(due, "yellow" if row.paused else ""),
                text(row.name or row.id, limit=60),
                text(when, limit=100),
                text(last, "" if row.succeeded is not False else "red"),
                text(row.func, limit=100),
                text(row.error or "", "red", limit=200),
            ]
        )
    return "Schedules", _SCHEDULED, rows


def extra_json(view: str, seen: Seen) -> dict[str, Any]:
    """Return what a view shows besides the snapshot, for programs. Times are seconds."""
    if view == "failures":
        return {"failure_groups": [asdict(group) for group in seen.failures]}
    if view == "schedules":
        names = ("id", "name", "func", "paused", "error", "due", "succeeded", "ago")
        return {"schedules": [{name: getattr(row, name) for name in names} for row in seen.schedules]}
    return {}


# ------------------------------------------------------------------------------------------------- the screen


class Screen:
    """What fills a terminal of any size.

    Args:
        tables: The overview's, the most important first.
        summary: Says in a line how things are.
    """

    def __init__(
        self,
        out: Console,
        monitor: Monitor,
        tables: Callable[[Snapshot], list[Table]],
        summary: Callable[[Snapshot], str],
    ) -> None:
        self.out, self.monitor, self._tables, self._summary = out, monitor, tables, summary

    def tables(self, seen: Seen) -> list[Table]:
        """Return the tables of the view."""
        view = self.monitor.view
        if view == "overview":
            return self._tables(seen.snapshot)
        if view == "queues":
            return [table for table in self._tables(seen.snapshot) if table[0] == "Queues"]
        made = {"workers": workers_table, "failures": failures_table, "schedules": schedules_table}[view](seen)
        return [made]

    def heading(self, seen: Snapshot) -> str:
        """Say when it was read, and how things are."""
        return f"{timezone.localtime(seen.at):%H:%M:%S %Z}  {self._summary(seen)}"

    def page(self, seen: Seen) -> list[RenderableType]:
        """Return what is printed where there is no screen."""
        when = f"{timezone.localtime(seen.snapshot.at):%Y-%m-%d %H:%M:%S %Z}"
        tables = self.tables(seen)
        body = self.sections(tables, [_ROWS if self.monitor.view == "overview" else len(rows) for _, _, rows in tables])
        return [message(f"{when}  {self._summary(seen.snapshot)}", "bold"), *(body or [text(self._nothing())])]

    def render(self, seen: Seen | None, age: float, trouble: str | None) -> RenderableType:
        """Return what the screen shows.

        Args:
            seen: What was read last; None: nothing yet.
            age: Seconds since then.
            trouble: What is wrong with PostgreSQL; None: nothing.
        """
        from rich.console import Group

        head: list[RenderableType] = []
        if trouble is not None:
            head.append(text(trouble, "bold red"))
        if seen is None:
            return Group(*head, text("Waiting for PostgreSQL ...  q quits", "dim"))
        when = f"{timezone.localtime(seen.snapshot.at):%H:%M:%S %Z}"
        stale = f" ({span(age)} ago)" if trouble is not None else ""
        head.append(text(f"pgq {when}{stale}  {self._summary(seen.snapshot)}", "bold"))
        foot = self._foot()
        lines = self.out.height - len(head) - len(foot)
        tables = self.tables(seen)
        body = self.sections(tables, allot(lines, [len(rows) for _, _, rows in tables], overhead=2))
        if not body and self.monitor.view != "overview":
            # Right after the key, what the view needs is not there yet.
            body = [text(self._nothing() if seen.view == self.monitor.view else "Reading ...", "dim")]
        return Group(*head, *body, *foot)

    def _nothing(self) -> str:
        return {
            "overview": "There is nothing to show yet.",
            "queues": "There are no queues: nothing has been enqueued yet.",
            "workers": "No pool is running.",
            "failures": "There are no failures.",
            "schedules": "There are no schedules.",
        }[self.monitor.view]

    def _foot(self) -> list[RenderableType]:
        asks = self.monitor.question
        if asks is not None:
            return [text(asks[0], "bold yellow")]
        keys = "q quits  " + "  ".join(f"{number} {name}" for number, name in enumerate(VIEWS, 1))
        foot: list[RenderableType] = [text(self.monitor.said, "bold")] if self.monitor.said else []
        if self.monitor.view == "queues":
            keys = "q quits  ↑↓ choose  p pause or resume  1 overview  tab next view"
        elif self.monitor.view == "failures":
            foot.append(text("again: manage.py pgq_queues retry --func FUNCTION --exception '*.NAME'", "dim"))
        return [*foot, text(keys, "dim")]

    def sections(self, tables: Sequence[Table], allowed: Sequence[int]) -> list[RenderableType]:
        """Return the tables under their titles, of each so many rows."""
        made: list[RenderableType] = []
        for (title, columns, rows), most in zip(tables, allowed, strict=True):
            if not rows or not most:
                continue
            first = self._first(title, rows, most)
            shown = rows[first : first + most]
            more = f" ({len(shown)} of {len(rows)})" if len(shown) < len(rows) else ""
            made += [text(f"{title}{more}", "bold cyan"), table(self.out, columns, self._marked(title, shown))]
        return made

    def _first(self, title: str, rows: list[list[Any]], most: int) -> int:
        """Return the row to begin with, so that the chosen one is seen."""
        if title != "Queues" or self.monitor.view != "queues":
            return 0
        names = [row[0] for row in rows]
        at = names.index(self.monitor.chosen) if self.monitor.chosen in names else 0
        return max(0, at - most + 1)

    def _marked(self, title: str, rows: list[list[Any]]) -> list[list[Any]]:
        """Mark the chosen queue, where one can be chosen: on a screen."""
        if title != "Queues" or self.monitor.view != "queues" or not self.out.is_interactive:
            return rows
        chosen = self.monitor.chosen if self.monitor.chosen in [row[0] for row in rows] else rows[0][0]
        return [[text(f"> {row[0]}", "reverse") if row[0] == chosen else text(f"  {row[0]}"), *row[1:]] for row in rows]
