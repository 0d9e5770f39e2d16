"""Measure pgq, its peers and the floor in one run, and write the report.

::

    python -m bench                    all of it: docs/explain/benchmarks.md, its images, bench/results.json
    python -m bench --quick            a few systems and one short round, into .pgq/bench
    python -m bench --only pgq,floor   just these, into .pgq/bench
    python -m bench --limited          just the drains under limits, beside what the report has of the rest
    python -m bench --list             what can be measured on this machine
    python -m bench --report           write the report again from the last results
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import cells, measure, peers, report, systems
from bench.cells import Plan
from bench.lab import Failed, Lab, describe, laboratory
from bench.redis import find as find_redis
from bench.systems.base import ROOT, System

QUICK_SYSTEMS = (
    "pgq",
    "pgq-tasks",
    "floor",
    "django-q2",
    "django-tasks-db",
    "procrastinate",
    "pgqueuer-100",
    "awa-pg",
    "dbos",
)
PARTIAL = ROOT / ".pgq" / "bench"
#: What can go wrong in one cell without being the end of the run.
TROUBLE = (Failed, OSError, RuntimeError, ValueError)


class Run:
    """One run over all systems."""

    def __init__(self, lab: Lab, plan: Plan, names: Sequence[str]) -> None:
        self.lab, self.plan, self.names = lab, plan, names
        self.systems: dict[str, System] = {}
        self.about: dict[str, dict[str, Any]] = {}
        self.measured: list[dict[str, Any]] = []

    def prepare(self) -> None:
        for name in self.names:
            system = systems.get(name)
            about: dict[str, Any] = {"settings": system.settings, "keeps": system.keeps, "server": system.server}
            try:
                self.lab.install(system)
                if system.requirements:
                    about["versions"] = peers.versions(self.lab.pythons[name], system.requirements)
                self.systems[name] = system
            except (peers.NotHere, *TROUBLE) as error:
                about["skipped"] = str(error)
                say(f"{name}: skipped: {error}")
            self.about[name] = about

    def measure(self) -> None:
        began = time.monotonic()
        for number in range(1, self.plan.rounds + 1):
            each = (time.monotonic() - began) / max(1, number - 1)
            if number > 1 and number * each > self.plan.minutes * 60:
                say(f"a round takes {each / 60:.0f} minutes here, so {number - 1} it is")
                break
            for cell in self._cells():
                # Interleaved: whatever else the machine does meets all systems alike. No one is always the first.
                shift = (number - 1) * len(self.systems) // self.plan.rounds
                order = [*self.systems][shift:] + [*self.systems][:shift]
                for name in order:
                    self._measure(number, self.systems[name], cell)

    def _cells(self) -> Iterator[tuple[str, str, int]]:
        if not self.plan.kinds:
            for workers in self.plan.workers:
                yield "drain", "noop", workers
            for kind in self.plan.limited:
                yield "drain", kind, self.plan.pool
            return
        yield "enqueue", "", 0
        for kind in self.plan.kinds:
            for workers in self.plan.workers:
                yield "drain", kind, workers
        for kind in self.plan.limited:
            yield "drain", kind, self.plan.pool
        yield "pick-up", "", 0
        yield "kill", "", 0

    def _measure(self, number: int, system: System, cell: tuple[str, str, int]) -> None:
        what, kind, workers = cell
        able = {"pick-up": system.picks_up, "kill": system.rescues}.get(
            what, not kind or kind in system.kinds or kind in system.limited
        )
        if not able:
            return
        began = time.monotonic()
        try:
            found = self._found(system, what, kind, workers)
        except TROUBLE as error:
            found = [{"cell": what, "error": f"{error}", **({"kind": kind, "workers": workers} if kind else {})}]
        took = time.monotonic() - began
        for numbers in found:
            self.measured.append({"system": system.name, "round": number, **numbers})
            say(f"{number} {system.name:<16} {_brief(numbers)}  ({took:.1f} s)")

    def _found(self, system: System, what: str, kind: str, workers: int) -> list[dict[str, Any]]:
        if what == "enqueue":
            beside = self.systems.get("floor") if system.name == "pgq" else None
            found = cells.enqueue(self.lab, system, self.plan)
            return found + (cells.side_by_side(self.lab, system, beside, self.plan) if beside else [])
        if what == "drain":
            rate = self._expected(system, kind, workers)
            return [cells.drain(self.lab, system, self.plan, kind=kind, workers=workers, rate=rate)]
        if what == "kill":
            return [cells.kill(self.lab, system, self.plan)]
        return cells.pick_up(self.lab, system, self.plan, load=self._known(system, "noop", self.plan.pool) / 2)

    def _known(self, system: System, kind: str, workers: int) -> float:
        """The median of what it has done so far; 0 if that is nothing."""
        wanted = {"system": system.name, "cell": "drain", "kind": kind, "workers": workers}
        rates = [one["rate"] for one in self.measured if wanted.items() <= one.items() and "rate" in one]
        return statistics.median(rates) if rates else 0.0

    def _expected(self, system: System, kind: str, workers: int) -> float:
        """About how many tasks a second it will do: the more is known, the better the guess."""
        if known := self._known(system, kind, workers):
            return known
        if kind in system.limited:
            return system.limited[kind]
        noop = next(
            (rate for fewer in sorted(self.plan.workers, reverse=True) if (rate := self._known(system, "noop", fewer))),
            system.rate * min(workers, 2),
        )
        if kind == "cpu":
            return min(noop, 900.0 * min(workers, 2))
        if kind == "sleep":
            return min(noop, 100.0 * workers * system.sleepers) if system.sleepers else noop
        return noop

    def results(self, began: float, load_before: float) -> dict[str, Any]:
        return {
            "format": 1,
            "when": measure.now(),
            "seconds": round(time.monotonic() - began, 1),
            "machine": describe(self.lab) | {"load_before": load_before},
            "plan": self.plan._asdict(),
            "systems": self.about,
            "measured": self.measured,
        }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _brief(numbers: dict[str, Any]) -> str:
    if "error" in numbers:
        return f"{numbers['cell']}: FAILED: {numbers['error']}"
    label = " ".join(str(numbers[key]) for key in ("cell", "way", "kind", "workers", "load") if key in numbers)
    if "rate" in numbers:
        return f"{label}: {numbers['rate']:,.0f}/s"
    if "milliseconds" in numbers:
        said = ", ".join(f"{key} {value:.2f}" for key, value in numbers["milliseconds"].items())
        return f"{label}: {said} ms of {numbers['count']}"
    return f"{label}: {numbers.get('client_cpu', 0):.2%} of a processor, {numbers.get('transactions', 0):.1f} tx/s"


def show_list() -> None:
    """Say for each system whether it can be measured here; installs what is missing."""
    for name in systems.NAMES:
        system = systems.get(name)
        try:
            if system.server == "redis":
                find_redis()
            python = peers.python_of(system)
            found = peers.versions(python, system.requirements) if system.requirements else {}
            words = ", ".join(f"{key} {value}" for key, value in found.items()) or "in this checkout"
        except peers.NotHere as error:
            words = f"skipped: {error}"
        print(f"{name:<16} {words}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="a few systems, one short round")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", metavar="A,B", help=f"only these: {', '.join(systems.NAMES)}")
    parser.add_argument("--limited", action="store_true", help="just the drains under limits, into the report")
    parser.add_argument("--rounds", type=int, help="how often everything is measured")
    parser.add_argument("--minutes", type=float, help="no round is begun that would take longer (default: 40)")
    parser.add_argument("--no-fsync", action="store_true", help="a server that may lose what it has committed")
    parser.add_argument("--out", type=Path, help="folder for results and report (default: the documentation)")
    parser.add_argument("--list", action="store_true", help="say what can be measured here, and why not")
    parser.add_argument("--report", action="store_true", help="only write the report, from the last results")
    options = parser.parse_args(arguments)
    if options.list:
        show_list()
        return 0
    names = options.only.split(",") if options.only else QUICK_SYSTEMS if options.quick else systems.NAMES
    if unknown := [name for name in names if name not in systems.NAMES]:
        parser.error(f"--only: there is no {', '.join(unknown)}; there are {', '.join(systems.NAMES)}")
    # Only a full run is worth publishing.
    partial = options.quick or options.tiny or options.only or options.no_fsync
    places = report.places(options.out or (PARTIAL if partial else None))
    if options.report:
        report.write(json.loads(places.results.read_text()), places)
        return 0
    plan = cells.TINY if options.tiny else cells.QUICK if options.quick else cells.FULL
    if options.limited:
        names = [name for name in names if systems.get(name).limited]
        plan = plan._replace(kinds=(), workers=(1, plan.pool), limited=cells.FULL.limited)
    plan = plan._replace(rounds=options.rounds or plan.rounds, minutes=options.minutes or plan.minutes)
    began, load_before = time.monotonic(), os.getloadavg()[0]
    with laboratory(fsync=not options.no_fsync) as lab:
        run = Run(lab, plan, names)
        run.prepare()
        try:
            run.measure()
        except KeyboardInterrupt:
            say("interrupted: the report has what was measured until now")
        results = run.results(began, load_before)
    if options.limited and places.results.exists():
        # Beside what was measured before, as a run of its own.
        before = json.loads(places.results.read_text())
        results = before | {"limited": results}
    report.write(results, places)
    say(f"{places.report} ({time.monotonic() - began:,.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
