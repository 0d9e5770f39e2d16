"""docs/migrate/celery.md: its example is run by a real Celery worker; what waits in the broker moves over to pgq."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable

import celery.signals
from celery import canvas
from celery.app.defaults import DEFAULTS
from celery.app.task import Task
from celery.bin.worker import worker as worker_command
from celery.contrib.django.task import DjangoTask
from celery.result import AsyncResult

from tests.support.deploy import running
from tests.support.moving import code, files, missing, old_project, receipts, unknown
from tests.support.pools import wait_for
from tests.support.projects import Project

PAGE = "docs/migrate/celery.md"
#: What one order leaves, by either.
PAID = [(1, ""), (1, "2 EUR"), (1, "3 EUR in all"), (1, "copy")]
WORKER = ("-A", "project.celery", "worker", "--pool", "solo", "--without-gossip", "--without-mingle")
#: The app is Celery's current one in each process.
APP = "from project.celery import app\n"


def worker(shop: Project):
    command = (sys.executable, "-m", "celery", *WORKER)
    env = {"DJANGO_SETTINGS_MODULE": "project.settings"}
    return running(*command, folder=shop.folder, log=shop.folder / "celery.log", **env)


def test_the_example_does_the_same_in_both_and_what_waits_moves_over(project: Callable[..., Project]) -> None:
    shop = old_project(project, PAGE)
    (shop.folder / "broker").mkdir()
    shop.python(APP + "from shop.orders import pay\npay(1)")
    with worker(shop):
        wait_for(lambda: len(receipts(shop)) == len(PAID), "Celery has done it")
    assert receipts(shop) == PAID

    # Three more wait in the broker, one of them for its time, when the new release comes.
    calls = "send_receipt.delay(2); send_receipt.delay(3); send_receipt.apply_async((4,), countdown=1)"
    shop.python(APP + f"from shop.tasks import send_receipt\n{calls}")
    for path, text in files(PAGE, "after").items():
        shop.write(path, text)
    shop.write(
        "project/celery.py", code(PAGE)["project/celery.py, before"] + 'app.conf.imports = ["project.forward"]\n'
    )
    with worker(shop):
        wait_for(lambda: shop.sql("SELECT count(*) FROM pgq_queue") == [(3,)], "all are forwarded")
    assert receipts(shop) == PAID, "Celery has run none of them"
    shop.python("from shop.orders import pay\nassert pay(5).created")
    due = "SELECT 1 FROM pgq_queue HAVING coalesce(max(run_after) < now(), true)"
    wait_for(lambda: shop.sql(due), "the delayed one is due")
    shop.manage("pgq_worker", "--run-once", "--workers=1")
    left = [(5, text.replace("3", "15").replace("2", "10")) for _, text in PAID]
    assert receipts(shop) == [*PAID, (2, ""), (3, ""), (4, ""), *sorted(left)]


def test_every_name_of_celery_has_a_row() -> None:
    names = {*DEFAULTS, *celery.signals.__all__, *canvas.__all__}
    names |= {name for name, of in vars(Task).items() if of is None or isinstance(of, bool | int | str | tuple)}
    names |= set(inspect.signature(Task.apply_async).parameters) | {*vars(DjangoTask)} - {"__module__", "__doc__"}
    names |= {"countdown", "eta", "expires", "queue", "priority", "max_retries", "autoretry_for", "retry_backoff"}
    names |= {name for name, of in vars(AsyncResult).items() if name[0] != "_" and isinstance(of, property)}
    names |= {"get", "ready", "successful", "failed", "revoke", "forget", "GroupResult", "ResultSet"}
    for parameter in worker_command.params:
        names |= {option for option in parameter.opts if option.startswith("--")}
    inner = {
        "self",
        "options",
        "from_config",
        "request_stack",
        "app",
        "graph",
        "supports_native_join",
        "task_id",
        "ignored",
    }
    assert missing(PAGE, {name for name in names - inner if name[0] != "_"}) == []


def test_every_name_of_the_page_is_one_of_pgq() -> None:
    assert unknown(PAGE) == []
