"""Tests of what is deployed: the short forms run with all others, the long ones by `make deploy-test`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.pools import ROOT

#: The files that operators copy.
DEPLOY = ROOT / "deploy"
#: Mark of a test that installs packages, or takes long.
FULL = pytest.mark.skipif(os.environ.get("PGQ_DEPLOY") != "full", reason="PGQ_DEPLOY is not full: make deploy-test")


def lines_of(file: Path) -> list[str]:
    """Return what is neither empty nor a comment."""
    return [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
