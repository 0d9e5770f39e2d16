"""For development: finds out when a pool should start anew, since its code has changed and can be loaded."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from typing import IO

from django.utils.autoreload import iter_all_python_module_files

logger = logging.getLogger("pgq")

#: Of the environment: have pgq_worker come as far as to start a pool, and end there.
_TRIAL = "PGQ_TRIAL"


class CodeWatch:
    """Called now and then, it returns whether to start anew.

    When a loaded file has changed, another process tries first whether the project can be loaded as it is now.
    While it cannot (an edit is saved half done), the pool goes on as it is: once ended, it would not see the next save.
    """

    def __init__(self) -> None:
        self._seen: dict[str, float | None] = {**_times()}
        self._trial: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    @staticmethod
    def is_trial() -> bool:
        """Whether this process is to find out whether the project can be loaded, and no more."""
        return os.environ.get(_TRIAL) == "1"

    def __call__(self) -> bool:
        """Return whether the code has changed and can be loaded."""
        if self._trial is not None:
            return self._has_passed(self._trial)
        now = _times()
        # Only what was there before: a module that is loaded later has not changed.
        changed = [file for file, time in self._seen.items() if now.get(file) != time]
        # A file that has gone may come back.
        self._seen = {**dict.fromkeys(self._seen), **now}
        if changed:
            logger.info("%s has changed", ", ".join(sorted(changed)))
            self._try()
        return False

    def _try(self) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # read when the trial has ended
        self._trial = subprocess.Popen(  # noqa: S603  # this program, as it was started
            [sys.executable, *sys.orig_argv[1:]],
            env={**os.environ, _TRIAL: "1"},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
        )

    def _has_passed(self, trial: subprocess.Popen[bytes]) -> bool:
        code = trial.poll()
        if code is None:
            return False
        assert self._output is not None
        self._output.seek(0)
        text = self._output.read().decode(errors="replace").strip()
        self._output.close()
        self._trial = self._output = None
        if code < 0:
            # Killed, as an orphan is when a worker dies meanwhile: that proves nothing about the code.
            self._try()
        elif code > 0:
            logger.error("the code cannot be loaded as it is; the pool goes on and waits for the next save:\n%s", text)
        return code == 0


def _times() -> dict[str, float]:
    """Return when each loaded file was changed last."""
    seen = {}
    for file in iter_all_python_module_files():
        try:
            seen[str(file)] = file.stat().st_mtime
        except OSError:
            continue
    return seen
