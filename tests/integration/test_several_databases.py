"""PGQ["databases"]: queues in several databases, and each door that leads to them."""

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from pgq import conf
from pgq.config import Config
from pgq.management.checks import check_alias
from pgq.management.commands.pgq_worker import databases_served

SETTINGS = """
DATABASES["second"] = database_from_url({second!r})
for each in DATABASES.values():
    each["OPTIONS"] = {{"connect_timeout": 3}}
PGQ = {{"databases": {{"second": ["reports", "mail"]}}, "workers": 1, "poll": 0.1}}
TASKS = {{"default": {{"BACKEND": "pgq.backend.PgqBackend", "QUEUES": []}}}}
"""
TASKS = """
from pgq.tasks import async_task, fetch, task

@task
def add(a, b):
    return a + b

@task(queue="reports")
def report(number):
    return number * 2

def total(group):
    from pgq.tasks import result_group
    return sorted(result_group(group))

@task(queue="reports")
def late(group):
    return group

def hook(task):
    global heard
    heard = task._state.db, task.result
"""
COMMON = """
from django.db import IntegrityError, connections, transaction
from pgq.errors import EnqueueError
from pgq.models import QueuedTask, Schedule, Task
from pgq.tasks import *
from pgq.testing import assert_enqueued, drain, enqueued, fire_schedules
from shop.tasks import add, late, report, total
import shop.tasks

def queued(alias): return sorted(QueuedTask.objects.using(alias).values_list("queue", "func"))
def refused(call, *words):
    try:
        call()
    except EnqueueError as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError("it was taken")
"""
DOORS = """
async_task("shop.tasks.add", 1, 2)
async_task(report, 1)
async_task(add, 1, 2, queue="mail")
report.enqueue(2)
add.using(queue="mail").enqueue(1, 2)
enqueue_many(report, [1, 2])
report.enqueue_many([3], run_after=60)
QueuedTask(func="shop.tasks.report", args=[1], queue="reports").save()
QueuedTask.objects.create(func="shop.tasks.report", args=[1], queue="reports")
QueuedTask.objects.create(func="shop.tasks.add", args=[1, 1])
QueuedTask.objects.bulk_create([QueuedTask(func="shop.tasks.add", args=[1, 1], queue=queue) for queue in ("mail", "x")])
assert [queue for queue, _ in queued("default")] == ["default", "default", "x"], queued("default")
assert [queue for queue, _ in queued("second")] == ["mail"] * 3 + ["reports"] * 7, queued("second")
assert len(enqueued()) == 13 and len(assert_enqueued(report)) == 7
assert queue_size() == 12
ran = drain()
assert {each.state for each in ran} == {"succeeded"} and len(ran) == 12, ran
assert Task.objects.using("second").count() == 9 and Task.objects.using("default").count() == 3
for alias in connections:
    QueuedTask.objects.using(alias).all().delete()
"""
TOGETHER = """
ids = enqueue_many(report, [1, 2], then=total)
drain()
assert {each.queue for each in Task.objects.using("second").filter(func="shop.tasks.total")} == {"reports"}
assert Task.objects.using("second").get(func="shop.tasks.total").result == [2, 4]
refused(lambda: enqueue_many(add, [(1, 2)], then=late), "then", "'reports'", "'second'", "'default'")
refused(lambda: async_chain([(add, (1, 2)), (report, (1,))]), "chain", "'second'")
whole = async_iter(report, [1, 2, 3])
group = async_chain([(report, (1,)), (add, (1, 2), {"q_options": {"queue": "mail"}})])
id = report.using(hook="shop.tasks.hook").enqueue(21)
drain()
assert result(whole) == [2, 4, 6] and fetch(whole)._state.db == "second"
assert sorted(result_group(group)) == [2, 3] and count_group(group) == 2
assert shop.tasks.heard == ("second", 42)
async_task(add, 1, 1, group="both"); async_task(report, 1, group="both"); drain()
assert sorted(result_group("both")) == [2, 2] and count_group("both") == 2 and len(fetch_group("both")) == 2
assert fetch_group("both")[0].func == "shop.tasks.report"
assert delete_group("both", tasks=True)[0] == 2 and count_group("both") == 0
"""
BY_ID = """
id = async_task(report, 1)
assert (cancel(id), cancel(id), cancel("0" * 32)) == ("queued", "finished", "unknown")
drain()
assert fetch(id).success is False and retry(id) and not retry("0" * 32)
drain()
assert result(id) == 2
async_task(report, 4, task_name="four"); drain()
assert fetch("four").result == 8
pause("reports")
id = async_task(report, 1)
assert drain() == []
resume("reports")
assert len(drain()) == 1 and result(id, wait=-1) == 2
"""
ASTRAY = """
import io, json
from django.core.management import call_command
def astray():
    out = io.StringIO()
    try:
        call_command("pgq_check", json=True, stdout=out)
    except SystemExit:
        pass
    found = [each for each in json.loads(out.getvalue())["checks"] if each["check"] == "places"]
    return {each["database"]: (each["status"], each["detail"]) for each in found}
assert astray() == {"default": ("ok", ""), "second": ("ok", "")}, astray()
QueuedTask.objects.using("default").create(func="shop.tasks.report", args=[1], queue="reports")
assert astray()["default"] == ("warning", "tasks of queues that lie elsewhere: 'reports' (of 'second')"), astray()
assert len(drain()) == 1
"""
TRANSACTIONS = """
try:
    with transaction.atomic():
        async_task(add, 1, 2); kept = async_task(report, 1)
        raise KeyError
except KeyError:
    pass
assert queued("default") == [] and [each.id for each in enqueued()] == [kept]
try:
    with transaction.atomic(using="second"):
        async_task(report, 1)
        raise KeyError
except KeyError:
    pass
assert len(enqueued()) == 1
drain()
"""
SCHEDULES = """
schedule("shop.tasks.add", 1, 2, name="one", schedule_type="D")
schedule("shop.tasks.report", 1, name="two", schedule_type="D", queue="reports")
schedule("shop.tasks.report", 2, name="two", schedule_type="D", queue="reports", update=True)
Schedule.objects.create(func="shop.tasks.report", args="1", name="three", schedule_type="D", queue="reports")
assert [each.name for each in Schedule.objects.using("second").order_by("name")] == ["three", "two"]
assert [each.name for each in Schedule.objects.using("default")] == ["one"]
try:
    schedule("shop.tasks.add", 1, 2, name="two", schedule_type="D", update=True)
except IntegrityError as error:
    assert "'second'" in str(error)
else:
    raise AssertionError
assert fire_schedules() == 3
assert sorted(each.queue for each in enqueued()) == ["default", "reports", "reports"] and len(queued("second")) == 2
drain()
assert Schedule.objects.using("second").get(name="two").last_task().result == 4
"""
IN_CODE = """
import io
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings
from pgq.schedules.sync import sync

CODE = [
    {"name": "r", "func": "shop.tasks.report", "args": [1], "queue": "reports", "cron": "0 3 * * *"},
    {"name": "h", "func": "shop.tasks.add", "args": [1, 2], "cron": "0 3 * * *"},
]

def in_code(*queues):
    return override_settings(PGQ={**settings.PGQ, "databases": {"second": list(queues)}, "schedules": CODE})

def there():
    rows = lambda alias: Schedule.objects.using(alias).filter(name__in="rh").order_by("name")
    return [[(row.name, row.paused) for row in rows(alias)] for alias in ("default", "second")]

with in_code("reports"):
    for alias in ("default", "second"):
        call_command("migrate", "pgq", database=alias, verbosity=0)
    assert there() == [[("h", False)], [("r", False)]], there()
    assert not sync().differs
    out = io.StringIO()
    call_command("pgq_schedules", "list", stdout=out)
    assert "in second" in out.getvalue() and "in default" in out.getvalue()
# It is paused where it was, and made where its queue is now; nothing fires in two places.
with in_code():
    sync()
    assert there() == [[("h", False), ("r", False)], [("r", True)]], there()
with in_code("reports"):
    sync()
    assert there() == [[("h", False), ("r", True)], [("r", False)]], there()
"""
QUEUES = """
import io, json
from django.core.management import CommandError, call_command
from pgq import conf
from pgq.models import Lane
from pgq.tasks import bulk

def ran_queues(*arguments):
    out = io.StringIO()
    call_command("pgq_queues", *arguments, "--json", stdout=out)
    return json.loads(out.getvalue())

async_task(add, 1, 2)
async_task(report, 1)
async_task(add, 1, 0, queue="mail")
known = {(one["queue"], one["database"]) for one in ran_queues()}
assert {("default", "default"), ("reports", "second"), ("mail", "second")} <= known, known
assert {one["queue"] for one in ran_queues("--database", "default")}.isdisjoint({"mail"}), known
assert ran_queues("pause", "mail", "default") == [
    {"queue": "default", "database": "default", "done": "paused"},
    {"queue": "mail", "database": "second", "done": "paused"},
]
for alias, queue in (("default", "default"), ("second", "mail")):
    assert [lane.queue for lane in Lane.objects.using(alias).filter(paused=True)] == [queue], alias
ran_queues("resume", "--all")
try:
    ran_queues("pause", "mial")
except CommandError as error:
    assert "There is no queue 'mial'" in str(error)
else:
    raise AssertionError("it was paused")
live = bulk.TaskFilter(states=("ready",))
assert (bulk.count(live).matched, bulk.count(live, most=2).matched) == (3, 2)
with conf.at("second"):
    assert bulk.count(live).matched == 2
assert ran_queues("cancel", "--all", "--limit", "2") ["more"] is True
assert bulk.cancel_matching(live).done == {"cancelled": 1}
drain()
assert bulk.count(live).matched == 0
cancelled = ran_queues("retry", "--exception", "pgq.errors.TaskCancelled")
assert cancelled["done"] == {"run again": 3}, cancelled
for alias in connections:
    QueuedTask.objects.using(alias).all().delete()
"""
INLINE = """
from pgq.testing import inline
with inline():
    id = async_task(report, 5)
    whole = async_iter(report, [1, 2])
    assert result(id) == 10 and fetch(id)._state.db == "second" and result(whole) == [2, 4]
"""
DJANGO_TASKS = """
from django.tasks import default_task_backend, task as django_task, TaskContext
import shop.tasks
one = django_task(queue_name="reports")(shop.tasks.total.__class__ and shop.tasks.plain)
result_ = one.enqueue(3)
assert queued("second") == [("reports", "shop.tasks.plain")]
drain()
result_.refresh()
assert result_.return_value == 3 and default_task_backend.get_result(result_.id).return_value == 3
"""


@pytest.mark.slow
def test_each_door_knows_of_several_databases(project, new_database):
    apps = {"shop": {"tasks.py": TASKS + "\n\ndef plain(number):\n    return number\n"}}
    shop = project(SETTINGS.format(second=new_database()), apps=apps, warm=True)
    shop.manage("migrate", "--database=second")
    shop.python(COMMON + DOORS + TOGETHER + BY_ID + ASTRAY + TRANSACTIONS + SCHEDULES + IN_CODE + QUEUES + INLINE)
    shop.python(
        COMMON
        + "import django\nif django.VERSION >= (6,):\n"
        + "".join(f"    {line}\n" for line in DJANGO_TASKS.strip().splitlines())
    )


# ------------------------------------------------------------------------------------------------- settings


def test_a_queue_under_two_aliases_is_named():
    with override_settings(PGQ={"databases": {"one": ["mail"], "two": ["reports", "mail"]}}):
        [problem] = conf.problems()
        assert "the queue 'mail' stands under 'one' and under 'two'" in problem.hint
        with pytest.raises(ImproperlyConfigured, match="'mail' stands under"):
            conf.get_settings()


def test_where_queues_lie_is_no_matter_of_one_pool():
    databases = {"second": ["reports"]}
    with override_settings(PGQ={"ALT_CLUSTERS": {"a": {"databases": databases}}}):
        assert [problem.key for problem in conf.problems()] == ["ALT_CLUSTERS"]
    with override_settings(PGQ={"databases": databases, "ALT_CLUSTERS": {"a": {"database": "second"}}}):
        [problem] = conf.problems()
        assert "holds database, and PGQ['databases'] says where queues lie" in problem.message


def test_config_has_it_too():
    with override_settings(PGQ=Config(databases={"second": ["reports"]})):
        assert conf.problems() == []
        assert (conf.database_of("reports"), conf.database_of("mail")) == ("second", "default")
        assert conf.aliases() == ("default", "second")


def test_a_pattern_stands_for_queues_and_a_name_comes_first():
    given = {"second": ["mail.*", "reports"], "third": ["mail.urgent", "*.slow"]}
    expected = {"mail.a": "second", "mail.urgent": "third", "x.slow": "third", "mail.slow": "second", "mail": "default"}
    with override_settings(PGQ={"databases": given}):
        assert {queue: conf.database_of(queue) for queue in expected} == expected


@pytest.mark.parametrize(
    ("queues", "aliases"),
    [
        (None, ("default", "second", "third")),
        (("reports",), ("second",)),
        (("reports", "here"), ("second", "default")),
        (("reports.*",), ("default", "third")),
        (("m*",), ("default", "third", "second")),
    ],
)
def test_which_databases_a_pool_serves(queues, aliases):
    with override_settings(PGQ={"databases": {"second": ["reports", "mail"], "third": ["*.slow"]}, "queues": queues}):
        assert set(databases_served(conf.get_settings(), None)) == set(aliases)


def test_what_is_at_hand_ends_with_its_block():
    with override_settings(PGQ={"databases": {"second": ["reports"]}}):
        with conf.at("second"):
            assert (conf.get_settings().database, conf.asked()) == ("second", ("second",))
            # Where a new task goes is decided by its queue alone.
            assert conf.database_of("mail") == "default"
        assert (conf.get_settings().database, conf.asked()) == ("default", ("default", "second"))
        with conf.served("second"):
            assert conf.asked() == ("second", "default")


def found(**databases):
    with override_settings(PGQ={"databases": databases}):
        return {message.id: message.msg for message in check_alias(None)}


def test_checks_name_the_alias(settings):
    assert found(nowhere=["a"]) == {"pgq.E002": "PGQ['databases'] names 'nowhere', which is not in DATABASES."}
    assert "pgq.E007" not in found(default=["a"])


LOOK = """
from pgq.management.checks import check_alias, check_database
found = (*check_alias(None), *check_database(None, databases=["default", "second", "again"]))
print(*sorted(message.id for message in found))
"""
MORE = """
DATABASES["lite"] = {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DATABASES["second"] = database_from_url({second!r})
DATABASES["again"] = DATABASES["default"] | {{}}
PGQ = {{"databases": {{{alias!r}: ["a"]}}}}
"""


@pytest.mark.slow
def test_checks_of_databases(project, new_database):
    shop, second = project(), new_database()
    # No PostgreSQL; the same database twice; no tables. Two without a limit to the wait for their server.
    for alias, ids in (("lite", "pgq.E003"), ("again", "pgq.E007 W W"), ("second", "pgq.W002 W W")):
        shop.configure(MORE.format(second=second, alias=alias))
        assert shop.python(LOOK).stdout.strip() == ids.replace("W ", "pgq.W007 ").replace(" W", " pgq.W007")


# ------------------------------------------------------------------------------------------------- the admin

ADMIN = """
from html import unescape
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
settings.ALLOWED_HOSTS = ["*"]
client = Client(raise_request_exception=True)
client.force_login(User.objects.create_superuser("root", password="root"))
KEPT = "_changelist_filters=database%3Dsecond"

def page(address, code=200):
    answer = client.get(address, follow=True)
    assert answer.status_code == code, (address, answer.status_code)
    return unescape(answer.content.decode())

one = schedule("shop.tasks.add", 1, 2, name="here", schedule_type="D")
two = schedule("shop.tasks.add", 3, 4, name="there", schedule_type="D", queue="mail")
assert one.pk == two.pk
id, other = async_task(report, 1), async_task(add, 1, 2)
for name in ("success", "failure", "queuedtask", "schedule", "workerpool"):
    for ending, code in (("", 200), ("?database=second", 200), ("?database=no", 404)):
        page(f"/admin/pgq/{name}/{ending}", code)

# The list of each shows its own, and leads to pages that do.
shown = page("/admin/pgq/queuedtask/?database=second")
assert "Database: second" in shown and id in shown and other not in shown and f"?{KEPT}" in shown
assert other in page("/admin/pgq/queuedtask/") and 'href="?database=second"' in page("/admin/pgq/queuedtask/")
assert "there" in page(f"/admin/pgq/schedule/{two.pk}/change/?{KEPT}")
assert "here" in page(f"/admin/pgq/schedule/{one.pk}/change/")
shown = page(f"/admin/pgq/queuedtask/{id}/change/?{KEPT}")
assert 'action="/admin/pgq/queuedtask/?database=second"' in shown and f"/delete/?{KEPT}" in shown

# What is done there is done there: an action, a change, a deletion, an addition.
paused = lambda alias: Schedule.objects.using(alias).get().paused
client.post("/admin/pgq/schedule/?database=second", {"action": "pause", "_selected_action": [two.pk]})
assert (paused("second"), paused("default")) == (True, False)
answer = client.post(f"/admin/pgq/queuedtask/{id}/delete/?{KEPT}", {"post": "yes"})
assert answer.status_code == 302 and queued("second") == [], queued("second")
answer = client.post(f"/admin/pgq/schedule/{two.pk}/delete/?{KEPT}", {"post": "yes"})
assert answer.url.endswith("?database=second"), answer.url
assert Schedule.objects.using("second").count() == 0 and Schedule.objects.using("default").count() == 1
new = {"func": "shop.tasks.add", "arguments": "1, 2", "keywords": "", "queue": "mail", "priority": "0"}
answer = client.post("/admin/pgq/queuedtask/add/", new)
assert "lies in the database 'second'" in unescape(answer.content.decode()), answer
answer = client.post(f"/admin/pgq/queuedtask/add/?{KEPT}", new)
assert answer.status_code == 302 and queued("second") == [("mail", "shop.tasks.add")], answer.content.decode()[-3000:]

# Permissions are those of the model, in each database.
client.force_login(User.objects.create_user("guest", is_staff=True))
assert client.get("/admin/pgq/queuedtask/?database=second").status_code == 403
"""


@pytest.mark.slow
def test_the_admin_shows_each_database(project, new_database):
    shop = project(SETTINGS.format(second=new_database()), apps={"shop": {"tasks.py": TASKS}}, warm=True)
    shop.manage("migrate", "pgq", "--database=second")
    shop.python(COMMON + ADMIN)
