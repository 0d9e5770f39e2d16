"""The benchmark without its time: invented results, and modules run as programs."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from bench.systems.base import ROOT


def run_module(name: str, pg_dsn: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a module of the benchmarks on the tests' server."""
    command = [sys.executable, "-m", name, *words]
    environment = os.environ | {"DATABASE_URL": pg_dsn}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def invented(*, django: float, floor: float, pgq: float) -> dict[str, Any]:
    """The results of a run that never was."""
    rates = {"pgq": pgq, "floor": floor, "django-q2": django}
    return {
        "when": "2026-01-02T03:04:05+00:00",
        "seconds": 60.0,
        "machine": {
            "processors": 2,
            "processor": "one",
            "memory_gib": 1.0,
            "postgresql": "18.1",
            "python": "3.13.0",
            "load": 0.0,
            "load_before": 0.0,
            "settings": {"fsync": "on"},
        },
        "plan": {"workers": [2], "kinds": ["noop"], "pool": 2},
        "systems": {name: {"settings": "as it comes", "keeps": "a row"} for name in rates},
        "measured": [
            {"system": name, "round": 1, "cell": "drain", "kind": "noop", "workers": 2, "rate": rate}
            for name, rate in rates.items()
        ],
    }
