"""A module that changes its process when it is imported, for tests/pool/test_surroundings.py."""

from __future__ import annotations

import os

os.environ["PGQ_TEST_BY_MODULE"] = "stays"


def change() -> None:
    os.environ["PGQ_TEST_BY_FUNCTION"] = "goes"
