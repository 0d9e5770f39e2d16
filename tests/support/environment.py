"""Environments of programs that a test starts."""

from __future__ import annotations

import os

from tests.support.pools import ROOT, test_dsn


def environment(**more: str) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": test_dsn(),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONPATH": str(ROOT),
        "TERM": "xterm-256color",
        **more,
    }
