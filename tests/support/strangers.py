"""Other programs' workers, running beside pgq in a project of a test."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support import pools
from tests.support.projects import PATIENCE, Project, clean_environment

#: Interpreters start cold here, several at once.
wait_for = functools.partial(pools.wait_for, timeout=PATIENCE, pause=0.05)


@contextmanager
def running(shop: Project, *command: str) -> Iterator[None]:
    """A process of the project, until it is told to end."""
    log = shop.folder / "log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=shop.folder,
            env=clean_environment(DJANGO_SETTINGS_MODULE="project.settings"),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield
        assert process.poll() is None, log.read_text()
        process.terminate()
        # Django-Q waits for its own timeout if one of its processes does not answer.
        process.wait(2 * PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
