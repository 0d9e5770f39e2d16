"""Schedules in code as objects: what they become, and all that is wrong with them at once."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from django.core import checks
from django.test import override_settings

from pgq import conf
from pgq.config import (
    Config,
    CrontabConfig,
    CrontabJobConfig,
    DjangoQ2Config,
    DjangoQ2ScheduleConfig,
    Every,
    ScheduleConfig,
    cron,
)
from pgq.enqueue import registry
from pgq.recurrence import Recurrence, first_slot
from pgq.schedules import code, declared
from pgq.tasks import task

NOTE, HELLO = "tests.functions.common.note", "tests.functions.common.hello"
NOW = datetime(2032, 3, 10, 10, 7, 30, tzinfo=UTC)  # a Wednesday


def read(*schedules, **settings):
    with override_settings(PGQ={"schedules": list(schedules), **settings}):
        return code.read()


def rule(config):
    """What a schedule in code says of when it fires: type, minutes or seconds or cron, and the first slot."""
    found = read(config)
    assert found.errors() == []
    [one] = found.schedules
    row = one.row
    first = one.first_run(NOW)
    return row.schedule_type, row.minutes or row.seconds or row.cron, f"{first:%m-%d %H:%M:%S}"


@pytest.fixture
def beside():
    """Decorate a function of this module with schedules; nothing of it is known afterwards."""

    def decorate(schedule):
        def report(number=1): ...

        report.__module__, report.__qualname__ = __name__, "report"
        globals()["report"] = task(schedule=schedule)(report)
        return f"{__name__}.report"

    yield decorate
    declared.declare(f"{__name__}.report", None)
    registry._registered.pop(f"{__name__}.report", None)
    globals().pop("report", None)


def test_the_configuration_is_made_without_settings_or_models():
    source = (
        "import sys; from pgq.config import Config, DjangoQ2Config, ScheduleConfig, cron, Every\n"
        "PGQ = Config(workers=2, schedules=[ScheduleConfig('a', func='x.y', when=cron('0 2 * * *'))])\n"
        "PGQ.to_settings(); DjangoQ2Config(retry=3600).to_settings()\n"
        "from django.conf import settings\n"
        "print(settings.configured, 'pgq.models' in sys.modules, 'django.db.models' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO")}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False", "False"]


def test_a_config_is_a_dict_of_what_is_given():
    config = Config(workers=3, timeout=60.0, queues=("mail",), ALT_CLUSTERS={"slow": {"workers": 1}})
    assert config.to_settings() == {
        "workers": 3,
        "timeout": 60.0,
        "queues": ("mail",),
        "ALT_CLUSTERS": {"slow": {"workers": 1}},
    }
    with override_settings(PGQ=config):
        assert (conf.get_settings().workers, conf.get_settings().queues) == (3, ("mail",))
        assert conf.policy_of("slow").timeout == 60.0
    with override_settings(PGQ=Config(workers=0, retry=-1)):
        assert {problem.key for problem in conf.problems()} == {"workers", "retry"}
    with pytest.raises(TypeError, match="worker"):
        Config(worker=3)


# ------------------------------------------------------------------------------------------------- when


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"when": cron("0 2 * * 1-5")}, ("C", "0 2 * * 1-5", "03-11 02:00:00")),
        ({"when": Every(minutes=15)}, ("I", 15, "03-10 10:15:00")),
        ({"when": Every(minutes=7)}, ("I", 7, "03-10 10:14:30")),
        ({"when": Every(hours=2)}, ("I", 120, "03-10 12:00:00")),
        ({"when": Every(seconds=90)}, ("S", 90, "03-10 10:09:00")),
        ({"when": Every(days=1, at="09:30")}, ("D", None, "03-11 09:30:00")),
        ({"when": Every(days=1, at=time(11))}, ("D", None, "03-10 11:00:00")),
        ({"when": Every(weeks=2)}, ("BW", None, "03-14 00:00:00")),
        ({"schedule_type": "minutes", "minutes": 5}, ("I", 5, "03-10 10:10:00")),
        ({"schedule_type": "hourly"}, ("H", None, "03-10 11:00:00")),
        ({"schedule_type": "Daily"}, ("D", None, "03-11 00:00:00")),
        ({"schedule_type": "weekly"}, ("W", None, "03-14 00:00:00")),
        ({"schedule_type": "monthly"}, ("M", None, "04-01 00:00:00")),
        ({"schedule_type": "bimonthly"}, ("BM", None, "05-01 00:00:00")),
        ({"schedule_type": "quarterly"}, ("Q", None, "04-01 00:00:00")),
        ({"schedule_type": "yearly"}, ("Y", None, "01-01 00:00:00")),
        ({"schedule_type": "once"}, ("O", None, "03-10 10:07:30")),
        ({"cron": "*/5 * * * *"}, ("C", "*/5 * * * *", "03-10 10:10:00")),
        ({"schedule_type": "D", "next_run": datetime(2032, 1, 1, 4, 30)}, ("D", None, "03-11 04:30:00")),
        ({"next_run": datetime(2033, 1, 1)}, ("O", None, "01-01 00:00:00")),
    ],
)
def test_when(when, expected):
    config = ScheduleConfig("n", func=NOTE, args=["x"], **when)
    assert rule(config) == expected
    # A dict with the same keys is the same.
    assert rule({"name": "n", "func": NOTE, "args": ["x"], **when}) == expected


def test_days_begin_at_midnight_of_the_zone_and_a_clock_change_moves_none():
    zone = ZoneInfo("Europe/Paris")
    day = Recurrence(kind="D", zone=zone)
    assert first_slot(day, NOW) == datetime(2032, 3, 10, 23, tzinfo=UTC)
    # On the night of the change there is no 02:30: the slot is the first instant after it.
    night = datetime(2032, 3, 27, 23, 30, tzinfo=UTC)
    assert first_slot(day, night, time(2, 30)) == datetime(2032, 3, 28, 1, tzinfo=UTC)
    hour = Recurrence(kind="H", zone=ZoneInfo("Asia/Kolkata"))
    assert first_slot(hour, NOW) == datetime(2032, 3, 10, 10, 30, tzinfo=UTC)


# ------------------------------------------------------------------------------------------------- beside the function


def test_schedules_beside_a_function(beside):
    path = beside(cron("0 2 * * *"))
    [one] = read().schedules
    assert (one.name, one.row.func, one.row.cron) == (path, path, "0 2 * * *")
    beside("30 2 * * *")
    assert read().schedules[0].row.cron == "30 2 * * *"
    beside([Every(hours=1, name="hourly"), ScheduleConfig("eu", when=cron("0 1 * * *"), args=(2,), queue="eu")])
    assert [(each.name, each.row.func, each.row.queue) for each in read().schedules] == [
        ("hourly", path, None),
        ("eu", path, "eu"),
    ]
    beside([Every(hours=1), ScheduleConfig("eu", when=cron("0 1 * * *"), func=NOTE)])
    assert read().errors() == [
        f"@task {path} schedule[0]: name: give it a name; the database keeps it under that",
        f'@task {path} schedule[1] "eu": func: it stands beside its function; leave func and command out',
    ]


def test_a_list_may_stand_in_a_module_that_settings_only_name(monkeypatch):
    monkeypatch.setattr(
        "tests.functions.common.LISTED",
        [{"name": "a", "func": NOTE, "args": ["x"], "cron": "* * * * *"}],
        raising=False,
    )
    with override_settings(PGQ={"schedules": "tests.functions.common.LISTED"}):
        assert [one.name for one in code.read().schedules] == ["a"]
    with override_settings(PGQ={"schedules": "tests.functions.common.GONE"}):
        [message] = code.read().errors()
        assert message.startswith("schedules (tests.functions.common.GONE): ImportError: ")


# ------------------------------------------------------------------------------------------------- what is wrong


def test_all_that_is_wrong_is_named_at_once_with_its_place():
    wrong = [
        ScheduleConfig("fine", func=HELLO, when=cron("0 2 * * *")),
        {"name": "Daily report", "func": "tests.functions.common.gone", "cron": "0 25 * * *", "timeout": "soon"},
        {"func": HELLO, "schedule_type": "fortnightly"},
        {"name": "fine", "func": HELLO, "schedule_type": "daily", "minuts": 5},
        {"name": "e", "func": HELLO, "command": "check", "schedule_type": "daily"},
        {"name": "f", "command": "no_such_command", "schedule_type": "daily", "at": "25:00"},
        {"name": "g", "schedule_type": "daily", "cron": "0 8 * * *"},
        {"name": "h", "func": HELLO, "when": Every(hours=1, minutes=5)},
        {"name": "i", "func": HELLO, "when": cron("* * * * *"), "overlap": "never", "options": {"grup": 1}},
        {"name": "j", "func": HELLO},
        7,
        {"name": "l", "func": HELLO, "cron": "* * * * *", "environments": "prod", "enabled": 1, "jitter": -1},
        {"name": "m", "func": HELLO, "cron": "* * * * *", "options": 3, "environments": 7},
    ]
    with override_settings(PGQ={"schedules": wrong}):
        found = [message.msg for message in checks.run_checks() if message.id == "pgq.E110"]
    expected = [
        'schedules[1] "Daily report": cron: ',
        'schedules[1] "Daily report": func: ',
        'schedules[1] "Daily report": timeout: ',
        "schedules[2]: name: give it a name",
        "schedules[2]: schedule_type: 'fortnightly' is none of once, seconds, minutes, hourly",
        'schedules[3] "fine": minuts: there is no such key; did you mean minutes?',
        'schedules[3] "fine": name: schedules[0] "fine" has it as well',
        'schedules[4] "e": command: func is given as well',
        "schedules[5] \"f\": at: must be a time of the day such as '02:30', got '25:00'",
        "schedules[5] \"f\": command: there is no management command 'no_such_command'",
        "schedules[6] \"g\": cron: schedule_type 'daily' has no use for it",
        'schedules[6] "g": func: give a function, or a command',
        'schedules[7] "h": when: Every needs one of',
        'schedules[8] "i": overlap: ',
        'schedules[8] "i": options: there is no option grup; did you mean group?',
        'schedules[9] "j": when: say when it fires',
        "schedules[10]: must be a ScheduleConfig or a dict, got 7",
        'schedules[11] "l": environments: must be a list of texts',
        'schedules[11] "l": enabled: must be True or False',
        'schedules[11] "l": jitter: must be a number of seconds',
        'schedules[12] "m": environments: must be a list of texts',
        'schedules[12] "m": options: must be a dict',
    ]
    for said in expected:
        assert any(message.startswith(said) for message in found), (said, found)
    assert len(found) == len(expected)


# ------------------------------------------------------------------------------------------------- django-cfg


def test_the_configuration_of_django_cfg_moves_over_as_it_stands():
    config = DjangoQ2Config(
        enabled=True,
        workers=4,
        timeout=300,
        retry=3600,
        broker_class="redis",
        broker_url="redis://localhost:6379/0",
        queue_limit=50,
        save_limit=250,
        cached=500,
        monitor_interval=30,
        log_level="INFO",
        schedules=[
            DjangoQ2ScheduleConfig(
                name="Sync balances",
                schedule_type="minutes",
                minutes=5,
                command="check",
                command_args=["--tag", "models"],
                command_kwargs={"verbosity": 0},
                timeout=60,
                cluster="slow",
            ),
            DjangoQ2ScheduleConfig(name="Report", schedule_type="cron", cron="0 9 * * 1-5", func=NOTE, args=["x"]),
            DjangoQ2ScheduleConfig(name="Weekly", schedule_type="weekly", func=NOTE, args=["x"], cron="0 8 * * *"),
            DjangoQ2ScheduleConfig(name="Off", schedule_type="daily", func=NOTE, args=["x"], enabled=False),
        ],
    )
    with override_settings(PGQ=config):
        settings = conf.get_settings()
        assert (settings.workers, settings.timeout, settings.retry, settings.cached) == (4, 300, 60.0, False)
        found = code.read()
        warned = sorted(message.msg for message in checks.run_checks() if message.id in ("pgq.W001", "pgq.W110"))
    assert found.errors() == []
    rows = {one.name: one.row for one in found.schedules}
    sync = rows["Sync balances"]
    assert (sync.func, sync.queue, sync.minutes) == ("pgq.schedules.commands.run", "slow", 5)
    assert (sync.args, sync.kwargs) == (("check", "--tag", "models"), {"verbosity": 0})
    assert [one.is_enabled for one in found.schedules] == [True, True, True, False]
    assert rows["Weekly"].cron is None
    for said in (
        "retry=3600 is not carried over",
        "cached=500 was a number",
        "broker_class has",
        "broker_url has",
        "queue_limit has",
        "monitor_interval has",
        'schedules[2] "Weekly": cron: schedule_type',
    ):
        assert sum(said in message for message in warned) == 1, (said, warned)
    assert len(warned) == 7


def test_a_crontab_of_django_cfg():
    jobs = [
        CrontabJobConfig(name="sync", command="check", minute="*/5"),
        CrontabJobConfig(name="off", command="check", enabled=False),
    ]
    with override_settings(PGQ=Config(schedules=CrontabConfig(jobs=jobs))):
        found = code.read()
    assert found.errors() == []
    assert [(one.name, one.row.cron, one.is_enabled) for one in found.schedules] == [
        ("sync", "*/5 * * * *", True),
        ("off", "* * * * *", False),
    ]


def test_environments():
    only = ScheduleConfig("n", func=NOTE, args=["x"], when=cron("* * * * *"), environments=("prod",))
    assert [read(only, environment=name).schedules[0].is_enabled for name in ("prod", "dev")] == [True, False]
