"""Its tasks wait instead of talking to others, and fail as such tasks fail."""

from __future__ import annotations

import random
import time

from pgq.tasks import Context, task


class CardDeclined(Exception):
    """By its bank."""


class MailServerBusy(Exception):
    """Try again later."""


def _wait(least: float, most: float) -> None:
    time.sleep(random.triangular(least, most, least))


@task(queue="payments", concurrency=("stripe", 5), priority=5)
def charge_card(order: int) -> str:
    _wait(0.15, 0.6)
    if random.random() < 0.02:
        raise CardDeclined(f"order {order}: the bank has declined the card")
    return f"ch_{order:08x}"


@task(queue="mail", max_attempts=4, retry_backoff=20)
def send_receipt(order: int, address: str) -> str:
    _wait(0.03, 0.3)
    if random.random() < 0.05:
        raise MailServerBusy(f"451 4.7.1 <{address}>: try again later")
    return f"sent to {address}"


@task(queue="media")
def resize_photo(photo: str, widths: list[int]) -> list[str]:
    _wait(0.1, 1.2)
    if random.random() < 0.01:
        raise OSError(f"cannot identify image file '{photo}'")
    return [f"{photo}-{width}.webp" for width in widths]


@task
def sync_stock(warehouse: str) -> int:
    _wait(0.02, 0.2)
    if random.random() < 0.08:
        raise TimeoutError(f"{warehouse} has not answered for 5 s")
    return random.randint(100, 900)


@task(queue="imports", key="supplier", concurrency=1, takes_context=True, timeout=300)
def import_catalog(context: Context, supplier: str, pages: int) -> int:
    for page in range(1, pages + 1):
        context.progress(page, pages, f"page {page} of {supplier}")
        if not page % 5:
            context.log.info("%d articles of %s are read", 40 * page, supplier)
        time.sleep(0.5)
        if supplier == "Nordlicht" and page == 12:
            context.log.warning("page %d has no column ean", page)
            raise KeyError("ean")
    return 40 * pages


@task
def render_page(month: str, page: int) -> int:
    _wait(0.5, 3)
    return page


@task
def bind_report(month: str = "2026-10") -> str:
    return f"report-{month}.pdf"


@task
def nightly_sums(day: str = "") -> int:
    _wait(0.5, 2)
    return 1


@task
def export_orders() -> int:
    _wait(0.5, 2)
    return 1


@task
def mail_report(report: str = "") -> None:
    _wait(0.1, 0.3)


@task(queue="newsletter")
def send_newsletter(customer: int) -> None:
    _wait(0.02, 0.1)
