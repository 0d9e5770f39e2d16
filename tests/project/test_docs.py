"""The pages say what is true: their snippets run, and what they name exists."""

from __future__ import annotations

import ast
import re
import sys
import types
import unittest
from pathlib import Path

import pytest
from django.db import connection
from django.test import override_settings

from pgq import conf, recurrence
from pgq.enqueue import registry
from pgq.execution import reporters
from pgq.execution.context import Context
from pgq.models import QueuedTask, Schedule
from pgq.schedules import code, declared
from pgq.testing import drain, enqueued, fire_schedules
from tests.app.models import Note
from tests.support import mutants
from tests.support.blocks import texts

ROOT = Path(__file__).parent.parent.parent
TESTS = ROOT / "tests"

#: Every public name of Django-Q (functions, options, classes and their members, settings, signals, commands).
_PUBLIC = """
async_task schedule result result_cached result_group result_group_cached fetch fetch_cached fetch_group
fetch_group_cached count_group count_group_cached delete_group delete_group_cached delete_cached queue_size async_iter
async_chain Iter Chain AsyncTask append run length current broker sync save hook group cached timeout cluster
ack_failure task_name q_options iter_count iter_cached chain Task Success Failure Schedule OrmQ get_result
get_result_group get_group_count get_task get_task_group group_result group_count group_delete time_taken started
stopped attempt_count calculate_next_run last_run success validate_cron validate_kwarg ONCE MINUTES HOURLY DAILY
WEEKLY BIWEEKLY MONTHLY BIMONTHLY QUARTERLY YEARLY CRON TYPE minutes repeats next_run cron intended_date_kwarg key
payload lock post_spawn pre_enqueue pre_execute post_execute post_execute_in_worker call_hook Broker get_broker Redis
Sqs IronMQBroker Mongo ORM Status Stat uptime get_key empty_queues get_all Cluster Sentinel humanize SignedPackage
BadSignature TimeoutException Conf VERSION qcluster qinfo qmonitor qmemory resubmit_task TaskAdmin FailAdmin
ScheduleAdmin QueueAdmin Q_CLUSTER_NAME PROMETHEUS_MULTIPROC_DIR name cluster_name ALT_CLUSTERS workers
daemonize_workers recycle max_rss time_zone ack_failures max_attempts retry compress save_limit save_limit_per
guard_cycle queue_limit label catch_up redis django_redis iron_mq sqs orm mongo mongo_db broker_class bulk poll cache
scheduler error_reporter cpu_affinity log_level testing disque_nodes disque_auth disque_fastack has_replica rollbar
"""
PUBLIC = _PUBLIC.split()


def page(name):
    return (ROOT / "docs" / name).read_text()


def blocks(name, language):
    return texts(f"docs/{name}", language)


# ------------------------------------------------------------------------------------------------- from-django-q.md


def rows():
    for line in page("migrate/django-q.md").splitlines():
        if line.startswith("| ") and not line.startswith("| Django-Q |"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_every_public_name_of_django_q_has_a_row():
    written = set(re.findall(r"\w+", " ".join(row[0] for row in rows())))
    assert [name for name in PUBLIC if name not in written] == []


def test_every_row_names_a_test_that_exists_or_a_reason():
    tests = set()
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                tests.add(f"{file.stem}::{node.name}")
    for row in rows():
        assert len(row) == 3, row
        assert row[2] in tests or row[2].startswith("none: "), row[2]


@pytest.mark.django_db(transaction=True)
def test_snippets_for_those_who_move(monkeypatch):
    hooks = types.ModuleType("shop.hooks")
    hooks.print_result = _module_function("shop.hooks", "def print_result(task): pass")
    monkeypatch.setitem(sys.modules, "shop", types.ModuleType("shop"))
    monkeypatch.setitem(sys.modules, "shop.hooks", hooks)
    [snippet] = blocks("migrate/django-q.md", "python")
    name = "shop.snippet"
    try:
        exec(compile(snippet, name, "exec"), {"__name__": name})
        assert enqueued("math.copysign")[0].hook == "shop.hooks.print_result"
        assert Schedule.objects.get().name == "daily"
    finally:
        _forget("shop.")


def _module_function(module, source):
    namespace = {"__name__": module}
    exec(source, namespace)
    return next(value for value in namespace.values() if callable(value))


def _forget(prefix):
    for path in [path for path in registry._registered if path.startswith(prefix)]:
        del registry._registered[path]
    registry._home.cache_clear()


# ------------------------------------------------------------------------------------------------- settings.md


def test_snippets_of_the_settings(monkeypatch):
    sdk = types.ModuleType("sentry_sdk")
    sdk.calls = []
    for name in ("init", "capture_exception", "flush"):
        setattr(sdk, name, lambda *args, name=name: sdk.calls.append((name, *args)))
    monkeypatch.setitem(sys.modules, "sentry_sdk", sdk)
    for snippet in blocks("reference/settings.md", "python"):
        namespace = {"__name__": "snippet"}
        exec(snippet, namespace)
        if "PGQ" in namespace:
            assert conf.read("PGQ", namespace["PGQ"])[1] == []
        elif "Sentry" in namespace:
            reporter = reporters.Reporter("x", {})
            reporter._report = namespace["Sentry"]("dsn").report
            reporter.send(ValueError("x"))
    assert [call[0] for call in sdk.calls] == ["init", "capture_exception", "flush"]


@pytest.mark.parametrize(
    "backoff", [None, 30, [1, 10, 60], {"kind": "exponential", "base": 5, "factor": 2, "max": 3600, "jitter": 0.5}]
)
def test_backoffs_of_the_settings_page(backoff):
    assert f"| `{str(backoff).replace(chr(39), chr(34))}` |" in page("reference/settings.md")
    with override_settings(PGQ={"retry_backoff": backoff}):
        assert conf.get_settings().retry_backoff == backoff


# ------------------------------------------------------------------------------------------------- schedules.md


@pytest.mark.django_db
def test_snippets_of_schedules_and_of_the_configuration(monkeypatch):
    """Each runs, and what it gives to PGQ is right and becomes schedules."""
    beside, *others = [*blocks("guide/schedules.md", "python"), *blocks("guide/configuration.md", "python")]
    module = types.ModuleType("shop.tasks")
    monkeypatch.setitem(sys.modules, "shop", types.ModuleType("shop"))
    monkeypatch.setitem(sys.modules, "shop.tasks", module)
    numbers = []
    try:
        exec(beside, vars(module))
        assert [one.name for one in code.read().schedules] == ["shop.tasks.nightly", "refresh", "refresh eu"]
        for snippet in others:
            namespace = {"__name__": "snippet"}
            exec(snippet, namespace)
            if "PGQ" in namespace:
                with override_settings(PGQ=namespace["PGQ"]):
                    assert conf.problems() == []
                    found = code.read()
                    assert found.findings == []
                    numbers.append(len(found.schedules) - 3)
        assert numbers == [3, 1, 2]
        assert Schedule.objects.filter(func="pgq.schedules.commands.run").count() == 2
        assert fire_schedules() == 1
    finally:
        for path in ("shop.tasks.nightly", "shop.tasks.refresh"):
            declared.declare(path, None)
        _forget("shop.")


def test_the_page_of_schedules_names_all_that_sync_may_do():
    for option in ("--dry-run", "--check", "--prune", "--force", "--adopt"):
        assert option in page("guide/schedules.md")
    for word in recurrence.KIND_WORDS:
        assert word in page("guide/schedules.md")


# ------------------------------------------------------------------------------------------------- testing.md


class _Receipts:
    """Stands for the manager of a model of the reader's."""

    def create(self, order):
        return Note.objects.create(text=str(order))

    def filter(self, **lookups):
        return Note.objects.filter(**lookups)

    def count(self):
        return Note.objects.count()


# Django's TestCase closes the connection when its class is done.
@pytest.mark.django_db(transaction=True)
def test_snippets_for_tests(monkeypatch):
    first, *others = blocks("guide/testing.md", "python")
    modules = {name: types.ModuleType(name) for name in ("shop", "shop.models", "shop.tasks", "shop.tests")}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    modules["shop.models"].Receipt = type("Receipt", (), {"objects": _Receipts()})
    try:
        exec(first, vars(modules["shop.tasks"]))
        for snippet in others:
            exec(snippet, vars(modules["shop.tests"]))
        suite = unittest.defaultTestLoader.loadTestsFromModule(modules["shop.tests"])
        assert suite.countTestCases() == 8
        outcome = unittest.TestResult()
        suite.run(outcome)
        assert [text for _, text in outcome.errors + outcome.failures] == []
    finally:
        _forget("shop.")


@pytest.mark.django_db
def test_snippets_of_the_context(monkeypatch):
    module = types.ModuleType("shop.tasks")
    monkeypatch.setitem(sys.modules, "shop", types.ModuleType("shop"))
    monkeypatch.setitem(sys.modules, "shop.tasks", module)
    source, setting, reading = blocks("guide/context.md", "python")
    namespace = {"__name__": "snippet"}
    try:
        exec(source, vars(module))
        exec(setting, namespace)
        assert conf.read("PGQ", namespace["PGQ"])[1] == []
        exec(reading, namespace)
        module.count_words.enqueue("one two")
        ran, words = drain()
        assert (ran.result, ran.progress, ran.log) == (3, (3, 3, "row 3"), ("attempt 1 of 3",))
        assert words.progress == (2, None, None)
        # Once more, now that there is something to read.
        exec(reading.replace("import_prices.enqueue([1, 2, 3])", "id"), namespace)
        assert namespace["progress"].fraction == namespace["finished"].progress.fraction == 1
    finally:
        _forget("shop.")


def test_every_member_of_the_context_is_on_the_page():
    members = {name for name in vars(Context) if not name.startswith("_")} - {
        "said",
        "last_progress",
        "messages",
        "end",
    }
    text = page("guide/context.md")
    assert [name for name in members if f"`{name}" not in text] == []


@pytest.mark.django_db
def test_example_of_the_module():
    """The one in pgq.testing's own docstring, in plain calls."""
    from datetime import UTC, datetime

    from pgq import testing
    from pgq.tasks import schedule
    from tests.functions import common as functions

    assert "clock.tick(days=1)" in testing.__doc__
    with testing.freeze(datetime(2031, 3, 1, 6, tzinfo=UTC)) as clock:
        schedule(functions.nothing, schedule_type=Schedule.DAILY, name="report")
        testing.fire_schedules()
        clock.tick(days=1)
        testing.fire_schedules()
    testing.assert_enqueued(functions.nothing, count=2)


# ------------------------------------------------------------------------------------------------- tasks.md


@pytest.mark.django_db
def test_snippets_of_tasks(monkeypatch):
    first, *others = blocks("guide/tasks.md", "python")
    modules = {name: types.ModuleType(name) for name in ("shop", "shop.models", "shop.tasks", "shop.views")}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    modules["shop.models"].Order = Note
    Note.objects.create(text="an order")
    try:
        exec(first, vars(modules["shop.tasks"]))
        for snippet in others:
            exec(snippet, vars(modules["shop.views"]))
        assert modules["shop.views"].ids[-1].cancel() == "queued"
        rows = [row.func.rpartition(".")[2] for row in enqueued()]
        assert (rows.count("send_receipt"), rows.count("fetch_rates"), rows.count("import_orders")) == (1008, 1, 1)
        assert set(Schedule.objects.values_list("name", "priority")) == {("nightly", 5), (None, 0)}
    finally:
        _forget("shop.")


# ------------------------------------------------------------------------------------------------- unique.md


@pytest.mark.django_db
def test_snippets_of_unique(monkeypatch):
    source, *others = blocks("guide/unique.md", "python")
    modules = {name: types.ModuleType(name) for name in ("shop", "shop.tasks")}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    try:
        exec(source, vars(modules["shop.tasks"]))
        given = dict(vars(modules["shop.tasks"]))
        for snippet in others:
            exec(snippet, given)
        assert given["late"].created
        [row] = enqueued(given["rebuild_search"])
        assert row.run_after is not None
        [insert] = blocks("guide/unique.md", "sql")
        with connection.cursor() as cursor:
            for count in (1, 0):
                cursor.execute(insert)
                assert cursor.rowcount == count
        assert not given["sync_order"].enqueue(7).created
    finally:
        _forget("shop.")


# ------------------------------------------------------------------------------------------------- sql.md


@pytest.mark.django_db
def test_snippets_of_sql(monkeypatch):
    """Each statement runs, and gives the columns that the page shows."""
    [source] = blocks("reference/sql.md", "python")
    module = types.ModuleType("shop.tasks")
    monkeypatch.setitem(sys.modules, "shop", types.ModuleType("shop"))
    monkeypatch.setitem(sys.modules, "shop.tasks", module)
    exec(source, vars(module))
    shown = re.findall(r"^```sql\n(.*?)^```\n(?:```\n(.*?)^```)?", page("reference/sql.md"), re.MULTILINE | re.DOTALL)
    assert len(shown) > 10
    try:
        with connection.cursor() as cursor:
            for statements, output in shown:
                for statement in filter(str.strip, statements.split(";\n")):
                    cursor.execute(statement.rstrip("; \n").replace("%", "%%"))
                if output:
                    columns = [column.strip() for column in output.splitlines()[0].split("|")]
                    assert [column.name for column in cursor.description] == columns, statement
                drain()
        fire_schedules()
        assert [row.parked is not None for row in enqueued("os.system")] == [True]
    finally:
        _forget("shop.")


def test_every_view_and_function_is_on_the_page():
    sql = "".join(file.read_text() for file in (ROOT / "migrations_sql").glob("*.up.sql"))
    text = page("reference/sql.md")
    inner = {"pgq_queue_inserted", "pgq_uuid7", "pgq_make_keyed", "pgq_keyed_ready", "pgq_pin_search_path"}
    for name in set(re.findall(r"CREATE OR REPLACE (?:VIEW|FUNCTION) (\w+)", sql)) - inner:
        assert name in text, name


def test_snippets_of_limits(monkeypatch, session):
    """Each runs; what it enqueues has the keys that the page says, and what it sets is there."""
    names = ["shop", "shop.tasks"]
    modules = {name: types.ModuleType(name) for name in names}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    tasks, calls, settings, changes = blocks("guide/limits.md", "python")
    try:
        exec(tasks, vars(modules["shop.tasks"]))
        exec(calls, vars(modules["shop.tasks"]))
        tasks_of = vars(modules["shop.tasks"])
        tasks_of["sync_account"].enqueue(7)
        tasks_of["charge"].enqueue(7)
        keys = list(QueuedTask.objects.order_by("position").values_list("task_key", flat=True))
        assert keys == ["7", "a key of its own", *["tenant:7"] * 3, "shop.tasks.sync_account:7", "stripe"]
        namespace = {}
        exec(settings, namespace)
        assert conf.read("PGQ", namespace["PGQ"])[1] == []
        exec(changes, vars(modules["shop.tasks"]))
        for statement in blocks("guide/limits.md", "sql"):
            for line in statement.splitlines():
                session().execute(line)
        assert session().execute("SELECT name, concurrency, rate, pinned FROM pgq_limit").fetchall() == [
            ("stripe", 3, 50, True)
        ]
    finally:
        _forget("shop.")


def test_the_page_on_reliability_lists_each_guard_that_was_removed():
    assert len(mutants.table().splitlines()) == len(mutants.MUTANTS) + 2
    assert f"\n{mutants.table()}\n" in (ROOT / "docs/explain/reliability.md").read_text()
