"""Tests of what is deployed: the short forms run with all others, the long ones by `make deploy-test`."""

from __future__ import annotations

import os

import pytest

#: Mark of a test that installs packages, or takes long.
FULL = pytest.mark.skipif(os.environ.get("PGQ_DEPLOY") != "full", reason="PGQ_DEPLOY is not full: make deploy-test")
