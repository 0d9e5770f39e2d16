"""The table of faults and threats: what each test notes, gathered over all processes of the run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

FAULTS = {
    "F1": "SIGKILL a busy worker",
    "F2": "SIGKILL an idle worker",
    "F3": "SIGKILL at every failpoint",
    "F4": "SIGKILL the supervisor",
    "F5": "storms of signals",
    "F6": "freeze and thaw a worker, and the whole tree",
    "F7": "death of the host",
    "F8": "no process to be had; children die at boot",
    "F9": "PostgreSQL crashes",
    "F10": "all sessions terminated, again and again",
    "F11": "commit unknown",
    "F12": "silent partition, shorter and longer than a lease",
    "F13": "half-open leader and listener",
    "F14": "failover to a standby that lost the tail",
    "F15": "wait for the standby cancelled",
    "F16": "no connection to be had",
    "F17": "disk full: tables, WAL",
    "F18": "NOTIFY broken",
    "F19": "PgBouncer in transaction mode",
    "F20": "SQLSTATEs at every statement",
    "F21": "old snapshot, stale statistics",
    "F22": "clocks jump",
    "F23": "writes refused",
    "F24": "leader killed at every step of a schedule",
    "F25": "two leaders",
    "F26": "poisoned schedules",
    "F27": "clock changes and calendar",
    "F28": "rolling deploy",
    "F29": "hard exit",
    "F30": "never ends",
    "F31": "eats the machine",
    "F32": "results that cannot be stored",
    "F33": "exceptions that bite",
    "F34": "payloads that cannot be read",
    "F35": "database session abused",
    "F36": "process state abused",
    "F37": "children left behind",
    "F38": "enqueue bound to its transaction",
    "F39": "storm of retries, big backlog, hot queue",
    "F40": "operators",
}
THREATS = {
    "S1": "a row that names os.system",
    "S2": "replay and splice",
    "S3": "tampering",
    "S4": "gadget by name",
    "S5": "pickle",
    "S6": "key rotation, wrong key",
    "S7": "SQL injection",
    "S8": "XSS",
    "S9": "CSRF, clickjacking",
    "S10": "permission for each action",
    "S11": "staff to shell",
    "S12": "routes",
    "S13": "secrets shown",
    "S14": "log injection",
    "S15": "search_path",
    "S16": "least privilege",
    "S17": "LISTEN and NOTIFY forged",
    "S18": "leader's lock squatted",
    "S19": "exhaustion",
    "S20": "isolation of processes",
}
FULL = os.environ.get("PGQ_FAULTS") == "full"


@dataclass
class Note:
    """What one test has found about one fault."""

    fault: str
    rounds: int = 0
    violations: list[str] = field(default_factory=list)
    #: Seconds from the fault's end until work went on.
    recoveries: list[float] = field(default_factory=list)

    def round(self, violations: Iterable[str] = (), recovery: float | None = None) -> None:
        """Note one round; the test goes on, and fails at its end if there were violations."""
        self.rounds += 1
        self.violations += violations
        if recovery is not None:
            self.recoveries.append(recovery)

    def as_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass
class Line:
    """A line of the table."""

    fault: str
    title: str
    tests: int = 0
    failed: int = 0
    skipped: list[str] = field(default_factory=list)
    rounds: int = 0
    violations: int = 0
    recoveries: list[float] = field(default_factory=list)


def lines(reports: Sequence[Any]) -> list[Line]:
    """Make the table from pytest's reports, each with the faults it stands for among its user properties."""
    table = {key: Line(key, title) for key, title in {**FAULTS, **THREATS}.items()}
    for report in reports:
        properties = dict(report.user_properties)
        for fault in filter(None, properties.get("faults", "").split(",")):
            line = table[fault]
            if report.skipped:
                line.skipped.append(report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr))
                continue
            note = Note(**json.loads(properties[f"note {fault}"])) if f"note {fault}" in properties else Note(fault)
            line.tests += 1
            line.failed += report.failed
            line.rounds += max(note.rounds, 1)
            line.violations += len(note.violations) or int(report.failed)
            line.recoveries += note.recoveries
    return list(table.values())


def text(table: Sequence[Line]) -> list[str]:
    """Return the table as lines of text."""
    out = [f"{'':4}{'fault':52}{'rounds':>7}{'violations':>12}{'recovery (median, max)':>24}  "]
    for line in table:
        times = sorted(line.recoveries)
        recovery = f"{times[len(times) // 2]:.2f} s, {times[-1]:.2f} s" if times else ""
        why = line.skipped[0].removeprefix("Skipped: ") if line.skipped else ""
        if not line.tests:
            out.append(f"{line.fault:4}{line.title:52}{'not run':>7}  {why}")
            continue
        out.append(
            f"{line.fault:4}{line.title:52}{line.rounds:>7}{line.violations:>12}{recovery:>24}"
            f"{'  partly skipped: ' + why if why else ''}"
        )
    return out
