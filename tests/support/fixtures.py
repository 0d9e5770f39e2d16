"""Fixtures for every test: nothing of an earlier test is left in this process."""

from __future__ import annotations

import pytest
from django.core.cache import cache

from tests.functions import common as functions


@pytest.fixture(autouse=True)
def seen():
    """What ran in this process during the test."""
    functions.seen.clear()
    yield functions.seen
    functions.seen.clear()


@pytest.fixture(autouse=True)
def _empty_cache():
    """The cache of this process outlives a test and its transaction."""
    cache.clear()
