"""What the shop does, apart from how it looks: views and tests call these."""

from decimal import Decimal

from django.db import transaction

from shop.models import Order
from shop.tasks import send_receipt, update_statistics


class Declined(Exception):
    pass


@transaction.atomic
def place(customer: str, total: Decimal, *, declined: bool = False) -> Order:
    """Store an order and charge it. Its tasks are part of the transaction: if the charge fails, there is no letter.

    Raises:
        Declined: The card was refused. There is no order.
    """
    order = Order.objects.create(customer=customer, total=total)
    send_receipt.enqueue(order.pk, customer)
    update_statistics.enqueue()
    if declined:
        raise Declined("The card was declined: there is no order, and no letter.")
    order.state = Order.State.PAID
    order.save(update_fields=["state"])
    return order
