"""manage.py chaos: enqueues transfers, kills workers at random until all are made, and audits the ledger."""

import os
import random
import signal
import time
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Count, Sum

from ledger.models import Account, Entry
from ledger.tasks import transfer
from pgq.models import QueuedTask, Task, WorkerPool

NAMES = ["Ada", "Barbara", "Edsger", "Grace", "Tony"]
BEGIN = 1000


class Command(BaseCommand):
    help = "Makes transfers while workers are killed at random, and checks that the ledger is exact."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--transfers", type=int, default=int(os.environ.get("TRANSFERS", "1000")))
        parser.add_argument("--pause", type=float, default=0.3, help="seconds between two kills, about")

    def handle(self, *args: Any, transfers: int, pause: float, **options: Any) -> None:
        Account.objects.bulk_create(Account(name=name, balance=BEGIN) for name in NAMES)
        transfer.enqueue_many((n, *random.sample(NAMES, 2), random.randint(1, 50)) for n in range(transfers))
        kills = 0
        while left := QueuedTask.objects.count():
            # The pool's own report says which processes are its workers.
            pids = [row["pid"] for pool in WorkerPool.objects.all() for row in pool.workers if row.get("pid")]
            if pids:
                with suppress(ProcessLookupError):
                    os.kill(random.choice(pids), signal.SIGKILL)
                    kills += 1
                self.stdout.write(f"{left:5} transfers left, {kills:3} workers killed")
            time.sleep(pause * random.uniform(0.5, 1.5))
        self.audit(transfers, kills)

    def audit(self, transfers: int, kills: int) -> None:
        twice = Entry.objects.values("transfer").annotate(sides=Count("pk")).exclude(sides=2).count()
        made = Entry.objects.values("transfer").distinct().count()
        money = Account.objects.aggregate(sum=Sum("balance"))["sum"]
        wrong = [
            account.name
            for account in Account.objects.annotate(moved=Sum("entries__amount", default=0))
            if account.balance != BEGIN + account.moved
        ]
        again = Task.objects.filter(attempt_count__gt=1).count()
        self.stdout.write(f"{made} of {transfers} transfers made, {twice} of them not exactly once")
        self.stdout.write(f"{kills} workers killed; {again} transfers took more than one attempt")
        self.stdout.write(f"{money} in all accounts, of {BEGIN * len(NAMES)} at the beginning")
        if made != transfers or twice or wrong or money != BEGIN * len(NAMES):
            raise CommandError(f"The ledger is wrong: {wrong or 'transfers are missing or were made twice'}")
        self.stdout.write(self.style.SUCCESS("The ledger is exact."))
