"""Runs the demo: a PostgreSQL, a pool of workers and the admin; the workers read Python's standard library.

DATABASE_URL   a database of the demo's own to use; without it a PostgreSQL is started
DEMO_DATA      folder for that PostgreSQL and the logs (default: .pgq/demo in the checkout)
DEMO_SOURCE    another folder of Python files to read
ONCE=1         end when all is read; the last line is JSON. Status 0: each task succeeded or failed, none is missing
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from demo.processes import ROOT, DemoError, Process, Signals, Stopped, answers, is_free

if TYPE_CHECKING:
    import psycopg

    from demo.screen import Counted
    from pgq.contrib.embedded import Server

#: Locked while a demo runs in a database: its counts and its files belong to one only. Any number would do.
LOCK = 0x706771_64656D6F
DATABASE = "demo"
FIRST_PORT = 8000
USER, PASSWORD = "admin", "demo"
#: Seconds without any progress after which the pool is taken to be broken.
STALLED = 120.0


class Demo:
    """One run of the demo; `close` leaves nothing behind, however far it got."""

    def __init__(self, signals: Signals, *, once: bool) -> None:
        from demo.screen import Screen

        self.signals, self.screen, self.once = signals, Screen(), once
        self.folder = _folder()
        self.server: Server | None = None
        self.lock: psycopg.Connection | None = None
        self.pool: Process | None = None
        self.web: Process | None = None
        self.port = 0

    def run(self) -> int:
        """Run until all is done (ONCE=1), or until `Stopped`; return the exit status."""
        import psycopg
        from django.db import InterfaceError, OperationalError

        try:
            self._database()
            self._tables()
            self._processes()
            status = self._tasks()
            if not self.once:
                self._stay()
            return status
        except (psycopg.OperationalError, OperationalError, InterfaceError) as error:
            raise DemoError(f"PostgreSQL: {str(error).strip()}") from error

    def close(self) -> None:
        """Stop whatever was started."""
        # A signal from here on means that there is no patience left.
        seen = self.signals.count

        def hurry() -> bool:
            return self.signals.count > seen

        for process, patience in ((self.web, 2.0), (self.pool, 20.0)):
            if process is not None:
                process.stop(patience=patience, hurry=hurry)
        # Not imported here: what a signal has kept from being imported may be in pieces.
        if "DJANGO_SETTINGS_MODULE" in os.environ and "django.db" in sys.modules:
            sys.modules["django.db"].connections.close_all()
        # One that was left by a demo that was killed, too.
        if self.server is not None and (self.server.started or self.lock is not None):
            self.server.stop()
        if self.lock is not None:
            self.lock.close()

    # --- The steps ---

    def _database(self) -> None:
        """Find a PostgreSQL or start one, and make sure that no other demo runs there."""
        import psycopg

        from pgq.contrib.embedded import Server, ServerError

        url = os.environ.get("DATABASE_URL")
        if url:
            self._take(url, "DATABASE_URL")
        else:
            # About another server, if anything.
            for name in [name for name in os.environ if name.startswith("PG") and not name.startswith("PGQ_")]:
                del os.environ[name]
            try:
                # Held until it is clear whose server it is.
                with self.screen.waiting("Starting PostgreSQL"), self.signals.hold():
                    self.server = Server(self.folder)
                    url = self.server.start().url
                    self._take(url, "the demo's PostgreSQL")
            except ServerError as error:
                raise DemoError(str(error)) from error
            with psycopg.connect(url, autocommit=True) as connection:
                # Anew, so that an older demo's tables and unfinished tasks are no trouble.
                connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
                connection.execute(f"CREATE DATABASE {DATABASE}")
            url = url.removesuffix("postgres") + DATABASE
        os.environ["DATABASE_URL"] = url

    def _take(self, url: str, what: str) -> None:
        import psycopg

        try:
            lock = psycopg.connect(url, autocommit=True, connect_timeout=10, application_name="pgq demo")
        except psycopg.ProgrammingError:
            # The message of libpq may quote the password.
            raise DemoError(f"{what} is not a URL such as postgresql://user:password@host:5432/name") from None
        except psycopg.Error as error:
            raise DemoError(f"No connection to {what}: {str(error).strip()}") from None
        if not lock.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()[0]:  # type: ignore[index]
            lock.close()
            # The server is that one's too, even if we were the one to start it.
            self.server = None
            raise DemoError(
                f"Another demo is running in {what}. End that one first, or give this one a database of its own: set "
                "DATABASE_URL, or DEMO_DATA to another folder."
            )
        self.lock = lock
        version = lock.info.server_version // 10000
        place = self.server.home if self.server else f"{lock.info.host}, database {lock.info.dbname}"
        self.screen.say(f"PostgreSQL {version} in {place}", label="Database")

    def _tables(self) -> None:
        """Make the tables, empty, and somebody who may log in."""
        os.environ["DJANGO_SETTINGS_MODULE"] = "demo.settings"
        import django

        django.setup()
        from django.contrib.auth import get_user_model
        from django.core.management import call_command

        from demo.models import SourceFile, Summary
        from pgq.models import QueuedTask, Task

        with self.screen.waiting("Making the tables"):
            _refuse_what_is_not_ours()
            call_command("migrate", verbosity=0, interactive=False)
            for model in (QueuedTask, Task, SourceFile, Summary):
                model.objects.all().delete()
            users = get_user_model().objects
            # Where there are users, it is not for us to let anybody in by a known password.
            if not self.once and not users.exists():
                users.create_superuser(USER, password=PASSWORD)

    def _processes(self) -> None:
        """Start the pool, and the web server for the admin."""
        with self.signals.hold():
            self.pool = Process("The pool of workers", ["pgq_worker"], self.folder / "worker.log")
        self.screen.say(f"manage.py pgq_worker, pid {self.pool.pid}, log {self.pool.log}", label="Workers")
        if not self.once:
            self._start_web(FIRST_PORT)

    def _start_web(self, first: int) -> None:
        self.port = next((port for port in range(first, 65536) if is_free(port)), 0)
        command = ["runserver", "--noreload", f"127.0.0.1:{self.port}"]
        with self.signals.hold():
            self.web = Process("The web server", command, self.folder / "web.log")

    def _tasks(self) -> int:
        """Enqueue, follow what becomes of it, and print the result; return the exit status."""
        from demo.tasks import SOURCE, enqueue_files, find_files, keep_refreshing

        with self.screen.waiting("Looking for files"):
            paths = find_files()
        if not paths:
            raise DemoError(f"There are no Python files in {SOURCE}; set DEMO_SOURCE to a folder that has some.")
        self.screen.say(f"{len(paths):,} in {SOURCE}", label="Files")
        group = f"files {time.strftime('%Y-%m-%d %H:%M:%S')}"
        begin = time.monotonic()
        enqueued = len(enqueue_files(paths, group))
        took = time.monotonic() - begin
        keep_refreshing()
        self.screen.say(f"{enqueued:,} enqueued in {took:.2f} s", label="Tasks")
        counted = self._follow(group, enqueued, begin)
        seconds = time.monotonic() - begin
        self._report(group, counted, seconds, self._collected())
        if counted.settled != enqueued:
            self.screen.say(f"{enqueued} tasks were enqueued and {counted.settled} settled.", "red")
        if self.once:
            end = {"enqueued": enqueued, "succeeded": counted.succeeded, "failed": counted.failed}
            print(json.dumps({**end, "seconds": round(seconds, 3)}), flush=True)
        return 0 if counted.settled == enqueued else 1

    def _follow(self, group: str, enqueued: int, begin: float) -> Counted:
        assert self.pool is not None
        last, moved = -1, time.monotonic()
        with self.screen.progress(enqueued) as progress:
            while True:
                counted = _count(group, enqueued)
                now = time.monotonic()
                progress.show(counted, now - begin)
                if counted.done:
                    return counted
                if counted.settled > last:
                    last, moved = counted.settled, now
                self.pool.check()
                if now - moved > STALLED:
                    raise DemoError(f"No task has finished for {now - moved:.0f} s.\n{self.pool.tail()}")
                self.signals.check()
                time.sleep(0.2)

    def _collected(self) -> dict[str, int]:
        """Return what the collector returned, which comes last."""
        from demo.tasks import collect
        from pgq.models import Task

        assert self.pool is not None
        end = time.monotonic() + 30
        while (task := Task.objects.filter(func=collect.path).first()) is None:
            self.signals.check()
            self.pool.check()
            if time.monotonic() > end:
                raise DemoError(f"The task that collects the others does not run.\n{self.pool.tail()}")
            time.sleep(0.05)
        if not task.success:
            raise DemoError(f"The task that collects the others failed: {_reason(task.exception, task.message)}")
        return task.result

    def _report(self, group: str, counted: Counted, seconds: float, totals: dict[str, int]) -> None:
        from demo.models import SourceFile
        from pgq.models import Failure

        self.screen.totals(totals, counted, seconds)
        self.screen.largest(list(SourceFile.objects.order_by("-lines").values_list("path", "lines", "functions")[:5]))
        failures = Failure.objects.filter(group=group)
        self.screen.failures(sorted((task.args[0], _reason(task.exception, task.message)) for task in failures))

    def _stay(self) -> None:
        """Say where the admin is, and wait until somebody ends the demo."""
        from demo.models import Summary

        assert self.pool is not None
        self._await_web()
        self.screen.say(f"http://127.0.0.1:{self.port}/admin/", "bold", label="Admin")
        self.screen.say(self._login(), label="")
        self.screen.say(f"DATABASE_URL='{os.environ['DATABASE_URL']}'", label="psql")
        self.screen.say("Ctrl-C ends the demo.", label="")
        with self.screen.waiting("") as status:
            while True:
                self.signals.check()
                self.pool.check()
                self._web().check()
                summary = Summary.objects.first()
                if status is not None and summary is not None:
                    status.update(f"Running; summary refreshed by the schedule at {summary.refreshed_at:%H:%M:%S} UTC")
                time.sleep(1)

    def _await_web(self) -> None:
        end = time.monotonic() + 30
        while not answers(self.port):
            self.signals.check()
            web = self._web()
            if not web.running and not is_free(self.port):
                # Somebody else was faster.
                self._start_web(self.port + 1)
            else:
                web.check()
            if time.monotonic() > end:
                raise DemoError(f"The web server does not answer.\n{web.tail()}")
            time.sleep(0.1)

    def _web(self) -> Process:
        assert self.web is not None
        return self.web

    def _login(self) -> str:
        from django.contrib.auth import authenticate

        if authenticate(username=USER, password=PASSWORD) is not None:
            return f"user {USER}, password {PASSWORD}"
        return "log in as a superuser of this database (manage.py createsuperuser makes one)"


# --- What the database says -------------------------------------------------------------------------------------------


def _refuse_what_is_not_ours() -> None:
    """Raise DemoError in the database of another project: our pool would run its tasks, and we delete results."""
    from django.apps import apps
    from django.db import connection
    from django.db.migrations.recorder import MigrationRecorder

    recorder = MigrationRecorder(connection)
    others = {app for app, _ in recorder.applied_migrations()} - {app.label for app in apps.get_app_configs()}
    if others:
        raise DemoError(
            "The database of DATABASE_URL belongs to another Django project, which has the apps "
            f"{', '.join(sorted(others))}. Give the demo one of its own: createdb demo"
        )


def _count(group: str, enqueued: int) -> Counted:
    from django.db.models import Count, Q

    from demo.screen import Counted
    from pgq.models import QueuedTask, Task, WorkerPool

    finished = Task.objects.filter(group=group).aggregate(
        succeeded=Count("id", filter=Q(success=True)), failed=Count("id", filter=Q(success=False))
    )
    live = QueuedTask.objects.filter(group=group).aggregate(
        parked=Count("id", filter=Q(parked__isnull=False)),
        busy=Count("worker", filter=Q(lock__isnull=False), distinct=True),
    )
    workers = sum("pid" in worker for pool in WorkerPool.objects.all() for worker in pool.workers)
    return Counted(enqueued, **finished, **live, workers=workers)


def _reason(exception: str | None, message: str | None) -> str:
    return f"{(exception or '').removeprefix('builtins.')}: {message}"


# --- The program ------------------------------------------------------------------------------------------------------


def _folder() -> Path:
    """Return the folder for logs, and for the PostgreSQL that is started."""
    folder = Path(os.environ.get("DEMO_DATA") or ROOT / ".pgq" / "demo").absolute()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="pgq-demo-"))


def main() -> int:
    signals = Signals()
    signals.install()
    once = os.environ.get("ONCE", "") not in ("", "0")
    demo, status, stopped, problem = None, 1, False, ""
    try:
        try:
            demo = Demo(signals, once=once)
            status = demo.run()
        finally:
            # So that no signal can keep us from cleaning up.
            signals.held = True
    except Stopped:
        stopped = True
    except DemoError as error:
        # A Ctrl-C of the terminal goes to initdb too, which then fails.
        stopped = bool(signals.count)
        problem = "" if stopped else str(error)
    finally:
        # The terminal may be gone, and whoever read our output.
        with contextlib.suppress(OSError):
            if stopped:
                print("Stopping: what runs may finish." if demo and demo.pool else "Stopping.", flush=True)
            if problem:
                print(problem, file=sys.stderr, flush=True)
        if demo is not None:
            demo.close()
    with contextlib.suppress(OSError):
        if stopped:
            print("The demo has ended; nothing of it is left running.", flush=True)
    if stopped:
        return 130 if once else 0
    return 1 if problem else status


if __name__ == "__main__":
    sys.exit(main())
