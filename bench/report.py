"""Makes the report of a run: Markdown, plots, and the numbers as JSON. It measures nothing."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import charts, goals, measure
from bench.charts import Bar, Row
from bench.course import Course
from bench.growth import Growth
from bench.systems.base import KEYS, ROOT, System
from bench.tables import table as _table

#: Drains are compared with so many workers, if nothing else is said.
USUAL = 2
Measured = dict[str, Any]
#: The drains under limits.
LIMITS = {
    "one-key": "one key, 1 at a time",
    "keys": f"{KEYS:,} keys, 2 at a time of each",
    "rated": f"at most {System.per_second} a second",
}


TOP = """\
# Benchmarks

Edit nothing here by hand: each command that is named writes its part anew, from what it has measured.
"""

METHOD = """\
## How it is measured

* Each cell runs in a database of its own, copied from a template that holds the system's tables and nothing else, so
  no cell suffers from what others left. No checkpoint falls into a cell.
* Each system has a virtualenv of its own. Producers and workers are real processes. The harness only looks on: it
  counts finished tasks in the system's own tables (for 5 % of the time at most), and reads /proc and pg_stat_*.
* Drains take about the same time for all: the number of tasks follows from the rounds before. The tables are vacuumed
  and analysed after the enqueue. The start of the workers does not count.
* Rounds are interleaved cell by cell, and each begins with another system.
* The floor is pgq's own claim and settle in a psycopg loop with nothing around it: no codec, signatures, functions,
  supervisor or upkeep. It makes the same transactions, of 512 tasks, and the same rows. pgq's claims are sized by time:
  on a machine that does other work as well they shrink, so the processor time says more there than the rate.
* Systems on Redis are there for orientation: this Redis keeps everything in memory only, and they cannot enqueue in a
  transaction of PostgreSQL.
* Killed: a worker that is busy with a task gets SIGKILL, and the time counts from then until the first line of the
  function is reached again. Only pgq has this cell: most others wait for a timeout of minutes, by design.
* pgq stores the result of every task. Where a system stores none, only its state is kept.
* What pgq's enqueue (one by one) does beside the prepared INSERT, by profile: it checks and encodes the call, makes the
  id and the signature (8 µs in a row, 30 µs between two waits for the server, with cold caches), finds Django's
  connection and a cursor (10 µs). In a transaction, and in the first five of a connection, the server parses and plans
  the statement each time as well (60 to 80 µs).
* What a worker does beside the bare loop for a no-op task, by profile: it checks the signature, reads the arguments,
  runs the function under its guards, glances at the process afterwards and writes the report (10 µs of Python in a
  row); the rest up to the table's difference is supervisor, upkeep and the cold caches of processes that take turns.
* Of tasks of 1 ms pgq claims as many as run in 50 ms (`claim_ms`) and settles each within 50 ms (`settle_ms`), so 16 to
  32 at a time; systems that claim 100 or 200 have fewer transactions, and more tasks wait behind a slow one. With four
  workers on two processors such a task takes 2 to 3 ms, and 8 or 16 are claimed. By profile they then spend 64 % of
  their time in the tasks, 20 % claiming and settling (most of that is waiting) and 7 % looking at what a task left in
  the process: whether it took long by itself or made way for others, nobody knows.
* One machine runs all of it, so what a system takes for its workers is missing for its server. With one commit for
  each task, the disk decides; a bare INSERT says how fast it is."""


class Places(NamedTuple):
    """Where a report goes."""

    results: Path
    #: Of `bench.scaling`, which has a section of the same report.
    scaling: Path
    #: Of `bench.steady`, likewise.
    steady: Path
    report: Path
    images: Path


class Spread(NamedTuple):
    """A median and the range around it."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        known = [value for value in values if value is not None]
        return cls(statistics.median(known), min(known), max(known), len(known)) if known else None

    @property
    def bar(self) -> Bar:
        return Bar(self.median, self.low, self.high) if self.count > 1 else Bar(self.median)


def places(folder: Path | None) -> Places:
    bench, docs = (ROOT / "bench", ROOT / "docs" / "explain") if folder is None else (folder, folder)
    return Places(
        bench / "results.json", bench / "scaling.json", bench / "steady.json", docs / "benchmarks.md", docs / "images"
    )


def write(results: dict[str, Any], places: Places) -> None:
    """Write the numbers of a run and the report; the old report stands until the new one is complete."""
    _write(places, places.results, dump(results))


def write_scaling(results: dict[str, Any], places: Places) -> None:
    """The same for a run of `bench.scaling`."""
    _write(places, places.scaling, dump(results))


def write_steady(results: dict[str, Any], places: Places) -> None:
    """The same for the runs of `bench.steady`."""
    _write(places, places.steady, json.dumps(results, indent=1) + "\n")


def _write(places: Places, kept: Path, numbers: str) -> None:
    # From the numbers as they are kept, so that the report can be made again from them; what the other runs have left
    # stays in it.
    texts, images, judged = [], {}, []
    for path, section, judge in (
        (places.results, Report, goals.of_systems),
        (places.scaling, Growth, goals.of_growth),
        (places.steady, Course, goals.of_course),
    ):
        text = numbers if path == kept else path.read_text() if path.exists() else None
        if text is not None:
            made = section(json.loads(text))
            texts.append(made.text())
            images |= made.images()
            judged += judge(made)
    parts = [part for part in (TOP, goals.section(judged), *texts) if part]
    for folder in (kept.parent, places.report.parent, places.images):
        folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(numbers)
    for name, image in images.items():
        (places.images / name).write_text(image)
    places.report.write_text("\n".join(parts))


def dump(results: dict[str, Any]) -> str:
    """Return JSON with one measurement a line, so that two runs can be compared by diff."""
    head = json.dumps({key: value for key, value in results.items() if key != "measured"}, indent=1)
    lines = ",\n".join(json.dumps(_rounded(one)) for one in results["measured"])
    return head.removesuffix("\n}") + ',\n "measured": [\n' + lines + "\n]}\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


class Report:
    """The text and the plots of one run."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.results = results
        self.measured: list[Measured] = results["measured"]
        self.names = [name for name, about in results["systems"].items() if "skipped" not in about]
        # Partial runs have fewer workers; the comparison is with the most that all have.
        workers = results["plan"]["workers"]
        self.workers = USUAL if USUAL in workers else max(workers)

    # ------------------------------------------------------------------------------------------- numbers

    def spread(self, system: str, number: str, **where: Any) -> Spread | None:
        """Return the median and the range of a number over the rounds."""
        return Spread.of(
            one.get(number)
            for one in self.measured
            if one["system"] == system and "error" not in one and all(one.get(key) == is_ for key, is_ in where.items())
        )

    def drained(self, system: str, kind: str = "noop", workers: int | None = None) -> Spread | None:
        return self.spread(system, "rate", cell="drain", kind=kind, workers=workers or self.workers)

    def cost(self, system: str, number: str) -> Spread | None:
        return self.spread(system, number, cell="drain", kind="noop", workers=self.workers)

    def enqueued(self, system: str, way: str) -> Spread | None:
        return self.spread(system, "rate", cell="enqueue", way=way)

    def beside(self, way: str) -> Spread | None:
        """Return what part of the bare statement's rate pgq reached, in turns with it."""
        return self.spread("pgq", "share", cell="side by side", way=way)

    def processor_time(self, system: str) -> float | None:
        """Return the microseconds of a no-op task, in workers and server together."""
        parts = [self.cost(system, key) for key in ("client_us", "server_us")]
        return sum(part.median for part in parts if part) if all(parts) else None

    def memory(self, system: str, workers: int) -> Spread | None:
        """Return the bytes of a pool of so many workers."""
        return self.spread(system, "pss_bytes", cell="drain", kind="noop", workers=workers)

    def memory_of_each(self, system: str) -> float | None:
        """Return the MiB that each worker adds to the smallest pool."""
        few, most = min(self.results["plan"]["workers"]), max(self.results["plan"]["workers"])
        small, large = self.memory(system, few), self.memory(system, most)
        return (large.median - small.median) / (most - few) / 2**20 if small and large and most > few else None

    def latencies(self, system: str, *, idle: bool) -> list[float]:
        """Return the samples of all rounds, sorted."""
        return sorted(
            sample
            for one in self.measured
            if one["system"] == system and one["cell"] == "pick-up" and one.get("load", 0) is not None
            if "error" not in one and (one["load"] == 0) == idle
            for sample in one["samples"]
        )

    # ------------------------------------------------------------------------------------------- text

    def text(self) -> str:
        parts = (
            self._head(),
            self._drains(),
            self.limited()._limited(),
            self._enqueues(),
            self._pick_ups(),
            self._costs(),
            self._standing_costs(),
            self._systems(),
            self._method(),
        )
        return "\n\n".join(part for part in parts if part) + "\n"

    def _head(self) -> str:
        machine, plan = self.results["machine"], self.results["plan"]
        settings = ", ".join(f"`{key}` {value}" for key, value in machine["settings"].items())
        rounds = max((one["round"] for one in self.measured), default=0)
        return (
            "## Side by side\n\nMade by `make bench`. All systems were measured in the same run, in "
            f"{rounds} interleaved round{'s' if rounds != 1 else ''}. Numbers are medians over the rounds, with the "
            "range in brackets where there is more than one.\n\n"
            f"* {measure.minute(self.results['when'])}, {self.results['seconds'] / 60:.0f} minutes; load of "
            f"the machine before {machine['load_before']:.1f}, at the end {machine['load']:.1f}\n"
            f"* {machine['processors']} processors ({machine['processor']}) for workers, producers and server, "
            f"{machine['memory_gib']} GiB\n"
            f"* PostgreSQL {machine['postgresql']}, Python {machine['python']}; {settings}\n"
            f"* pools of {', '.join(map(str, plan['workers']))} workers; if nothing else is said, {self.workers}"
        )

    def _drains(self) -> str:
        workers = self.results["plan"]["workers"]
        parts = ["## Drain\n\nTasks a second, from the first tenth of the tasks until the last has its result."]
        if self._drain_rows():
            parts.append("![Drain of no-op tasks](images/bench-drain.svg)")
        titles = {"noop": "no-op", "cpu": "1 ms of processor time", "sleep": "10 ms of sleep"}
        for kind in self.results["plan"]["kinds"]:
            header = (titles[kind], *(f"{n} worker{'s' if n > 1 else ''}" for n in workers), "pgq is")
            ours = self.drained("pgq", kind)
            rows = []
            for name in self.names:
                found = [self.drained(name, kind, n) for n in workers]
                if any(found):
                    rows.append((name, *map(_rate, found), _ratio(ours, self.drained(name, kind))))
            if rows:
                parts.append(_table(header, rows))
        parts.append(
            '"pgq is": with the usual number of workers, so many times as fast. 10 ms of sleep say how many tasks a '
            "worker has in hand: event loops and threads wait for many at once, a process for one."
        )
        return "\n\n".join(parts)

    def limited(self) -> Report:
        """Return the run that has drained under limits: this one, or a later one of nothing else."""
        return Report(self.results["limited"]) if "limited" in self.results else self

    def _limited(self) -> str:
        """Return the section of drains under limits, with the usual number of workers; "": there are none."""
        kinds = [kind for kind in LIMITS if kind in self.results["plan"].get("limited", ())]
        rows = []
        for name in self.names:
            found = [self.drained(name, kind) for kind in kinds]
            if any(found):
                rows.append((name, *map(_rate, found), _ratio(self.drained("pgq", "one-key"), found[0])))
        if not rows:
            return ""
        machine, rounds = self.results["machine"], max(one["round"] for one in self.measured)
        plain, by_one = self.drained("pgq"), self.drained("pgq", workers=1)
        one = f", one worker {_rate(by_one)}. With one key one worker runs at a time" if by_one else ""
        without = f"Without a limit pgq drained {_rate(plain)} in the same run{one}. " if plain else ""
        return (
            f"## Limits\n\nDrains of no-op tasks under limits, {self.workers} workers, {rounds} interleaved rounds of"
            f" one run: {measure.minute(self.results['when'])}, {self.results['seconds'] / 60:.0f} minutes; load of the"
            f" machine before {machine['load_before']:.1f}, at the end {machine['load']:.1f}.\n\n"
            "![Drains under limits](images/bench-limited.svg)\n\n"
            + _table(("tasks a second", *(LIMITS[kind] for kind in kinds), "with one key pgq is"), rows)
            + f"\n\n{without}procrastinate's `lock` is of one at a time, also of its keys. Nothing: there is no such"
            " limit. Of the rate a second's worth may start at once."
        )

    def _enqueues(self) -> str:
        ours_one, ours_many = self.enqueued("pgq", "one"), self.enqueued("pgq", "many")
        rows = []
        for name in self.names:
            one, many = self.enqueued(name, "one"), self.enqueued(name, "many")
            if name == "floor":
                rows.append(("bare INSERT", _rate(one), _ratio(ours_one, one), "", ""))
                copy = self.enqueued(name, "copy")
                rows.append(("bare COPY", "", "", _rate(copy), _ratio(ours_many, copy)))
            elif one or many:
                rows.append((name, _rate(one), _ratio(ours_one, one), _rate(many), _ratio(ours_many, many)))
        if not rows:
            return ""
        table = _table(("", "one by one", "pgq is", "many", "pgq is"), rows)
        picture = "![Enqueue](images/bench-enqueue.svg)\n\n"
        beside = self._in_turns()
        return f"## Enqueue\n\nTasks a second of one client; one by one, each is committed.\n\n{picture}{table}{beside}"

    def _in_turns(self) -> str:
        said = []
        for way, what in (("one", "one by one"), ("many", "many")):
            if share := self.beside(way):
                said.append(f"{what} {share.median:.0%} ({share.low:.0%} to {share.high:.0%})")
        if not said:
            return ""
        about = "In turns of a fifth of a second with the bare statement, since disks change their pace"
        return f"\n\n{about}: {', '.join(said)}."

    def _pick_ups(self) -> str:
        rows = []
        for one in self.measured:
            if one["cell"] == "notify":
                rows.append(("bare NOTIFY, round trip", *_milliseconds(one["milliseconds"]), str(one["count"])))
                break
        for name in self.names:
            idle, busy = self.latencies(name, idle=True), self.latencies(name, idle=False)
            if idle:
                load = self.spread(name, "offered", cell="pick-up")
                missing = sum(one.get("missing", 0) for one in self.measured if one["system"] == name)
                backlog = self.spread(name, "backlog", cell="pick-up")
                behind = backlog is not None and load is not None and backlog.median > load.median / 2
                note = (f"; {missing} never came" if missing else "") + ("; falls behind" if behind else "")
                offered = f"{load.median:,.0f}/s{note}" if load else note
                rows.append((name, *_row(idle), f"{len(idle)}", *_row(busy), offered))
        if not rows:
            return ""
        width = max(map(len, rows))
        header = ("milliseconds", "idle p50", "p99", "p99.9", "samples", "busy p50", "p99", "p99.9", "load")
        filled = [(*row, *[""] * (width - len(row))) for row in rows]
        return (
            "## Pick-up\n\nFrom the commit of the enqueue, as the client sees it, to the first line of the function. "
            "Idle: nothing else runs. Busy: half of what the pool drained in this run is enqueued besides.\n\n"
            "![Pick-up](images/bench-pick-up.svg)\n\n" + _table(header[:width], filled)
        )

    def _costs(self) -> str:
        rows = []
        for name in self.names:
            if not self.drained(name):
                continue
            client, server = self.cost(name, "client_us"), self.cost(name, "server_us")
            wal, whole = self.cost(name, "wal_bytes"), self.cost(name, "wal_bytes_enqueue")
            transactions, dead = self.cost(name, "transactions"), self.cost(name, "dead_tuples")
            columns = (_plain(one) for one in (client, server, wal, whole))
            rows.append((name, *columns, _plain(transactions, 3), _plain(dead, 2)))
        if not rows:
            return ""
        header = (
            "each no-op task",
            "µs of workers",
            "µs of the server",
            "WAL bytes",
            "WAL bytes of the enqueue",
            "transactions",
            "dead tuples",
        )
        return (
            "## What a task costs\n\nProcessor time and what is left behind, of running it; the enqueue (many) has a "
            "column of its own. A dead tuple is a row updated or deleted.\n\n"
            "![Processor time](images/bench-cpu.svg)\n\n" + _table(header, rows)
        )

    def _standing_costs(self) -> str:
        workers = self.results["plan"]["workers"]
        rows = []
        for name in self.names:
            small, each = self.memory(name, min(workers)), self.memory_of_each(name)
            idle = {key: self.spread(name, key, cell="idle") for key in ("client_cpu", "server_cpu", "transactions")}
            if name.startswith("floor") or not small:
                continue
            rows.append(
                (
                    name,
                    f"{small.median / 2**20:,.0f}",
                    f"{each:,.1f}" if each is not None else "",
                    _percent(idle["client_cpu"]),
                    _percent(idle["server_cpu"]),
                    _plain(idle["transactions"], 1),
                )
            )
        if not rows:
            return ""
        header = (
            "",
            f"MiB, pool of {min(workers)}",
            "MiB for each further worker",
            "idle: processor, workers",
            "server",
            "transactions a second",
        )
        pool = self.results["plan"]["pool"]
        return (
            "## Memory and idle cost\n\nMemory is PSS after a drain of no-op tasks: what processes share counts once. "
            f"Idle: a pool of {pool} workers with nothing to do, as shares of one processor.\n\n" + _table(header, rows)
        )

    def _systems(self) -> str:
        lines = ["## Systems\n\nEach at the best settings that its documentation names."]
        rows = []
        for name, about in self.results["systems"].items():
            versions = ", ".join(f"{key} {value}" for key, value in about.get("versions", {}).items())
            words = f"**skipped**: {about['skipped']}" if "skipped" in about else f"{about['settings']}"
            rows.append((name, versions or "this checkout", words, about["keeps"]))
        lines.append(_table(("", "versions", "how it runs", "what it keeps of a task"), rows))
        if failures := self._failures():
            lines.append("What failed:\n\n" + "\n".join(failures))
        return "\n\n".join(lines)

    def _method(self) -> str:
        return METHOD

    def _failures(self) -> list[str]:
        """One line for each system and reason: whatever is wrong with a system is wrong in every cell."""
        cells: dict[tuple[str, str], list[str]] = {}
        for one in self.measured:
            if "error" in one:
                cell = " ".join(str(one[key]) for key in ("cell", "kind", "workers") if key in one)
                cells.setdefault((one["system"], one["error"]), []).append(f"{cell} (round {one['round']})")
        return [f"* {name}: {', '.join(where)}: `{why.replace('`', ' ')}`" for (name, why), where in cells.items()]

    # ------------------------------------------------------------------------------------------- plots

    def images(self) -> dict[str, str]:
        made = {}
        workers = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        if rows := self._drain_rows():
            made["bench-drain.svg"] = charts.chart(f"Drain of no-op tasks, {workers}", "tasks a second", rows)
        if rows := self.limited()._limited_rows():
            about = "tasks a second, no-op"
            made["bench-limited.svg"] = charts.chart("Drains under limits", about, rows, series=tuple(LIMITS.values()))
        if rows := self._enqueue_rows():
            series = ("one by one", "many")
            made["bench-enqueue.svg"] = charts.chart("Enqueue, one client", "tasks a second", rows, series=series)
        if rows := self._pick_up_rows():
            series = ("p50", "p99", "p99.9")
            about = "milliseconds from the commit to the function, idle"
            made["bench-pick-up.svg"] = charts.chart("Pick-up", about, rows, series=series)
        if rows := self._cpu_rows():
            series = ("workers", "server")
            about = "microseconds for each no-op task"
            made["bench-cpu.svg"] = charts.chart("Processor time", about, rows, series=series)
        return made

    def _rows(self, bars: Callable[[str], Sequence[Bar | None]], key: Callable[[Row], float]) -> list[Row]:
        rows = [Row(name, found) for name in self.names if any(found := list(bars(name)))]
        return sorted(rows, key=key)

    def _drain_rows(self) -> list[Row]:
        return self._rows(lambda name: [_bar(self.drained(name))], lambda row: -_first(row))

    def _limited_rows(self) -> list[Row]:
        kinds = self.results["plan"].get("limited", ())
        return self._rows(
            lambda name: [_bar(self.drained(name, kind) if kind in kinds else None) for kind in LIMITS],
            lambda row: -_first(row),
        )

    def _enqueue_rows(self) -> list[Row]:
        def bars(name: str) -> list[Bar | None]:
            many = "copy" if name == "floor" else "many"
            return [_bar(self.enqueued(name, "one")), _bar(self.enqueued(name, many))] if name != "floor-100" else []

        return self._rows(bars, lambda row: -(row.bars[1] or Bar(0)).value)

    def _pick_up_rows(self) -> list[Row]:
        def bars(name: str) -> list[Bar | None]:
            samples = self.latencies(name, idle=True)
            # As in the table: of too few samples, a far quantile would only be their maximum.
            enough = ((0.5, 1), (0.99, 100), (0.999, 1000))
            return [
                Bar(max(0.01, measure.quantile(samples, share))) if len(samples) >= least else None
                for share, least in enough
            ]

        return self._rows(bars, _first)

    def _cpu_rows(self) -> list[Row]:
        def bars(name: str) -> list[Bar | None]:
            return [_bar(self.cost(name, key)) for key in ("client_us", "server_us")]

        return self._rows(bars, lambda row: sum(bar.value for bar in row.bars if bar))


# --------------------------------------------------------------------------------------------------- cells of tables


def _bar(spread: Spread | None) -> Bar | None:
    return spread.bar if spread and spread.median > 0 else None


def _first(row: Row) -> float:
    return next((bar.value for bar in row.bars if bar), 0.0)


def _rate(spread: Spread | None) -> str:
    if spread is None:
        return ""
    if spread.count == 1:
        return f"{spread.median:,.0f}"
    return f"{spread.median:,.0f} ({spread.low:,.0f} to {spread.high:,.0f})"


def _ratio(ours: Spread | None, theirs: Spread | None) -> str:
    if ours is None or theirs is None or theirs.median <= 0:
        return ""
    ratio = ours.median / theirs.median
    return f"{ratio:.2f} x" if ratio < 10 else f"{ratio:,.0f} x"


def _plain(spread: Spread | None, digits: int = 0) -> str:
    return "" if spread is None else f"{spread.median:,.{digits}f}"


def _percent(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.median:.1%}"


def _row(samples: list[float]) -> tuple[str, str, str]:
    if not samples:
        return "", "", ""
    p50, p99, p999 = (measure.quantile(samples, share) for share in (0.5, 0.99, 0.999))
    # Of fewer samples, it is only their maximum.
    return f"{p50:,.2f}", f"{p99:,.2f}" if len(samples) >= 100 else "", f"{p999:,.2f}" if len(samples) >= 1000 else ""


def _milliseconds(numbers: dict[str, float]) -> tuple[str, ...]:
    return tuple(f"{numbers[key]:,.2f}" for key in ("p50", "p99", "p99.9"))
