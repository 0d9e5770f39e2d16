"""The import from Django-Q: rows that it wrote (tests/data/django_q2.json), and rows that nobody should trust."""

from __future__ import annotations

import base64
import collections
import datetime as dt
import io
import json
import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.core import signing
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import override_settings
from django.utils.safestring import mark_safe

from pgq import codec
from pgq.codec import signing as pgq_signing
from pgq.contrib.django_q import unpickle
from pgq.contrib.django_q.plan import TAKEN, derived_id
from pgq.ground import ids
from pgq.models import QueuedTask, Schedule, Task
from pgq.tasks.control import retry
from tests.support.blocks import texts
from tests.support.django_q import TABLES
from tests.support.hand import Hand

DATA = json.loads((Path(__file__).parents[1] / "support" / "data" / "django_q2.json").read_text())
SECRET_KEY = "django-q fixture key"
REGISTERED = "tests.functions.oracle.registered"
NAMES = ("django_q_ormq", "django_q_schedule", "django_q_task")
AT = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
BERLIN = dt.datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Berlin"))
#: Lists in lists, each twice in the next: 2**40 items.
DOUBLED = b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (n + 1, n, n) for n in range(40)) + b"."
BUILTINS = b"\x80\x04\x8c\x08builtins"


def drop() -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS {', '.join(NAMES)}")


@pytest.fixture(autouse=True)
def tables(transactional_db: None):
    """Empty tables of Django-Q, and its settings."""
    drop()
    with connection.cursor() as cursor:
        cursor.execute(TABLES)
    with override_settings(SECRET_KEY=SECRET_KEY, Q_CLUSTER={"name": "shop"}, PGQ={"save_limit": 0}):
        yield
    drop()


@pytest.fixture
def real():
    """The rows that Django-Q wrote."""
    with connection.cursor() as cursor:
        for table in NAMES:
            cursor.execute(
                f"INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, %s)",
                [json.dumps(DATA[table])],
            )


def insert(table: str, **values: Any) -> None:
    columns = ", ".join(f'"{name}"' for name in values)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({columns}) VALUES ({', '.join(['%s'] * len(values))})", list(values.values())
        )


def run(*arguments: str) -> dict[str, Any]:
    out = io.StringIO()
    left = None
    try:
        call_command("pgq_import_django_q", *arguments, "--json", stdout=out)
    except CommandError as error:
        if not out.getvalue():
            raise
        left = error
    told = json.loads(out.getvalue())
    skipped = sum(told[kind]["skipped"] for kind in ("results", "queued", "schedules") if kind in told)
    # Whoever looks at the exit code only is told, too.
    assert (left and (left.returncode, str(left).partition(" ")[0])) == ((1, f"{skipped:,}") if skipped else None)
    return told


def counts(tally: dict[str, Any]) -> tuple[int, int, int]:
    return tally["imported"], tally["present"], tally["skipped"]


class _Pickled:
    def dumps(self, value: Any) -> bytes:
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)

    def loads(self, data: bytes) -> Any:
        raise NotImplementedError


def payload(*, key: str | None = None, salt: str = "shop", compress: bool = False, **values: Any) -> str:
    """Return a task as Django-Q puts it into its queue."""
    package = {"id": uuid4().hex, "name": "a name", "func": "operator.add", "args": (1, 2), "kwargs": {}, "started": AT}
    return signing.dumps({**package, **values}, key=key, salt=salt, serializer=_Pickled, compress=compress)


def queue(text: str, key: str = "shop", lock: dt.datetime | None = AT) -> None:
    insert("django_q_ormq", key=key, payload=text, lock=lock)


def pickled(value: Any, protocol: int = 5) -> str:
    """Return a value as picklefield stores it."""
    return base64.b64encode(pickle.dumps(value, protocol=protocol)).decode()


def result(value: Any = None, *, raw: str | None = None, **values: Any) -> str:
    id = uuid4().hex
    insert("django_q_task", **{
        "id": id, "name": "a name", "func": "operator.add", "args": pickled((1, 2)), "kwargs": pickled({}),
        "result": raw if raw is not None else pickled(value), "started": AT, "stopped": AT + dt.timedelta(seconds=2),
        "success": True, "attempt_count": 1, **values,
    })  # fmt: skip
    return id


def add_schedule(**values: Any) -> None:
    insert("django_q_schedule", **{
        "func": REGISTERED, "schedule_type": "D", "repeats": -1, "next_run": AT.replace(year=2040), **values,
    })  # fmt: skip


def there() -> list[Any]:
    """The schedules that Django-Q has, and when it would fire them."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, next_run FROM django_q_schedule ORDER BY id")
        return cursor.fetchall()


def imported() -> Task:
    return Task.objects.get()


class Explosive:
    """What a pickle can do to whoever loads it."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


# ------------------------------------------------------------------------------------------------- as it is


@pytest.mark.usefixtures("real")
class TestReal:
    def test_a_first_look(self):
        seen = run("--dry-run")
        assert counts(seen["results"]) == (6, 0, 0)
        assert counts(seen["queued"]) == (5, 0, 2)
        assert counts(seen["schedules"]) == (0, 0, 7)
        assert not Task.objects.exists()
        assert not QueuedTask.objects.exists()
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM django_q_ormq WHERE lock >= '9000-01-01'")
            assert cursor.fetchone() == (0,)

    def test_results(self):
        run("--results")
        by_func = {task.func: task for task in Task.objects.all()}
        values = by_func["djqapp.tasks.values"]
        assert values.result == {
            "at": dt.datetime(2026, 5, 1, 12, 30, tzinfo=dt.UTC), "price": Decimal("9.90"), "id": UUID(int=7),
            "tags": {"a"}, "raw": b"\x00\xff", "pair": (1, 2),
        }  # fmt: skip
        assert (values.name, values.group, values.cluster, values.queue) == ("my values", "g", "shop", "default")
        assert by_func["djqapp.tasks.thing"].result == "<djqapp.tasks.Thing>"
        assert by_func["djqapp.tasks.user"].result == "<auth.User 1>"
        assert by_func["operator.truth"].args == ("<auth.User 1>",)
        broken = by_func["djqapp.tasks.broken"]
        assert not broken.success
        assert (broken.exception, broken.message) == ("builtins.ValueError", "no way: sorry")
        # As result() gave it before.
        (row,) = [row for row in DATA["django_q_task"] if not row["success"]]
        assert broken.result == pickle.loads(base64.b64decode(row["result"]))
        assert Task.get_task("my values") == values

    def test_ids_have_the_old_times(self):
        run("--results")
        rows = {row["id"]: row for row in DATA["django_q_task"]}
        for task in Task.objects.all():
            with connection.cursor() as cursor:
                cursor.execute("SELECT options ->> 'django_q_id' FROM pgq_task WHERE id = %s", [task.pk])
                row = rows[cursor.fetchone()[0]]
            started = dt.datetime.fromisoformat(row["started"])
            assert UUID(task.pk).int >> 80 == int(started.timestamp() * 1000)
            assert UUID(task.pk).version == 7

    def test_queued_tasks_run(self, oracle):
        user = User.objects.create(pk=1, username="u")
        assert counts(run("--queued")["queued"]) == (5, 0, 2)
        named = QueuedTask.objects.get(name="sum")
        assert (named.args, named.timeout, named.group, named.queue) == ((3, 4), 30, "sums", "default")
        assert QueuedTask.objects.get(queue="mail").args == (Decimal("1.5"), 4)
        assert QueuedTask.objects.get(func="operator.truth").args == (user,)
        hand = Hand()
        try:
            hand.work()
        finally:
            hand.close()
        # `save=False` keeps no result of the sum; the chain's second link has run, too.
        assert sorted(map(repr, Task.objects.values_list("func", flat=True))) == sorted(
            map(repr, ["operator.add", "operator.mul", "operator.mul", "operator.truth", "_operator.add"])
        )
        assert all(task.success for task in Task.objects.all())
        assert {task.result for task in Task.get_task_group("chain")} == {3, 12}

    def test_schedules(self):
        seen = run("--schedules", "--trust-schedules")["schedules"]
        assert counts(seen) == (5, 0, 2)
        assert {example["which"] for example in seen["examples"]} == {
            "schedule 3 (cron, operator.mul)", "schedule 6 (bad, operator.add)",
        }  # fmt: skip
        daily = Schedule.objects.get(name="add daily")
        assert (daily.args, daily.kwargs, daily.schedule_type) == ((1, 2), {}, "D")
        assert daily.next_run == dt.datetime(2030, 1, 1, 2, tzinfo=dt.UTC)
        muls = Schedule.objects.get(func="operator.mul")
        assert (muls.queue, muls.minutes, muls.kwargs) == ("mail", 15, {})
        assert (muls.options["timeout"], muls.options["group"], muls.options["extra"]) == (30, "muls", {"save": False})
        other = Schedule.objects.get(name="add daily (django-q 5)")
        assert other.kwargs == {"x": 1, "y": "two"}
        assert Schedule.objects.get(name="stopped").repeats == 0
        for row in Schedule.objects.all():
            assert pgq_signing.verify_schedule_row(row)

    def test_twice_is_once(self):
        first = run("--trust-schedules")
        before = {model: model.objects.count() for model in (Task, QueuedTask, Schedule)}
        second = run("--trust-schedules")
        for kind in ("results", "queued", "schedules"):
            assert second[kind]["imported"] == 0
            assert second[kind]["present"] == first[kind]["imported"]
        assert {model: model.objects.count() for model in before} == before

    def test_a_task_that_has_run_is_not_queued_again(self):
        run("--queued")
        QueuedTask.objects.all().delete()
        assert counts(run("--queued")["queued"]) == (0, 5, 2)
        assert not QueuedTask.objects.exists()

    def test_foreign_keys_follow_their_rows(self):
        """What docs/migrate/django-q.md says to do with the columns of one's own that refer to Django-Q's rows."""
        [statements] = [text for text in texts("docs/migrate/django-q.md", "sql") if "shop_reminder" in text]
        run("--trust-schedules")
        with connection.cursor() as cursor:
            cursor.execute("SELECT id, name FROM django_q_schedule WHERE name = 'stopped'")
            schedule, _ = cursor.fetchone()
            cursor.execute("SELECT id, func FROM django_q_task ORDER BY id LIMIT 1")
            task, func = cursor.fetchone()
            cursor.execute(
                "CREATE TABLE shop_reminder (id serial, schedule_id integer"
                " CONSTRAINT shop_reminder_schedule_id_fk_django_q_schedule_id REFERENCES django_q_schedule,"
                " task_id varchar(32) CONSTRAINT shop_reminder_task_id_fk_django_q_task_id REFERENCES django_q_task)"
            )
            insert = "INSERT INTO shop_reminder (schedule_id, task_id) VALUES (%s, %s), (3, NULL)"
            cursor.execute(insert, [schedule, task])
            # As after a commit.
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute(statements)
            cursor.execute("SELECT schedule_id, task_id FROM shop_reminder ORDER BY id")
            [(new_schedule, new_task), left] = cursor.fetchall()
            cursor.execute("DROP TABLE shop_reminder")
        assert Schedule.objects.get(pk=new_schedule).name == "stopped"
        assert Task.objects.get(pk=new_task).func == func
        # The third was not imported.
        assert left == (None, None)

    def test_without_tables_it_says_so(self):
        drop()
        with pytest.raises(CommandError, match=r"Nothing to import: the database 'default' has no table django_q_task"):
            run()

    def test_what_is_printed(self):
        out = io.StringIO()
        with pytest.raises(CommandError, match=r"^4 rows are left .*\(queued tasks 2, schedules 2\): .*'djqapp'"):
            call_command("pgq_import_django_q", "--trust-schedules", stdout=out)
        shown = out.getvalue()
        assert "Results 6 6 0 0" in " ".join(shown.split())
        assert "Skipped: args: 'foo' is not made of Python literals" in shown
        assert "    schedule 6 (bad, operator.add)" in shown
        assert "Django-Q fires these schedules no more" in " ".join(shown.split())


# ------------------------------------------------------------------------------------------------- queued tasks


class TestQueued:
    def test_compressed(self):
        queue(payload(args=("x" * 5000,), func="operator.truth", compress=True))
        assert counts(run("--queued")["queued"]) == (1, 0, 0)
        assert QueuedTask.objects.get().args == ("x" * 5000,)

    @pytest.mark.parametrize(
        "text",
        [payload(key="another key"), payload(key=SECRET_KEY, salt="other"), "nonsense", "", "a:b:c", "é:é:é"],
        # Payloads are different each time; the processes that run the tests must agree about their names.
        ids=["another key", "another salt", "nonsense", "nothing", "ASCII", "not ASCII"],
    )
    def test_what_nobody_signed_is_never_unpickled(self, text, monkeypatch):
        monkeypatch.setattr("pickle.loads", lambda data: pytest.fail("unpickled"))
        queue(text)
        seen = run("--queued")["queued"]
        assert counts(seen) == (0, 0, 1)
        assert "signature is wrong" in seen["examples"][0]["why"]

    def test_a_changed_payload_is_never_unpickled(self, tmp_path):
        good = payload(key=SECRET_KEY)
        evil = base64.urlsafe_b64encode(pickle.dumps(Explosive(Path.touch, tmp_path / "x"))).decode().strip("=")
        queue(":".join([evil, *good.split(":")[1:]]))
        assert counts(run("--queued")["queued"]) == (0, 0, 1)
        assert not (tmp_path / "x").exists()

    def test_the_row_does_not_choose_the_salt(self):
        # Other things are signed with SECRET_KEY under other salts, and by users: sessions, tokens.
        queue(payload(key=SECRET_KEY, salt="sessions"), key="sessions")
        assert counts(run("--queued")["queued"]) == (0, 0, 1)

    def test_the_operator_does(self):
        queue(payload(key=SECRET_KEY, salt="old name"), key="old name")
        assert counts(run("--queued", "--name", "old name")["queued"]) == (1, 0, 0)
        assert QueuedTask.objects.get().queue == "default"

    @override_settings(SECRET_KEY="a new key", SECRET_KEY_FALLBACKS=[SECRET_KEY])
    def test_an_older_key_will_do(self):
        queue(payload(key=SECRET_KEY))
        assert counts(run("--queued")["queued"]) == (1, 0, 0)

    def test_one_that_a_cluster_has_taken_waits(self):
        lock = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)
        queue(payload(key=SECRET_KEY), lock=lock)
        seen = run("--queued")["queued"]
        assert counts(seen) == (0, 0, 1)
        assert "--include-locked" in seen["examples"][0]["why"]
        assert counts(run("--queued", "--include-locked")["queued"]) == (1, 0, 0)
        assert abs(QueuedTask.objects.get().run_after - lock) < dt.timedelta(milliseconds=1)

    def test_marks_what_it_took(self):
        queue(payload(key=SECRET_KEY))
        queue(payload(key=SECRET_KEY), lock=None)
        assert counts(run("--queued")["queued"]) == (2, 0, 0)
        with connection.cursor() as cursor:
            cursor.execute("SELECT DISTINCT lock FROM django_q_ormq")
            assert cursor.fetchall() == [(TAKEN,)]

    def test_what_a_cluster_takes_at_that_moment_is_left_to_it(self, session, monkeypatch):
        from pgq.store import django_q

        queue(payload(key=SECRET_KEY))
        before = django_q.known_tasks

        def meanwhile(*arguments: Any) -> Any:
            session().execute("UPDATE django_q_ormq SET lock = now() + interval '1 minute'")
            return before(*arguments)

        monkeypatch.setattr("pgq.store.django_q.known_tasks", meanwhile)
        seen = run("--queued")["queued"]
        assert counts(seen) == (0, 0, 1)
        assert "just taken it" in seen["examples"][0]["why"]
        assert not QueuedTask.objects.exists()

    @pytest.mark.parametrize(
        ("values", "why"),
        [
            ({"func": "no.such.function"}, "there is no module 'no'"),
            ({"args": (float("nan"),)}, "nan"),
            ({"timeout": "soon"}, "timeout: must be seconds"),
            ({"started": "today"}, "no time"),
        ],
    )
    def test_says_why_one_is_skipped(self, values, why):
        queue(payload(key=SECRET_KEY, **values))
        seen = run("--queued")["queued"]
        assert counts(seen) == (0, 0, 1)
        assert why in seen["examples"][0]["why"]

    def test_a_package_that_is_none(self):
        queue(signing.dumps([1], key=SECRET_KEY, salt="shop", serializer=_Pickled))
        assert "not a task" in run("--queued")["queued"]["examples"][0]["why"]

    def test_parts_of_an_iter_are_explained(self):
        queue(payload(key=SECRET_KEY, iter_count=3, iter_cached=False, cached=True, group="x"))
        seen = run("--queued")["queued"]
        assert counts(seen) == (1, 0, 0)
        assert "async_iter" in seen["notes"][0]

    def test_more_than_a_batch(self, monkeypatch):
        monkeypatch.setattr("pgq.contrib.django_q.importer.BATCH", 3)
        for number in range(10):
            queue(payload(key=SECRET_KEY, args=(number, 1)))
        assert counts(run("--queued")["queued"]) == (10, 0, 0)
        assert sorted(task.args[0] for task in QueuedTask.objects.all()) == list(range(10))


# ------------------------------------------------------------------------------------------------- schedules


class TestSchedules:
    def test_only_registered_functions_without_trust(self):
        add_schedule(name="good")
        add_schedule(name="evil", func="os.system", args="'true'")
        seen = run("--schedules")["schedules"]
        assert counts(seen) == (1, 0, 1)
        assert "--trust-schedules" in seen["examples"][0]["why"]
        row = Schedule.objects.get()
        # Not signed: the worker goes on checking what its tasks name.
        assert (row.name, row.signature) == ("good", None)

    @override_settings(PGQ={"allowed": ["operator.add"]})
    def test_or_allowed_ones(self):
        add_schedule(func="operator.add", args="1, 2")
        assert counts(run("--schedules")["schedules"]) == (1, 0, 0)

    def test_an_untrusted_function_is_not_even_imported(self, monkeypatch):
        monkeypatch.setattr("pgq.enqueue.registry.locate", lambda path: pytest.fail(f"imported {path}"))
        add_schedule(func="antigravity.fly")
        assert counts(run("--schedules")["schedules"]) == (0, 0, 1)

    def test_a_name_that_is_taken_here(self):
        Schedule.objects.create(name="daily", func="tests.functions.oracle.mark", schedule_type="D")
        add_schedule(name="daily")
        seen = run("--schedules")["schedules"]
        assert counts(seen) == (1, 0, 0)
        assert "daily (django-q" in seen["notes"][0]
        assert Schedule.objects.count() == 2

    def test_one_that_the_project_has_made_here_is_not_doubled(self):
        """Many projects make their schedules at every start, and that may come before the import."""
        here = Schedule.objects.create(name="daily", func=REGISTERED, schedule_type="H")
        Schedule.objects.create(func=REGISTERED, args="1, 'x'", schedule_type="D")
        add_schedule(name="daily")
        add_schedule(name="daily", args="2")
        add_schedule(args="(1, 'x')")
        add_schedule(args="2")
        seen = run("--schedules")["schedules"]
        assert counts(seen) == (1, 3, 0)
        assert "The schedule daily is here already" in seen["notes"][0]
        assert Schedule.objects.get(name="daily") == here
        assert Schedule.objects.filter(name=None).count() == 2
        # Two of one name in Django-Q are both imported still.
        add_schedule(name="twice")
        add_schedule(name="twice", args="3")
        assert counts(run("--schedules")["schedules"]) == (2, 4, 0)

    def test_a_single_run_is_kept_so_that_it_never_comes_back(self):
        add_schedule(schedule_type="O", next_run=AT)
        run("--schedules")
        assert Schedule.objects.get().repeats == 1
        Schedule.objects.update(repeats=0, next_run=None)
        assert counts(run("--schedules")["schedules"]) == (0, 1, 0)

    def test_paused_they_are_left_to_django_q_and_go_on_where_it_was(self):
        add_schedule(name="due", repeats=5)
        run("--schedules", "--pause")
        assert Schedule.objects.get().paused
        assert there() == [("due", AT.replace(year=2040))]
        # Its cluster fires it twice. Then it is taken, and no slot is fired here that was fired there.
        now = AT.replace(year=2041)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE django_q_schedule SET next_run = %s, repeats = 3", [now])
        assert counts(run("--schedules")["schedules"]) == (0, 1, 0)
        row = Schedule.objects.get()
        assert (row.paused, row.next_run, row.repeats) == (True, now, 3)
        assert there() == [("due", TAKEN)]

    def test_marks_what_it_took_and_no_other(self):
        Schedule.objects.create(name="ours", func=REGISTERED, schedule_type="D")
        add_schedule(name="good")
        add_schedule(name="ours")
        add_schedule(name="evil", func="os.system", args="'true'")
        add_schedule(name="wrong", args="foo")
        run("--schedules", "--dry-run")
        assert {at for _, at in there()} == {AT.replace(year=2040)}
        run("--schedules")
        assert dict(there()) == {
            "good": TAKEN, "ours": TAKEN, "evil": AT.replace(year=2040), "wrong": AT.replace(year=2040),
        }  # fmt: skip
        # What was taken and is deleted here is not made anew.
        Schedule.objects.filter(name="good").delete()
        assert counts(run("--schedules")["schedules"]) == (0, 2, 2)

    def test_what_a_cluster_fires_at_that_moment_is_left_to_it(self, session, monkeypatch):
        from pgq.store import django_q

        add_schedule(name="due")
        before = django_q.imported_schedules

        def meanwhile(*arguments: Any) -> Any:
            session().execute("UPDATE django_q_schedule SET next_run = next_run + interval '1 day'")
            return before(*arguments)

        monkeypatch.setattr("pgq.store.django_q.imported_schedules", meanwhile)
        seen = run("--schedules")["schedules"]
        assert counts(seen) == (0, 0, 1)
        assert "just fired it" in seen["examples"][0]["why"]
        assert not Schedule.objects.exists()
        monkeypatch.undo()
        assert counts(run("--schedules")["schedules"]) == (1, 0, 0)
        assert Schedule.objects.get().next_run == AT.replace(year=2040) + dt.timedelta(days=1)

    def test_without_a_name_the_group_stays(self):
        add_schedule(id=77)
        run("--schedules")
        assert Schedule.objects.get().options["group"] == "77"

    def test_last_task(self):
        add_schedule(task=result(3))
        run()
        assert Schedule.objects.get().success() is True

    @pytest.mark.parametrize(
        ("values", "why"),
        [
            ({"args": "foo"}, "args: 'foo' is not made of Python literals"),
            ({"kwargs": "x=y"}, "kwargs: 'x=y' is not made of Python literals"),
            ({"kwargs": "{'q_options': 5}"}, "q_options are not a dict"),
            ({"next_run": None}, "no next run"),
            ({"schedule_type": "X"}, "'X'"),
            ({"schedule_type": "C", "cron": "x y z"}, "cron"),
            ({"schedule_type": "C"}, "cron"),
        ],
    )
    def test_says_why_one_is_skipped_and_takes_the_others(self, values, why):
        add_schedule(name="before")
        add_schedule(**values)
        add_schedule(name="after")
        seen = run("--schedules")["schedules"]
        assert counts(seen) == (2, 0, 1)
        assert why in seen["examples"][0]["why"]

    def test_of_an_older_version_with_fewer_columns(self):
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE django_q_schedule DROP cluster, DROP intended_date_kwarg, DROP cron")
            cursor.execute("ALTER TABLE django_q_task DROP cluster, DROP attempt_count")
        add_schedule()
        insert("django_q_task", id="a" * 32, name="n", func="f", started=AT, stopped=AT, success=True)
        seen = run()
        assert counts(seen["schedules"]) == (1, 0, 0)
        assert counts(seen["results"]) == (1, 0, 0)


# ------------------------------------------------------------------------------------------------- results


class TestResults:
    @pytest.mark.parametrize("protocol", range(6))
    @pytest.mark.parametrize(
        "value",
        [
            None, 0, "text", [1, [2, {"a": None}]], (1, (2,)), b"bytes", {1, 2}, frozenset({3}), 1.5, 2**80,
            {"at": AT, "day": AT.date(), "for": dt.timedelta(1), "clock": dt.time(1, 2)}, Decimal("1.50"),
            complex(1, 2),
        ],
        ids=repr,
    )  # fmt: skip
    def test_plain_values_come_as_they_were(self, value, protocol):
        loaded, refused = unpickle.load(pickle.dumps(value, protocol=protocol))
        # Below 2, everything but the simplest is made by copyreg's functions, which are not harmless.
        assert loaded == value or (protocol < 2 and refused)

    @pytest.mark.parametrize(
        ("value", "plain"),
        [
            (UUID(int=5), UUID(int=5)), (mark_safe("<b>"), "<b>"), (collections.OrderedDict(a=1), {"a": 1}),
            (collections.defaultdict(list, a=[1]), {"a": [1]}), (bytearray(b"x"), bytearray(b"x")),
            (range(3), range(3)), (BERLIN, BERLIN),
        ],
        ids=repr,
    )  # fmt: skip
    def test_harmless_types(self, value, plain):
        loaded, _ = unpickle.load(pickle.dumps(value, protocol=5))
        assert loaded == plain
        assert type(loaded) is type(plain)

    def test_others_become_text_and_leave_the_rest_alone(self):
        loaded, refused = unpickle.load(pickle.dumps([1, ValueError("no"), {"path": Path("/x"), "f": print}]))
        assert loaded[0] == 1
        assert loaded[1] == "<builtins.ValueError no>"
        assert loaded[2]["path"].startswith("<pathlib.")
        assert loaded[2]["f"] == "<builtins.print>"
        assert "builtins.ValueError" in refused

    @pytest.mark.parametrize(
        "make",
        [
            lambda file: Explosive(Path.touch, file),
            lambda file: Explosive(exec, f"open({str(file)!r}, 'w')"),
            lambda file: Explosive(eval, f"open({str(file)!r}, 'w')"),
            lambda file: [{"deep": Explosive(__import__("os").system, f"touch {file}")}],
            lambda file: Explosive(getattr, file, "touch"),
        ],
    )
    @pytest.mark.parametrize("protocol", [0, 2, 5])
    def test_nothing_is_run(self, tmp_path, make, protocol):
        file = tmp_path / "touched"
        data = pickle.dumps(make(file), protocol=protocol)
        result(raw=base64.b64encode(data).decode())
        assert counts(run("--results")["results"]) == (1, 0, 0)
        assert not file.exists()
        assert imported().result is not None

    @pytest.mark.parametrize(
        "data",
        [
            b"", b"garbage", b"\x80\x05.", b"\x80\x05K\x01", b"(lp0\n0", b"\x80\x04P1\n.",
            b"\x80\x05\x96" + b"\xff" * 8 + b".",
            # Room for two thousand million entries in the memo.
            b"\x80\x02Nr\xff\xff\xff\x7f.",
            # A list in itself; a list a thousand deep.
            b"\x80\x02]q\x00h\x00a.", b"\x80\x02" + b"]" * 1000 + b"a" * 999 + b".", DOUBLED,
            # set(range(10**12)), bytearray(10**12)
            BUILTINS + b"\x8c\x03set\x93\x8c\x08builtins\x8c\x05range\x93\x8a\x06\x00\x10\xa5\xd4\xe8\x00\x85R\x85R.",
            BUILTINS + b"\x8c\tbytearray\x93\x8a\x06\x00\x10\xa5\xd4\xe8\x00\x85R.",
            # setattr(uuid.UUID, ...), and of a maker, and of a stand-in's class.
            b"\x80\x04\x8c\x04uuid\x8c\x04UUID\x93N}\x8c\x07__str__K\x01s\x86b.",
            BUILTINS + b"\x8c\x03set\x93N}\x8c\x04evilK\x01s\x86b.",
            b"\x80\x04\x8c\x02os\x8c\x06system\x93N}\x8c\x04pathK\x01s\x86b.",
        ],
    )  # fmt: skip
    def test_broken_and_hostile_pickles_become_text(self, data):
        before = UUID.__str__
        result(raw=base64.b64encode(data).decode())
        assert counts(run("--results")["results"]) == (1, 0, 0)
        assert UUID.__str__ is before
        assert not hasattr(unpickle._HARMLESS["builtins", "set"], "evil")
        assert imported().success

    @pytest.mark.parametrize("text", ["not base64!", "é", "\u0130"])
    def test_what_is_not_even_base64(self, text):
        result(raw=text)
        run("--results")
        assert isinstance(imported().result, codec.Unstorable)

    def test_trusted_results_are_loaded(self):
        user = User.objects.create(username="u")
        result({"user": user}, args=pickled((user,)))
        run("--results", "--trust-results")
        found = imported()
        assert found.result["user"] == user
        assert found.args == (user,)

    def test_a_trusted_failure_can_be_run_again(self, oracle):
        result("division by zero : Traceback ...", success=False)
        run("--results", "--trust-results")
        assert pgq_signing.verify_row(imported())
        assert retry(imported().pk)
        hand = Hand()
        try:
            hand.work()
        finally:
            hand.close()
        assert imported().result == 3

    def test_an_untrusted_one_is_not_signed(self):
        result("x", success=False)
        run("--results")
        assert imported().signature is None

    @pytest.mark.parametrize(
        ("text", "exception", "message"),
        [
            ("no : Traceback (most recent call last):\n  File x\nshop.errors.Late: no\n", "shop.errors.Late", "no"),
            ("a : b : Traceback (most recent call last):\n  File x\nKeyError: 'a'", "builtins.KeyError", "a : b"),
            ("Function x is not defined", "builtins.Exception", "Function x is not defined"),
            (None, "builtins.Exception", "None"), (["odd"], "builtins.Exception", "['odd']"),
        ],
    )  # fmt: skip
    def test_failures(self, text, exception, message):
        result(text, success=False)
        run("--results")
        assert (imported().exception, imported().message) == (exception, message)

    def test_a_failure_whose_pickle_is_broken(self):
        result(raw="AAAA", success=False)
        assert counts(run("--results")["results"]) == (1, 0, 0)
        assert not imported().success

    def test_strange_arguments(self):
        result(args=pickled({"not": "a tuple"}), kwargs=pickled([1]))
        run("--results")
        assert imported().args == ({"not": "a tuple"},)
        assert imported().kwargs == {}

    def test_more_than_a_batch_and_big_counts(self, monkeypatch):
        monkeypatch.setattr("pgq.contrib.django_q.importer.BATCH", 3)
        for _ in range(10):
            result(1, attempt_count=2**31 - 1)
        assert counts(run("--results")["results"]) == (10, 0, 0)
        assert set(Task.objects.values_list("attempt_count", flat=True)) == {2**15 - 1}

    def test_a_task_that_failed_and_waits_for_its_retry_is_two_rows(self):
        id = result("x", success=False)
        queue(payload(key=SECRET_KEY, id=id))
        seen = run()
        assert (seen["results"]["imported"], seen["queued"]["imported"]) == (1, 1)
        assert imported().pk != QueuedTask.objects.get().pk


def test_derived_ids():
    one = derived_id("result", "a" * 32, AT)
    assert one == derived_id("result", "a" * 32, AT)
    assert one.version == 7
    assert one.variant == ids.new_id().variant
    assert len({one, derived_id("queued", "a" * 32, AT), derived_id("result", "b" * 32, AT)}) == 3
    assert derived_id("result", "a", AT + dt.timedelta(milliseconds=1)) > derived_id("result", "a", AT)
