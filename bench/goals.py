"""The section "Goals" of the report: what the project is measured against, judged by all runs. It measures nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from bench import measure
from bench.tables import table

if TYPE_CHECKING:
    from bench.course import Course
    from bench.growth import Growth
    from bench.report import Report

#: Those the first goal is about.
COMMON = ("django-q2", "django-tasks-db", "procrastinate")
#: Axes of keys and limits.
LIMITED = ("keys", "behind", "idle")


class Goal(NamedTuple):
    """One line of the table."""

    what: str
    wanted: str
    measured: str
    met: bool


def section(goals: Iterable[Goal]) -> str:
    """Return the table, or nothing if nothing of it was measured."""
    rows = [(*goal[:3], "met" if goal.met else "MISSED") for goal in goals]
    return "## Goals\n\n" + table(("goal", "wanted", "measured", ""), rows) + "\n" if rows else ""


def of_systems(report: Report) -> Iterator[Goal]:
    """Judge what `bench` has measured."""
    yield from _drain(report)
    for way, other, wanted in (("one", "one", 0.9), ("many", "copy", 0.6)):
        own, theirs = report.enqueued("pgq", way), report.enqueued("floor", other)
        beside = report.beside(way)
        if beside or (own and theirs):
            share = beside.median if beside else own.median / theirs.median
            what = "enqueue one by one, against a bare INSERT" if way == "one" else "enqueue many, against COPY"
            yield Goal(what, f"{wanted:.0%}", f"{share:.0%}", share >= wanted)
    if samples := report.latencies("pgq", idle=True):
        p50, p99 = (measure.quantile(samples, share) for share in (0.5, 0.99))
        yield Goal("idle pick-up", "p50 2 ms, p99 10 ms", f"{p50:.2g} ms, {p99:.2g} ms", p50 <= 2 and p99 <= 10)
    yield from _limited(report.limited())
    yield from _standing(report)
    yield from _killed(report)


def _drain(report: Report) -> Iterator[Goal]:
    ours = report.drained("pgq")
    if ours is None:
        return
    what = f"drain of no-op tasks with results, {report.workers} workers and the server on one machine"
    yield Goal(what, "20,000/s", f"{ours.median:,.0f}/s", ours.median >= 20_000)
    rivals = {name: found for name in COMMON if (found := report.drained(name))}
    if rivals:
        fastest = max(rivals, key=lambda name: rivals[name].median)
        ratio = ours.median / rivals[fastest].median
        what = f"the same, against the fastest of {', '.join(COMMON)}: {fastest}"
        yield Goal(what, "20 x", f"{ratio:.1f} x", ratio >= 20)
    for name in ("pgqueuer-100", "awa-pg"):
        if found := report.drained(name):
            ratio = ours.median / found.median
            yield Goal(f"the same, against {name}", "> 1 x", f"{ratio:.1f} x", ratio > 1)
    if found := report.drained("floor"):
        share = ours.median / found.median
        yield Goal("the same, against the bare loop with the same batches", "60%", f"{share:.0%}", share >= 0.6)
    mine, bare = (report.processor_time(name) for name in ("pgq", "floor"))
    if mine and bare:
        what = "the same by processor time, of workers and server, which other load disturbs less"
        yield Goal(what, "60%", f"{bare / mine:.0%}", bare / mine >= 0.6)


def _limited(report: Report) -> Iterator[Goal]:
    # Of one key with a limit of 1 one worker runs at a time, whichever it is.
    kinds = (
        ("one-key", "one key, 1 at a time", "one worker's", 1),
        ("keys", "10,000 keys, 2 at a time of each", "the", None),
    )
    for kind, what, whose, workers in kinds:
        ours, plain = report.drained("pgq", kind), report.drained("pgq", workers=workers)
        if ours is None or plain is None:
            continue
        share = ours.median / plain.median
        yield Goal(f"drain of {what}, against {whose} drain without a limit", "50%", f"{share:.0%}", share >= 0.5)
        rivals = {name: found for name in report.names if name != "pgq" and (found := report.drained(name, kind))}
        if rivals:
            fastest = max(rivals, key=lambda name: rivals[name].median)
            ratio = ours.median / rivals[fastest].median
            yield Goal(f"the same, against the fastest of the others: {fastest}", "> 1 x", f"{ratio:.1f} x", ratio > 1)


def _standing(report: Report) -> Iterator[Goal]:
    parts = [report.spread("pgq", key, cell="idle") for key in ("transactions", "client_cpu", "server_cpu")]
    if all(parts):
        transactions, *shares = (part.median for part in parts if part)
        busy = sum(shares)
        measured = f"{transactions:.1f}, {busy:.1%}"
        what = "idle pool: transactions a second, and of a processor"
        yield Goal(what, "< 5, < 1%", measured, transactions < 5 and busy < 0.01)
    if (memory := report.memory_of_each("pgq")) is not None:
        yield Goal("memory (PSS) of each further worker", "15 MiB", f"{memory:.1f} MiB", memory <= 15)


def _killed(report: Report) -> Iterator[Goal]:
    kills = [one for one in report.measured if one["cell"] == "kill" and "error" not in one]
    if not kills:
        return
    samples = sorted(sample for one in kills for sample in one["samples"])
    lost, doubled = (sum(one[key] for one in kills) for key in ("lost", "doubled"))
    p99 = measure.quantile(samples, 0.99) if samples else float("inf")
    measured = f"{p99 / 1e3:.2f} s of {len(samples)}; {lost} lost, {doubled} twice"
    what = "SIGKILL of a busy worker to the next start of its task"
    yield Goal(what, "p99 1 s; none lost, none twice", measured, p99 <= 1000 and not lost and not doubled)


def of_growth(growth: Growth) -> Iterator[Goal]:
    """Judge what `bench.scaling` has measured."""
    rises = growth.rises()
    backlog = {line: rise for (axis, line), rise in rises.items() if axis == "backlog"}
    if "claim" in backlog:
        few, many = growth.ends("backlog")
        what = f"claim with a backlog of {many:,} rows, against {few:,}"
        yield Goal(what, "+10%", f"{backlog['claim']:+.0%}", backlog["claim"] <= 0.1)
    for name, what in (("behind", "tasks behind a full key"), ("idle", "idle keys")):
        found = [rise for (axis, _), rise in rises.items() if axis == name]
        if found:
            few, many = growth.ends(name)
            what = f"processor time of 100 keys beside {many:,} {what}, against {few:,}"
            yield Goal(what, "+10%", f"{max(found):+.0%}", max(found) <= 0.1)
    # Of limits each has a goal of its own; and more keys have fewer tasks each.
    rises = {line: rise for line, rise in rises.items() if line[0] not in LIMITED}
    if rises:
        (axis, line), worst = max(rises.items(), key=lambda item: item[1])
        what = f"the steepest of all lines below, as everything grows: {axis}, {line}"
        yield Goal(what, "+10%", f"{worst:+.0%}", worst <= 0.1)


def of_course(course: Course) -> Iterator[Goal]:
    """Judge what `bench.steady` has measured."""
    if "pinned" in course.runs:
        minutes = course.runs["pinned"]["minutes"]
        share = course.last_of_first("pinned")
        what = f"pinned horizon: the last of {len(minutes)} minutes, of the first"
        yield Goal(what, "95%", f"{share:.0%}", share >= 0.95)
