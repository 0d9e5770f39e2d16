"""Schedules of cron, django-crontab and Celery beat that move over: all are taken or refused, none twice."""

from __future__ import annotations

import io
import json
import sys
import types
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from pgq.contrib.cron import celery_beat, crontab, django_crontab, found
from pgq.models import Schedule
from pgq.schedules import code
from pgq.testing import freeze

pytestmark = pytest.mark.django_db

NOTE = "tests.functions.common.note"
HELLO = "tests.functions.common.hello"
START = datetime(2032, 3, 10, 10, 7, tzinfo=UTC)
PY = "/srv/venv/bin/python manage.py"

CRONTAB = f"""\
SHELL=/bin/bash
MAILTO=ops@example.com
# Sessions of yesterday
0 3 * * * cd /srv/shop && {PY} clearsessions >> /var/log/sessions.log 2>&1
*/5 * * * * cd /srv; source venv/bin/activate; python -u ./manage.py check --tag models --settings=prod > /dev/null 2>&1
@daily /usr/bin/flock -n /tmp/lock -c "cd /srv/shop && {PY} check --deploy"
0 9 * * MON-FRI [ -x /srv/venv/bin/python ] && timeout 10m nice -n 5 {PY} check --tag=models
CRON_TZ=Europe/Paris
30 2 1 JAN,JUL 0 DJANGO_SETTINGS_MODULE=shop.prod django-admin check --tag "two words"
15 4 * * 7 bash -lc 'cd /srv/shop && uv run python manage.py check' &> /dev/null
0 5 * * * {PY} check
@reboot {PY} check
0 6 * * * {PY} no_such_command
0 7 * * * /usr/local/bin/backup.sh --all
0 8 * * * {PY} dumpdata | gzip > /backup/$(date +\\%F).gz
0 9 * * * {PY} check && {PY} clearsessions
0 10 */2 * 1 {PY} check
0 11 * * * {PY} check --tag $TAG
0 12 * * * {PY} shell % print(1)
0 99 * * * {PY} check
nonsense
"""
TAKEN = {
    "Sessions of yesterday": ("0 3 * * *", ("clearsessions",), None, "allow", {}),
    "check --tag models": ("*/5 * * * *", ("check", "--tag", "models"), None, "allow", {}),
    "check --deploy": ("@daily", ("check", "--deploy"), None, "skip", {}),
    "check --tag=models": ("0 9 * * MON-FRI", ("check", "--tag=models"), None, "allow", {"timeout": 600.0}),
    "check --tag two words": ("30 2 1 JAN,JUL 0", ("check", "--tag", "two words"), "Europe/Paris", "allow", {}),
    "check": ("15 4 * * 7", ("check",), "Europe/Paris", "allow", {}),
    "check 2": ("0 5 * * *", ("check",), "Europe/Paris", "allow", {}),
}
REFUSED = {
    1: "a variable",
    2: "PGQ['error_reporter']",
    12: "cron: '@reboot' has no time",
    13: "command: there is no management command",
    14: "not a management command",
    15: "the shell would run another program",
    16: "several programs",
    17: "both days are given",
    18: "the shell would expand",
    19: "'%' gives it an input",
    20: "cron: ",
    21: "is no job",
}


@pytest.fixture(autouse=True)
def clock():
    with freeze(START) as clock:
        yield clock


def command(*arguments):
    out = io.StringIO()
    call_command("pgq_schedules", *arguments, stdout=out)
    # Without the breaks of lines that were too long for a terminal.
    return " ".join(out.getvalue().split())


def rows():
    return {
        row.name: (row.cron, row.args, row.time_zone, row.overlap, row.options)
        for row in Schedule.objects.order_by("pk")
    }


def test_a_crontab(tmp_path, monkeypatch):
    file = tmp_path / "crontab"
    file.write_text(CRONTAB)
    assert "7 would be taken, 12 refused." in command("import-crontab", str(file), "--dry-run")
    assert rows() == {}
    said = json.loads(command("import-crontab", str(file), "--json"))
    assert rows() == TAKEN
    assert {row.func for row in Schedule.objects.all()} == {"pgq.schedules.commands.run"}
    refused = {int(each["source"].split(":")[0].split()[1]): each["refused"] for each in said if each["refused"]}
    assert refused.keys() == REFUSED.keys()
    for line, why in REFUSED.items():
        assert refused[line].startswith(why), (line, refused[line])
    notes = {each["name"]: each["notes"] for each in said if each["notes"]}
    assert notes["check --tag models"] == [
        "its output is the result of its task, and goes to no file",
        "--settings is not carried over: the task runs in the pool's own settings",
    ]
    # Again, by the other way in: nothing is doubled.
    monkeypatch.setattr(sys, "stdin", io.StringIO(CRONTAB))
    out = command("import-crontab", "-")
    assert "0 written, 19 refused." in out
    assert "there is a schedule 'check' already" in out
    assert rows() == TAKEN


def test_a_crontab_of_the_system_and_a_module_instead_of_rows(tmp_path, monkeypatch):
    # Short names, since the lines of the output are wrapped.
    monkeypatch.chdir(tmp_path)
    file, module = Path("crontab"), Path("schedules.py")
    file.write_text(f"CRON_TZ=Asia/Tokyo\n17 3 * * * www-data cd / && {PY} clearsessions\n@hourly root /bin/true\n")
    out = command("import-crontab", str(file), "--user-field", "--write", str(module))
    assert f"1 in {module}, 1 refused." in out
    assert rows() == {}
    namespace = types.ModuleType("schedules")
    exec(module.read_text(), vars(namespace))
    with override_settings(PGQ={"schedules": namespace.SCHEDULES}):
        [one] = code.read().schedules
    assert (one.name, one.row.cron, one.row.time_zone) == ("clearsessions", "17 3 * * *", "Asia/Tokyo")
    for wrong in (
        ["import-crontab"],
        ["import-crontab", "a", "b"],
        ["list", "--write", "x"],
        ["import-crontab", "a", "--force"],
    ):
        with pytest.raises(CommandError):
            command(*wrong)
    with pytest.raises(CommandError, match="No such file"):
        command("import-crontab", "/nowhere")


CRONJOBS = [
    ("*/5 * * * *", NOTE, ["x"]),
    ("0 4 * * *", "django.core.management.call_command", ["clearsessions"]),
    ("0 0 1 * *", HELLO, ">> /tmp/log 2>&1"),
    ("0 0 * * 0", NOTE, ["y"], {}, "> /dev/null"),
    ["0   6 * * *", "django.core.management.call_command", ["check"], {"verbosity": 0}],
    ("@hourly", "tests.functions.common.nothing"),
    ("0 99 * * *", NOTE, ["x"]),
    ("0 1 * * *", "tests.functions.common.gone"),
    ("0 1 * * *",),
    ("0 2 * * *", HELLO, ["z"], {"extra": 1}),
]


def test_the_jobs_of_django_crontab():
    with override_settings(CRONJOBS=CRONJOBS, CRONTAB_LOCK_JOBS=True):
        out = command("import-django-crontab")
    made = {row.name: (row.cron, row.func, row.args, row.kwargs, row.overlap) for row in Schedule.objects.all()}
    run = "pgq.schedules.commands.run"
    assert made == {
        NOTE: ("*/5 * * * *", NOTE, ("x",), {}, "skip"),
        "clearsessions": ("0 4 * * *", run, ("clearsessions",), {}, "skip"),
        HELLO: ("0 0 1 * *", HELLO, (), {}, "skip"),
        f"{NOTE} 2": ("0 0 * * 0", NOTE, ("y",), {}, "skip"),
        "check": ("0   6 * * *", run, ("check",), {"verbosity": 0}, "skip"),
        "tests.functions.common.nothing": ("@hourly", "tests.functions.common.nothing", (), {}, "skip"),
        f"{HELLO} 2": ("0 2 * * *", HELLO, ("z",), {"extra": 1}, "skip"),
    }
    assert "7 written, 3 refused." in out
    assert "'>> /tmp/log 2>&1' is not carried over" in out


def celery_crontab(minute="*", hour="*", day_of_week="*", day_of_month="*", month_of_year="*"):
    """What celery.schedules.crontab of Celery 5 holds of its arguments."""
    given = {
        "minute": minute,
        "hour": hour,
        "day_of_week": day_of_week,
        "day_of_month": day_of_month,
        "month_of_year": month_of_year,
    }
    return types.SimpleNamespace(**{f"_orig_{name}": value for name, value in given.items()})


BEAT = {
    "number": {"task": NOTE, "schedule": 30.0, "args": ("x",)},
    "minutes": {"task": NOTE, "schedule": timedelta(minutes=10), "args": ("x",), "options": {"queue": "slow"}},
    "nightly": {
        "task": NOTE,
        "schedule": celery_crontab(minute=30, hour=7),
        "args": ("x",),
        "options": {"expires": 60},
    },
    "set": {"task": NOTE, "schedule": celery_crontab(minute={0, 30}, hour="*/3"), "args": ("x",)},
    "weekdays": {"task": NOTE, "schedule": celery_crontab(0, 9, "mon-fri"), "args": ("x",)},
    "schedule": {"task": NOTE, "schedule": types.SimpleNamespace(run_every=timedelta(seconds=90)), "args": ("x",)},
    "both": {"task": NOTE, "schedule": celery_crontab(0, 0, "fri", "13"), "args": ("x",)},
    "solar": {"task": NOTE, "schedule": types.SimpleNamespace(event="sunset"), "args": ("x",)},
    "gone": {"task": "shop.gone", "schedule": 5},
    "cleanup": {"task": "celery.backend_cleanup", "schedule": celery_crontab(0, 4)},
}


@pytest.mark.parametrize("way", ["settings", "app"])
def test_the_schedules_of_celery_beat(way, monkeypatch):
    with pytest.raises(CommandError, match=r"tests\.nothing\.app: ModuleNotFoundError"):
        command("import-celery-beat", "tests.nothing.app")
    if way == "settings":
        with override_settings(CELERY_BEAT_SCHEDULE=BEAT, CELERY_TIMEZONE="Europe/Paris"):
            out = command("import-celery-beat")
    else:
        conf = types.SimpleNamespace(beat_schedule=BEAT, timezone="Europe/Paris")
        monkeypatch.setattr("tests.functions.common.celery", types.SimpleNamespace(conf=conf), raising=False)
        out = command("import-celery-beat", "tests.functions.common.celery")
    made = {
        row.name: (row.minutes or row.seconds or row.cron, row.time_zone, row.queue) for row in Schedule.objects.all()
    }
    assert made == {
        "number": (30.0, None, None),
        "minutes": (10, None, "slow"),
        "nightly": ("30 7 * * *", "Europe/Paris", None),
        "set": ("0,30 */3 * * *", "Europe/Paris", None),
        "weekdays": ("0 9 * * mon-fri", "Europe/Paris", None),
        "schedule": (90.0, None, None),
    }
    assert "6 written, 4 refused." in out
    assert "Celery fires if both fit" in out
    assert "expires=60 is not carried over" in out
    assert "PGQ['keep_days']" in out


def periodic_task(**columns):
    """A row of django_celery_beat.PeriodicTask 2.9."""
    columns = {
        "name": "n",
        "task": NOTE,
        "args": '["x"]',
        "kwargs": "{}",
        "queue": None,
        "exchange": None,
        "routing_key": None,
        "headers": "{}",
        "priority": None,
        "expires": None,
        "expire_seconds": None,
        "one_off": False,
        "start_time": None,
        "enabled": True,
        "last_run_at": None,
        "interval": None,
        "crontab": None,
        "solar": None,
        "clocked": None,
    } | columns
    return types.SimpleNamespace(**columns)


def test_the_rows_of_django_celery_beat():
    names = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
    night = types.SimpleNamespace(**dict(zip(names, ("0", "2, 4", "*", "*", "*"), strict=True)), timezone="Asia/Tokyo")
    often = types.SimpleNamespace(every=3, period="hours")
    later, earlier = START + timedelta(days=1), START - timedelta(days=1)
    found_ = [
        celery_beat._row(row)
        for row in (
            periodic_task(name="cron", crontab=night, enabled=False),
            periodic_task(name="going on", interval=often, last_run_at=START - timedelta(hours=1), queue="celery"),
            periodic_task(name="once", crontab=night, one_off=True, priority=3),
            periodic_task(name="clocked", clocked=types.SimpleNamespace(clocked_time=later)),
            periodic_task(name="was", clocked=types.SimpleNamespace(clocked_time=earlier)),
            periodic_task(name="sun", solar=object()),
            periodic_task(name="broken", interval=often, args="["),
        )
    ]
    namespace = types.ModuleType("schedules")
    exec(found.as_module(found_), vars(namespace))
    assert [one.next_run for one in namespace.SCHEDULES] == [None, START + timedelta(hours=2), None, later]
    found.write(found.check(found.named(found_)))
    made = {row.name: (row.cron, row.minutes, row.next_run, row.paused, row.repeats) for row in Schedule.objects.all()}
    assert made == {
        "cron": ("0 2,4 * * *", None, datetime(2032, 3, 10, 17, tzinfo=UTC), True, -1),
        "going on": (None, 180, START + timedelta(hours=2), False, -1),
        "once": ("0 2,4 * * *", None, datetime(2032, 3, 10, 17, tzinfo=UTC), False, 1),
        "clocked": (None, None, later, False, 1),
    }
    assert [each.refused[:20] for each in found_ if each.refused] == [
        "it was for 2032-03-0",
        "solar events have no",
        "its arguments are no",
    ]


def test_what_beat_has_copied_into_rows_is_taken_once():
    row = periodic_task(name="number", interval=types.SimpleNamespace(every=45, period="seconds"))
    entry = celery_beat._entry("number", BEAT["number"], "UTC")
    checked = found.check(celery_beat.together({"number": entry}, [row]))
    found.write(checked)
    assert [each.refused for each, _ in checked] == ["django-celery-beat has a row of that name, which is taken", ""]
    assert [row.seconds for row in Schedule.objects.all()] == [45.0]


def test_a_whole_line_is_never_lost():
    """Each line that is neither empty nor a comment is taken or refused."""
    lines = [line for line in CRONTAB.splitlines() if line and not line.startswith(("#", "CRON_TZ"))]
    assert len(crontab.find(CRONTAB)) == len(lines)
    with override_settings(CRONJOBS=CRONJOBS):
        assert len(django_crontab.find()) == len(CRONJOBS)
