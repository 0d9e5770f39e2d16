"""manage.py fill: fills both queues, and says when each is done."""

import time
from typing import Any

from django.core.management.base import BaseCommand

from office.tasks import make_report, send_letter
from pgq.models import Task
from pgq.tasks import result_group


class Command(BaseCommand):
    help = "Enqueues reports first, then letters, and waits for both."

    def handle(self, *args: Any, **options: Any) -> None:
        begin = time.monotonic()
        make_report.enqueue_many(range(4), group="reports")
        send_letter.enqueue_many(range(100), group="letters")
        for group, count in (("letters", 100), ("reports", 4)):
            result_group(group, count=count, wait=60_000)
            pools = Task.objects.filter(group=group).order_by().values_list("cluster", flat=True).distinct()
            self.stdout.write(f"{count} {group} by pool {', '.join(pools)} after {time.monotonic() - begin:.1f} s")
