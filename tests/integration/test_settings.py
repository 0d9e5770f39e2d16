"""The settings: every key of Django-Q, read at use, wrong values named, Q_CLUSTER understood."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from pgq import conf
from pgq.conf import Queues, Settings, get_settings
from pgq.management.commands.pgq_worker import warn_of_name
from pgq.models import QueuedTask, Task
from pgq.schedules.fire import run_now
from pgq.store import results
from pgq.store.caller import callers_cursor
from pgq.tasks import async_task, enqueue_from, enqueue_many, schedule
from pgq.testing import drain, fire_schedules
from pgq.upkeep.chores import Upkeep
from tests.functions import oracle as oracle_tasks
from tests.support import settings_page

ROOT = Path(__file__).parents[2]

#: Every key of Q_CLUSTER, with a value as its documentation has it.
DJANGO_Q = {
    "name": "shop", "cluster_name": "shop", "ALT_CLUSTERS": {"long": {"timeout": 3000}}, "workers": 8,
    "daemonize_workers": True, "recycle": 500, "max_rss": 100_000, "timeout": 60, "time_zone": "Europe/Paris",
    "ack_failures": True, "max_attempts": 1, "retry": 120, "compress": True, "save_limit": 250,
    "save_limit_per": "func", "guard_cycle": 5, "sync": False, "queue_limit": 500, "label": "Tasks",
    "catch_up": False, "redis": {"host": "127.0.0.1"}, "django_redis": "default", "iron_mq": {}, "sqs": {},
    "orm": "default", "mongo": {}, "mongo_db": "q", "broker_class": "a.B", "bulk": 10, "poll": 0.5,
    "cache": "default", "cached": 60, "scheduler": True, "error_reporter": {"sentry": {"dsn": "x"}},
    "cpu_affinity": 1, "log_level": "DEBUG", "testing": True,
}  # fmt: skip
WITHOUT_MEANING = {
    "daemonize_workers", "guard_cycle", "queue_limit", "redis", "django_redis", "iron_mq", "sqs", "mongo", "mongo_db",
    "broker_class", "bulk", "testing",
}  # fmt: skip
OLDER = {"disque_nodes": [], "disque_auth": "x", "disque_fastack": True, "has_replica": True, "rollbar": {}}


def problems(**given):
    return conf.read("PGQ", given)[1]


def values(**given):
    return conf.read("PGQ", given)[0]


@pytest.fixture(autouse=True)
def _no_name_in_the_environment(monkeypatch):
    monkeypatch.delenv("PGQ_NAME", raising=False)
    monkeypatch.delenv("Q_CLUSTER_NAME", raising=False)
    conf.forget()
    yield
    conf.forget()


# ------------------------------------------------------------------------------------------------- Django-Q's keys


@pytest.mark.parametrize("setting", ["PGQ", "Q_CLUSTER"])
def test_every_key_of_django_q_is_understood(setting):
    understood, found = conf.read(setting, DJANGO_Q)
    assert not [problem for problem in found if problem.serious]
    assert {problem.key for problem in found} == WITHOUT_MEANING
    assert all(problem.message.startswith(f"{setting}[") for problem in found)
    renamed = {"orm": "database", "cluster_name": "name"}
    for key, value in DJANGO_Q.items():
        if key not in WITHOUT_MEANING and key != "ALT_CLUSTERS":
            assert understood[renamed.get(key, key)] == value, key


def test_keys_of_older_versions_are_named():
    found = problems(**OLDER)
    assert {problem.key for problem in found} == set(OLDER)
    assert not any(problem.serious for problem in found)


def test_orm_is_the_database():
    assert values(orm="other")["database"] == "other"
    assert values(orm="other", database="mine")["database"] == "mine"


# ------------------------------------------------------------------------------------------------- read at use


def test_read_at_use():
    before = get_settings()
    with override_settings(PGQ={"timeout": 7, "name": "x"}):
        assert (get_settings().timeout, get_settings().name) == (7, "x")
        with override_settings(PGQ={"timeout": 8}):
            assert (get_settings().timeout, get_settings().name) == (8, "default")
        assert get_settings().timeout == 7
    assert get_settings() == before
    assert get_settings() is get_settings()


def test_q_cluster_is_read_when_there_is_no_pgq(settings):
    settings.Q_CLUSTER = {"name": "old", "timeout": 9}
    assert (get_settings().name, get_settings().timeout) == ("old", 9)
    settings.PGQ = {}
    assert (get_settings().name, get_settings().timeout) == ("default", None)


def test_defaults():
    assert dataclasses.asdict(Settings()) == {
        "name": "default", "database": "default", "databases": {}, "queues": None,
        "exclude_queues": (), "queue_limits": {}, "default_queue": "default",
        "workers": len(os.sched_getaffinity(0)), "coroutines": 100, "threads": 1,
        "recycle": 500_000, "max_rss": None, "timeout": None,
        "kill_after": 3.0, "retry": 60.0, "max_attempts": 1, "retry_backoff": None, "max_crashes": 3,
        "ack_failures": False, "save_limit": 250, "save_limit_per": None, "keep_days": None,
        "catch_up": True, "catch_up_limit": 100, "scheduler": True, "time_zone": None, "sync": False,
        "cached": False, "cache": "default", "compress": False,
        "max_payload": 16 * 1024 * 1024, "allow_pickle": False, "allowed": (), "poll": 1.0, "tick": 1.0,
        "claim_ms": 50.0, "settle_ms": 50.0, "grace": None, "start_method": "forkserver", "cpu_affinity": 0,
        "error_reporter": {}, "log_level": "INFO", "label": "pgq", "health_host": "127.0.0.1", "health_port": None,
            "schedules": (), "sync_schedules": "migrate", "schedules_source": "code", "release": None,
            "environment": None, "allowed_commands": (), "api_tokens": {},
    }  # fmt: skip


def test_every_setting_does_something():
    code = "".join(path.read_text() for path in (ROOT / "pgq").rglob("*.py") if path.parent.name != "conf")
    # Others read it as `settings.zone`.
    inside = inspect.getsource(Settings.zone.fget)
    for item in dataclasses.fields(Settings):
        used = re.search(rf"(settings|get_settings\(\)|policy)\.{item.name}\b", code)
        used = used or f"self.{item.name}" in inside
        assert used, f"nothing uses PGQ[{item.name!r}]"


def test_settings_page_is_what_the_declarations_say():
    page = settings_page.PAGE.read_text(encoding="utf-8")
    assert sorted(settings_page.keys(page)) == sorted([*conf.DECLARATIONS, "ALT_CLUSTERS"])
    assert page == settings_page.written(page), "run make docs"
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, re.MULTILINE))
    lists = {
        "databases", "allowed", "allowed_commands", "exclude_queues", "queue_limits", "schedules", "error_reporter",
        "api_tokens",
    }  # fmt: skip
    elsewhere = {"workers", "max_payload", *lists}
    for item in dataclasses.fields(Settings):
        default = getattr(Settings(), item.name)
        if item.name not in elsewhere:
            expected = str(int(default)) if isinstance(default, float) else repr(default)
            assert rows[item.name] == f"`{expected}`", item.name
    for key in {**conf.WITHOUT_MEANING, **conf.ALIASES}:
        assert f"`{key}`" in page


def test_the_declarations_say_which_keys_are_django_qs():
    same = {key for key, declared in conf.DECLARATIONS.items() if declared.django_q}
    of_django_cfg = {"broker_url", "monitor_interval"}
    assert same | {*conf.ALIASES, *conf.WITHOUT_MEANING, "ALT_CLUSTERS"} == {*DJANGO_Q, *OLDER, *of_django_cfg}


# ------------------------------------------------------------------------------------------------- wrong values

WRONG = [
    ("databases", ["second"]), ("databases", {"second": "reports"}), ("databases", {"second": None}),
    ("databases", {1: ["a"]}), ("databases", {"default": ["mail"], "second": ["reports", "mail"]}),
    ("coroutines", 0), ("coroutines", 1.5), ("threads", 0), ("threads", None),
    ("workers", 0), ("workers", "4"), ("workers", 2.5), ("workers", True), ("recycle", -1), ("max_rss", 0),
    ("timeout", 0), ("timeout", "60"), ("timeout", -1), ("kill_after", -1), ("retry", 0), ("max_attempts", -1),
    ("max_attempts", None), ("retry_backoff", -5), ("retry_backoff", {"kind": "cubic"}), ("retry_backoff", "5"),
    ("max_crashes", 0), ("ack_failures", 1), ("save_limit", None), ("save_limit_per", "queue"), ("catch_up", "no"),
    ("catch_up_limit", 0), ("scheduler", None), ("time_zone", "Mars/Olympus"), ("time_zone", 3), ("sync", 0),
    ("cached", -5), ("cached", "yes"), ("cache", ""), ("compress", None), ("max_payload", 0), ("allow_pickle", "x"),
    ("allowed", "a.b"), ("allowed", [1]), ("queues", "default"), ("queues", [""]), ("poll", 0), ("tick", "1"),
    ("exclude_queues", "mail"), ("queue_limits", ["a"]), ("queue_limits", {"a": {"rate": "x"}}),
    ("claim_ms", 0), ("settle_ms", -1), ("grace", 0), ("start_method", "fork"), ("cpu_affinity", -1),
    ("error_reporter", []), ("error_reporter", {"sentry": "dsn"}), ("log_level", "LOUD"), ("label", ""), ("name", None),
    ("database", 1), ("default_queue", ""), ("ALT_CLUSTERS", []), ("ALT_CLUSTERS", {"a": 1}), ("health_port", "8001"),
    ("health_host", ""), ("keep_days", 0), ("keep_days", -1), ("keep_days", "30"), ("keep_days", True),
    ("keep_days", float("inf")), ("keep_days", float("nan")), ("keep_days", 1e9), ("schedules", ""),
    ("schedules", 3), ("sync_schedules", "always"), ("schedules_source", ""), ("release", 1.5), ("release", ""),
    ("environment", ""), ("environment", 1), ("allowed_commands", "flush"),
    ("api_tokens", {"scraper": "secret"}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_wrong_value_is_named_with_what_to_do(key, value):
    with override_settings(PGQ={key: value}):
        [message] = [found for found in checks.run_checks() if found.id == "pgq.E001"]
        assert f"PGQ['{key}']" in message.msg
        assert repr(value) in message.msg or isinstance(value, dict)
        assert message.hint.startswith("Make it ")
        with pytest.raises(ImproperlyConfigured, match=key):
            get_settings()


def test_every_setting_has_a_wrong_value_that_is_named():
    assert {key for key, _ in WRONG} == {item.name for item in dataclasses.fields(Settings)} | {"ALT_CLUSTERS"}


def test_unknown_key_is_named_with_the_nearest():
    [problem] = problems(worker=3)
    assert (problem.serious, problem.message) == (True, "PGQ has no key 'worker'.")
    assert problem.hint == "Did you mean 'workers'?"
    assert "docs/reference/settings.md" in problems(zzz=1)[0].hint


def test_all_wrong_keys_are_named_at_once():
    assert [problem.key for problem in problems(workers=0, tick=0, name="fine", nonsense=1)] == [
        "workers", "tick", "nonsense",
    ]  # fmt: skip


def test_settings_that_are_no_dict():
    with override_settings(PGQ=["workers"]):
        [message] = [found for found in checks.run_checks() if found.id == "pgq.E001"]
    assert message.msg == "settings.PGQ must be a dict, not list."


def test_right_settings_pass_the_check():
    with override_settings(PGQ={"workers": 2, "retry_backoff": [1, 2, 3], "queues": ["a"], "time_zone": "Asia/Tokyo"}):
        assert not [found for found in checks.run_checks() if found.id.startswith("pgq.")]


def test_keys_without_meaning_are_warnings():
    with override_settings(Q_CLUSTER={"redis": {"host": "x"}, "bulk": 5, "broker_url": "redis://x"}):
        found = [found for found in checks.run_checks() if found.id == "pgq.W001"]
        assert [message.level for message in found] == [checks.WARNING] * 3
        assert "the only broker is PostgreSQL" in found[0].msg
        assert found[0].hint == "Remove the key."
        assert get_settings().name == "default"


def test_kilobytes_that_look_like_megabytes_are_a_warning():
    with override_settings(PGQ={"max_rss": 300}):
        (message,) = [found for found in checks.run_checks() if found.id == "pgq.W001"]
        assert (message.msg, message.hint) == (
            "PGQ['max_rss'] is 300 kB, less than a worker takes before its first task.",
            "It is in kilobytes: 300 MB are 300000.",
        )
        assert get_settings().max_rss == 300


def test_database_and_cache_that_are_not_there():
    with override_settings(PGQ={"database": "nowhere"}):
        assert "pgq.E002" in [found.id for found in checks.run_checks()]
    with override_settings(PGQ={"cached": True, "cache": "nowhere"}):
        assert "pgq.E004" in [found.id for found in checks.run_checks()]


def test_cache_that_processes_do_not_share():
    with override_settings(PGQ={"cached": 60}):
        assert "pgq.W003" in [found.id for found in checks.run_checks()]
    shared = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache"}}
    with override_settings(PGQ={"cached": 60}, CACHES=shared):
        assert not [found for found in checks.run_checks() if found.id.startswith("pgq.")]


# ------------------------------------------------------------------------------------------------- ALT_CLUSTERS

SEVERAL = {
    "name": "shop",
    "timeout": 60,
    "ALT_CLUSTERS": {"long": {"timeout": 3000, "workers": 1}, "two": {"queues": ["a", "b"], "cluster_name": "x"}},
}


def test_alt_clusters_are_chosen_by_the_environment(monkeypatch):
    with override_settings(PGQ=SEVERAL):
        assert (get_settings().name, get_settings().timeout, get_settings().queues) == ("shop", 60, None)
        for variable in ("PGQ_NAME", "Q_CLUSTER_NAME"):
            monkeypatch.setenv(variable, "long")
            conf.forget()
            chosen = get_settings()
            assert (chosen.name, chosen.timeout, chosen.workers, chosen.queues) == ("long", 3000, 1, ("long",))
            monkeypatch.delenv(variable)
        monkeypatch.setenv("PGQ_NAME", "two")
        conf.forget()
        assert (get_settings().name, get_settings().queues) == ("two", ("a", "b"))
        # As in Django-Q: a queue with nothing of its own.
        monkeypatch.setenv("PGQ_NAME", "other")
        conf.forget()
        assert (get_settings().name, get_settings().queues, get_settings().timeout) == ("other", ("other",), 60)


def test_name_that_alt_clusters_do_not_know_is_told(monkeypatch, caplog):
    """As in Django-Q it is a pool for the queue of that name; a slip of the pen would be a pool for nothing."""

    def told(name: str) -> list[str]:
        monkeypatch.setenv("PGQ_NAME", name)
        conf.forget()
        found = [message for message in checks.run_checks() if message.id == "pgq.W001"]
        return [f"{message.msg} {message.hint}" for message in found]

    with override_settings(PGQ=SEVERAL):
        [message] = told("lnog")
        assert "no entry 'lnog'" in message
        assert "Did you mean 'long'?" in message
        [message] = told("zzz")
        assert "There are long, two." in message
        for known in ("long", "two", "shop", "default"):
            assert told(known) == []
        # The command says so, too.
        for name, warnings in (("lnog", 1), ("long", 0)):
            told(name)
            caplog.clear()
            warn_of_name()
            assert len([record for record in caplog.records if "lnog" in record.getMessage()]) == warnings


def test_no_queues_in_particular_are_all():
    for given, served in ([], None), (None, None), (["b", "a", "b"], ("b", "a")):
        assert problems(queues=given) == []
        with override_settings(PGQ={"queues": given}):
            assert get_settings().queues == served
    for wrong in ("mail", [""], ["a", None], {"a": 1}):
        [problem] = problems(queues=wrong)
        assert problem.hint == "Make it a list of texts."


def test_excluded_queues(monkeypatch):
    [problem] = problems(queues=["a", "b"], exclude_queues=["c", "b"])
    assert (problem.key, problem.serious) == ("exclude_queues", True)
    assert "'b'" in problem.message
    entries = {"long": {}, "rest": {"exclude_queues": ["long"]}, "two": {"queues": ["a", "b"]}}
    given = {"exclude_queues": ["long"], "ALT_CLUSTERS": entries}
    assert problems(**given) == []
    with override_settings(PGQ=given):
        assert get_settings().served == Queues(excluded=("long",))
    # An entry says for itself which queues it serves.
    served_by = {"long": Queues(("long",)), "rest": Queues(excluded=("long",)), "two": Queues(("a", "b"))}
    for name, served in served_by.items():
        monkeypatch.setenv("PGQ_NAME", name)
        with override_settings(PGQ=given):
            assert get_settings().served == served
    assert [str(Queues(*each)) for each in ((), (None, ("a",)), (("b", "c"),))] == ["all", "all but a", "b, c"]


LONG = {"timeout": 3600, "max_attempts": 5, "retry_backoff": [9], "ack_failures": True}
POLICIES = {
    "timeout": 60,
    "max_attempts": 2,
    "ALT_CLUSTERS": {"long": LONG, "more": {"queues": ["a", "b*"], "exclude_queues": ["b.x"], "timeout": 7}},
}


def policy(row: QueuedTask) -> tuple[object, ...]:
    return row.timeout, row.max_attempts, row.options


@pytest.mark.django_db
@pytest.mark.parametrize("pool", [None, "long", "more"])
def test_tasks_of_a_queue_get_the_policy_of_the_pool_that_serves_it(pool, monkeypatch):
    """Whoever enqueues them, and by whatever way."""
    long, others = (3600, 5, {"backoff": [9], "ack_failure": True}), (60, 2, {})
    if pool:
        monkeypatch.setenv("PGQ_NAME", pool)
    conf.forget()
    with override_settings(PGQ=POLICIES):
        by_queue = {"long": long, "a": (7, 2, {}), "b.1": (7, 2, {}), "b.x": others, "default": others, "more": others}
        for queue, expected in by_queue.items():
            async_task("tests.app.tasks.noop", queue=queue)
            async_task("tests.app.tasks.noop", cluster=queue)
            enqueue_many("tests.app.tasks.noop", [(), ()], queue=queue)
            enqueue_from(oracle_tasks.registered, ContentType.objects.all()[:1], ["id"], queue=queue)
            made = schedule("tests.app.tasks.noop", queue=queue, schedule_type="D")
            fire_schedules()
            run_now(made)
            rows = QueuedTask.objects.filter(queue=queue)
            # A pool fires no schedules of queues that it does not serve.
            assert rows.count() == 6 + get_settings().served.serves(queue)
            assert [policy(row) for row in rows] == [expected] * len(rows), queue


@pytest.mark.django_db
def test_what_is_said_of_a_task_wins_over_the_policy_of_its_queue():
    with override_settings(PGQ=POLICIES):
        said = {"timeout": 5, "max_attempts": 1, "retry_backoff": 3, "ack_failure": False}
        async_task("tests.app.tasks.noop", queue="long", **said)
        schedule("tests.app.tasks.noop", queue="long", schedule_type="D", q_options=said)
        fire_schedules()
        rows = QueuedTask.objects.filter(queue="long")
        assert [policy(row) for row in rows] == [(5, 1, {"backoff": 3, "ack_failure": False})] * 2


def test_without_alt_clusters_the_environment_gives_a_name_only(monkeypatch):
    monkeypatch.setenv("PGQ_NAME", "blue")
    with override_settings(PGQ={"timeout": 5}):
        assert (get_settings().name, get_settings().queues, get_settings().timeout) == ("blue", None, 5)


def test_alt_clusters_that_are_wrong_are_named_though_not_chosen():
    found = problems(ALT_CLUSTERS={"long": {"timeout": 0, "bulk": 3}, "short": {"ALT_CLUSTERS": {}}})
    assert [(problem.key, problem.serious) for problem in found] == [
        ("timeout", True), ("bulk", False), ("ALT_CLUSTERS", True),
    ]  # fmt: skip
    assert "PGQ['ALT_CLUSTERS']['long']['timeout']" in found[0].message
    [problem] = problems(ALT_CLUSTERS={"long": {"schedules": []}})
    assert problem.message == "PGQ['ALT_CLUSTERS']['long'] holds schedules, which belongs to no pool in particular."


# ------------------------------------------------------------------------------------------------- what they do


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("per", "left"),
    [
        (None, {"tests.app.tasks.add": 1, "tests.app.tasks.noop": 1}),
        ("func", {"tests.app.tasks.add": 2, "tests.app.tasks.noop": 2}),
        ("group", {"tests.app.tasks.add": 2, "tests.app.tasks.noop": 2}),
        ("name", {"tests.app.tasks.add": 2, "tests.app.tasks.noop": 2}),
    ],
)
def test_save_limit_per(per, left):
    for number in range(5):
        async_task("tests.app.tasks.add", number, 1, group="g", task_name="n")
        async_task("tests.app.tasks.noop")
    async_task("tests.app.tasks.fail", "kept")
    drain()
    with callers_cursor("default") as cursor:
        deleted = results.prune(cursor, keep=2, limit=1000, per=per).count
    counts = {func: Task.objects.filter(func=func).count() for func in left}
    assert (counts, deleted) == (left, 10 - sum(left.values()))
    assert Task.objects.filter(success=False).count() == 1
    # The newest are left.
    assert Task.objects.filter(func="tests.app.tasks.add").first().args == (4, 1)


@pytest.mark.django_db
def test_prune_in_small_batches():
    for _ in range(5):
        async_task("tests.app.tasks.noop")
    drain()
    with callers_cursor("default") as cursor:
        assert results.prune(cursor, keep=1, limit=3, per="func").count == 3
        assert results.prune(cursor, keep=1, limit=3, per="func").count == 1


def test_upkeep_prunes_only_if_there_is_a_limit():
    def chores(**given):
        return {chore.name: chore.every for chore in Upkeep(Settings(**given), "default").chores}

    assert "prune" not in chores(save_limit=0)
    assert "prune" not in chores(save_limit=-1)
    assert chores(save_limit=5)["prune"] == 1.0
    assert chores(save_limit=5, save_limit_per="name")["prune"] == 10.0


def test_upkeep_drops_results_only_if_it_is_told_to():
    names = {chore.name for chore in Upkeep(Settings(), "default").chores}
    assert "retention" not in names
    assert names | {"retention"} == {chore.name for chore in Upkeep(Settings(keep_days=30), "default").chores}


def test_label_is_the_title_in_the_admin():
    assert apps.get_app_config("pgq").verbose_name == "pgq"
    with override_settings(PGQ={"label": "Background tasks"}):
        assert apps.get_app_config("pgq").verbose_name == "Background tasks"
    with override_settings(PGQ={"label": 3}):
        assert apps.get_app_config("pgq").verbose_name == "pgq"


@pytest.mark.django_db
def test_compress_and_max_payload():
    from pgq.errors import NotStorable

    with override_settings(PGQ={"compress": True, "max_payload": 100_000}):
        id = async_task("tests.app.tasks.add", "x" * 50_000, "y")
        with pytest.raises(NotStorable):
            async_task("tests.app.tasks.add", os.urandom(200_000), b"")
    drain()
    assert Task.get_result(id) == "x" * 50_000 + "y"


@pytest.mark.django_db
def test_default_queue():
    with override_settings(PGQ={"default_queue": "mine"}):
        async_task("tests.app.tasks.noop")
        [ran] = drain()
    assert Task.objects.get(pk=ran.id).queue == "mine"


@pytest.mark.django_db
def test_allow_pickle():
    from pgq.errors import NotStorable
    from tests.integration.test_settings import Plain

    with pytest.raises(NotStorable):
        async_task("tests.app.tasks.add", Plain(), 0)
    with override_settings(PGQ={"allow_pickle": True}):
        id = async_task("tests.app.tasks.add", Plain(), 0)
        drain()
    assert Task.get_result(id) == "plain0"


class Plain:
    """JSON cannot hold it."""

    def __add__(self, other):
        return f"plain{other}"


def test_manage_check_names_the_key():
    """As a user meets it: in a process of its own, with wrong settings from the beginning."""
    code = (
        "from django.conf import settings; settings.configure(SECRET_KEY='x', INSTALLED_APPS=['pgq'], "
        "PGQ={'wokers': 3, 'tick': 0}); import django; django.setup(); "
        "from django.core.management import call_command; call_command('check')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
        env={key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"},
    )  # fmt: skip
    assert done.returncode != 0
    assert "PGQ has no key 'wokers'." in done.stderr
    assert "Did you mean 'workers'?" in done.stderr
    assert "PGQ['tick'] is 0." in done.stderr
