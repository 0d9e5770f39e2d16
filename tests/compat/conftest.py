from __future__ import annotations

import pytest

from tests.compat import functions


@pytest.fixture(autouse=True)
def seen():
    """What ran in this process during the test."""
    functions.seen.clear()
    yield functions.seen
    functions.seen.clear()
