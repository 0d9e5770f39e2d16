"""Projects of strangers, for tests: what `startproject` makes, with settings, apps and a database of its own.

::

    def test_something(project):
        shop = project({"USE_TZ": False}, apps={"shop": {"tasks.py": "def add(a, b): return a + b"}})
        shop.python("from pgq.tasks import async_task; async_task('shop.tasks.add', 1, 2)")
        shop.manage("pgq_worker", "--run-once")
        assert shop.sql("SELECT result FROM pgq_task") == [(3,)]

All that runs in it is a process of its own, with nothing of the test run in its environment. The folder and the
database are gone when the test ends. Of many settings, one project can try all: ``shop.configure(...)`` is cheaper than
another project.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import psycopg
import pytest
from django.core.management import call_command
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support import warm

#: Seconds that a command may take. Only waited for when something is wrong.
PATIENCE = 120.0

Settings = str | Mapping[str, Any]


def clean_environment(**added: str) -> dict[str, str]:
    """Return the environment without what a test run, or its shell, puts into it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "PYTHONPYCACHEPREFIX" or not name.startswith(("PG", "DJANGO", "PYTHON", "PYTEST", "DATABASE_URL"))
    }
    return kept | added


#: A manage.py as that of django-configurations: settings that only its importer can import.
IMPORTER = """\
import importlib.util
import os
import sys
from importlib.machinery import PathFinder

installed = False


class Loader:
    def __init__(self, inner): self.inner = inner

    def create_module(self, spec): return self.inner.create_module(spec)

    def exec_module(self, module):
        self.inner.exec_module(module)
        for name, value in vars(getattr(module, os.environ["CONFIGURATION"])).items():
            if name.isupper():
                setattr(module, name, value)


class Importer:
    def find_spec(self, name, path=None, target=None):
        if name != os.environ["DJANGO_SETTINGS_MODULE"]:
            return None
        spec = PathFinder.find_spec(name, path)
        spec.loader = Loader(spec.loader)
        return spec


def execute_from_command_line(argv):
    global installed
    sys.meta_path.insert(0, Importer())
    installed = True
    os.environ["CONFIGURATION"] = "Dev"
    from django.core.management import execute_from_command_line
    execute_from_command_line(argv)
"""
IMPORTING_MANAGE = """\
import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    from importer import execute_from_command_line

    execute_from_command_line(sys.argv)
"""


class Project:
    """A project in a folder, see above.

    Args:
        folder: Where it is made; made if it is not there.
        dsn: How to reach its database, which is there.
        settings: See `configure`.
        apps: For each app its modules' sources by their paths in it: ``{"shop": {"tasks.py": "..."}}``. A package
            without an ``__init__.py`` gets one.
        installed: What is put into INSTALLED_APPS; None: pgq, then the apps.
        warm: `manage` and `python` start warm (see `tests.support.warm`): for tests of much else than of starting.
    """

    #: Where settings and urls are, as given to `startproject`.
    NAME = "project"

    def __init__(
        self,
        folder: Path,
        dsn: str,
        settings: Settings = "",
        *,
        apps: Mapping[str, Mapping[str, str]] | None = None,
        installed: tuple[str, ...] | None = None,
        warm: bool = False,
    ) -> None:
        self.folder, self.dsn, self.warm = folder, dsn, warm
        self.installed = ("pgq", *(apps or {})) if installed is None else installed
        folder.mkdir(parents=True, exist_ok=True)
        call_command("startproject", self.NAME, str(folder))
        self._generated = self.settings_file.read_text()
        self.configure(settings)
        for app, modules in (apps or {}).items():
            self.write(f"{app}/__init__.py", "")
            for path, source in modules.items():
                self.write(f"{app}/{path}", source)

    @property
    def settings_file(self) -> Path:
        return self.folder / self.NAME / "settings.py"

    def configure(self, settings: Settings = "") -> None:
        """Write the settings: those of `startproject`, the database, pgq, the apps, and after them these.

        Args:
            settings: Source, or values by name. Source sees what was set before: ``INSTALLED_APPS += ["shop"]``.
        """
        if not isinstance(settings, str):
            settings = "".join(f"{name} = {value!r}\n" for name, value in settings.items())
        self.settings_file.write_text(f"{self._generated}\n{self._own_settings()}\n{settings}\n")

    def _own_settings(self) -> str:
        return (
            "from pgq.contrib.embedded import database_from_url\n\n"
            f"DATABASES = {{'default': database_from_url({self.dsn!r})}}\n"
            f"INSTALLED_APPS += {[*self.installed]!r}\n"
        )

    def boot_by_importer(self, settings: str) -> None:
        """Have the project boot as one with django-configurations: by a manage.py that installs an importer.

        Args:
            settings: One line, of a class that only the importer reads; without it the settings cannot be imported.
        """
        self.write("importer.py", IMPORTER)
        self.write("manage.py", IMPORTING_MANAGE)
        own = f"\nimport importer\nassert importer.installed\n\nclass Dev:\n    {settings}\n"
        self.settings_file.write_text(self.settings_file.read_text() + own)

    def write(self, path: str, source: str) -> Path:
        """Write a file of the project; packages on its way get their ``__init__.py``."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        for parent in file.relative_to(self.folder).parents[:-1]:
            (self.folder / parent / "__init__.py").touch()
        file.write_text(source)
        return file

    def run(
        self, *command: str, code: int | None = 0, timeout: float = PATIENCE, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the project's folder; return it with its output (``stdout``, ``stderr``).

        Args:
            code: With which the test fails if it ends otherwise; None: any.
            timeout: Seconds after which the test fails, and the program with all it started is killed.
        """
        environment = clean_environment(**(env or {}))
        # An interpreter with flags of its own is one of its own.
        plain = command[0] == sys.executable and command[1] in ("manage.py", "-c", "-m")
        if self.warm and plain and warm.may_start_warm(env or {}):
            done = self._run_warm(command, timeout, environment)
        else:
            done = self._run_cold(command, timeout, environment)
        if code is not None and done.returncode != code:
            pytest.fail(f"{command} ended with {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}")
        return done

    def _run_cold(
        self, command: tuple[str, ...], timeout: float, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except BaseException as error:
                os.killpg(process.pid, 9)
                out, err = process.communicate()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                pytest.fail(f"{command} has not ended after {timeout:g} s\n{out}\n{err}")
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def _run_warm(
        self, command: tuple[str, ...], timeout: float, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:

            def said(output: IO[bytes]) -> str:
                output.seek(0)
                return output.read().decode(errors="replace")

            process = warm.WARMTH.start(command[1:], self.folder, env, out, err)
            try:
                process.wait(timeout)
            except BaseException as error:
                os.killpg(process.pid, 9)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                pytest.fail(f"{command} has not ended after {timeout:g} s\n{said(out)}\n{said(err)}")
            return subprocess.CompletedProcess(command, process.wait(), said(out), said(err))

    def manage(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run ``manage.py``; the options are those of `run`."""
        return self.run(sys.executable, "manage.py", *arguments, **options)

    def python(
        self, source: str, *arguments: str, flags: tuple[str, ...] = (), **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run Python source after ``django.setup()``, with the arguments as ``sys.argv[1:]``.

        Args:
            flags: Of the interpreter, such as ``-Werror``.
            options: As of `run`.
        """
        preamble = f"import os; os.environ['DJANGO_SETTINGS_MODULE'] = '{self.NAME}.settings'\n"
        preamble += "import django; django.setup()\n"
        return self.run(sys.executable, *flags, "-c", preamble + source, *arguments, **options)

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Execute one statement, or several without parameters, in the database; return the last one's rows."""
        with psycopg.connect(self.dsn, autocommit=True) as session:
            cursor = session.execute(statement, parameters or None)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def new_databases(pg_dsn: str) -> Iterator[Callable[[], str]]:
    """Make empty databases on a server; yields what makes one and returns its connection string."""
    names: list[str] = []

    def make() -> str:
        names.append(f"pgq_project_{uuid.uuid4().hex[:12]}")
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(names[-1])))
        return make_conninfo(**{**conninfo_to_dict(pg_dsn), "dbname": names[-1]})

    with psycopg.connect(pg_dsn, autocommit=True) as admin:
        try:
            yield make
        finally:
            for name in names:
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def new_database(pg_dsn: str) -> Iterator[Callable[[], str]]:
    """Make an empty database on the test server; returns its connection string. Dropped when the test ends."""
    with new_databases(pg_dsn) as make:
        yield make


@pytest.fixture
def project(tmp_path: Path, new_database: Callable[[], str]) -> Callable[..., Project]:
    """Make projects: arguments as of `Project` after the database; ``migrate=False`` leaves the database empty."""
    made: list[Project] = []

    def make(settings: Settings = "", *, migrate: bool = True, **options: Any) -> Project:
        made.append(Project(tmp_path / f"stranger{len(made)}", new_database(), settings, **options))
        if migrate:
            made[-1].manage("migrate", "--verbosity=0")
        return made[-1]

    return make
