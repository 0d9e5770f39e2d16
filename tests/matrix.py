"""Run the tests over the versions that pgq supports, as far as this machine has them.

::

    python -m tests.matrix [--short] [--resume] [-k TEXT] [-- pytest arguments]

A cell is a Python, a Django and a PostgreSQL. Pythons are those on PATH and those of pyenv; PostgreSQLs those of the
system and of the extra ``embedded``. Virtualenvs are kept in .venv-matrix/ and made anew when pyproject.toml changes.
``--short`` runs the tests marked ``smoke`` (a server, the package, a task from end to end, django.tasks) in three
cells: the oldest, one between, the newest. In the oldest, which ``make test`` is furthest from, it also runs most tests
without pools. All cells whole take hours: ``--resume`` goes on behind those that passed at the same commit.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import functools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pgq.contrib.embedded import all_binaries, major_version

ROOT = Path(__file__).parent.parent
VENVS = ROOT / ".venv-matrix"

PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
DJANGOS = ("5.2", "6.0", "6.1")
POSTGRESQLS = (15, 18)
#: Django 5.2 has no tasks of its own: there the backport is tested.
EXTRAS = {"5.2": "[tasks]"}
#: Django 6 needs Python 3.12; Python 3.15 needs Django 6.1.
APART = {("3.11", "6.0"), ("3.11", "6.1"), ("3.15", "5.2"), ("3.15", "6.0")}


class Cell(NamedTuple):
    python: str
    django: str
    postgresql: int

    def __str__(self) -> str:
        return f"Python {self.python}  Django {self.django}  PostgreSQL {self.postgresql}"


OLDEST, BETWEEN = Cell("3.11", "5.2", 15), Cell("3.12", "6.0", 15)
SMOKE = ("-m", "smoke")
#: What ``--short`` runs in the oldest cell: most tests without pools.
MOST = (
    "-n", "2", *(f"tests/{room}" for room in ("ground", "codec", "recurrence", "schedules", "tasks", "workflows")),
    "tests/backend", "tests/enqueue/test_enqueue.py", "tests/execution/test_reporters.py",
    "tests/execution/test_retries.py", "tests/admin/test_admin.py",
    "tests/integration/test_settings.py", "tests/integration/test_django_settings.py",
    "tests/integration/test_public_projects.py", "tests/project/test_packaging.py", "tests/project/test_private.py",
)  # fmt: skip
#: What says the same in all cells, so that `make test` is enough: type checkers (which are not installed there), a page
#: that is followed in a new environment, and whether tests notice wrong code.
SAME = ("tests/typing", "tests/project/test_first_page.py", "tests/faults/test_mutants.py")
#: So many failures may be the machine's.
FEW = 10
#: Which cells passed whole: a line has the commit, the cell, and what was told.
PASSED = VENVS / "passed"


def cells() -> Iterator[Cell]:
    for python in PYTHONS:
        for django in DJANGOS:
            if (python, django) not in APART:
                for postgresql in POSTGRESQLS:
                    yield Cell(python, django, postgresql)


@functools.cache
def find_python(version: str) -> str | None:
    candidates = [shutil.which(f"python{version}"), shutil.which("python3"), sys.executable]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates += sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python{version}")), reverse=True)
    for candidate in filter(None, candidates):
        # A command of that name may be a shim that does not run, or a Python without venv.
        code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2], sys.executable)"
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.startswith(f"{version} "):
            return done.stdout.split(" ", 1)[1].strip()
    return None


def short() -> dict[Cell, tuple[str, ...]]:
    """Return what ``--short`` tells pytest, by cell. The newest cell has the newest Python of this machine."""
    newest = next(filter(find_python, reversed(PYTHONS)), PYTHONS[-1])
    return {OLDEST: MOST, BETWEEN: SMOKE, Cell(newest, DJANGOS[-1], POSTGRESQLS[-1]): SMOKE}


def find_postgresqls() -> dict[int, Path]:
    found: dict[int, Path] = {}
    for bindir in all_binaries():
        if (major := major_version(bindir)) is not None:
            found.setdefault(major, bindir)
    return found


class Unavailable(Exception):
    """A cell cannot be run here; the message says why."""


def venv_for(python: str, django: str, interpreter: str) -> Path:
    """The interpreter of the virtualenv for that Python and Django, made if need be."""
    folder = VENVS / f"python{python}-django{django}"
    stamp = folder / ".installed"
    # The place is in it because an editable install names it.
    wanted = f"{ROOT}\n{interpreter}\n{(ROOT / 'pyproject.toml').read_text()}"
    if stamp.exists() and stamp.read_text() == wanted:
        return folder / "bin" / "python"
    shutil.rmtree(folder, ignore_errors=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
    package = f"{ROOT}{EXTRAS.get(django, '')}"
    for command in (
        [interpreter, "-m", "venv", folder],
        [*pip, "--upgrade", "pip>=25.1"],
        [
            *pip,
            f"django~={django}.0",
            "--editable",
            package,
            "--group",
            "test",
            "--group",
            "build",
        ],
    ):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise Unavailable(f"no virtualenv: {said[-1]}")
    stamp.write_text(wanted)
    return folder / "bin" / "python"


def run(cell: Cell, bindir: Path, arguments: list[str]) -> tuple[bool, str]:
    """Run the tests in a cell; return whether they passed, and what is to be told.

    A few that failed beside others are run again, alone: they may have had too little of the processor. They are named.
    """
    interpreter = find_python(cell.python)
    if interpreter is None:
        raise Unavailable(f"no Python {cell.python} that works")
    python = venv_for(cell.python, cell.django, interpreter)
    env = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"}
    env |= {"PGQ_PG_BINDIR": str(bindir)}
    log = VENVS / f"python{cell.python}-django{cell.django}-postgresql{cell.postgresql}.log"
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"--ignore={path}" for path in SAME)]
    with log.open("w") as output:
        told = {"cwd": ROOT, "env": env, "stdout": output, "stderr": subprocess.STDOUT, "check": False}
        code = subprocess.run([*command, *arguments], **told).returncode
        failed = failed_in(log.read_text())
        if code == 1 and 0 < len(failed) <= FEW:
            code = subprocess.run([*command, *failed], **told).returncode
    summary = re.findall(r"^(?:=+ )?(.+ in [\d.]+s)\b", log.read_text(), re.MULTILINE)
    detail = "; alone: ".join(summary) if summary else f"pytest ended with {code}"
    if failed:
        detail += f"; failed beside others: {', '.join(failed)}"
    if code:  # 5 is: the selection is empty; that is no success either.
        detail += f"; see {log.relative_to(ROOT)}"
    return not code, detail


def failed_in(output: str) -> list[str]:
    """Return the tests that failed by what pytest printed, as its command line takes them."""
    found = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
    # With --dist loadgroup the name of a test ends with that of its group, and --last-failed finds none of those.
    return list(dict.fromkeys(re.sub(r"@\w+$", "", test) for test in found))


def attempt(cell: Cell, servers: dict[int, Path], arguments: list[str]) -> tuple[str, str]:
    """Run a cell if it can be run here; return the verdict, and what is to be told."""
    try:
        if cell.postgresql not in servers:
            raise Unavailable(f"no PostgreSQL {cell.postgresql}")
        passed, detail = run(cell, servers[cell.postgresql], arguments)
    except Unavailable as error:
        return "skipped", str(error)
    return "passed" if passed else "FAILED", detail


def commit() -> str | None:
    """The commit that the files are those of; None if they were changed since, or there is no git."""
    try:
        said = [
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain"))
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return None if said[1] else said[0]


def passed_before(at: str | None) -> dict[str, str]:
    """What was told of the cells that passed at that commit."""
    lines = PASSED.read_text().splitlines() if at and PASSED.exists() else []
    return {cell: detail for written, cell, detail in (line.split("\t") for line in lines) if written == at}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--short", action="store_true", help="three cells, and few tests in them")
    parser.add_argument("--resume", action="store_true", help="not the cells that have passed at this commit")
    parser.add_argument("-k", metavar="TEXT", default="", help="only cells with TEXT in their names, as in the table")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args()
    # As many as `make test` has.
    whole = options.pytest or ["-n", str(min(8, 2 * (os.cpu_count() or 1))), "--dist", "loadgroup"]

    VENVS.mkdir(exist_ok=True)
    at = None if options.short or options.pytest else commit()
    before = passed_before(at) if options.resume else {}
    servers = find_postgresqls()
    rows: list[tuple[Cell, str, str]] = []
    if options.short:
        chosen = {cell: [*arguments, *options.pytest] for cell, arguments in short().items()}
    else:
        chosen = dict.fromkeys(cells(), whole)
    for cell, arguments in chosen.items():
        if options.k and options.k not in str(cell):
            continue
        if str(cell) in before:
            rows.append((cell, "passed", f"{before[str(cell)]} (before)"))
            continue
        print(f"==> {cell}", flush=True)
        began = time.monotonic()
        verdict, detail = attempt(cell, servers, arguments)
        if verdict == "passed" and at and at == commit():
            with PASSED.open("a") as file:
                file.write(f"{at}\t{cell}\t{detail}\n")
        rows.append((cell, verdict, detail))
        print(f"    {verdict} after {time.monotonic() - began:.0f} s: {detail}", flush=True)

    print()
    for cell, verdict, detail in rows:
        print(f"{cell}  {verdict:<8}{detail}")
    verdicts = [verdict for _, verdict, _ in rows]
    # Nothing run is no success.
    return 1 if "FAILED" in verdicts or "passed" not in verdicts else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
