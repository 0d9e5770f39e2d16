"""The section "As it grows" of the report, from the numbers of `bench.scaling`. It measures nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

from bench import charts, measure
from bench.tables import table


class Axis(NamedTuple):
    """What grows, and how it is spoken of."""

    name: str
    title: str
    about: str
    #: What the lines of the plot tell.
    unit: str = "milliseconds for a batch"
    #: Both scales are logarithmic. (Lines that ought to be flat are drawn over one that begins at zero.)
    logarithmic: bool = False
    #: Where the rest goes, by profile.
    profile: str = ""


AXES = (
    Axis("backlog", "Backlog", "ready tasks in one queue"),
    Axis("history", "History", "finished tasks in the partition that the new ones enter"),
    Axis("queues", "Queues", "queues, the tasks of each enqueued together"),
    Axis(
        "mixed",
        "Mixed queues",
        "queues, their tasks enqueued in turns: the next task of a queue lies so many rows further on. A claim takes"
        " lane after lane, so that none starves, and of each what lies near the first task, so that the claims of a"
        " while stay among neighbouring rows",
        profile="By profile what a claim costs more is, in about equal parts, to read sixty lanes and find their places"
        " in the index; rows on more pages, each of which is looked up and pruned by itself; and new entries on more"
        " pages of the primary key. Larger windows (of 16,384 and 32,768 positions) have fewer places and more pages,"
        " smaller ones the other way round, and both cost as much.",
    ),
    Axis(
        "payload", "Payload", "bytes of one argument; large ones are claimed in smaller batches",
        unit="µs of the server for a kB", logarithmic=True,
    ),
    Axis(
        "pools",
        "Mixed queues, whole pools",
        "queues, their tasks enqueued in turns, drained by a pool of two workers, with all that upkeep does for them",
        unit="µs for a task",
    ),
    Axis("keys", "Keys", "keys, each with a limit of 2, drained by a pool of two workers", unit="µs for a task"),
    Axis(
        "behind", "Behind a full key", "ready tasks of a key whose limit is 0; 100 other keys are drained",
        unit="µs for a task",
    ),
    Axis(
        "idle", "Idle keys", "lanes of keys without ready tasks; 100 other keys are drained", unit="µs for a task"
    ),
    Axis("workers", "Workers", "workers of one pool that drains no-op tasks", unit="µs for a task"),
)  # fmt: skip

METHOD = """\
Made by `make bench-scaling`. One client with pgq's own statements claims and settles batch after batch, and as many
tasks are put into the queue again. Milliseconds are those that the client sees, without the commit; processor time is
that of its PostgreSQL process alone; pages (shared buffers touched) and WAL are what EXPLAIN says. Rows were written
by INSERT ... SELECT, then vacuumed and analysed; no checkpoint fell in between. All sizes were filled before the first
was measured, and took turns of 25 batches, each on a new connection, in 40 rounds. Where others use the machine as
well, a second may be half as slow again as one a minute later: each number is the median of the smallest size, times
the median of the ratios to it within each round. The cells of whole pools and of workers are drains by pgq's own pools,
five rounds of them compared alike, as many tasks for each size, from the first third of them, when each of 64
connections has some claims behind it, until the last has its result, with the processor time of all processes of pool
and server."""

#: What whole pools drain.
POOLS = ("pools", "keys", "behind", "idle", "workers")


class Growth:
    """The text and the plots of one run."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.results = results
        self.measured: list[dict[str, Any]] = results["measured"]
        self.plots = {axis: self._plots(axis) for axis in AXES}

    def text(self) -> str:
        parts = [f"## As it grows\n\n{METHOD}", self._head(), *(self._axis(axis) for axis in AXES), self._failures()]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _head(self) -> str:
        machine, batch = self.results["machine"], self.results["plan"]["batch"]
        return (
            f"* {measure.minute(self.results['when'])}, {self.results['seconds'] / 60:.0f} minutes; load of "
            f"the machine before {machine['load_before']:.1f}, at the end {machine['load']:.1f}\n"
            f"* {machine['processors']} processors ({machine['processor']}), PostgreSQL {machine['postgresql']}, "
            f"`shared_buffers` {machine['settings']['shared_buffers']}\n"
            f"* batches of {batch}; {self.results['plan']['usual']:,} ready tasks, if nothing else is said"
        )

    def _of(self, axis: Axis) -> list[dict[str, Any]]:
        return [one for one in self.measured if one["axis"] == axis.name and "error" not in one]

    def _axis(self, axis: Axis) -> str:
        cells = self._of(axis)
        if not cells:
            return ""
        rows = self._drains(cells) if axis.name in POOLS else self._batches(cells)
        picture = "".join(f"![{axis.title}](images/{image})\n\n" for image in self.plots[axis])
        bend = self._bend(axis, cells) if len(cells) > 1 else ""
        profile = f"\n\n{axis.profile}" if axis.profile else ""
        # Of one run with the others, or measured anew.
        when = max(cell["when"] for cell in cells)
        anew = f" Measured anew, {measure.minute(when)}." if when > self.results["when"] else ""
        return f"### {axis.title}\n\nGrowing: {axis.about}.{anew}\n\n{picture}{rows}{bend}{profile}"

    def _batches(self, cells: list[dict[str, Any]]) -> str:
        batch = self.results["plan"]["batch"]
        header = (
            "", f"claim, ms for {batch}", "settle", "claim, µs of the server for a task", "settle",
            "claim, pages for a task", "settle", "claim, WAL bytes for a task", "settle",
        )  # fmt: skip
        return table(header, [(f"{cell['size']:,}", *self._row(cell)) for cell in cells])

    def _row(self, cell: dict[str, Any]) -> list[str]:
        row = [f"{self._milliseconds(cell, what):,.1f}" for what in ("claim", "settle")]
        for key, digits in (("server_us", 1), ("buffers", 1), ("wal_bytes", 0)):
            row += [
                f"{cell[what][key]:,.{digits}f}" if cell[what].get(key) is not None else ""
                for what in ("claim", "settle")
            ]
        return row

    def _milliseconds(self, cell: dict[str, Any], what: str) -> float:
        """For a whole batch, though large tasks are claimed in smaller ones."""
        return float(cell[what]["milliseconds"]) / int(cell["batch"]) * int(self.results["plan"]["batch"])

    def _bend(self, axis: Axis, cells: list[dict[str, Any]]) -> str:
        """Compare the largest with the smallest, by what the load of the machine changes least."""
        said = []
        for (of, name), rise in self.rises().items():
            if of == axis.name:
                said.append(f"{name}, {axis.unit}: {rise:+.0%}")
        for what in ("claim", "settle") if axis.name not in (*POOLS, "payload") else ():
            first, last = cells[0][what], cells[-1][what]
            for key, name in (("server_us", "processor time"), ("buffers", "pages"), ("wal_bytes", "WAL")):
                if first.get(key) and last.get(key):
                    said.append(f"{what}, {name}: {last[key] / first[key] - 1:+.0%}")
        return f"\n\nFrom {cells[0]['size']:,} to {cells[-1]['size']:,}: {'; '.join(said)}."

    def ends(self, name: str) -> tuple[int, int]:
        """Return the smallest and the largest size of an axis."""
        sizes = [one["size"] for one in self.measured if one["axis"] == name and "error" not in one]
        return min(sizes), max(sizes)

    def rises(self) -> dict[tuple[str, str], float]:
        """Return by how much each line of the plots rises from its first point to its last: 0.1 is a tenth."""
        return {
            (axis.name, name): line[-1][1] / line[0][1] - 1
            for axis in AXES
            for name, line in self._lines(axis, self._of(axis)).items()
            if len(line) > 1
        }

    def _lines(self, axis: Axis, cells: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
        if axis.name in POOLS:
            keys = {"pool": "client_us", "server": "server_us"}
            found = {name: [(cell["size"], cell[key]) for cell in cells if cell.get(key)] for name, key in keys.items()}
            return {name: line for name, line in found.items() if line}
        if axis.name == "payload":
            return {what: [(cell["size"], self._of_a_kilobyte(cell, what)) for cell in cells]
                    for what in ("claim", "settle")}  # fmt: skip
        return {
            what: [(cell["size"], self._milliseconds(cell, what)) for cell in cells] for what in ("claim", "settle")
        }

    def _of_a_kilobyte(self, cell: dict[str, Any], what: str) -> float:
        # Where nobody knows the processor time of the server, what the client waited has to do.
        micro = cell[what].get("server_us") or cell[what]["milliseconds"] / cell["batch"] * 1e3
        return float(micro) / cell["size"] * 1e3

    def _drains(self, cells: list[dict[str, Any]]) -> str:
        header = ("", "tasks a second", "µs of the pool for a task", "µs of the server", "WAL bytes")
        keys = (("rate", 0), ("client_us", 1), ("server_us", 1), ("wal_bytes", 0))
        return table(
            header,
            [
                (f"{cell['size']:,}", *(f"{cell[key]:,.{n}f}" if cell.get(key) is not None else "" for key, n in keys))
                for cell in cells
            ],
        )

    def _failures(self) -> str:
        lines = [f"* {one['axis']} {one['size']:,}: `{one['error']}`" for one in self.measured if "error" in one]
        return "What failed:\n\n" + "\n".join(lines) if lines else ""

    # ------------------------------------------------------------------------------------------- plots

    def images(self) -> dict[str, str]:
        return {image: picture for plots in self.plots.values() for image, picture in plots.items()}

    def _plots(self, axis: Axis) -> dict[str, str]:
        # On a server that is elsewhere nobody knows what a drain costs.
        lines = self._lines(axis, cells) if (cells := self._of(axis)) else {}
        if not lines:
            return {}
        unit = axis.unit.replace("a batch", f"{self.results['plan']['batch']} tasks")
        over = "queues" if axis.name in ("mixed", "pools") else axis.name
        picture = charts.lines(axis.title, f"{unit} over {over}", lines, logarithmic=axis.logarithmic)
        return {f"bench-scaling-{axis.name}.svg": picture}
