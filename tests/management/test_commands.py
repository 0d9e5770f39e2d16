"""The commands: what they print, to a terminal, to a pipe and to programs; what they do; how they fail."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import override_settings

from pgq import __version__
from pgq.management import live, output
from pgq.management.monitor import VIEWS
from pgq.models import Lane, Schedule, Task
from pgq.models.metrics import Mark
from pgq.recurrence import moments
from pgq.tasks import async_task, enqueue_many, schedule
from pgq.upkeep import clean
from tests.support.environment import environment
from tests.support.pool_rows import ID, WORKERS, make_pool
from tests.support.pools import ROOT, connect, test_dsn, wait_for

TRUEDIV = "operator.truediv"
COMMANDS = [
    "pgq_info", "pgq_monitor", "pgq_memory", "pgq_clean", "pgq_schedules", "pgq_check", "pgq_import_django_q",
    "pgq_queues", "pgq_mark",
]  # fmt: skip


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """xdist sets the width of its workers' output."""
    monkeypatch.delenv("COLUMNS", raising=False)


def run(command: str, *arguments: str, **options: Any) -> str:
    out = io.StringIO()
    call_command(command, *arguments, stdout=out, **options)
    return out.getvalue()


def run_json(command: str, *arguments: str) -> Any:
    return json.loads(run(command, *arguments, "--json"))


def finish(
    count: int = 1, *, success: bool = True, days: float = 0, queue: str = "default", **values: Any
) -> list[UUID]:
    """Write results that are so many days old."""
    at = datetime.now(UTC) - timedelta(days=days)
    ids = []
    for number in range(count):
        milliseconds = int(at.timestamp() * 1000) + number
        ids.append(UUID(int=(milliseconds << 80) | (0x7 << 76) | (0x2 << 62) | (uuid4().int & 0xFFFFFFFF)))
    failure = {} if success else {"exception": "builtins.ValueError", "message": "no", "traceback": "..."}
    Task.objects.bulk_create(
        Task(
            id=id, success=success, started=at, stopped=at, enqueued_at=at, func=MARK, queue=queue, value=1, **failure,
            **values,
        )
        for id in ids
    )  # fmt: skip
    return ids


MARK = "tests.functions.oracle.mark"


# ------------------------------------------------------------------------------------------------- helpers


class TestVisible:
    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            ("plain", "plain"), ("Zürich 東京", "Zürich 東京"), ("\x1b[31mred", "\\x1b[31mred"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"), ("\u202eevil", "\\u202eevil"), ("a\u200bb", "a\\u200bb"),
            ("\x9b1m", "\\x9b1m"), ("\U000e0041", "\\U000e0041"),
            ("\u2028", "\\u2028"), ("[bold]:smile:", "[bold]:smile:"), (5, "5"),
        ],
    )  # fmt: skip
    def test_shows_what_a_terminal_would_obey(self, given, shown):
        assert output.visible(given) == shown

    def test_cuts(self):
        assert output.visible("abcdef", 4) == "abc…"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""), (-1, "0.0 s"), (0.04, "0.0 s"), (9.96, "10 s"), (89, "89 s"), (100, "2 min"), (7200, "2 h"),
        (7300, "2 h 2 min"), (86400 * 2, "2 d"), (86400 * 2 + 7200, "2 d 2 h"),
    ],
)  # fmt: skip
def test_span(seconds, words):
    assert output.span(seconds) == words


@pytest.mark.parametrize(
    ("lines", "counts", "rows"),
    [
        (24, [1, 2, 3], [1, 2, 3]), (6, [5, 5, 5], [1, 1, 0]), (2, [5], [0]), (3, [5], [1]), (9, [0, 9], [0, 7]),
        (0, [1], [0]), (10, [1, 50, 1], [1, 2, 1]),
    ],
)  # fmt: skip
def test_allot(lines, counts, rows):
    got = live.allot(lines, counts, overhead=2)
    assert sum(number + 2 for number in got if number) <= lines
    assert got == rows


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_each_option_does(command, capsys):
    with pytest.raises(SystemExit) as left:
        call_command(command, "--help")
    assert left.value.code == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_rich_is_not_imported_for_the_help(command):
    code = (
        "import sys, django; django.setup()\n"
        "from django.core.management import call_command\n"
        f"try: call_command({command!r}, '--help')\n"
        "except SystemExit: pass\n"
        "sys.exit('rich' in sys.modules)"
    )
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL, check=False).returncode == 0


@pytest.mark.django_db
class TestErrors:
    @pytest.mark.parametrize("command", ["pgq_info", "pgq_schedules"])
    def test_without_tables_it_says_migrate(self, command):
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE pgq_worker RENAME TO gone")
            cursor.execute("ALTER TABLE pgq_schedule RENAME TO gone_too")
        with pytest.raises(CommandError, match=r"Run: manage\.py migrate pgq"):
            run(command)

    @pytest.mark.parametrize("command", ["pgq_monitor", "pgq_memory", "pgq_clean"])
    def test_without_tables_over_its_own_connection_too(self, command, monkeypatch):
        def connect_elsewhere(*_: Any) -> Any:
            return psycopg.connect(test_dsn(), options="-c search_path=nowhere", autocommit=True)

        monkeypatch.setattr("pgq.store.connection.connect", connect_elsewhere)
        with pytest.raises(CommandError, match=r"Run: manage\.py migrate pgq"):
            run(command, *(["--run-once"] if command != "pgq_clean" else ["--keep", "1"]))

    def test_a_server_that_is_down_is_one_line(self, monkeypatch):
        def refuse(*_: Any) -> Any:
            raise psycopg.OperationalError("connection refused\n\tIs the server running?")

        monkeypatch.setattr("pgq.store.connection.connect", refuse)
        with pytest.raises(
            CommandError, match=r"^PostgreSQL cannot be reached: connection refused; Is the server running"
        ):
            run("pgq_monitor", "--run-once")

    @override_settings(PGQ={"workers": -1})
    def test_wrong_settings_are_named(self):
        with pytest.raises(CommandError, match=r"PGQ\['workers'\] is -1"):
            run("pgq_info")

    @override_settings(PGQ={"database": "nowhere"})
    def test_a_wrong_database_is_named(self):
        with pytest.raises(CommandError, match="'nowhere', which is not in DATABASES"):
            run("pgq_info")


# ------------------------------------------------------------------------------------------------- pgq_info


@pytest.mark.django_db
class TestInfo:
    def test_summary(self):
        make_pool(workers=WORKERS)
        enqueue_many(MARK, [(n,) for n in range(1234)])
        finish(3)
        finish(2, success=False)
        schedule(MARK, 1, name="daily", schedule_type="D")
        shown = run("pgq_info")
        for words in (
            "Pools 1",
            "Workers 1",
            "Queued 1,234",
            "Ready 1,234",
            "Successes 3",
            "Failures 2",
            "Schedules 1",
        ):
            assert words in " ".join(shown.split())
        assert "\x1b" not in shown
        assert not any(line.endswith(" ") for line in shown.splitlines())

    def test_json(self):
        make_pool(workers=WORKERS)
        finish(3)
        seen = run_json("pgq_info")
        assert (seen["version"], seen["pools"], seen["workers"]) == (__version__, 1, 1)
        assert seen["successes"] == {"count": 3, "exact": True}

    def test_without_pools_it_says_how_to_start_one(self):
        assert "manage.py pgq_worker" in run("pgq_info")
        assert run("pgq_info", "--ids") == "No pools appear to be running.\n"

    def test_ids(self):
        make_pool()
        assert run("pgq_info", "--ids") == f"{ID}\n"
        assert run_json("pgq_info", "--ids") == [str(ID)]

    @override_settings(
        PGQ={
            "workers": 7,
            "time_out": 5,
            "error_reporter": {"sentry": {"dsn": "https://secret"}},
            "schedules": [{"name": "nightly", "args": ["secret"]}],
        }
    )
    def test_config(self):
        assert "nightly" in run("pgq_info", "--config")
        lines = {line.split()[0]: line.split() for line in run("pgq_info", "--config").splitlines()}
        assert lines["pgq"][1] == f"{__version__},"
        assert lines["workers"][1:] == ["7", "set"]
        assert lines["recycle"][1:] == ["500000", "default"]
        assert "PGQ has no key 'time_out'. Did you mean 'timeout'?" in run("pgq_info", "--config")
        assert "secret" not in run("pgq_info", "--config")
        seen = run_json("pgq_info", "--config")
        assert seen["settings"]["workers"] == {"value": 7, "set": True}
        assert seen["problems"][0]["key"] == "time_out"

    def test_config_needs_no_database(self, django_db_blocker):
        with django_db_blocker.block():
            run("pgq_info", "--config")

    def test_colours_by_wish_and_never_against_it(self, monkeypatch):
        assert "\x1b[" in run("pgq_info", force_color=True)
        assert "\x1b" not in run("pgq_info", no_color=True)
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b" not in run("pgq_info", force_color=True)
        monkeypatch.delenv("NO_COLOR")
        monkeypatch.setenv("DJANGO_COLORS", "nocolor")
        assert "\x1b" not in run("pgq_info", force_color=True)


# ------------------------------------------------------------------------------------------------- pgq_monitor


@pytest.mark.django_db(transaction=True)
class TestMonitor:
    def test_tables(self):
        make_pool(workers=WORKERS, host="web-1", queues=["mail", "[default]"])
        make_pool(uuid4(), silent=300, host="web-2")
        enqueue_many(MARK, [(1,)] * 3, queue="[default]")
        finish(1, success=False, name="\x1b[31m[red]")
        shown = run("pgq_monitor", run_once=True)
        for words in (
            "Host",
            "Id",
            "State",
            "Pool",
            "Up",
            "web-1",
            str(ID)[-8:],
            "Working",
            "1:00:0",
            "mail, [default]",
        ):
            assert words in shown
        assert "silent for 5 min" in shown
        assert re.search(r"^\[default\] +3 +0", shown, re.MULTILINE)
        assert re.search(r"ValueError +no", shown)
        assert "\x1b" not in shown

    def test_json(self):
        make_pool(workers=WORKERS)
        id = async_task(MARK, 1, cluster="mail")
        with connection.cursor() as cursor:
            cursor.execute("UPDATE pgq_queue SET lock = now(), worker = %s, receipt = %s", ["a" * 32, uuid4()])
            cursor.execute("UPDATE pgq_worker SET workers = replace(workers::text, %s, %s)::jsonb", ["b" * 32, id])
        seen = run_json("pgq_monitor", "--run-once")
        assert seen["pools"][0]["id"] == str(ID)
        assert seen["running"][0]["id"] == id
        assert seen["running"][0]["queue"] == "mail"
        assert seen["queues"] == [
            {
                "queue": "mail",
                "ready": 0,
                "more": False,
                "running": 1,
                "oldest": None,
                "paused": False,
                "per_second": 0.0,
            }
        ]

    @override_settings(TIME_ZONE="Europe/Paris", PGQ={"save_limit": 2})
    def test_80_columns_show_each_number_whole_and_whose_time_it_is(self, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        long = "warehouse.tasks.a_function_with_a_rather_long_name_that_goes_on_and_on"
        for success in (True, True, False):
            with connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO pgq_task (id, success, started, stopped, enqueued_at, func, queue, exception, message)"
                    " VALUES (pgq_uuid7(), %s, now(), now() - interval '10 h 12 min', now(), %s, 'mail', %s, %s)",
                    [success, long, None if success else "builtins.ValueError", "x" * 200],
                )
                cursor.execute("UPDATE pgq_task SET stopped = now() WHERE success")
        make_pool(workers=WORKERS)
        id = async_task(MARK, 1, cluster="mail")
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE pgq_queue SET lock = now(), worker = %s, receipt = %s, func = %s", ["a" * 32, uuid4(), long]
            )
            cursor.execute("UPDATE pgq_worker SET workers = replace(workers::text, %s, %s)::jsonb", ["b" * 32, id])
        shown = run("pgq_monitor", "--run-once")
        assert max(map(len, shown.splitlines())) <= 80
        assert re.match(r"^\S+ \S+ CES?T  ready 0, running 1", shown)
        assert re.search(r"^10 h 12 min  warehouse\.tasks\.\S+…  ValueError", shown, re.MULTILINE)
        assert re.search(r"^ +Ago  Function", shown, re.MULTILINE)
        assert re.search(r"^\S+ s +warehouse\.tasks\.\S+… +mail +0 +11$", shown, re.MULTILINE)
        # Results are no measure of how many have ended: no worker has counted these.
        assert re.search(r"^mail +0 +1 +0.0$", shown, re.MULTILINE)
        assert run_json("pgq_info")["tasks_per_second"] == 0
        assert run_json("pgq_monitor", "--run-once")["queues"][0]["per_second"] == 0

    def test_equal_failures_are_one_line(self):
        finish(3, success=False)
        finish(1, success=False, queue="mail")
        assert re.search(r"^ +Ago  Function +Exception +Message +Times", shown := run("pgq_monitor"), re.MULTILINE)
        assert len(re.findall(r"ValueError +no +4", shown)) == 1
        assert len(run_json("pgq_monitor")["failures"]) == 4

    def test_views(self, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        for view in VIEWS[1:]:
            assert re.search(r"^(There are no|No pool)", run("pgq_monitor", "--view", view), re.MULTILINE)
        make_pool(workers=WORKERS)
        id = async_task(MARK, 1, cluster="mail")
        with connection.cursor() as cursor:
            cursor.execute("UPDATE pgq_queue SET lock = now(), worker = %s, receipt = %s", ["a" * 32, uuid4()])
            cursor.execute("UPDATE pgq_worker SET workers = replace(workers::text, %s, %s)::jsonb", ["b" * 32, id])
        finish(2, success=False, name="\x1b[31m")
        # Hours away whenever this runs: within the last hour, the column would be as narrow as "paused".
        hour = (moments.now().hour + 12) % 24
        for name, values in (("nightly", {}), ("broken", {"error": "no such\x1b[31m function"}), ("later", {})):
            schedule(MARK, 1, name=name, schedule_type="C", cron=f"0 {hour} * * *")
            Schedule.objects.filter(name=name).update(**values)
        Schedule.objects.filter(name="later").update(paused=True)
        shown = {view: run("pgq_monitor", "--view", view) for view in VIEWS}
        assert max(len(line) for page in shown.values() for line in page.splitlines()) <= 80
        assert re.search(r"^mail +0 +1", shown["queues"], re.MULTILINE)
        assert re.search(r"^shop +0 +working +2\.5 s +\S*oracle\.mark +11 +5 +1$", shown["workers"], re.MULTILINE)
        assert re.search(r"^shop +1 +restarting", shown["workers"], re.MULTILINE)
        assert re.search(r"^ +2 .*ValueError +no", shown["failures"], re.MULTILINE)
        # Those with errors first, and those that do not fire last.
        assert re.findall("broken|nightly|later", shown["schedules"]) == ["broken", "nightly", "later"]
        assert re.search(rf"broken +at {hour:02}:00 every day +no such", shown["schedules"])
        assert re.search(r"^ +paused +later", shown["schedules"], re.MULTILINE)
        assert "\x1b" not in "".join(shown.values())
        (group,) = run_json("pgq_monitor", "--view", "failures")["failure_groups"]
        assert (group["func"], group["exception"], group["number"]) == (MARK, "builtins.ValueError", 2)
        assert len(run_json("pgq_monitor", "--view", "schedules")["schedules"]) == 3

    def test_interval_without_a_terminal_goes_on_until_it_is_stopped(self):
        command = [sys.executable, "-m", "django", "pgq_monitor", "--json", "--interval", "0.2"]
        with subprocess.Popen(command, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True) as monitor:
            assert monitor.stdout is not None
            seen = [json.loads(monitor.stdout.readline()) for _ in range(3)]
            assert len({snapshot["at"] for snapshot in seen}) == 3
            monitor.send_signal(signal.SIGINT)
            assert monitor.wait(10) == 0

    def test_a_closed_pipe_is_no_error(self):
        command = f"{sys.executable} -m django pgq_monitor --interval 0.1 | head -n 1"
        done = subprocess.run(
            command, shell=True, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert "Traceback" not in done.stderr
        assert len(done.stdout.splitlines()) == 1

    def test_a_stream_that_knows_ascii_only(self):
        make_pool(host="Zürich")
        done = subprocess.run(
            [sys.executable, "-m", "django", "pgq_monitor", "--run-once"], cwd=ROOT, capture_output=True,
            env=environment(PYTHONIOENCODING="ascii", PYTHONUTF8="0"), timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert b"Z\\xfcrich" in done.stdout

    @pytest.mark.parametrize("wrong", ["0", "x", "-1", "nan", "1e9"])
    def test_refuses_an_interval_that_is_none(self, wrong):
        with pytest.raises(CommandError, match="is not a number of seconds"):
            run("pgq_monitor", "--interval", wrong)


class Terminal:
    """A command in a terminal of that size."""

    def __init__(self, *arguments: str, columns: int = 80, lines: int = 24, **env: str) -> None:
        self.ours, theirs = pty.openpty()
        self.before = termios.tcgetattr(theirs)
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "django", *arguments], cwd=ROOT, env=environment(**env), stdin=theirs, stdout=theirs,
            stderr=theirs, start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.theirs = theirs
        self.output = ""

    def read(self) -> str:
        while select.select([self.ours], [], [], 0.05)[0]:
            self.output += os.read(self.ours, 65536).decode(errors="replace")
        return self.output

    def wait_for(self, words: str) -> None:
        wait_for(lambda: words in self.read(), f"{words!r} on the screen")

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def end(self) -> int:
        wait_for(lambda: self.read() is not None and self.process.poll() is not None, "the command ends")
        return self.process.returncode

    def is_restored(self) -> bool:
        """Whether the terminal is as it was: its modes, its screen, its cursor."""
        return (
            termios.tcgetattr(self.theirs) == self.before
            and self.output.count("\x1b[?1049h") == self.output.count("\x1b[?1049l")
            and self.output.rfind("\x1b[?25h") > self.output.rfind("\x1b[?25l")
        )

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def terminal(transactional_db: None) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*arguments: str, **options: Any) -> Terminal:
        opened.append(Terminal(*arguments, **options))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


class TestLive:
    @pytest.mark.parametrize("command", ["pgq_monitor", "pgq_memory"])
    @pytest.mark.parametrize("end", ["q", "Q", "\x03"])
    def test_q_and_ctrl_c_leave(self, terminal, command, end):
        screen = terminal(command)
        screen.wait_for("q quits")
        screen.type(end)
        assert screen.end() == 0
        assert screen.is_restored()
        assert "Traceback" not in screen.output

    def test_sigterm_leaves_the_terminal_as_it_was(self, terminal):
        screen = terminal("pgq_monitor")
        screen.wait_for("q quits")
        screen.process.terminate()
        assert screen.end() == 128 + signal.SIGTERM
        assert screen.is_restored()

    def test_shows_what_changes(self, terminal):
        screen = terminal("pgq_monitor", "--interval", "0.2")
        screen.wait_for("no pool is running")
        make_pool(host="newcomer")
        screen.wait_for("newcomer")

    def test_keys_switch_views_and_pause_the_chosen_queue(self, terminal):
        for queue in ("mail", "web"):
            async_task(MARK, 1, cluster=queue)
        make_pool(workers=WORKERS)
        screen = terminal("pgq_monitor", "--interval", "60")
        screen.wait_for("q quits")
        # Read at once, though the next look would be in a minute.
        for key, words in (("3", "Workers"), ("4", "There are no failures"), ("\t", "There are no schedules")):
            screen.type(key)
            screen.wait_for(words)
        screen.type("2")
        screen.wait_for("> mail")
        screen.type("\x1b[B")
        screen.wait_for("> web")
        screen.type("pn")
        screen.type("p")
        screen.wait_for("Pause web? Running tasks finish")
        assert not Lane.objects.filter(paused=True).exists()
        screen.type("y")
        screen.wait_for("web: paused")
        assert list(Lane.objects.filter(paused=True).values_list("queue", flat=True)) == ["web"]
        screen.wait_for("paused")
        screen.type("p")
        screen.wait_for("Resume web?")
        screen.type("y")
        screen.wait_for("web: resumed")
        assert not Lane.objects.filter(paused=True).exists()
        screen.type("q")
        assert screen.end() == 0
        assert screen.is_restored()

    @pytest.mark.parametrize(("columns", "lines"), [(1, 1), (8, 2), (20, 5), (300, 100)])
    def test_fits_any_terminal(self, terminal, columns, lines):
        make_pool(workers=WORKERS, host="h" * 50)
        enqueue_many(MARK, [(1,)], queue="q" * 200)
        screen = terminal("pgq_monitor", "--interval", "0.2", columns=columns, lines=lines)
        screen.wait_for("\x1b[?1049h")
        time.sleep(1)
        screen.type("2345")
        screen.resize(80, 24)
        screen.wait_for("q quits")
        screen.type("q")
        assert screen.end() == 0

    def test_survives_a_lost_connection(self, terminal, session):
        screen = terminal("pgq_monitor", "--interval", "0.2")
        screen.wait_for("no pool is running")
        admin = session()
        name = connection.settings_dict["NAME"]
        try:
            with connect(dbname="postgres") as elsewhere:
                elsewhere.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgq monitor'"
                    " AND datname = current_database()"
                )
                screen.wait_for("PostgreSQL cannot be reached")
        finally:
            with connect(dbname="postgres") as elsewhere:
                elsewhere.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        make_pool(host="newcomer")
        screen.wait_for("newcomer")
        screen.type("q")
        assert screen.end() == 0

    def test_a_missing_table_ends_it_with_a_clear_word(self, terminal, session):
        admin = session()
        admin.execute("ALTER TABLE pgq_lane RENAME TO gone")
        try:
            screen = terminal("pgq_monitor")
            assert screen.end() == 1
        finally:
            admin.execute("ALTER TABLE gone RENAME TO pgq_lane")
        assert "Run: manage.py migrate pgq" in screen.output
        assert screen.is_restored()

    @pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"DJANGO_COLORS": "nocolor"}, {"TERM": "dumb"}])
    def test_without_colours(self, terminal, env):
        make_pool(workers=WORKERS)
        screen = terminal("pgq_monitor", "--run-once", **env)
        assert screen.end() == 0
        assert "Working" in screen.output
        assert "\x1b[" not in screen.output

    def test_colours_on_a_terminal(self, terminal):
        make_pool(workers=WORKERS)
        screen = terminal("pgq_info")
        assert screen.end() == 0
        assert "\x1b[" in screen.output

    def test_progress(self, terminal):
        finish(10)
        screen = terminal("pgq_clean", "--keep", "3")
        assert screen.end() == 0
        assert "7 results deleted" in screen.output


# ------------------------------------------------------------------------------------------------- pgq_memory


class TestMemory:
    def test_a_real_pool(self, pool):
        # It is known by its command line.
        running = pool(workers=2, cold=True)
        seen = run_json("pgq_memory", "--run-once")
        (one,) = seen["pools"]
        assert [worker["pid"] for worker in one["workers"]] == running.worker_pids()
        assert all(1000 < worker["usage"]["pss"] <= worker["usage"]["rss"] for worker in one["workers"])
        assert one["all"]["pss"] > one["supervisor"]["pss"] + one["others"]["pss"]
        assert 0 < seen["available"] <= seen["total"]
        shown = run("pgq_memory", "--run-once", "--workers")
        assert "MiB available" in shown
        for pid in running.worker_pids():
            assert str(pid) in shown

    @pytest.mark.django_db(transaction=True)
    def test_says_what_cannot_be_seen(self):
        make_pool(host="elsewhere")
        # Our own pid, but not a pool: a container can have our name.
        make_pool(uuid4(), host=socket.gethostname())
        seen = run_json("pgq_memory", "--run-once")
        assert seen["pools"] == []
        assert len(seen["elsewhere"]) == 2
        assert f"Not to be seen from here: 2 pools on elsewhere, {socket.gethostname()}" in run(
            "pgq_memory", "--run-once"
        )

    @pytest.mark.django_db(transaction=True)
    def test_no_pool(self):
        assert "No pools appear to be running." in run("pgq_memory")

    def test_no_proc(self, monkeypatch, tmp_path, db):
        monkeypatch.setattr("pgq.pool.memory._PROC", tmp_path)
        with pytest.raises(CommandError, match="reads /proc"):
            run("pgq_memory")


# ------------------------------------------------------------------------------------------------- pgq_clean


def kept() -> set[str]:
    return {str(id) for id in Task.objects.values_list("id", flat=True)}


def hexes(*lists: list[UUID]) -> set[str]:
    return {id.hex for ids in lists for id in ids}


@pytest.mark.django_db(transaction=True)
class TestClean:
    def test_older_than(self):
        finish(3, days=10)
        new, failed = finish(3, days=1), finish(2, days=10, success=False)
        assert "3 results deleted" in run("pgq_clean", "--older-than", "5")
        assert kept() == hexes(new, failed)

    def test_failures(self):
        finish(2, days=10, success=False)
        new = finish(1, days=1, success=False)
        run("pgq_clean", "--older-than", "5", "--failures")
        assert kept() == hexes(new)

    def test_what_was_enqueued_long_ago_but_finished_lately_stays(self):
        ids = finish(2, days=10)
        Task.objects.filter(id=ids[0]).update(stopped=datetime.now(UTC))
        run("pgq_clean", "--older-than", "5")
        assert kept() == {ids[0].hex}

    def test_an_id_without_a_time_is_found_too(self):
        old = finish(1, days=10)[0]
        Task.objects.filter(id=old).update(id=UUID("f" * 32))
        run("pgq_clean", "--older-than", "5")
        assert kept() == set()

    def test_keep(self):
        ids, failed = finish(10), finish(3, success=False)
        run("pgq_clean", "--keep", "4")
        assert kept() == hexes(ids[6:], failed)
        run("pgq_clean", "--keep", "1", "--failures")
        assert kept() == hexes(ids[9:], failed[2:])

    def test_both_must_hold(self):
        old, new = finish(5, days=10), finish(2, days=1)
        run("pgq_clean", "--older-than", "5", "--keep", "4")
        assert kept() == hexes(old[3:], new)

    def test_queue(self):
        finish(2, queue="a")
        other = finish(2, queue="b")
        run("pgq_clean", "--keep", "0", "--queue", "a")
        assert kept() == hexes(other)

    def test_dry_run_only_counts(self):
        ids = finish(5, days=10)
        assert run("pgq_clean", "--older-than", "5", "--dry-run").startswith("5 results would be deleted")
        assert kept() == hexes(ids)
        assert run_json("pgq_clean", "--older-than", "5", "--dry-run")["deleted"] == 5

    def test_in_small_batches(self, monkeypatch):
        monkeypatch.setattr("pgq.upkeep.clean._RESULTS_PER_LOOK", 7)
        kept_ids = finish(10, days=1)
        finish(100, days=10)
        assert run_json("pgq_clean", "--older-than", "5")["deleted"] == 100
        assert kept() == hexes(kept_ids)

    def test_interrupted_it_tells_what_it_did(self, monkeypatch):
        def interrupt(share: float, deleted: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("pgq.upkeep.clean._RESULTS_PER_LOOK", 7)
        finish(20, days=10)
        with pytest.raises(clean.Interrupted) as stopped:
            clean.delete_old(older_than=5, progress=interrupt)
        assert stopped.value.cleaned.deleted == 7
        assert "Interrupted" in stopped.value.cleaned.notes[-1]
        assert len(kept()) == 13

    def test_leaves_what_a_collector_still_has_to_read(self):
        group = enqueue_many(MARK, [(1,)], then=MARK)
        with connection.cursor() as cursor:
            cursor.execute("SELECT id FROM pgq_queue WHERE id <> %s", [group[0]])
            id = cursor.fetchone()[0]
        needed = finish(1, days=10, options={"collector": id.hex})
        # A row from psql may say anything there.
        finish(1, days=10, options={"collector": "nonsense"})
        run("pgq_clean", "--older-than", "5")
        assert kept() == hexes(needed)

    def test_leaves_locked_rows_to_whoever_has_them(self, session):
        ids = finish(2, days=10)
        other = session(autocommit=False)
        other.execute("SELECT FROM pgq_task WHERE id = %s FOR UPDATE", [ids[0]])
        run("pgq_clean", "--older-than", "5")
        assert kept() == {ids[0].hex}

    @override_settings(PGQ={"save_limit": 3})
    def test_without_options_it_does_as_the_settings_say(self):
        ids = finish(5)
        run("pgq_clean")
        assert kept() == hexes(ids[2:])

    @override_settings(PGQ={"save_limit": 1, "save_limit_per": "func"})
    def test_by_function_too(self):
        ids = finish(3)
        run("pgq_clean")
        assert kept() == hexes(ids[2:])

    @override_settings(PGQ={"save_limit": 0})
    def test_settings_that_keep_all(self):
        finish(2)
        assert "keeps all results" in run("pgq_clean")
        assert len(kept()) == 2

    @pytest.mark.parametrize(
        "arguments", [("--keep", "-1"), ("--keep", "x"), ("--older-than", "x"), ("--older-than", "nan")]
    )
    def test_refuses(self, arguments):
        with pytest.raises(CommandError, match="is not a"):
            run("pgq_clean", *arguments)


@pytest.fixture
def old_partition(transactional_db: None, session: Callable[..., Any]) -> Iterator[str]:
    """A partition of the week that began three weeks ago."""
    monday = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    monday -= timedelta(days=monday.weekday() + 21)
    name = f"pgq_task_{monday:%Y%m%d}"
    bounds = [UUID(int=int(at.timestamp() * 1000) << 80) for at in (monday, monday + timedelta(days=7))]
    admin = session()
    admin.execute(f"CREATE TABLE {name} PARTITION OF pgq_task FOR VALUES FROM ('{bounds[0]}') TO ('{bounds[1]}')")
    yield name
    admin.execute(f"DROP TABLE IF EXISTS {name}")


def is_there(table: str) -> bool:
    with connect() as admin:
        row = admin.execute("SELECT to_regclass(%s)", [table]).fetchone()
    return row is not None and row[0] is not None


class TestPartitions:
    @pytest.fixture
    def inside(self) -> float:
        """How many days ago that week had begun and not ended, whatever day it is today."""
        return datetime.now(UTC).weekday() + 18.0

    def test_is_dropped_when_all_is_old(self, old_partition, inside):
        finish(5, days=inside)
        new = finish(1)
        seen = run_json("pgq_clean", "--older-than", "10")
        assert seen["partitions_dropped"] == [old_partition]
        assert seen["deleted"] == 5
        assert not is_there(old_partition)
        assert kept() == hexes(new)

    @override_settings(PGQ={"save_limit": 0, "keep_days": 10})
    def test_without_options_as_the_settings_say(self, old_partition, inside):
        finish(5, days=inside)
        finish(1, days=inside, success=False)
        new = finish(1) + finish(1, success=False)
        seen = run_json("pgq_clean")
        assert seen["partitions_dropped"] == [old_partition]
        assert seen["notes"] == []
        assert kept() == hexes(new)

    def test_an_empty_one_too(self, old_partition):
        assert run_json("pgq_clean", "--older-than", "10")["partitions_dropped"] == [old_partition]

    def test_stays_while_something_in_it_is_needed(self, old_partition, inside):
        finish(5, days=inside)
        failed = finish(1, days=inside, success=False)
        assert run_json("pgq_clean", "--older-than", "10")["partitions_dropped"] == []
        assert is_there(old_partition)
        assert kept() == hexes(failed)

    def test_dry_run_names_it(self, old_partition, inside):
        finish(5, days=inside)
        shown = run("pgq_clean", "--older-than", "10", "--dry-run")
        assert f"{old_partition} would be dropped" in shown
        assert "5 results would be deleted" in shown
        assert is_there(old_partition)

    def test_makes_nobody_wait_for_it(self, old_partition, inside, session, monkeypatch):
        monkeypatch.setattr("pgq.upkeep.clean._TRIES", 1)
        finish(5, days=inside)
        other = session(autocommit=False)
        other.execute("SELECT FROM pgq_task LIMIT 1")
        seen = run_json("pgq_clean", "--older-than", "10")
        assert seen["partitions_dropped"] == []
        assert "busy" in " ".join(seen["notes"])
        assert seen["deleted"] == 5
        assert is_there(old_partition)
        other.rollback()

    def test_one_that_gets_a_row_meanwhile_stays(self, old_partition, inside, monkeypatch):
        from pgq.store import results

        before = results.drop_partition

        def late(*arguments: Any) -> Any:
            with connect() as other:
                other.execute(
                    "INSERT INTO pgq_task (id, success, started, stopped, enqueued_at, func, queue)"
                    " VALUES (pgq_uuid7(now() - %s * interval '1 day'), true, now(), now(), now(), 'f', 'q')", [inside],
                )  # fmt: skip
            return before(*arguments)

        monkeypatch.setattr("pgq.store.results.drop_partition", late)
        assert run_json("pgq_clean", "--older-than", "10")["partitions_dropped"] == []
        assert len(kept()) == 1

    def test_makes_those_of_the_coming_weeks(self, session):
        admin = session()
        name = admin.execute(
            "SELECT max(inhrelid::regclass::text) FROM pg_inherits"
            " WHERE inhparent = 'pgq_task'::regclass AND inhrelid <> 'pgq_task_other'::regclass"
        ).fetchone()[0]
        admin.execute(f"DROP TABLE {name}")
        assert run_json("pgq_clean", "--older-than", "10")["partitions_made"] == 1
        assert is_there(name)

    def test_a_role_that_may_not_is_told(self, old_partition, inside, monkeypatch):
        def refuse(*_: Any) -> Any:
            raise psycopg.errors.InsufficientPrivilege("must be owner of table")

        monkeypatch.setattr("pgq.store.results.drop_partition", refuse)
        finish(5, days=inside)
        seen = run_json("pgq_clean", "--older-than", "10")
        assert "may not change the tables" in seen["notes"][0]
        assert seen["deleted"] == 5


# ------------------------------------------------------------------------------------------------- pgq_schedules


@pytest.mark.django_db
class TestSchedules:
    @pytest.fixture
    def daily(self) -> Schedule:
        return schedule(
            MARK, 1, name="daily [bold]", schedule_type="D", next_run=datetime(2040, 1, 1, 2, tzinfo=UTC),
            time_zone="Europe/Berlin",
        )  # fmt: skip

    def test_list(self, daily):
        daily.refresh_from_db()
        shown = run("pgq_schedules")
        assert f"{daily.pk}  daily [bold]  {MARK}" in shown
        assert "every day" in shown
        assert "Europe/Berlin" in shown
        for day in range(1, 6):
            assert f"2040-01-0{day} 03:00 CET" in shown
        assert "never fired" in shown

    def test_last_result_and_error(self, daily):
        Schedule.objects.filter(pk=daily.pk).update(task=finish(1, success=False, days=2)[0], error="bad \x1b[31m args")
        shown = run("pgq_schedules")
        assert "failed 2 d ago: builtins.ValueError: no" in shown
        assert "error     bad \\x1b[31m args" in shown

    def test_none(self):
        assert run("pgq_schedules") == "There are no schedules.\n"
        assert run_json("pgq_schedules") == []

    def test_json(self, daily):
        (seen,) = run_json("pgq_schedules")
        assert (seen["id"], seen["name"], seen["state"]) == (daily.pk, "daily [bold]", "active")
        assert seen["next"][0] == "2040-01-01T02:00:00+00:00"
        assert len(seen["next"]) == 5

    def test_show_has_arguments(self, daily):
        shown = run("pgq_schedules", "show", "daily [bold]")
        assert "args      (1,)" in shown
        assert "signed    yes" in shown

    def test_one_that_cannot_be_read_is_listed_all_the_same(self, daily):
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO pgq_schedule (name, func, schedule_type, cron) VALUES ('bad', 'f', 'C', 'x y')")
        shown = run("pgq_schedules")
        assert "cannot be read" in shown
        assert "daily" in shown
        assert len(run_json("pgq_schedules")) == 2

    def test_one_in_an_unknown_zone_is_listed_all_the_same(self, daily):
        Schedule.objects.update(time_zone="Mars/Olympus")
        assert "daily" in run("pgq_schedules")
        assert len(run_json("pgq_schedules")) == 1
        assert "paused" in run("pgq_schedules", "pause", "--all")
        with pytest.raises(CommandError, match="cannot be resumed: time_zone"):
            run("pgq_schedules", "resume", "--all")

    def test_pause_and_resume(self, daily):
        assert "paused" in run("pgq_schedules", "pause", str(daily.pk))
        daily.refresh_from_db()
        assert daily.paused
        assert "was paused before" in run("pgq_schedules", "pause", "daily [bold]")
        assert "resumed, next at Sun 2040-01-01 03:00 CET" in run("pgq_schedules", "resume", "daily [bold]")
        daily.refresh_from_db()
        assert not daily.paused
        assert "was not paused" in run("pgq_schedules", "resume", "--all")

    def test_resume_says_what_was_missed(self):
        past = datetime.now(UTC) - timedelta(hours=2, minutes=30)
        schedule(MARK, 1, name="a", schedule_type="H", next_run=past, paused=True)
        assert "3 missed firings will follow" in run("pgq_schedules", "resume", "a")

    def test_resume_can_skip_it(self):
        past = datetime.now(UTC) - timedelta(hours=2, minutes=30)
        row = schedule(MARK, 1, name="a", schedule_type="H", next_run=past, paused=True)
        run("pgq_schedules", "resume", "a", "--skip-missed")
        row.refresh_from_db()
        assert row.next_run == past + timedelta(hours=3)

    def test_run(self, daily):
        with connection.cursor() as cursor:
            shown = run("pgq_schedules", "run", "daily [bold]")
            cursor.execute("SELECT id, func FROM pgq_queue")
            ((id, func),) = cursor.fetchall()
        assert f"enqueued as {id.hex}" in shown
        assert func == MARK
        daily.refresh_from_db()
        assert daily.next_run.year == 2040

    def test_remove(self, daily):
        assert "removed" in run("pgq_schedules", "remove", "daily [bold]", "--no-input")
        assert not Schedule.objects.exists()

    def test_remove_asks_on_a_terminal(self, daily, monkeypatch):
        monkeypatch.setattr("sys.stdin", type("Tty", (io.StringIO,), {"isatty": lambda self: True})("n\n"))
        monkeypatch.setattr("builtins.input", lambda question: "n")
        with pytest.raises(CommandError, match="Nothing was removed"):
            run("pgq_schedules", "remove", "daily [bold]")
        assert Schedule.objects.exists()

    def test_all_names_are_looked_up_first(self, daily):
        with pytest.raises(CommandError, match="There is no schedule 'other'"):
            run("pgq_schedules", "pause", "daily [bold]", "other")
        daily.refresh_from_db()
        assert not daily.paused

    def test_a_name_comes_before_an_id(self, daily):
        named = schedule(MARK, 2, name=str(daily.pk))
        run("pgq_schedules", "pause", str(daily.pk))
        named.refresh_from_db()
        assert named.paused

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("daly [bold]", r"Did you mean 'daily \[bold\]'"), ("xyz", "pgq_schedules lists"),
            ("9" * 30, "There is no"), ("\0", "There is no"),
        ],
    )  # fmt: skip
    def test_no_such_schedule(self, daily, name, message):
        with pytest.raises(CommandError, match=message):
            run("pgq_schedules", "show", name)

    @pytest.mark.parametrize(
        "arguments",
        [("pause",), ("remove", "--all"), ("list", "--all"), ("pause", "a", "--all"), ("pause", "a", "--skip-missed")],
    )  # fmt: skip
    def test_wrong_arguments(self, arguments):
        with pytest.raises(CommandError) as refused:
            run("pgq_schedules", *arguments)
        assert refused.value.returncode == 2


# ------------------------------------------------------------------------------------------------- pgq_mark


@pytest.mark.django_db
class TestMark:
    def test_marks_this_moment(self):
        assert run("pgq_mark", "v1.2") == "Marked: v1.2\n"
        assert run_json("pgq_mark", "v1.2", "--release") == {"label": "v1.2", "kind": "release", "new": True}
        assert run("pgq_mark", "v1.2", "--release") == "Release v1.2 was marked before.\n"
        assert [(mark.label, mark.kind) for mark in Mark.objects.order_by("id")] == [
            ("v1.2", "mark"), ("v1.2", "release"),
        ]  # fmt: skip

    @pytest.mark.parametrize("label", ["", "  ", "x" * 201])
    def test_refuses(self, label):
        with pytest.raises(CommandError, match="the label must have 1 to 200 characters"):
            run("pgq_mark", label)
