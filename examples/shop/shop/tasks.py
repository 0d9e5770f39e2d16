from datetime import timedelta

from django.core.mail import send_mail
from django.db.models import Count, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from pgq.config import Every, cron
from pgq.tasks import Unique, task
from shop.models import DailySales, Order


# One letter at a time for each customer, and one task for each order: a double click sends one letter.
@task(
    queue="mail",
    key="customer",
    concurrency=1,
    unique=Unique("order_id", until="end"),
    max_attempts=5,
    retry_backoff={"kind": "exponential", "base": 10, "max": 3600},
)
def send_receipt(order_id: int, customer: str) -> str:
    """Send the letter, and note that it is sent. A worker that dies between the two sends it again: a mail server is no
    part of the transaction, so there is either one letter too many or one too few, and a receipt had better come twice.
    """
    order = Order.objects.get(pk=order_id)
    if order.receipt_sent_at:
        return "sent before"  # By an attempt that died after it had noted so.
    send_mail(f"Your order {order.pk}", f"Thank you for {order.total} EUR.", "shop@example.com", [customer])
    order.receipt_sent_at = timezone.now()
    order.save(update_fields=["receipt_sent_at"])
    return f"sent to {customer}"


# However many orders come in, the sums are made once: a second after the last one, every five seconds at least.
@task(unique=True, debounce=(1, 5))
def update_statistics() -> str:
    today = timezone.localdate()
    sums = Order.objects.filter(state=Order.State.PAID, placed_at__date=today).aggregate(
        orders=Count("pk"), total=Coalesce(Sum("total"), 0, output_field=Order._meta.get_field("total"))
    )
    DailySales.objects.update_or_create(day=today, defaults=sums)
    return f"{sums['orders']} orders"


@task(schedule=Every(minutes=5, name="cancel unpaid orders"))
def cancel_unpaid() -> int:
    late = timezone.now() - timedelta(minutes=30)
    return Order.objects.filter(state=Order.State.OPEN, placed_at__lt=late).update(state=Order.State.CANCELLED)


@task(schedule=cron("0 7 * * 1-5", time_zone="Europe/Paris", name="yesterday's sales"))
def mail_sales() -> None:
    sales = DailySales.objects.filter(day=timezone.localdate() - timedelta(days=1)).first()
    text = f"{sales.orders} orders, {sales.total} EUR" if sales else "no orders"
    send_mail("Yesterday's sales", text, "shop@example.com", ["owner@example.com"])
