"""Put failpoints and mutants into the processes of a pool, as the test that started it asked for."""

import json
import os

from django.apps import AppConfig


class FaultsConfig(AppConfig):
    name = "tests.faults"
    label = "faults"

    def ready(self) -> None:
        if points := os.environ.get("PGQ_FAILPOINTS"):
            from tests.support import failpoints

            failpoints.install(json.loads(points))
        if mutant := os.environ.get("PGQ_MUTANT"):
            from tests.support import mutants

            mutants.install(mutant)
