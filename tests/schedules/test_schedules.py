"""Schedules: making them, and firing them at a frozen clock."""

from __future__ import annotations

import warnings
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.test import override_settings
from django.utils import timezone

from pgq.config import ScheduleConfig
from pgq.errors import EnqueueError
from pgq.models import QueuedTask, Schedule, Task
from pgq.schedules.fire import run_now
from pgq.schedules.sync import sync
from pgq.tasks import async_task, schedule
from pgq.testing import assert_enqueued, drain, enqueued, fire_schedules, freeze
from tests.functions import common as functions

pytestmark = pytest.mark.django_db

NOTE = "tests.functions.common.note"
START = datetime(2032, 1, 31, 10, 0, tzinfo=UTC)


@pytest.fixture
def clock():
    with freeze(START) as clock:
        yield clock


def runs(*args, ticks, clock, **options):
    """Make a schedule of echo; return the slots that fire while the clock is moved on by each of the ticks."""
    made = schedule(functions.echo, *args, intended_date_kwarg="slot", **options)
    slots = []
    for delta in (timedelta(0), *ticks):
        clock.tick(delta)
        fire_schedules()
        slots += [datetime.fromisoformat(row.kwargs["slot"]) for row in enqueued()]
        drain()
    return made, slots


# ------------------------------------------------------------------------------------------------- making


def test_schedule_returns_a_row():
    row = schedule("math.copysign", 2, -2, name="sign", schedule_type=Schedule.DAILY, hook=functions.hook, cluster="c")
    assert Schedule.objects.get() == row
    assert (row.name, row.func, row.args, row.kwargs, row.schedule_type) == ("sign", "math.copysign", (2, -2), {}, "D")
    assert (row.hook, row.queue, row.repeats) == ("tests.functions.common.hook", "c", -1)
    assert str(row) == "sign"


def test_letters():
    letters = {name: getattr(Schedule, name) for name in (
        "ONCE", "SECONDS", "MINUTES", "HOURLY", "DAILY", "WEEKLY", "BIWEEKLY", "MONTHLY", "BIMONTHLY", "QUARTERLY",
        "YEARLY", "CRON",
    )}  # fmt: skip
    assert list(letters.values()) == ["O", "S", "I", "H", "D", "W", "BW", "M", "BM", "Q", "Y", "C"]
    assert [letter for letter, _ in Schedule.TYPE] == list(letters.values())


def test_default_is_once_and_now(clock):
    row = schedule(functions.note, "x")
    assert (row.schedule_type, row.next_run) == ("O", START)


def test_arguments_may_be_more_than_literals(clock):
    when = datetime(2030, 5, 5, tzinfo=UTC)
    schedule(functions.echo, when, date(2030, 1, 1), [1, 2], x={"a": when})
    fire_schedules()
    [ran] = drain()
    assert ran.result == ((when, date(2030, 1, 1), [1, 2]), {"x": {"a": when}})


def test_name_is_unique_and_update_changes_it(clock):
    first = schedule(functions.note, "a", name="n", schedule_type="D", next_run=START + timedelta(hours=5))
    with pytest.raises(IntegrityError, match="A schedule with the same name already exists"):
        schedule(functions.note, "b", name="n")
    again = schedule(functions.note, "b", name="n", schedule_type="D", update=True)
    assert again.pk == first.pk
    # Only what it does has changed, so it stays where it was.
    assert (again.args, again.next_run) == (("b",), START + timedelta(hours=5))
    hourly = schedule(functions.note, "b", name="n", schedule_type="H", update=True)
    assert (hourly.pk, hourly.next_run) == (first.pk, START)
    assert schedule(functions.note, "c", name="new", update=True).pk != first.pk


def test_name_is_unique_in_the_table():
    schedule(functions.note, "a", name="n")
    with pytest.raises(IntegrityError), transaction.atomic():
        Schedule.objects.create(func=NOTE, name="n")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"schedule_type": "T"}, "schedule_type"),
        ({"schedule_type": "C", "cron": "61 * * * *"}, "cron"),
        ({"schedule_type": "C"}, "cron"),
        ({"schedule_type": "I", "minutes": 0}, "minutes"),
        ({"schedule_type": "I"}, "minutes"),
        ({"schedule_type": "S"}, "seconds"),
        ({"schedule_type": "H", "minutes": 5}, "minutes"),
        ({"minutes": 5, "cron": "0 3 * * *"}, "cron"),
        ({"repeats": "x"}, "repeats"),
        ({"repeats": 1.5}, "repeats"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"overlap": "maybe"}, "overlap"),
    ],
)
def test_wrong_field_is_named(wrong, field):
    with pytest.raises(ValidationError) as caught:
        schedule(functions.nothing, **wrong)
    assert field in caught.value.message_dict
    assert Schedule.objects.count() == 0


def test_wrong_function_or_option_is_refused():
    with pytest.raises(EnqueueError, match="func"):
        schedule("tests.functions.common.nowhere")
    with pytest.raises(EnqueueError, match=r"^q_options: there is no option grop; did you mean group"):
        schedule(functions.nothing, q_options={"grop": 1})
    # It was taken, and its tasks had links that nobody had checked.
    with pytest.raises(EnqueueError, match=r"^q_options: there is no option chain"):
        schedule(functions.nothing, q_options={"chain": []})
    with pytest.raises(EnqueueError, match=r"^q_options: must be a dict"):
        schedule(functions.nothing, q_options="group")
    assert Schedule.objects.count() == 0


def test_the_type_follows_from_what_is_given(clock):
    made = [
        schedule(functions.nothing, **given) for given in ({"cron": "0 3 * * *"}, {"minutes": 5}, {"seconds": 9}, {})
    ]
    assert [row.schedule_type for row in made] == ["C", "I", "S", "O"]
    assert made[0].next_run == datetime(2032, 2, 1, 3, tzinfo=UTC)
    with pytest.raises(ValidationError, match="schedule_type 'D' has no use for it; give schedule_type='I'"):
        schedule(functions.nothing, schedule_type="D", minutes=5)


def test_a_type_may_be_a_word_and_cron_beside_another_type_is_left_out_with_a_warning(clock):
    words = [schedule(functions.nothing, schedule_type=word) for word in ("hourly", "Weekly", "once")]
    assert [row.schedule_type for row in words] == ["H", "W", "O"]
    assert schedule(functions.nothing, schedule_type="minutes", minutes=5).schedule_type == "I"
    # Django-Q's users wrote this and waited for 8 o'clock.
    with pytest.warns(UserWarning, match=r"cron: '0 8 \* \* \*' is left out.*give schedule_type='C'") as caught:
        row = schedule(functions.nothing, schedule_type="D", cron="0 8 * * *")
    assert caught[0].filename == __file__
    assert (row.schedule_type, row.cron, row.next_run) == ("D", None, START)


def test_a_command_instead_of_a_function(clock):
    row = schedule(command="check", command_args=["--tag=models", 3], command_kwargs={"verbosity": 0}, timeout=9)
    assert (row.func, row.args, row.kwargs, row.options) == (
        "pgq.schedules.commands.run",
        ("check", "--tag=models", 3),
        {"verbosity": 0},
        {"timeout": 9},
    )
    for wrong, said in [
        ({}, "func: give a function, or a command"),
        ({"command": "no_such"}, "command: there is no management command 'no_such'"),
        ({"command": "check", "func": functions.nothing}, "command: func is given as well"),
        ({"command": "check", "x": 1}, "command: the arguments of a command go into"),
        ({"func": functions.nothing, "command_args": ["x"]}, "command: command_args"),
    ]:
        with pytest.raises(EnqueueError, match=said):
            schedule(**wrong)


def test_keywords_that_are_options_of_a_task_are_options_here(clock):
    schedule(functions.echo, 1, x=2, name="n", schedule_type="H", group="g", timeout=600, task_name="t",
             max_attempts=2, save=False, retry_on=[ValueError])  # fmt: skip
    # Those in q_options win, and leave a keyword of the name to the function, as in async_task.
    schedule(functions.echo, timeout=5, q_options={"timeout": -1, "max_attempts": 0}, schedule_type="H")
    fire_schedules()
    first, second = enqueued()
    assert (first.group, first.timeout, first.name, first.max_attempts) == ("g", 600.0, "t", 2)
    assert (first.kwargs, first.options) == ({"x": 2}, {"save": False, "retry_on": ["builtins.ValueError"]})
    assert (second.timeout, second.max_attempts, second.kwargs) == (None, 0, {"timeout": 5})
    with pytest.raises(EnqueueError, match="timeout: must be seconds"):
        schedule(functions.echo, timeout="soon")


def test_seconds_that_stand_first_are_doubted(clock):
    with pytest.warns(UserWarning, match="means every second of minute 0 of hour 15 on day 10 of the month: the sixth"):
        schedule(functions.nothing, cron="0 15 10 * * *")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for cron in ("0 15 10 * * 0", "* * * * * *", "15 10 * * *"):
            schedule(functions.nothing, cron=cron)


def test_a_yearly_schedule_names_its_month(clock):
    row = schedule(functions.nothing, schedule_type="Y", next_run=datetime(2032, 12, 25, 10, tzinfo=UTC))
    fire_schedules(datetime(2032, 12, 25, 10, tzinfo=UTC))
    row.refresh_from_db()
    assert row.describe() == "every year at 10:00 on day 25 of December"
    row.schedule_type = "Q"
    assert row.describe().startswith("every three months at 10:00 on day 25 of March, June, September and December")
    row.schedule_type = "M"
    assert row.describe() == "every month at 10:00 on day 25 of the month"


def test_q_options(clock):
    schedule(functions.fail, "x", name="n", schedule_type="H", q_options={
        "group": "g", "task_name": "t", "timeout": 9, "max_attempts": 2, "cluster": "c", "save": True,
        "hook": functions.hook,
    })  # fmt: skip
    fire_schedules()
    [row] = enqueued()
    assert (row.group, row.name, row.timeout, row.max_attempts, row.queue) == ("g", "t", 9.0, 2, "c")
    assert row.hook == "tests.functions.common.hook"
    assert row.options == {"save": True}
    # The field wins.
    other = schedule(functions.nothing, hook=functions.broken_hook, q_options={"hook": functions.hook})
    assert other.hook == "tests.functions.common.broken_hook"


def test_group_is_the_name_or_the_id(clock):
    schedule(functions.note, "a", name="n")
    unnamed = schedule(functions.note, "b")
    fire_schedules()
    assert {row.group for row in enqueued()} == {"n", str(unnamed.pk)}


def test_cluster_is_where_the_tasks_go(clock):
    schedule(functions.nothing, cluster="long")
    schedule(functions.nothing, queue="mail", priority=7)
    schedule(functions.nothing)
    fire_schedules()
    assert sorted((row.queue, row.priority) for row in enqueued()) == [("default", 0), ("long", 0), ("mail", 7)]


def test_schedules_of_other_queues_are_left_alone(clock):
    schedule(functions.nothing, cluster="long")
    schedule(functions.nothing, cluster="short")
    with override_settings(PGQ={"queues": ["short"]}):
        assert fire_schedules() == 1
    assert enqueued()[0].queue == "short"
    with override_settings(PGQ={"exclude_queues": ["long"]}):
        assert fire_schedules() == 0
    with override_settings(PGQ={"exclude_queues": ["short"]}):
        assert fire_schedules() == 1


# ------------------------------------------------------------------------------------------------- through the ORM


def test_orm_text_arguments_are_literals(clock):
    row = Schedule.objects.create(func="tests.functions.common.registered", args="41", schedule_type=Schedule.HOURLY)
    fire_schedules()
    [ran] = drain()
    assert ran.result == 42
    row.refresh_from_db()
    assert (row.args, row.next_run) == ((41,), START + timedelta(hours=1))


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("2", (2,)),
        ("2, -2", (2, -2)),
        ("'a', [1, 2]", ("a", [1, 2])),
        ("[1, 2]", ([1, 2],)),
        ("(1, 2)", (1, 2)),
        ("", ()),
        (None, ()),
    ],
)
def test_orm_args(text, args):
    row = Schedule.objects.create(func="f", **({} if text is None else {"args": text}))
    row.refresh_from_db()
    assert row.args == args


@pytest.mark.parametrize(
    ("text", "kwargs"), [("x=1, y='two'", {"x": 1, "y": "two"}), ("{'x': [1]}", {"x": [1]}), ("", {})]
)
def test_orm_kwargs(text, kwargs):
    row = Schedule.objects.create(func="f", kwargs=text)
    row.refresh_from_db()
    assert row.kwargs == kwargs


@pytest.mark.parametrize("field", ["args", "kwargs"])
@pytest.mark.parametrize("text", ["foo", "x=foo", "{'d': datetime.datetime(2020, 1, 1)}"])
def test_orm_text_that_is_no_literal_is_refused(field, text):
    with pytest.raises(ValueError, match=f"{field}: .* is not made of Python literals"):
        Schedule.objects.create(func="f", **{field: text})
    with pytest.raises(ValidationError) as caught:
        Schedule(func="f", **{field: text}).full_clean()
    assert field in caught.value.message_dict


def test_orm_cluster(clock):
    row = Schedule.objects.create(func="tests.functions.common.registered", cluster="long")
    assert (row.queue, row.cluster) == ("long", "long")
    fire_schedules()
    assert enqueued()[0].queue == "long"


def test_orm_row_may_only_name_a_registered_function(clock):
    row = Schedule.objects.create(func=NOTE, args="'x'")
    assert fire_schedules() == 0
    row.refresh_from_db()
    assert "not signed" in row.error
    # What a run by hand enqueues is parked.
    run_now(row)
    assert drain()[0].state == "parked"
    assert functions.seen == []
    [queued] = enqueued()
    assert "not signed" in queued.parked
    queued.delete()
    with override_settings(PGQ={"allowed": [NOTE]}):
        row.save()
        assert fire_schedules() == 1
        drain()
    assert functions.seen == ["x"]


def test_orm_cron_gets_its_first_slot(clock):
    row = Schedule.objects.create(func="f", schedule_type=Schedule.CRON, cron="0 22 * * 1-5")
    assert row.next_run == datetime(2032, 2, 2, 22, tzinfo=UTC)
    with pytest.raises(ValidationError):
        Schedule(func="f", schedule_type=Schedule.CRON, cron="0 22 * * 1-9").full_clean()


# ------------------------------------------------------------------------------------------------- when


@pytest.mark.parametrize(
    ("letter", "options", "next_run"),
    [
        ("S", {"seconds": 10}, datetime(2032, 1, 31, 10, 0, 10, tzinfo=UTC)),
        ("I", {"minutes": 15}, datetime(2032, 1, 31, 10, 15, tzinfo=UTC)),
        (None, {"minutes": 15}, datetime(2032, 1, 31, 10, 15, tzinfo=UTC)),
        ("H", {}, datetime(2032, 1, 31, 11, tzinfo=UTC)),
        ("D", {}, datetime(2032, 2, 1, 10, tzinfo=UTC)),
        ("W", {}, datetime(2032, 2, 7, 10, tzinfo=UTC)),
        ("BW", {}, datetime(2032, 2, 14, 10, tzinfo=UTC)),
        ("M", {}, datetime(2032, 2, 29, 10, tzinfo=UTC)),
        ("BM", {}, datetime(2032, 3, 31, 10, tzinfo=UTC)),
        ("Q", {}, datetime(2032, 4, 30, 10, tzinfo=UTC)),
        ("Y", {}, datetime(2033, 1, 31, 10, tzinfo=UTC)),
        ("C", {"cron": "0 12 * * *", "next_run": START}, datetime(2032, 1, 31, 12, tzinfo=UTC)),
    ],
)
def test_types(clock, letter, options, next_run):
    row = schedule(functions.nothing, schedule_type=letter, **options)
    assert row.calculate_next_run() == row.calculate_next_run(START) == next_run
    assert fire_schedules() == 1
    row.refresh_from_db()
    assert (row.next_run, row.last_slot, row.task) == (next_run, START, enqueued()[0].id)
    assert fire_schedules() == 0


def test_once_is_deleted_after_it_has_run(clock):
    schedule(functions.note, "x")
    assert fire_schedules() == 1
    assert Schedule.objects.count() == 0
    assert_enqueued(functions.note, ("x",), count=1)


def test_once_with_repeats_is_kept(clock):
    row = schedule(functions.note, "x", repeats=1)
    fire_schedules()
    row.refresh_from_db()
    assert row.repeats == 0
    clock.tick(days=1)
    assert fire_schedules() == 0


def test_repeats(clock):
    row, slots = runs(ticks=[timedelta(hours=1)] * 4, clock=clock, schedule_type="H", repeats=3)
    assert slots == [START + timedelta(hours=n) for n in range(3)]
    row.refresh_from_db()
    assert row.repeats == 0


def test_repeats_zero_never_and_negative_for_ever(clock):
    never = schedule(functions.nothing, schedule_type="H", repeats=0)
    ever = schedule(functions.nothing, schedule_type="H", repeats=-7)
    assert ever.repeats == -1
    for _ in range(3):
        fire_schedules()
        clock.tick(hours=1)
    ever.refresh_from_db()
    assert ever.repeats == -1
    assert len(enqueued()) == 3
    never.refresh_from_db()
    assert never.next_run == START


def test_monthly_comes_back_to_its_day(clock):
    _, slots = runs(ticks=[timedelta(days=15)] * 6, clock=clock, schedule_type="M")
    assert [(slot.month, slot.day) for slot in slots] == [(1, 31), (2, 29), (3, 31), (4, 30)]


def test_daily_keeps_its_local_time(clock):
    # In 2032 clocks in Amsterdam go forward on 28 March.
    amsterdam = ZoneInfo("Europe/Amsterdam")
    first = datetime(2032, 3, 27, 8, 30, tzinfo=amsterdam)
    clock.now = first.astimezone(UTC)
    _, slots = runs(
        ticks=[timedelta(days=1)] * 2, clock=clock, schedule_type="D", time_zone="Europe/Amsterdam", next_run=first
    )
    assert [slot.astimezone(amsterdam).strftime("%d %H:%M") for slot in slots] == ["27 08:30", "28 08:30", "29 08:30"]


def test_time_zone_of_the_settings(clock):
    with override_settings(PGQ={"time_zone": "Asia/Tokyo"}):
        row = schedule(functions.nothing, schedule_type="C", cron="0 9 * * *")
    assert row.next_run == datetime(2032, 2, 1, 0, tzinfo=UTC)
    with override_settings(TIME_ZONE="America/New_York"):
        row = schedule(functions.nothing, schedule_type="C", cron="0 9 * * *")
    assert row.next_run == datetime(2032, 1, 31, 14, tzinfo=UTC)


def test_catch_up_fires_what_was_missed(clock):
    _, slots = runs(ticks=[timedelta(hours=3)], clock=clock, schedule_type="H")
    assert slots == [START + timedelta(hours=n) for n in range(4)]


@pytest.mark.parametrize("how", ["setting", "field"])
def test_no_catch_up_fires_one_for_all(clock, how):
    options = {"catch_up": False} if how == "field" else {}
    with override_settings(PGQ={"catch_up": how == "field"}):
        row, slots = runs(ticks=[timedelta(hours=3, minutes=30)], clock=clock, schedule_type="H", **options)
    assert slots == [START, START + timedelta(hours=3)]
    row.refresh_from_db()
    assert row.next_run == START + timedelta(hours=4)


def test_catch_up_limit(clock):
    with override_settings(PGQ={"catch_up_limit": 5}):
        _, slots = runs(ticks=[timedelta(days=10)], clock=clock, schedule_type="H")
    assert len(slots) == 1 + 5
    assert slots[-1] == START + timedelta(days=10)


def test_intended_date_kwarg(clock):
    schedule(functions.dated, schedule_type="H", intended_date_kwarg="when")
    clock.tick(minutes=20)
    fire_schedules()
    assert drain()[0].result == START.isoformat()


def test_paused(clock):
    row = schedule(functions.nothing, schedule_type="H", paused=True)
    assert fire_schedules() == 0
    Schedule.objects.filter(pk=row.pk).update(paused=False)
    assert fire_schedules() == 1


def test_jitter_delays_each_task(clock):
    schedule(functions.nothing, schedule_type="H", jitter=60)
    fire_schedules()
    [row] = enqueued()
    assert START <= row.run_after <= START + timedelta(seconds=60)


def test_overlap_allow(clock):
    schedule(functions.nothing, schedule_type="H")
    for _ in range(3):
        fire_schedules()
        clock.tick(hours=1)
    assert len(enqueued()) == 3


def test_overlap_skip(clock):
    row = schedule(functions.nothing, schedule_type="H", overlap="skip")
    for _ in range(3):
        fire_schedules()
        clock.tick(hours=1)
    assert len(enqueued()) == 1
    row.refresh_from_db()
    assert row.next_run == START + timedelta(hours=3)
    drain()
    assert fire_schedules() == 1


def test_overlap_queue_one(clock):
    schedule(functions.nothing, schedule_type="H", overlap="queue_one")
    fire_schedules()
    # The first runs, so one more may wait.
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE pgq_queue SET lock = clock_timestamp(), worker = pgq_uuid7(), receipt = pgq_uuid7(), attempts = 1"
        )
    for _ in range(3):
        clock.tick(hours=1)
        fire_schedules()
    assert [row.state for row in enqueued()] == ["running", "ready"]


def test_one_bad_schedule_stops_no_other(clock):
    bad = schedule(functions.nothing, name="bad", schedule_type="C", cron="0 * * * *", next_run=START)
    with pytest.raises(ValueError, match="cron: "):
        Schedule.objects.filter(pk=bad.pk).update(cron="nonsense")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pgq_schedule SET cron = 'nonsense' WHERE id = %s", [bad.pk])
    schedule(functions.note, "good", name="good", schedule_type="H", next_run=START + timedelta(seconds=1))
    clock.tick(minutes=1)
    assert fire_schedules() == 1
    assert enqueued()[0].group == "good"
    bad.refresh_from_db()
    assert bad.error.startswith("ValueError: cron: ")
    # It is tried again, and once mended it fires and forgets the error.
    Schedule.objects.filter(pk=bad.pk).update(cron="0 * * * *", next_run=START)
    fire_schedules()
    bad.refresh_from_db()
    assert bad.error is None


def test_deleting_a_schedule_leaves_its_tasks(clock):
    row = schedule(functions.note, "x", schedule_type="H")
    fire_schedules()
    row.delete()
    drain()
    assert functions.seen == ["x"]


def test_success_and_last_task(clock):
    row = schedule(functions.multiply, 2, 3, schedule_type="H")
    assert (row.success(), row.last_task()) == (None, None)
    fire_schedules()
    row.refresh_from_db()
    assert row.success() is None
    drain()
    assert row.success() is True
    assert row.last_task().result == 6
    schedule(functions.fail, name="f", schedule_type="H")
    fire_schedules()
    drain()
    assert Schedule.objects.get(name="f").success() is False


def test_upcoming_and_describe(clock):
    row = schedule(functions.nothing, schedule_type="D", repeats=2)
    assert row.upcoming() == [START, START + timedelta(days=1)]
    assert row.describe()


def test_hook_of_a_schedule(clock):
    schedule(functions.multiply, 2, 3, schedule_type="H", hook=functions.hook)
    fire_schedules()
    drain()
    assert functions.seen == [(Task.objects.get(func__endswith="multiply").id, True, 6)]


def test_ordering():
    now = timezone.now()
    for hours in (3, 1, 2):
        schedule(functions.nothing, name=str(hours), next_run=now + timedelta(hours=hours))
    assert [row.name for row in Schedule.objects.all()] == ["1", "2", "3"]


def test_a_slot_is_fired_once(clock):
    row = schedule(functions.nothing, schedule_type="H")
    fire_schedules()
    # Somebody who believes to lead, and has read the row as it was.
    Schedule.objects.filter(pk=row.pk).update(next_run=START)
    fire_schedules()
    assert len(enqueued()) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("deferred", ["DEFERRABLE INITIALLY DEFERRED", ""])
def test_a_schedule_that_others_refer_to_runs_once_and_stops_no_other(deferred):
    """A OneToOneField(null=True, on_delete=SET_NULL) is a deferred foreign key, whose SET NULL is Django's own."""
    kept = schedule(functions.note, "kept")
    schedule(functions.note, "other")
    gone = schedule(functions.note, "gone")
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE pgq_test_job (schedule_id bigint UNIQUE REFERENCES pgq_schedule (id) {deferred})")
        try:
            cursor.execute("INSERT INTO pgq_test_job VALUES (%s)", [kept.pk])
            assert fire_schedules() == 3
            assert list(Schedule.objects.all()) == [kept]
            kept.refresh_from_db()
            assert (kept.repeats, kept.next_run, kept.task) == (0, None, enqueued()[0].id)
            assert "it has run and could not be removed" in kept.error
            assert "pgq_test_job" in kept.error
            assert fire_schedules(timezone.now() + timedelta(days=1)) == 0
        finally:
            cursor.execute("DROP TABLE pgq_test_job")
    assert not Schedule.objects.filter(pk=gone.pk).exists()
    assert len(drain()) == 3


FIXED = "tests.functions.common.configured"


def options_of_tasks():
    names = ("queue", "priority", "timeout", "max_attempts", "options")
    return {row.group: tuple(getattr(row, name) for name in names) for row in QueuedTask.objects.all()}


def test_tasks_of_a_schedule_have_what_its_function_fixes_whichever_way_the_schedule_was_made(clock):
    schedule(FIXED, name="path")
    schedule(functions.configured, name="object")
    functions.configured.schedule(name="own")
    Schedule.objects.create(name="orm", func=FIXED)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO pgq_schedule (name, func) VALUES ('psql', %s)", [FIXED])
    with override_settings(PGQ={"schedules": [ScheduleConfig("code", func=FIXED, schedule_type="once")]}):
        sync()
    run_now(Schedule.objects.create(name="now", func=FIXED, paused=True))
    assert fire_schedules() == 6
    made = options_of_tasks()
    assert made.keys() == {"path", "object", "own", "orm", "psql", "code", "now"}
    async_task(FIXED, group="call")
    assert list(made.values()) == [options_of_tasks()["call"]] * 7


def test_what_a_schedule_gives_or_takes_away_wins_over_what_its_function_fixes(clock):
    schedule(FIXED, name="given", queue="other", priority=-3, timeout=9, max_attempts=2, q_options={"save": False})
    schedule(FIXED, name="none", priority=0, timeout=-1, max_attempts=0)
    functions.configured.using(timeout=None, retry_backoff=None, queue=None, priority=None).schedule(name="taken")
    code = ScheduleConfig("code", func=FIXED, schedule_type="once", priority=0, queue="other")
    with override_settings(PGQ={"timeout": 77, "schedules": [code]}):
        sync()
        row = Schedule.objects.create(
            name="orm", func=FIXED, queue="other", options={"timeout": 9, "reset": [1, "nothing"]}
        )
        assert row.signature is None
        assert fire_schedules() == 5
    made = options_of_tasks()
    fixed = {"backoff": [1, 2]}
    assert made == {
        "given": ("other", -3, 9.0, 2, {"save": False, **fixed}),
        "none": ("mail", 0, None, 0, fixed),
        "taken": ("default", 0, 77.0, 3, {}),
        "code": ("other", 0, 30.0, 3, fixed),
        "orm": ("other", 5, 9.0, 3, fixed),
    }
