"""Transfers that are made once, however often workers die.

`transfer` is not repeatable: run twice, it would move the money twice. With atomic=True it need not be. Its writes, its
result and the proof that its worker still held it are one commit; a worker killed before has changed nothing, and the
next attempt begins from the start.
"""

import time

from django.db.models import F

from ledger.models import Account, Entry
from pgq.tasks import task


# A task that has killed three workers counts as failed, unless max_attempts says otherwise: here the killer is chaos.
@task(atomic=True, max_attempts=0)
def transfer(number: int, source: str, target: str, amount: int) -> None:
    # Both rows are locked in the order of their keys, so that two transfers cannot wait for each other.
    accounts = {
        account.name: account
        for account in Account.objects.select_for_update().filter(name__in=[source, target]).order_by("pk")
    }
    Account.objects.filter(name=source).update(balance=F("balance") - amount)
    time.sleep(0.01)  # Room for a SIGKILL between the two updates.
    Account.objects.filter(name=target).update(balance=F("balance") + amount)
    Entry.objects.bulk_create(
        [
            Entry(account=accounts[source], transfer=number, amount=-amount),
            Entry(account=accounts[target], transfer=number, amount=amount),
        ]
    )
