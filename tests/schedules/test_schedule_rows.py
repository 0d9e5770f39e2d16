"""Rows written in other ways than by schedule() and save(): what one way reads and does, all do."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.core import management, serializers
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.test import override_settings
from django.utils import timezone

from pgq.codec import signing
from pgq.codec.stored import stored_text
from pgq.errors import EnqueueError
from pgq.models import Failure, QueuedTask, Schedule, Success, Task
from pgq.tasks import async_task, schedule
from pgq.testing import drain, enqueued, fire_schedules, freeze
from tests.app import tasks
from tests.app.models import Note
from tests.functions import common as functions

pytestmark = pytest.mark.django_db

REGISTERED = "tests.functions.common.registered"
START = datetime(2032, 1, 31, 10, 0, tzinfo=UTC)


@pytest.fixture
def clock():
    with freeze(START) as clock:
        yield clock


@pytest.fixture(scope="module")
def historical():
    """The models as a data migration sees them."""
    return MigrationLoader(None).project_state(("pgq", "0002_operators")).apps.get_model


def values(model):
    """All there is in a table. A fixture in JSON knows milliseconds."""
    return [
        [
            item.replace(microsecond=item.microsecond // 1000 * 1000) if isinstance(item, datetime) else item
            for item in row
        ]
        for row in model._base_manager.order_by("pk").values_list()
    ]


# ------------------------------------------------------------------------------------------------- args and kwargs

#: What may be given for args, and what it means.
ARGS = [
    ("41", (41,)),
    ("1, 'two'", (1, "two")),
    ("[1, 2]", ([1, 2],)),
    ("", ()),
    (None, ()),
    (5, (5,)),
    ([1, 2], (1, 2)),
]


@pytest.mark.parametrize("model", [Schedule, QueuedTask, Task])
@pytest.mark.parametrize(("given", "meant"), ARGS)
def test_args_mean_the_same_however_they_are_written_and_looked_for(model, given, meant):
    made = model.objects.create(func="f", args=given)
    assert made.args == meant
    model.objects.bulk_create([model(func="g", args=given, kwargs="x=1")])
    model.objects.create(func="h", args="0")
    assert model.objects.filter(func="h").update(args=given) == 1
    rows = model.objects.order_by("func")
    assert [row.args for row in rows] == [meant] * 3
    assert rows.filter(args=given).count() == rows.filter(args__in=[given]).count() == 3
    assert list(rows.exclude(args="'other'")) == list(rows)
    many = model.objects.get(kwargs="x=1", options=None)
    many.args = "'late'"
    model.objects.bulk_update([many], ["args"])
    assert model.objects.get(args="'late'").pk == many.pk
    # A look into the array is none for the whole.
    assert model.objects.filter(args__0="late").exists()


def test_get_or_create_finds_what_it_has_made():
    for _ in range(2):
        Schedule.objects.get_or_create(func="f", args="41", kwargs="{'x': [1]}", schedule_type="D")
        Schedule.objects.update_or_create(func="f", args=str(7), defaults={"schedule_type": "H", "name": ""})
    assert Schedule.objects.count() == 2
    assert Schedule.objects.filter(func="f", args=str(41)).delete()[0] == 1


def test_what_is_no_literal_is_refused_by_each_way_of_writing():
    for write in (Schedule.objects.create, Schedule.objects.update, Schedule.objects.filter, QueuedTask.objects.create):
        with pytest.raises(ValueError, match="args: 'foo' is not made of Python literals"):
            write(func="f", args="foo")
        with pytest.raises(ValueError, match="kwargs: must be a dict"):
            write(func="f", kwargs=[1])
    # The transaction is as good as before.
    assert not Schedule.objects.exists()


def test_an_empty_text_is_none():
    for _ in range(2):
        schedule(
            functions.nothing, name="", hook="", queue="", cluster="", time_zone="", intended_date_kwarg="", cron="",
            q_options={"group": "", "task_name": ""},
        )  # fmt: skip
        Schedule.objects.create(func=REGISTERED, name="", queue="", hook="")
    Schedule.objects.bulk_create([Schedule(func=REGISTERED, name="")])
    names = ("name", "hook", "queue", "time_zone", "intended_date_kwarg", "cron")
    assert set(Schedule.objects.values_list(*names)) == {(None,) * 6}
    assert Schedule.objects.filter(name="").count() == 5
    assert fire_schedules() == 5
    assert len(drain()) == 5
    assert QueuedTask.objects.create(func="f", name="", group="", hook="").group is None


# ------------------------------------------------------------------------------------------------- copies


@pytest.mark.parametrize("form", ["json", "xml", "python"])
def test_a_fixture_gives_the_same_rows(form, clock):
    note = Note.objects.create(text="x")
    schedule(tasks.noop, note, UUID(int=5), START, name="signed", schedule_type="H", x={"y": note})
    gone = Note.objects.create(text="gone")
    # Django's writer of XML looks at each value before it asks the field.
    schedule(tasks.noop, gone if form != "xml" else note, name="gone", schedule_type="D")
    Note.objects.filter(pk=gone.pk).delete()
    Schedule.objects.create(func="f", args="1, 'two'", kwargs="x=1", schedule_type="C", cron="0 3 * * *")
    async_task(functions.echo, 1, note)
    async_task(functions.echo, 2, x=START)
    assert [ran.state for ran in drain()] == ["succeeded"] * 2
    async_task(tasks.noop, note, task_name="n")
    models = (Schedule, QueuedTask, Task)
    before = [values(model) for model in models]
    verified = [signing.verify_schedule_row(row) for row in Schedule.objects.order_by("pk")]
    assert verified == [True, True, False]
    text = serializers.serialize(form, [row for model in models for row in model._base_manager.order_by("pk")])
    for model in models:
        model._base_manager.all().delete()
    for loaded in serializers.deserialize(form, text):
        loaded.save()
    assert [values(model) for model in models] == before
    assert [signing.verify_schedule_row(row) for row in Schedule.objects.order_by("pk")] == verified


def test_the_fields_of_a_django_q_fixture_are_understood():
    fields = {
        "name": "old", "func": REGISTERED, "hook": None, "args": "(41,)", "kwargs": "{}", "schedule_type": "I",
        "minutes": 5, "repeats": -1, "next_run": "2020-01-01T00:00:00Z", "cron": None, "task": None,
        "intended_date_kwarg": None,
    }  # fmt: skip
    rows = [{"model": "pgq.schedule", "pk": 1, "fields": {**fields, "args": args}} for args in (fields["args"], None)]
    for row in rows:
        [loaded] = serializers.deserialize("python", [row])
        loaded.save()
        assert Schedule.objects.get().args == ((41,) if row is rows[0] else ())


def test_the_whole_database_is_written_and_read_as_serialized_rollback_does(clock):
    schedule(tasks.noop, START, name="s", schedule_type="H")
    async_task(tasks.noop, 1)
    text = connection.creation.serialize_db_to_string()
    before = [values(model) for model in (Schedule, QueuedTask)]
    management.call_command("flush", interactive=False, verbosity=0, inhibit_post_migrate=True)
    connection.creation.deserialize_db_from_string(text)
    assert [values(model) for model in (Schedule, QueuedTask)] == before


# ------------------------------------------------------------------------------------------------- data migrations


def test_a_data_migration_writes_and_reads_as_the_models_do(historical, clock):
    model = historical("pgq", "Schedule")
    row = model.objects.create(func=REGISTERED, args="41", kwargs="", name="", schedule_type="C", cron="0 22 * * *")
    assert (row.args, row.kwargs, row.name) == ((41,), {}, None)
    # It does not fire at once.
    assert row.next_run == START.replace(hour=22)
    assert model.objects.get(args="41").args == (41,)
    [other] = model.objects.bulk_create([model(func=REGISTERED, args="1", schedule_type="C", cron="0 23 * * *")])
    assert other.next_run == START.replace(hour=23)
    row.cron = "0 21 * * *"
    row.save()
    assert Schedule.objects.get(pk=row.pk).next_run == START.replace(hour=21)
    queued = historical("pgq", "QueuedTask").objects.create(func=REGISTERED, args="1, 2")
    assert (queued.args, historical("pgq", "QueuedTask").objects.get().args) == ((1, 2), (1, 2))
    historical("pgq", "Task").objects.create(func="f", args="1")
    assert Task.objects.get().success is True


def test_a_data_migration_keeps_stored_values_that_it_only_looks_at(historical):
    note = Note.objects.create(text="x")
    made = schedule(tasks.noop, note, name="s", schedule_type="D")
    row = historical("pgq", "Schedule").objects.get(pk=made.pk)
    assert "Note" in str(row.args)
    row.refresh_from_db()
    row.minutes = 3
    row.save()
    assert Schedule.objects.get(pk=made.pk).args == (note,)


# ------------------------------------------------------------------------------------------------- when


def test_a_new_cron_moves_the_next_run_whoever_writes_it(clock):
    def edited(change):
        row = Schedule.objects.create(func=REGISTERED, schedule_type="C", cron="0 22 * * *")
        assert row.next_run == START.replace(hour=22)
        change(row)
        row = Schedule.objects.get(pk=row.pk)
        row.delete()
        return row.next_run

    def saved(row, **values):
        for name, value in values.items():
            setattr(row, name, value)
        row.save()

    def saved_some(row):
        row.cron = "0 21 * * *"
        row.save(update_fields=["cron"])

    def updated_in_bulk(row):
        row.cron = "0 21 * * *"
        Schedule.objects.bulk_update([row], ["cron"])

    rows = Schedule.objects
    for change in (
        lambda row: saved(row, cron="0 21 * * *"),
        lambda row: saved(rows.get(pk=row.pk), cron="0 21 * * *"),
        lambda row: saved(rows.only("name").get(pk=row.pk), cron="0 21 * * *"),
        saved_some,
        lambda row: rows.filter(cron="0 22 * * *").update(cron="0 21 * * *"),
        lambda row: rows.update_or_create(pk=row.pk, defaults={"cron": "0 21 * * *"}),
        updated_in_bulk,
    ):
        assert edited(change) == START.replace(hour=21)
    # What was set together with it stays, and so does what another field has nothing to do with.
    later = START + timedelta(days=9)
    assert edited(lambda row: saved(row, cron="0 21 * * *", next_run=later)) == later
    assert edited(lambda row: rows.filter(pk=row.pk).update(cron="0 21 * * *", next_run=later)) == later
    assert edited(lambda row: saved(row, minutes=7)) == START.replace(hour=22)
    # As in the admin: of the other types the next run says when.
    assert edited(lambda row: saved(row, schedule_type="D")) == START.replace(hour=22)


def test_a_type_may_be_a_word_however_it_is_written(clock):
    rows = Schedule.objects
    made = rows.create(func=REGISTERED, schedule_type="Cron", cron="0 22 * * *")
    assert (made.schedule_type, made.next_run) == ("C", START.replace(hour=22))
    rows.bulk_create([Schedule(func=REGISTERED, schedule_type="minutes", minutes=5)])
    checked = Schedule(func=REGISTERED, schedule_type="daily")
    checked.full_clean()
    checked.save()
    assert rows.get_or_create(schedule_type="hourly", func=REGISTERED)[1]
    assert not rows.get_or_create(schedule_type="hourly", func=REGISTERED)[1]
    made.schedule_type = "yearly"
    made.save(update_fields=["schedule_type"])
    rows.filter(schedule_type="daily").update(schedule_type="weekly")
    assert sorted(rows.values_list("schedule_type", flat=True)) == ["H", "I", "W", "Y"]
    with pytest.raises(ValidationError, match="schedule_type"):
        Schedule(func=REGISTERED, schedule_type="sometimes").full_clean()


def test_a_cron_that_has_no_use_is_doubted(clock):
    """A user of Django-Q who wrote this wanted 8 o'clock, and got each day at the time at which it was made."""
    row = Schedule.objects.create(name="report", func=REGISTERED, schedule_type="D", cron="0 8 * * *")
    assert row.upcoming(1) == [START]
    out = io.StringIO()
    management.call_command("pgq_schedules", stdout=out)
    assert "cron: '0 8 * * *' has no use, since the type is D" in " ".join(out.getvalue().split())


def test_an_edit_has_a_faulty_schedule_tried_at_once(clock):
    row = Schedule.objects.create(func=REGISTERED, args="1", schedule_type="H")
    for edit in (
        lambda: Schedule.objects.filter(pk=row.pk).update(func=REGISTERED, args="2"),
        lambda: Schedule.objects.update_or_create(pk=row.pk, defaults={"args": "3"}),
    ):
        Schedule.objects.filter(pk=row.pk).update(error="E", retry_at=START + timedelta(hours=1))
        edit()
        row.refresh_from_db()
        assert (row.error, row.retry_at) == (None, None)


def test_moving_the_next_run_moves_the_schedule(clock):
    row = schedule(functions.nothing, schedule_type="D", next_run=START)
    fire_schedules()
    row.refresh_from_db()
    row.next_run += timedelta(hours=1)
    row.save()
    row.refresh_from_db()
    assert row.calculate_next_run() == START + timedelta(days=2, hours=1)


def test_an_unsaved_schedule_says_when_it_would_fire(clock):
    row = Schedule(func="f", schedule_type="D")
    assert row.calculate_next_run() == START + timedelta(days=1)
    assert row.upcoming(2) == [START, START + timedelta(days=1)]
    assert Schedule(func="f", schedule_type="C", cron="0 22 * * *").upcoming(1) == [START.replace(hour=22)]
    assert Schedule.objects.create(func="f", next_run="2040-01-01T00:00:00Z").refresh_from_db() is None
    assert Schedule.objects.get().next_run == datetime(2040, 1, 1, tzinfo=UTC)


# ------------------------------------------------------------------------------------------------- signatures


def edits(pk, **values):
    """Change a row in each way there is."""

    def save():
        row = Schedule.objects.get(pk=pk)
        for name, value in values.items():
            setattr(row, name, value)
        row.save()

    def save_some():
        row = Schedule.objects.only("pk").get(pk=pk)
        for name, value in values.items():
            setattr(row, name, value)
        row.save(update_fields=list(values))

    def bulk_update():
        row = Schedule.objects.get(pk=pk)
        for name, value in values.items():
            setattr(row, name, value)
        Schedule.objects.bulk_update([row], list(values))

    yield save
    yield save_some
    yield bulk_update
    yield lambda: Schedule.objects.filter(pk=pk).update(**values)
    yield lambda: Schedule.objects.update_or_create(pk=pk, defaults=values)


def test_an_edit_of_a_signed_schedule_is_signed_anew(clock):
    note = Note.objects.create(text="x")
    for number in range(5):
        row = schedule(functions.registered, 1, name="s", schedule_type="H", update=True)
        # A model instance is only read from what is signed.
        list(edits(row.pk, args=(note,), kwargs={"x": note}, queue="q"))[number]()
        row = Schedule.objects.get(pk=row.pk)
        assert signing.verify_schedule_row(row)
        assert (row.args, row.kwargs, row.queue) == ((note,), {"x": note}, "q")
        [*edits(row.pk, args="7", kwargs="", queue="")][number]()
        row.refresh_from_db()
        assert (signing.verify_schedule_row(row), row.args, row.queue) == (True, (7,), None)
    # Also of what schedule() has returned, and what was saved shows what was set.
    row = schedule(functions.registered, 1, schedule_type="H")
    row.args = (note,)
    row.save()
    assert (row.args, signing.verify_schedule_row(row)) == ((note,), True)


def test_an_edit_that_would_void_a_signature_is_refused(clock):
    row = schedule(functions.note, "x", name="s", schedule_type="H")
    before = Schedule.objects.filter(pk=row.pk).values().get()
    for values in ({"args": ("y",)}, {"func": "os.system"}, {"hook": "os.system"}, {"options": {"timeout": 5.0}}):
        for edit in edits(row.pk, **values):
            with pytest.raises(EnqueueError, match=f"{next(iter(values))}: the schedule 's' was signed by schedule"):
                edit()
        changed = Schedule.objects.get(pk=row.pk)
        for name, value in values.items():
            setattr(changed, name, value)
        with pytest.raises(ValidationError, match="was signed by schedule"):
            changed.full_clean()
    assert Schedule.objects.filter(pk=row.pk).values().get() == before
    # Where its tasks go is no secret of the signature.
    Schedule.objects.filter(pk=row.pk).update(queue="other")
    assert signing.verify_schedule_row(Schedule.objects.get(pk=row.pk))
    # A text that is written anew is no change, and the way out is to give the signature up.
    Schedule.objects.filter(pk=row.pk).update(args="'x'")
    Schedule.objects.filter(pk=row.pk).update(args="'y'", signature=None)
    assert fire_schedules() == 0
    assert "tests.functions.common.note" in Schedule.objects.get(pk=row.pk).error


def test_stored_text_and_what_the_database_computes_are_never_signed(clock):
    row = schedule(functions.registered, 1, schedule_type="H")
    other = Schedule.objects.create(func=REGISTERED, args='stored:[{"$callable": "os.system"}]')
    text = stored_text(Schedule.objects.get(pk=other.pk), "args")
    assert text == '[{"$callable": "os.system"}]'
    changed = Schedule.objects.get(pk=row.pk)
    changed.__dict__["args"] = Schedule.objects.get(pk=other.pk).__dict__["args"]
    for edit in (
        changed.save,
        lambda: Schedule.objects.filter(pk=row.pk).update(args=f"stored:{text}"),
        lambda: Schedule.objects.filter(pk=row.pk).update(args=Schedule.objects.filter(pk=other.pk).values("args")),
    ):
        with pytest.raises(EnqueueError, match="args was not given as a value"):
            edit()
    assert signing.verify_schedule_row(Schedule.objects.get(pk=row.pk))


def test_saving_signs_nothing_that_was_not_signed_when_it_was_loaded(clock):
    row = schedule(functions.registered, 1, name="s", schedule_type="H")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pgq_schedule SET args = '[2]' WHERE id = %s", [row.pk])
    for edit in (*edits(row.pk, args="3"), *edits(row.pk, minutes=3), *edits(row.pk, args="1", func="os.system")):
        edit()
        assert not signing.verify_schedule_row(Schedule.objects.get(pk=row.pk))
    # One who only writes to the table changes it between the load and the save: the rest is not taken over.
    row = schedule(functions.registered, 1, name="s", schedule_type="H", update=True)
    loaded = Schedule.objects.get(pk=row.pk)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pgq_schedule SET func = 'os.system' WHERE id = %s", [row.pk])
    loaded.args = (9,)
    loaded.save(update_fields=["args"])
    found = Schedule.objects.get(pk=row.pk)
    assert (found.func, signing.verify_schedule_row(found)) == ("os.system", False)


def test_a_schedule_that_may_not_name_its_function_says_so_and_enqueues_nothing(clock):
    row = Schedule.objects.create(func="tests.functions.common.note", args="'x'", schedule_type="H")
    assert fire_schedules() == 0
    row.refresh_from_db()
    assert "not signed" in row.error
    assert enqueued() == []
    clock.tick(minutes=2)
    with override_settings(PGQ={"allowed": ["tests.functions.common.note"]}):
        row.save()
        assert fire_schedules() == 1
    assert row.next_run == START


# ------------------------------------------------------------------------------------------------- tasks of others


def test_finished_tasks_are_made_with_what_django_q_needs():
    now = timezone.now()
    made = Success.objects.create(name="a", func="f", started=now, stopped=now, result=5)
    assert (made.success, made.result, len(made.id)) == (True, 5, 32)
    failed = Failure.objects.create(name="b", func="f", started=now, stopped=now, result="boom : line 1")
    assert (failed.success, failed.message, failed.result) == (False, "boom", "boom : line 1")
    task = Task.objects.create(id="1" * 32, name="c", func="f", started=now, stopped=now, success=False, args=(1,))
    assert Task.objects.get(pk=task.pk).args == (1,)
    Success(func="f").save()
    Failure.objects.bulk_create([Failure(func="f"), Failure(func="f", success=False, exception="shop.Gone")])
    Task.objects.get_or_create(func="g", defaults={"group": ""})
    assert (Success.objects.count(), Failure.objects.count()) == (3, 4)
    assert set(Failure.objects.values_list("exception", flat=True)) == {"builtins.Exception", "shop.Gone"}
    assert Task.objects.get(func="g").queue == "default"
