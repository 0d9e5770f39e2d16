"""A virtualenv for each system: ``.venv-bench/NAME`` beside the project's own."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.systems.base import ROOT, System

#: An install that builds from source may take minutes; one that hangs should not take the run with it.
INSTALL_SECONDS = 600
HOME = Path(os.environ.get("BENCH_VENVS", ROOT / ".venv-bench"))


class NotHere(Exception):
    """This system cannot be measured on this machine; the message says why."""


def python_of(system: System) -> str:
    """Return the interpreter that has the system, installing it if need be.

    Raises:
        NotHere: It cannot be installed.
    """
    if system.requirements is None:
        return sys.executable
    return str(install(system.requirements))


def install(requirements: tuple[str, ...]) -> Path:
    """Return the interpreter of the virtualenv that holds just these, made anew if it does not."""
    wanted = "\n".join((sys.version, *requirements))
    # Named after what is in it: pgqueuer-10 and pgqueuer-100 share one.
    name = requirements[0].partition("==")[0].partition("[")[0]
    folder = HOME / f"{name}-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"installing {', '.join(requirements)}", file=sys.stderr, flush=True)
        try:
            _run(*_maker(), str(folder))
            _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
        except NotHere:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        (folder / "made").touch()
    return python


def versions(python: str, requirements: tuple[str, ...]) -> dict[str, str]:
    """Return what versions of these are installed there."""
    names = [one.partition("==")[0].partition("[")[0] for one in requirements]
    code = "import sys; from importlib.metadata import version; [print(version(n)) for n in sys.argv[1:]]"
    found = subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True)
    return dict(zip(names, found.stdout.split(), strict=True))


def _maker() -> list[str]:
    # Debian's Python may lack ensurepip; virtualenv brings its own pip.
    for module, needs in (("venv", "ensurepip"), ("virtualenv", "virtualenv")):
        if importlib.util.find_spec(needs):
            return [sys.executable, "-m", module]
    raise NotHere("this Python has neither ensurepip nor virtualenv, so no virtualenv can be made")


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise NotHere(f"cannot be installed: not done within {INSTALL_SECONDS} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise NotHere(f"cannot be installed: {said[-1]}")
