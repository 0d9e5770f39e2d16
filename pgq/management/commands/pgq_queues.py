"""manage.py pgq_queues: list, pause and resume queues; cancel, retry and move all tasks that match."""

from __future__ import annotations

import argparse
import contextlib
import functools
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.dateparse import parse_datetime

from pgq.conf import Queues, asked, at, database_of, get_settings, places
from pgq.conf.databases import chosen
from pgq.conf.queues import are_named
from pgq.enqueue.make import check_text
from pgq.errors import EnqueueError
from pgq.management.command import EXIT_CODES, PgqCommand
from pgq.management.output import Column, emit, message, span, table, text, visible
from pgq.recurrence import moments
from pgq.recurrence.moments import aware
from pgq.status import Stat
from pgq.status.snapshot import queue_depths
from pgq.store import lanes
from pgq.store import pools as store_pools
from pgq.store.caller import callers_cursor
from pgq.store.overview import QueueDepth
from pgq.tasks import bulk
from pgq.tasks.bulk import TaskFilter, Treated

_FILTERS = ("queue", "func", "group", "exception", "state", "since", "until")
_ACTIONS = ("list", "pause", "resume", "cancel", "retry", "move")
#: Of what is done to all tasks that match: how it is done, to which states if none is given, and which others may be.
_DEEDS: dict[str, tuple[Callable[..., Treated], tuple[str, ...], tuple[str, ...]]] = {
    "cancel": (bulk.cancel_matching, (bulk.READY, bulk.WAITING, bulk.PARKED), bulk.CANCELLABLE),
    "retry": (bulk.retry_matching, (bulk.FAILED,), bulk.RETRIABLE),
    "move": (bulk.move_matching, bulk.MOVABLE, bulk.MOVABLE),
}
_PAST = {"cancel": "cancelled", "retry": "retried", "move": "moved"}


class Command(PgqCommand):
    help = (
        "Lists queues, pauses and resumes the ones named, and cancels, retries or moves all tasks that match, 500 in a "
        "transaction. In names, * stands for any characters."
    )
    exit_codes = {**EXIT_CODES, 1: "nothing was done: one line on stderr says why"}

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "action",
            nargs="?",
            default="list",
            choices=_ACTIONS,
            help="list (default); pause: claim from these queues no more, what runs finishes; resume; cancel: tasks "
            "that match, of any queue; retry: run failed tasks that match again, or release parked and waiting ones; "
            "move: put tasks that match into another queue, behind what is there; --to names it",
        )
        parser.add_argument("name", nargs="*", help="queues, for list, pause and resume")
        parser.add_argument("--all", action="store_true", help="all queues, or all tasks of the states given")
        which = parser.add_argument_group("which tasks, for cancel, retry and move; all that is given must hold")
        which.add_argument("--queue", help="its queue")
        which.add_argument("--func", help="dotted path of its function")
        which.add_argument("--group", help="its group")
        which.add_argument(
            "--exception",
            help="dotted path of the exception it failed with; without it, tasks that were cancelled are left alone",
        )
        which.add_argument(
            "--state",
            action="append",
            choices=sorted({*bulk.CANCELLABLE, *bulk.RETRIABLE}),
            help="may be given more than once (default: cancel and move take ready, waiting and parked; retry failed)",
        )
        which.add_argument(
            "--since",
            type=_moment,
            metavar="WHEN",
            help="enqueued since then, or failed: an age such as 30m, 2h, 7d, or a time as 2026-01-31T08:00",
        )
        which.add_argument("--until", type=_moment, metavar="WHEN", help="enqueued, or failed, before then")
        which.add_argument("--limit", type=_number, metavar="N", help="treat no more than N")
        which.add_argument("--to", metavar="QUEUE", help="the queue to move them to")
        parser.add_argument("--dry-run", action="store_true", help="only say how many match")
        parser.add_argument(
            "--no-input",
            "--noinput",
            action="store_false",
            dest="interactive",
            help="do not ask before cancel, retry and move",
        )
        self.add_json(parser)

    def run(self, options: dict[str, Any]) -> None:
        action, named = options["action"], options["name"]
        filtered = [name for name in _FILTERS if options[name] is not None]
        if (options["to"] is not None) != (action == "move"):
            reason = (
                "move: say where, by --to QUEUE." if action == "move" else f"--to goes with move, not with {action}."
            )
            raise CommandError(reason, returncode=2)
        if action in _DEEDS:
            if named:
                raise CommandError(f"{action} takes no names: say --queue {visible(named[0])}.", returncode=2)
            if not set(filtered) - {"state"} and not options["all"]:
                raise CommandError(
                    f"{action}: say which tasks: by --queue, --func, --group, --exception, --since, --until; or --all.",
                    returncode=2,
                )
            # A task can go only to a queue of its own database.
            with at(database_of(options["to"])) if action == "move" else contextlib.nullcontext():
                self._bulk(action, options)
            return
        misplaced = filtered + [name for name in ("dry_run", "limit") if options[name]]
        if misplaced:
            option = misplaced[0].replace("_", "-")
            raise CommandError(
                f"--{option} goes with cancel, retry and move; {action} takes names of queues.", returncode=2
            )
        known = _look(named)
        if action == "list":
            self._list(known, options)
            return
        if bool(named) == options["all"]:
            raise CommandError(f"{action}: name queues, or say --all.", returncode=2)
        self._switch(action, [*known, *self._new(named, known)], options)

    # --------------------------------------------------------------------------------------------- queues

    def _new(self, named: list[str], known: list[_Queues]) -> list[_Queues]:
        """Return those that a schedule names, and to which nothing was enqueued yet.

        Raises:
            CommandError: A name fits no queue: a slip, which must not look as if a queue were paused now.
        """
        missing = [
            name for name in named if not any(are_named(queue.queue, [name]) for one in known for queue in one.queues)
        ]
        wrong = [name for name in missing if "*" in name]
        new = []
        for name in missing:
            alias = chosen() or database_of(name)
            with callers_cursor(alias) as cursor:
                wrong += lanes.unused_queues(cursor, [name])
            new.append(_Queues(alias, [QueueDepth(name, 0, False, None, 0, 0, 0, False)], []))
        if wrong:
            raise CommandError(f"There is no queue {visible(wrong[0])!r}; manage.py pgq_queues lists them.")
        return new

    def _switch(self, action: str, known: list[_Queues], options: dict[str, Any]) -> None:
        pausing = action == "pause"
        words = {(True, True): "was paused before", (True, False): "paused", (False, True): "resumed"}
        done = []
        for place in known:
            for queue in place.queues:
                with callers_cursor(place.alias) as cursor:
                    (lanes.pause if pausing else lanes.resume)(cursor, queue.queue)
                said = words.get((pausing, queue.paused), "was not paused")
                if said in ("paused", "resumed"):
                    self.tell(action, f"{said} queue {queue.queue!r}", queue.queue, queue=queue.queue)
                done.append({"queue": queue.queue, **_where(place), "done": said})
        if options["json"]:
            self.print_json(done)
            return
        out = self.console(options)
        for item in done:
            where = f" ({item['database']})" if "database" in item else ""
            emit(out, message(f"{item['queue']}{where}: {item['done']}"))
        if not done:
            emit(out, text("There are no queues."))

    def _list(self, known: list[_Queues], options: dict[str, Any]) -> None:
        if options["json"]:
            self.print_json([as_json(queue, place) for place in known for queue in place.queues])
            return
        out = self.console(options)
        rows = [_row(queue, place) for place in known for queue in place.queues]
        if not rows:
            emit(out, text("There are no queues: nothing has been enqueued yet."))
            return
        columns = _COLUMNS if len(asked()) == 1 else (*_COLUMNS, Column("Database"))
        emit(out, table(out, columns, rows))

    # --------------------------------------------------------------------------------------------- tasks

    def _bulk(self, action: str, options: dict[str, Any]) -> None:
        do, usual, allowed = _DEEDS[action]
        states = options["state"] or list(usual)
        try:
            which = TaskFilter(
                states=tuple(states),
                **{name: options[name] for name in _FILTERS if name != "state"},
            )
            wrong = [state for state in states if state not in allowed]
            if wrong:
                raise ValueError(f"state: {action} takes {', '.join(allowed)}, not {wrong[0]}")
            if action == "move":
                check_text("to", options["to"])
                do = functools.partial(do, queue=options["to"])
        except (ValueError, EnqueueError) as error:
            raise CommandError(f"--{error}", returncode=2) from None
        begun = time.monotonic()
        with self._progress(options) as progress:
            if options["dry_run"] or self._asks(options):
                treated = bulk.count(which, most=options["limit"], progress=progress)
        if not options["dry_run"]:
            if self._asks(options) and not self._confirmed(action, treated):
                raise CommandError("Nothing was done.")
            with self._progress(options) as progress:
                treated = do(which, limit=options["limit"], progress=progress)
            self._tell(action, treated, options)
        self._report(action, treated, time.monotonic() - begun, options)

    def _tell(self, action: str, treated: Treated, options: dict[str, Any]) -> None:
        given = {name: options[name] for name in (*_FILTERS, "to") if options[name] is not None}
        shown = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in given.items()}
        done = {**treated.done, "skipped": treated.skipped, "referenced": treated.referenced}
        self.tell(f"{action}_all", f"{action} of {shown or 'all'}: {done}", filter=shown, done=done)

    def _asks(self, options: dict[str, Any]) -> bool:
        return bool(options["interactive"] and not options["json"] and not options["dry_run"] and sys.stdin.isatty())

    def _confirmed(self, action: str, seen: Treated) -> bool:
        if not seen.matched:
            return True
        return input(f"{action.capitalize()} {_tasks(seen)}? [y/N] ").strip().lower() in ("y", "yes")

    @contextlib.contextmanager
    def _progress(self, options: dict[str, Any]) -> Iterator[bulk.Progress]:
        out = None if options["json"] or options["verbosity"] == 0 else self.console(options)
        if out is None or not out.is_interactive:
            yield lambda looked, matched: None
            return
        with out.status("Looking") as status:
            yield lambda looked, matched: status.update(f"{matched:,} of {looked:,} tasks match")

    def _report(self, action: str, treated: Treated, seconds: float, options: dict[str, Any]) -> None:
        if options["json"]:
            self.print_json(
                {
                    "action": action,
                    "dry_run": options["dry_run"],
                    "matched": treated.matched,
                    "more": treated.more,
                    "done": dict(treated.done),
                    "skipped": treated.skipped,
                    "referenced": treated.referenced,
                    "seconds": round(seconds, 3),
                }
            )
            return
        if options["verbosity"] == 0:
            return
        out = self.console(options)
        if options["dry_run"]:
            emit(out, text(f"{_tasks(treated)} would be {_PAST[action]} (looked for {span(seconds)}).", "bold"))
            return
        done = ", ".join(f"{number:,} {what}" for what, number in treated.done.most_common()) or "nothing to do"
        emit(out, text(f"{_tasks(treated)} matched: {done}, in {span(seconds)}.", "bold"))
        if treated.skipped:
            emit(out, message(f"{treated.skipped:,} had changed by then, and were left as they were.", "yellow"))
        if treated.referenced:
            stay = f"{treated.referenced:,} stay as they are, since a row of another table refers to them."
            emit(out, message(stay, "yellow"))
        if treated.more:
            emit(out, message(f"There are more: --limit {options['limit']} was reached.", "yellow"))


_COLUMNS = (
    Column("Queue"),
    Column("Ready", right=True),
    Column("Running", right=True),
    Column("Oldest", right=True),
    Column("State"),
    Column("Pools", from_width=60),
)


@dataclass(frozen=True, slots=True)
class _Queues:
    """Queues of one database, and the pools that run there."""

    alias: str
    queues: list[QueueDepth]
    pools: list[Stat]


def _look(named: list[str]) -> list[_Queues]:
    """Return the queues of each database that are meant; no names: all."""

    def look_here() -> _Queues:
        alias = get_settings().database
        with callers_cursor(alias) as cursor:
            pools = [stat for stat in map(Stat.of, store_pools.pools(cursor)) if stat.is_alive]
            found = queue_depths(cursor)
        return _Queues(
            alias,
            [queue for queue in found if not named or are_named(queue.queue, named)],
            pools,
        )

    return places.each(look_here)


def _where(place: _Queues) -> dict[str, str]:
    return {} if len(asked()) == 1 else {"database": place.alias}


def _servers(queue: str, place: _Queues) -> list[Stat]:
    return [pool for pool in place.pools if Queues(pool.queues, pool.exclude_queues).serves(queue)]


def _row(queue: QueueDepth, place: _Queues) -> list[Any]:
    serving = _servers(queue.queue, place)
    row = [
        queue.queue,
        f"{queue.ready:,}{'+' if queue.more else ''}",
        f"{queue.running:,}",
        span(queue.oldest),
        text("paused", "yellow") if queue.paused else text("open", "dim"),
        ", ".join(sorted({pool.name for pool in serving}))
        if serving
        else text("no pool serves it", "red" if queue.ready else "dim"),
    ]
    return [*row, *_where(place).values()]


def as_json(queue: QueueDepth, place: _Queues) -> dict[str, Any]:
    """Return what is known of a queue, for programs. Times are seconds."""
    return {
        "queue": queue.queue,
        **_where(place),
        "ready": queue.ready,
        "more": queue.more,
        "running": queue.running,
        "oldest": queue.oldest,
        "paused": queue.paused,
        "pools": [str(pool.cluster_id) for pool in _servers(queue.queue, place)],
    }


def _tasks(seen: Treated) -> str:
    return f"{seen.matched:,}{'+' if seen.more else ''} task{'' if seen.matched == 1 else 's'}"


_AGE = re.compile(r"(\d{1,9})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _moment(value: str) -> datetime:
    age = _AGE.fullmatch(value)
    try:
        if age is not None:
            return moments.now() - timedelta(**{_UNITS[age[2]]: int(age[1])})
        moment = parse_datetime(value)
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise argparse.ArgumentTypeError(f"{value!r} is neither an age (30m, 2h, 7d) nor a time (2026-01-31T08:00)")
    return aware(moment)


def _number(value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number, 1 or more")
    return int(value)
