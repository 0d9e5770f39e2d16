from django.db import models


class Account(models.Model):
    name = models.CharField(max_length=20, unique=True)
    balance = models.IntegerField(default=0)

    def __str__(self) -> str:
        return self.name


class Entry(models.Model):
    """One side of a transfer: each transfer has two, whose amounts add up to 0."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="entries")
    transfer = models.PositiveIntegerField()
    amount = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.transfer}: {self.amount:+}"
