"""The section "Over time" of the report, from the numbers of `bench.steady`. It measures nothing."""

from __future__ import annotations

from typing import Any

from bench import charts, measure
from bench.tables import table

METHOD = """\
Made by `make bench-steady`: a pool that works on and on, with checkpoints (every 5 minutes), autovacuum and upkeep as
always. Sizes are those of `pgq_queue`; of its finished tasks each keeps its result. Among the waiting tasks are those
that have finished in the last second: the statistics of PostgreSQL, which count them, are that far behind."""
PINNED = """\
Claims and settlements by themselves keep their pace (`tests/bench/test_pinned.py`). Autovacuum reads all of the table
once a minute, with one of the processors and in vain, and longer each time; and some minutes have a checkpoint."""
#: Rows of the table; of a longer run only some of its minutes are shown.
ROWS = 12


class Course:
    """The text and the plots of the runs that there are: "half" and "pinned"."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.runs = {name: results[name] for name in ("half", "pinned") if name in results}
        self.plots = {name: self._plots(name) for name in self.runs}

    def text(self) -> str:
        return "\n\n".join(["## Over time", METHOD, *(self._section(name) for name in self.runs)]) + "\n"

    def _section(self, name: str) -> str:
        run = self.runs[name]
        machine, minutes = run["machine"], run["minutes"]
        about = (
            "At full load, while a REPEATABLE READ transaction is held open, so that no vacuum can remove anything."
            if name == "pinned"
            else f"At {run['share']:.0%} of what the pool drained just before: {run['load']:,.0f} tasks a second."
        )
        where = (
            f"{measure.minute(run['when'])}, {machine['processors']} processors ({machine['processor']}), "
            f"PostgreSQL {machine['postgresql']}, {run['workers']} workers; load of the machine before "
            f"{machine['load_before']:.1f}"
        )
        title = "Pinned horizon" if name == "pinned" else "Half load"
        parts = [f"### {title}, {len(minutes)} minutes", f"{about} {where}."]
        parts += [f"![{title}](images/{image})" for image in self.plots[name]]
        return "\n\n".join([*parts, self._table(minutes), self._verdict(name, minutes)])

    def _table(self, minutes: list[dict[str, Any]]) -> str:
        step = -(-len(minutes) // ROWS)
        shown = sorted({*range(0, len(minutes), step), len(minutes) - 1})
        latencies = any(row["milliseconds"] for row in minutes)
        header = [
            "minute", "tasks a second", "waiting", "µs of the pool", "µs of the server", "heap MiB", "indexes MiB",
            "dead rows",
        ]  # fmt: skip
        rows = []
        for number in shown:
            row = minutes[number]
            cells = [
                f"{number + 1}", f"{row['rate']:,.0f}", f"{row['backlog']:,}", f"{row['client_us']:,.1f}",
                "" if row["server_us"] is None else f"{row['server_us']:,.1f}", f"{row['heap_bytes'] / 2**20:,.0f}",
                f"{row['index_bytes'] / 2**20:,.0f}", f"{row['dead']:,}",
            ]  # fmt: skip
            if latencies:
                cells += [f"{row['milliseconds'].get(key, float('nan')):,.1f}" for key in ("p50", "p99")]
            rows.append(cells)
        return table((*header, *(("pick-up p50, ms", "p99") if latencies else ())), rows)

    def last_of_first(self, name: str) -> float:
        """Return the rate of a run's last minute as a share of the first one's."""
        minutes = self.runs[name]["minutes"]
        return float(minutes[-1]["rate"] / max(minutes[0]["rate"], 1e-9))

    def _verdict(self, name: str, minutes: list[dict[str, Any]]) -> str:
        said = f"The last minute runs at {self.last_of_first(name):.0%} of the first"
        if name == "pinned":
            return f"{said} (goal: 95%). {PINNED}"
        worst = max(row["milliseconds"].get("p99", 0.0) for row in minutes)
        return f"{said}; the worst p99 of a minute is {worst:,.1f} ms."

    def images(self) -> dict[str, str]:
        return {image: picture for plots in self.plots.values() for image, picture in plots.items()}

    def _plots(self, name: str) -> dict[str, str]:
        minutes = self.runs[name]["minutes"]

        def line(values: list[float]) -> list[tuple[float, float]]:
            return [(number, value) for number, value in enumerate(values, 1)]

        rates = {"": line([row["rate"] for row in minutes])}
        made = {f"bench-steady-{name}-rate.svg": charts.lines("Rate", "tasks a second over minutes", rates, **_FLAT)}
        sizes = {
            "heap": line([row["heap_bytes"] / 2**20 for row in minutes]),
            "indexes": line([row["index_bytes"] / 2**20 for row in minutes]),
        }
        made[f"bench-steady-{name}-size.svg"] = charts.lines("Size of pgq_queue", "MiB over minutes", sizes, **_FLAT)
        if all(row["milliseconds"] for row in minutes):
            latencies = {key: line([row["milliseconds"][key] for row in minutes]) for key in ("p50", "p99")}
            made[f"bench-steady-{name}-pick-up.svg"] = charts.lines(
                "Pick-up", "milliseconds over minutes", latencies, **_FLAT
            )
        return made


_FLAT: dict[str, Any] = {"logarithmic": False, "over_time": True}
