from django.db import models


class Order(models.Model):
    class State(models.TextChoices):
        OPEN = "open"
        PAID = "paid"
        CANCELLED = "cancelled"

    customer = models.EmailField()
    total = models.DecimalField(max_digits=8, decimal_places=2)
    state = models.CharField(max_length=9, choices=State.choices, default=State.OPEN)
    placed_at = models.DateTimeField(auto_now_add=True)
    receipt_sent_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"order {self.pk} of {self.customer}"


class DailySales(models.Model):
    day = models.DateField(unique=True)
    orders = models.PositiveIntegerField()
    total = models.DecimalField(max_digits=10, decimal_places=2)

    def __str__(self) -> str:
        return f"{self.day}: {self.total}"
