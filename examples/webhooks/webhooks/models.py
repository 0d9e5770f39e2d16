from django.db import models


class Receipt(models.Model):
    """What a subscriber has received. In earnest this is somebody else's database."""

    subscriber = models.CharField(max_length=40)
    event = models.CharField(max_length=40)
    calls = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["subscriber", "event"], name="one_receipt_an_event")]

    def __str__(self) -> str:
        return f"{self.subscriber}: {self.event}"


class Switch(models.Model):
    """Whether the subscriber that is down has been mended."""

    mended = models.BooleanField(default=False)

    def __str__(self) -> str:
        return "mended" if self.mended else "down"
