"""manage.py pgq_info: a summary, the settings, or the ids of the pools."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandParser

from pgq import __version__, conf, status
from pgq.conf import asked, at, get_settings
from pgq.management.command import PgqCommand, explain, refusals
from pgq.management.output import Column, emit, message, span, table, text, visible
from pgq.status import databases, snapshot
from pgq.store import overview
from pgq.store.caller import callers_cursor

_DAY = 86_400.0
_COUNT_LIMIT = 100_000


class Command(PgqCommand):
    help = (
        "Prints a summary: pools, workers, live tasks by state, results, schedules, throughput. Counts of big tables "
        "are PostgreSQL's estimates, marked with ~."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument(
            "--config", action="store_true", help="print the version and each setting, and whether it was set"
        )
        what.add_argument("--ids", action="store_true", help="print the ids of the running pools, one on each line")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["config"]:
            # Needs no database, and shows wrong settings instead of stumbling over them.
            with refusals():
                self._config(options)
        else:
            super().handle(*args, **options)

    def run(self, options: dict[str, Any]) -> None:
        if options["ids"]:
            self._ids(options)
        elif len(asked()) > 1:
            self._summaries(options)
        else:
            self._summary(options, self.print_json)

    # --- settings

    def _config(self, options: dict[str, Any]) -> None:
        setting, given = conf.source()
        values, problems = conf.read(setting, given)[0], conf.problems()
        defaults = conf.Settings()
        wrong = {conf.ALIASES.get(problem.key, problem.key): problem for problem in problems}
        rows = []
        for item in dataclasses.fields(conf.Settings):
            value = values.get(item.name, getattr(defaults, item.name))
            if item.name == "error_reporter":
                # Keys of services: not for a terminal that others see, nor for a log.
                value = dict.fromkeys(value, "...")
            elif item.name == "api_tokens":
                value = {token.name: sorted(token.scopes) for token in value.values()}
            elif item.name == "schedules" and not isinstance(value, str):
                # Their arguments may be as secret; pgq_schedules shows what is known of each.
                value = [each.get("name") if isinstance(each, dict) else getattr(each, "name", None) for each in value]
            rows.append((item.name, value, item.name in values))
        if options["json"]:
            self.print_json(
                {
                    "version": __version__,
                    "source": setting,
                    "settings": {name: {"value": value, "set": was_set} for name, value, was_set in rows},
                    "problems": [{"key": item.key, "message": f"{item.message} {item.hint}"} for item in problems],
                }
            )
            return
        out = self.console(options)
        emit(out, text(f"pgq {__version__}, settings.{setting}", "bold"))
        cells = [
            (
                text(name, "bold" if was_set else ""),
                text(repr(value), limit=200),
                text(
                    "wrong, see below" if name in wrong else "set" if was_set else "default",
                    "red" if name in wrong else "",
                ),
            )
            for name, value, was_set in rows
        ]
        emit(out, table(out, [Column("Setting"), Column("Value"), Column("")], cells))
        for problem in problems:
            emit(out, message(f"{problem.message} {problem.hint}", "red" if problem.serious else "yellow"))

    # --- ids

    def _ids(self, options: dict[str, Any]) -> None:
        found = [str(stat.cluster_id) for stat in status.Stat.get_all()]
        if options["json"]:
            self.print_json(found)
        elif found:
            for id in found:
                self.stdout.write(id)
        else:
            self.stdout.write("No pools appear to be running.")

    # --- summary

    def _summaries(self, options: dict[str, Any]) -> None:
        # First which of them answer, since Django's own connections may wait for long.
        answers = databases.look(lambda alias, cursor: overview.now(cursor), "pgq info")
        shown: list[dict[str, Any]] = []
        for alias, answer in answers.items():
            if isinstance(answer, databases.Away):
                shown.append({"database": alias, "away": explain(answer.error)})
                if not options["json"]:
                    emit(self.console(options), message(f"{alias}: {shown[-1]['away']}", "bold red"))
                continue
            with at(alias):
                self.settings = get_settings()
                self._summary(options, shown.append)
        if options["json"]:
            self.print_json({"databases": shown})
        if any("away" in each for each in shown):
            raise SystemExit(1)

    def _summary(self, options: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> None:
        stats = status.Stat.get_all()
        with callers_cursor(self.settings.database) as cursor:
            queued = snapshot.queued(cursor, limit=_COUNT_LIMIT)
            finished = snapshot.finished(cursor, limit=_COUNT_LIMIT)
            throughput = snapshot.throughput(cursor)
            schedules, active, faulty = overview.schedule_counts(cursor)
        workers = sum(len(stat.workers) for stat in stats)
        counted = [process.restarts for stat in stats for process in stat.processes if process.restarts is not None]
        restarts = sum(counted) if counted else None
        number, per = _per(throughput.rate)
        if options["json"]:
            tell(
                {
                    "version": __version__,
                    "name": self.settings.name,
                    "database": self.settings.database,
                    "pools": len(stats),
                    "workers": workers,
                    "restarts": restarts,
                    "queued": {state: getattr(queued, state) for state in ("ready", "running", "waiting", "parked")},
                    "successes": finished.successes,
                    "failures": finished.failures,
                    "schedules": {"all": schedules, "active": active, "faulty": faulty},
                    "tasks_per_second": round(throughput.rate, 6),
                    "average_seconds": throughput.average,
                }
            )
            return
        out = self.console(options)
        emit(out, text(f"pgq {__version__}: {self.settings.name} on the database {self.settings.database!r}", "bold"))
        rows = [
            ("Pools", len(stats), "Workers", workers, "Restarts", "-" if restarts is None else restarts),
            ("Queued", queued.total, "Ready", queued.ready, "Running", queued.running),
            ("", "", "Waiting", queued.waiting, "Parked", _alarm(queued.parked)),
            ("Results", "", "Successes", finished.successes, "Failures", _alarm(finished.failures)),
            ("Schedules", schedules, "Active", active, "With errors", _alarm(snapshot.Count(faulty))),
            (f"Tasks/{per}", number, "Avg time", _short(throughput.average), "", ""),
        ]
        columns = [Column("", right=index % 2 == 1) for index in range(6)]
        grid = table(out, columns, [[_cell(value, index) for index, value in enumerate(row)] for row in rows])
        grid.show_header = False
        emit(out, grid)
        if not stats:
            emit(
                out,
                message(
                    "No pool is running: nothing is claimed until one is. Start one: manage.py pgq_worker", "yellow"
                ),
            )
        if queued.parked.number:
            emit(out, message("Parked tasks cannot run as they are; the column pgq_queue.parked says why.", "yellow"))
        if faulty:
            emit(out, message("Some schedules could not be fired. See: manage.py pgq_schedules", "yellow"))


def _cell(value: Any, index: int) -> Any:
    from rich.text import Text

    if isinstance(value, Text):
        return value
    shown = f"{value:,}" if isinstance(value, int) else visible(value)
    return text(shown, "cyan" if index % 2 == 0 else "")


def _alarm(count: snapshot.Count) -> Any:
    return text(count, "red" if count.number else "")


def _short(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.4f} s" if seconds < 1 else span(seconds)


def _per(rate: float) -> tuple[str, str]:
    """Return a number of tasks and its unit, the smallest that gives more than one."""
    for seconds, unit in ((1, "second"), (60, "minute"), (3600, "hour")):
        if rate * seconds > 1:
            return f"{rate * seconds:,.2f}", unit
    return f"{rate * _DAY:,.2f}", "day"
