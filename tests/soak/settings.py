"""Settings of the long runs: those of the tests, with every result kept."""

from tests.settings import *

PGQ = {"save_limit": 0, "retry": 10}
