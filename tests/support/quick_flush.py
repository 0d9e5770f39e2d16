"""An app for pools of tests: workers write what they have counted, and the leader adds it up, many times a second."""

from __future__ import annotations

from django.apps import AppConfig

PATH = "tests.support.quick_flush.QuickFlush"


class QuickFlush(AppConfig):
    name, label = "tests.support", "quick_flush"

    def ready(self) -> None:
        from pgq.execution import tally
        from pgq.upkeep import metrics

        tally.EVERY, metrics.EVERY = 0.1, 0.2
