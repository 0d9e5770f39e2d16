"""Projects with more than one database: routers that read from replicas, roles, Django's own pool of connections."""

from __future__ import annotations

import pytest
from django.db import connection

from pgq.store import connection as store_connection

SETTINGS = """
DATABASES["replica"] = database_from_url({replica!r})
DATABASES["again"] = DATABASES["default"] | {{"OPTIONS": {{"application_name": "again"}}}}
DATABASES["legacy"] = {{"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "legacy.sqlite3"}}
DATABASE_ROUTERS = ["shop.routers.Replicas"]
"""
#: Reads from a replica that is hopelessly late.
ROUTERS = """
class Replicas:
    def db_for_read(self, model, **hints):
        return "replica" if model._meta.app_label in ("shop", "pgq") else None

    def db_for_write(self, model, **hints):
        return "default"
"""
MODELS = """
from django.db import models

class Order(models.Model):
    name = models.TextField()
"""
TASKS = """
from pgq.tasks import task
from shop.models import Order

@task
def show(value):
    return value

def name_of(order):
    return [order.name, order._state.db]

def count():
    return Order.objects.using("default").count()
"""
PREPARE = """
from django.core.management import call_command
for alias in ("default", "replica"):
    call_command("migrate", database=alias, run_syncdb=True, verbosity=0)
"""
COMMON = """
from django.db import connections
from shop.models import Order
from shop.tasks import count, name_of, show
from pgq.errors import EnqueueError
from pgq.models import Failure, QueuedTask, Schedule, Success, Task
from pgq.tasks import *
from pgq.testing import assert_enqueued, drain
"""
ARGUMENTS = """
for alias in ("default", "replica"):
    Order.objects.using(alias).create(name=alias)
read = Order.objects.get()
assert read._state.db == "replica"
written = Order.objects.create(name="new")
for order in (read, written):
    async_task(name_of, order)
assert [ran.result for ran in drain()] == [["default", "default"], ["new", "default"]]
"""
ENQUEUE_FROM = """
def names():
    return sorted(ran.result for ran in drain())

# The router would read it from the replica: it is read where it is written, in the statement that enqueues.
assert show.enqueue_from(Order.objects.all(), "name") == 2
assert names() == ["default", "new"]
assert show.enqueue_from(Order.objects, "name") == 2
assert names() == ["default", "new"]
assert show.enqueue_from(Order.objects.using("again"), "name") == 2
assert names() == ["default", "new"]
# Somebody says where: it is read there, and enqueued here.
assert show.enqueue_from(Order.objects.using("replica"), "name") == 1
assert names() == ["replica"]
assert QueuedTask.objects.using("replica").count() == 0
try:
    show.enqueue_from(Order.objects.using("legacy"), "name")
except EnqueueError as error:
    assert "'legacy'" in str(error) and "enqueue_many" in str(error), error
else:
    raise AssertionError
"""
OWN_ROWS = """
id = async_task("math.hypot", 3, 4, task_name="mine", group="g")
assert_enqueued("math.hypot", count=1)
assert QueuedTask.objects.filter(pk=id).exists()
drain()
assert (result(id), fetch("mine").result, result_group("g"), count_group("g")) == (5.0, 5.0, [5.0], 1)
assert Success.objects.get(pk=id).result == Task.objects.get(pk=id).result == 5.0
assert Task.objects.get(pk=id)._state.db == "default"
failed = async_task("math.sqrt", -1); drain()
assert Failure.objects.get().pk == failed
deferred = Task.objects.only("id").get(pk=id)
assert deferred.func == "math.hypot"
deferred.refresh_from_db()
row = QueuedTask.objects.create(func="shop.tasks.show", args=[1])
row.refresh_from_db()
row.delete()
made = Schedule.objects.create(func="shop.tasks.show", args="1", schedule_type="D")
schedule("math.sqrt", 4, name="roots", schedule_type="D")
schedule("math.sqrt", 9, name="roots", schedule_type="D", update=True)
assert sorted(Schedule.objects.values_list("func", flat=True)) == ["math.sqrt", "shop.tasks.show"]
made.refresh_from_db(); made.save(); made.delete()
assert delete_group("g", tasks=True)[0] == 1
assert Task.objects.using("replica").count() == Schedule.objects.using("replica").count() == 0
"""
ADMIN = """
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
settings.ALLOWED_HOSTS = ["*"]
User.objects.create_superuser("root", password="root")
client = Client()
client.force_login(User.objects.get())
for page in ("task", "success", "failure", "queuedtask", "schedule", "workerpool"):
    answer = client.get(f"/admin/pgq/{page}/", follow=True)
    assert answer.status_code in (200, 404), (page, answer.status_code)
page = client.get("/admin/pgq/failure/").content.decode()
assert "sqrt" in page
"""
POOLED = """
assert connections["default"].pool is not None
ids = [async_task(count), async_task(name_of, Order.objects.first()), async_task("shop.tasks.show", 1)]
print(*ids)
"""
RESULTS = "import sys; print([result(id, wait=10_000) for id in sys.argv[1:]])"


@pytest.mark.slow
def test_databases_of_a_project(project, new_database):
    """One project for all, since its databases are dear."""
    apps = {"shop": {"models.py": MODELS, "tasks.py": TASKS, "routers.py": ROUTERS}}
    shop = project(SETTINGS.format(replica=new_database()), apps=apps, migrate=False)
    shop.python(PREPARE)
    shop.python(COMMON + ARGUMENTS + ENQUEUE_FROM + OWN_ROWS + ADMIN)
    # Reads of the replica are no reads of ours: a worker, and who waits for it, use the primary.
    pooled = 'DATABASES["default"]["OPTIONS"] = {"pool": True}\n'
    shop.configure(pooled + "DATABASES = {'default': DATABASES['default']}\n")
    ids = shop.python(COMMON + POOLED).stdout.split()
    shop.manage("pgq_worker", "--run-once", "--workers=1")
    assert shop.python(COMMON + RESULTS, *ids).stdout.strip() == "[2, ['default', 'default'], 1]"


@pytest.mark.django_db
def test_own_connections_have_the_role_of_djangos(monkeypatch):
    def role(**options):
        monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
        with store_connection.connect("default", "pgq test") as own:
            return own.execute("SELECT current_user").fetchone()[0]

    me = role()
    assert role(assume_role="pg_monitor") == "pg_monitor" != me
    assert role(pool=True) == me
