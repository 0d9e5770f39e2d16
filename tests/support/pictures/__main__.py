"""Takes the pictures: ``python -m tests.support.pictures [NAME ...]``, with names as ``task-why``; without, all.

A PostgreSQL, a pool, a web server and a Chromium are started, and tasks come in for some minutes. What is seen is what
they did; only the charts begin before: their first 57 minutes repeat, up and down, what the workers counted meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support.pools import until
from tests.support.ports import free_port

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "docs" / "images"
HOME = "/admin/pgq/dashboard/"
#: Seconds for which tasks come in before the first picture.
WARM = float(os.environ.get("PGQ_PICTURES_SECONDS", "150"))
COLOURS = 192


@contextlib.contextmanager
def process(log: Path, *arguments: str) -> Iterator[None]:
    with log.open("ab") as output:
        running = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=output, stderr=output)
        try:
            yield
        finally:
            running.terminate()
            running.wait(60)


# ------------------------------------------------------------------------------------------------- the shop at work


class Customers:
    """Orders, photos and imports that come in until it is stopped."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._come, daemon=True)

    def _come(self) -> None:
        from django.db import connection
        from shop import tasks

        from pgq.tasks import enqueue_many

        order, turn = 41_000, 0
        while not self.ended.wait(0.5):
            turn += 1
            some = range(order, order + random.randint(2, 5))
            order = some.stop
            enqueue_many(tasks.charge_card, some)
            enqueue_many(tasks.send_receipt, [(one, f"customer{one}@example.com") for one in some])
            for photo in random.sample(range(10_000), 3):
                tasks.resize_photo.enqueue(f"photos/{photo}.jpg", [320, 800, 1600])
            if turn % 60 == 1:
                for supplier, pages in (("Nordlicht", 40), ("Atelier Roux", 60), ("Atelier Roux", 60)):
                    tasks.import_catalog.enqueue(supplier, pages)
            if turn % 120 == 1:
                pages = [("2026-10", page) for page in range(1, 13)]
                enqueue_many(tasks.render_page, pages, group=f"report {turn // 120 + 1}", then=tasks.bind_report)
        connection.close()

    def __enter__(self) -> Customers:
        self.thread.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.ended.set()
        self.thread.join(30)


def prepare() -> None:
    """Do what is done once: schedules, a pause, limits, marks, tasks of each state."""
    from django.contrib.auth import get_user_model
    from shop import tasks

    from pgq.tasks import async_chain, enqueue_many, pause, schedule, set_limit

    get_user_model().objects.create_superuser("ada", password="shop")
    set_limit("mail", rate="50/s", scope="queue")
    for name, func, when in (
        ("stock of Lyon", "sync_stock", {"schedule_type": "S", "seconds": 2}),
        ("stock of Gdańsk", "sync_stock", {"schedule_type": "S", "seconds": 3}),
        ("sums of the day", "nightly_sums", {"schedule_type": "C", "cron": "30 2 * * *", "time_zone": "Europe/Paris"}),
        ("orders for the accountants", "export_orders", {"schedule_type": "C", "cron": "0 */2 * * 1-5"}),
        ("the month's report", "mail_report", {"schedule_type": "C", "cron": "0 7 1 * *"}),
    ):
        args = (name.rpartition(" ")[2],) if func == "sync_stock" else ()
        schedule(f"shop.tasks.{func}", *args, name=name, **when)
    enqueue_many(tasks.send_newsletter, range(4_300))
    pause("newsletter")
    tasks.mail_report.using(run_after=5400, name="report of October").enqueue("report-2026-10.pdf")
    async_chain(
        [(f"shop.tasks.{name}", ()) for name in ("nightly_sums", "export_orders", "bind_report", "mail_report")],
        group="close the month",
    )
    sql("INSERT INTO pgq_queue (func, queue) VALUES ('shop.tasks.restock', 'mail')")


def sql(statement: str, *parameters: Any) -> list[Any]:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []


def one(statement: str, *parameters: Any) -> Any:
    """Return the one value that a statement finds, once it finds any."""
    return until(lambda: sql(statement, *parameters), 120, 0.5)[0][0]


def remember() -> None:
    """Have the minutes before be as the last ones were, up and down."""
    columns = [
        "succeeded",
        "failed",
        "retried",
        "cancelled",
        "timed_out",
        "crashed",
        "parked",
        "discarded",
        "run_us_sum",
        "wait_us_sum",
    ]
    share = "(0.7 + 0.25 * sin(n / 7.0) + 0.1 * random())"
    # Slow ones are more, and fewer, too: else their share, and so the p95, would be the same in each minute.
    slow = f"{share} * exp((place - cardinality(m.{{which}}_hist)) * (0.06 + 0.12 * cos(n / 5.0) + 0.05 * random()))"
    scaled = ", ".join(f"(m.{column} * {share})::bigint" for column in columns)
    hists = ", ".join(
        f"m.{which}_us_max, m.{which}_from, (SELECT array_agg(round(c * {slow.format(which=which)})::bigint"
        f" ORDER BY place) FROM unnest(m.{which}_hist) WITH ORDINALITY h (c, place))"
        for which in ("run", "wait")
    )
    # The first minute of the pool was not a whole one.
    sql("DELETE FROM pgq_metric WHERE span = 1 AND at < date_trunc('minute', now()) - interval '1 minute'")
    sql(
        f"INSERT INTO pgq_metric (span, at, queue, func, {', '.join(columns)}, run_us_max, run_from, run_hist,"
        f" wait_us_max, wait_from, wait_hist) SELECT m.span, m.at - n * interval '1 minute', m.queue, m.func, {scaled},"
        f" {hists} FROM pgq_metric m, generate_series(1, 61) n WHERE m.span = 1 AND m.at ="
        " (SELECT max(at) FROM pgq_metric WHERE span = 1 AND at < date_trunc('minute', now()))"
        " ON CONFLICT DO NOTHING"
    )
    sql(
        f"INSERT INTO pgq_gauge SELECT g.span, g.at - n * interval '1 minute', g.queue, (g.ready * {share})::bigint,"
        f" greatest((g.running * {share})::bigint, 1), g.waiting, g.parked, g.oldest_ready, g.workers, g.busy,"
        " g.paused, g.exact FROM pgq_gauge g, generate_series(1, 61) n WHERE g.span = 1 AND g.at ="
        " (SELECT max(at) FROM pgq_gauge WHERE span = 1)"
        " ON CONFLICT DO NOTHING"
    )
    for minutes, label, kind in (
        (1500, "v2.13.0", "release"),
        (38, "v2.14.0", "release"),
        (12, "mail server moved", "mark"),
    ):
        sql(
            "INSERT INTO pgq_mark (at, label, kind, author) VALUES (now() - %s * interval '1 minute', %s, %s, 'ada')",
            minutes, label, kind,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------- the pictures


def pages() -> dict[str, str]:
    """Return the address of each picture's page."""
    failed = one("SELECT id FROM pgq_task WHERE func ~ 'import' AND NOT success ORDER BY id DESC LIMIT 1")
    kind = one("SELECT pgq_fingerprint(func, exception, message) FROM pgq_task WHERE id = %s", failed)
    group = one('SELECT "group" FROM pgq_task WHERE "group" ~ \'^report\' ORDER BY id DESC LIMIT 1')
    held = "SELECT id FROM pgq_queue q, pgq_why(q.id) w WHERE q.queue = 'imports' AND w.code = 'held'"
    why = one(f"{held} ORDER BY q.id DESC LIMIT 1")
    pool = one("SELECT id FROM pgq_worker LIMIT 1")
    return {
        "overview": "", "queues": "queues/", "queue": "queues/payments/", "functions": "functions/",
        "function": "functions/shop.tasks.charge_card/", "errors": "errors/", "error": f"errors/{kind}/",
        "retry-all": f"errors/{kind}/retry/", "tasks": "tasks/", "task": f"task/{failed.hex}/",
        "why": f"task/{why.hex}/",
        "workers": "workers/", "pool": f"workers/{pool.hex}/", "schedules": "schedules/", "flows": "flows/",
        "flow": f"flows/{group}/", "doctor": "doctor/", "limits": "limits/", "audit": "audit/", "marks": "marks/",
    }  # fmt: skip


def take(browser: Any, name: str, address: str) -> None:
    for mode in ("light", "dark"):
        browser.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": mode}])
        _photograph(browser, f"{name}-{mode}" if mode == "dark" else name, address, 1280, 1500, mobile=False)
    browser.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    _photograph(browser, f"{name}-phone", address, 390, 1400, mobile=True)


def _photograph(browser: Any, name: str, address: str, width: int, most: int, *, mobile: bool) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": mobile}
    browser.devtools("Emulation.setDeviceMetricsOverride", **metrics)
    browser.devtools("Emulation.setScrollbarsHidden", hidden=True)
    browser.open(address)
    tall = int(browser.run("return document.documentElement.scrollHeight"))
    browser.devtools("Emulation.setDeviceMetricsOverride", **{**metrics, "height": max(min(tall, most), 500)})
    time.sleep(0.3)
    file = Path(tempfile.gettempdir()) / "picture.png"
    browser.picture(file)
    small = (
        Image.open(BytesIO(file.read_bytes()))
        .convert("RGB")
        .quantize(COLOURS, Image.Quantize.MAXCOVERAGE, 2, dither=Image.Dither.NONE)
    )
    small.save(IMAGES / f"dashboard-{name}.png", optimize=True)
    browser.devtools("Emulation.clearDeviceMetricsOverride")


def act(browser: Any, server: str) -> None:
    """Do what the audit then shows."""
    for page, button in (("queues/media/", "/pause/"), ("queues/media/", "/resume/")):
        browser.open(f"{server}{HOME}{page}")
        browser.leave_by(f"a[href$='{button}']")
        browser.leave_by(".pgq-confirm button")
    browser.open(f"{server}{HOME}errors/")
    browser.leave_by(".pgq-list td a")
    browser.leave_by("a[href$='/retry/']")
    browser.leave_by(".pgq-confirm button")


def main(names: list[str], folder: Path) -> None:
    import django

    from pgq.contrib.embedded import Server

    server = Server()
    server.start()
    try:
        os.environ.update(DATABASE_URL=server.url, DJANGO_SETTINGS_MODULE="tests.support.pictures.settings")
        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        prepare()
        port = free_port()
        web = ("-m", "django", "runserver", "--noreload", f"127.0.0.1:{port}")
        with (
            process(folder / "pool.log", "-m", "django", "pgq_worker"),
            process(folder / "web.log", *web),
            Customers(),
        ):
            time.sleep(WARM)
            # At once after a minute has been added up, which takes half of one: the charts then end with a whole one.
            time.sleep((100 - time.time()) % 60)
            remember()
            _take_all(names, f"http://127.0.0.1:{port}", folder)
    finally:
        server.stop()


def _take_all(names: list[str], server: str, folder: Path) -> None:
    from tests.support.browser import Browser

    browser = Browser(folder / "driver.log")
    try:
        browser.open(f"{server}/admin/login/?next={HOME}")
        browser.fill("#id_username", "ada")
        browser.fill("#id_password", "shop")
        browser.leave_by("[type=submit]")
        for name in names or pages():
            if name == "audit":
                act(browser, server)
            # What is waiting now may have ended when the next picture is taken.
            take(browser, name, f"{server}{HOME}{pages()[name]}")
    finally:
        browser.close()


if __name__ == "__main__":
    # Whatever ends it, nothing that it started is left.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_given: sys.exit(1))
    with tempfile.TemporaryDirectory() as logs:
        main(sys.argv[1:], Path(logs))
