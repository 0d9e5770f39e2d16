"""Look whether this checkout is ready to be released: build it, look at what was built, install it, run a task there.

::

    python -m tests.release [STEP ...]

A line for each step, and a verdict, which is the exit code as well. Nothing is published, and nothing is written into
the checkout. Pythons are those on PATH and those of pyenv; one that is missing is named, and does not count. It needs
the dependency group `release`.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

import pgq
from pgq.contrib.embedded import Server
from tests.matrix import APART, DJANGOS, PYTHONS, find_python
from tests.support import published

ROOT = Path(__file__).parent.parent
TASKS = "from pgq import task\n\n\n@task\ndef add(a, b):\n    return a + b\n"
SETTINGS = """
from pgq.contrib.embedded import database_from_url
DATABASES = {{"default": database_from_url({url!r})}}
INSTALLED_APPS += ["pgq", "shop"]
"""
#: Of 10. One is for a project that names its home, and one for an address of its authors.
PYROMA = 8
#: In a new environment: is it the wheel, and does a worker run what another process has enqueued?
ENQUEUE = "import pgq, shop.tasks; print(pgq.__file__, pgq.__version__, shop.tasks.add.enqueue(1, 2))"
RESULT = "from pgq.models import Task; print(Task.objects.get().result)"


class Wrong(Exception):
    """The step has failed; the message says why."""


def run(*arguments: object, cwd: Path = ROOT, **environment: str) -> str:
    """Run a program; return what it says.

    Raises:
        Wrong: It has failed.
    """
    dropped = ("PG", "DJANGO", "PYTHON", "DATABASE_URL", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    command = [str(argument) for argument in arguments]
    done = subprocess.run(command, cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Wrong(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def refuse(problems: list[str]) -> None:
    if problems:
        raise Wrong("\n".join(problems))


@dataclass
class Release:
    """What the steps share: a folder that is thrown away, with `dist` in it."""

    folder: Path

    @property
    def dist(self) -> Path:
        return self.folder / "dist"

    @property
    def wheel(self) -> Path:
        return next(self.dist.glob("*.whl"))

    @property
    def sdist(self) -> Path:
        return next(self.dist.glob("*.tar.gz"))

    # ------------------------------------------------------------------------------------------------ the steps

    def version(self) -> str:
        """The version has its section, with a date, in the changelog, and nothing waits above it."""
        text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        heads = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", text, re.MULTILINE)
        waiting = re.search(r"^## \[Unreleased\]\n(.*?)^## \[", text, re.MULTILINE | re.DOTALL)
        if pgq.__version__ not in dict(heads):
            raise Wrong(f"CHANGELOG.md has no section [{pgq.__version__}]")
        if waiting and waiting[1].strip():
            raise Wrong("CHANGELOG.md has changes under [Unreleased]: which release are they of?")
        return f"{pgq.__version__} of {dict(heads)[pgq.__version__]}"

    def build(self) -> str:
        """An sdist, and the wheel from it, each in an environment of its own."""
        run(sys.executable, "-m", "build", "--outdir", self.dist, ROOT)
        names = sorted(path.name for path in self.dist.iterdir())
        if [name for name in names if pgq.__version__ not in name] or len(names) != 2:
            raise Wrong(f"built {names}, and the version is {pgq.__version__}")
        return ", ".join(f"{path.name} ({path.stat().st_size // 1000:,} kB)" for path in sorted(self.dist.iterdir()))

    def metadata(self) -> str:
        """What indexes and people read: twine, validate-pyproject, pyroma."""
        run(sys.executable, "-m", "twine", "check", "--strict", self.sdist, self.wheel)
        run(sys.executable, "-m", "validate_pyproject", ROOT / "pyproject.toml")
        rating = run(sys.executable, "-m", "pyroma", f"--min={PYROMA}", self.sdist)
        [score] = re.findall(r"Final rating: (\S+)", rating)
        wanted = "".join(f"; {line}" for line in re.findall(r"^Your package .*", rating, re.MULTILINE))
        return f"twine and validate-pyproject have no complaints; pyroma: {score}{wanted}"

    def contents(self) -> str:
        """What is in the files, and what is not."""
        run(sys.executable, "-m", "check_wheel_contents", self.wheel)
        refuse([*published.wheel_problems(self.wheel), *published.sdist_problems(self.sdist)])
        return f"each of {len(published.source_files('pgq'))} files of pgq/, nothing else in site-packages"

    def readme(self) -> str:
        """The page of an index: rendered, its links absolute."""
        shown = published.metadata(self.wheel).get_payload()
        assert isinstance(shown, str)
        refuse(published.page_problems(shown))
        repository = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {}).get("Repository")
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        base = repository or published.ELSEWHERE
        tried = published.hook().for_index(readme, base, f"v{pgq.__version__}")
        refuse([*published.page_problems(tried), *published.link_problems(readme, tried, base)])
        if repository is None:
            return "rendered. [project.urls] names no Repository: links are text and the picture is left out"
        return f"rendered, with links into {repository}"

    def docs(self) -> str:
        """The site, with warnings as errors."""
        site = self.folder / "site"
        given = ("-W", "-n", "--keep-going", "-q", "-b", "dirhtml", "-d", self.folder / "read")
        run(sys.executable, "-m", "sphinx", *given, ROOT / "docs", site)
        return f"{len(list(site.rglob('index.html')))} pages without a warning"

    def page(self) -> str:
        """The first page of the site, block by block, with the oldest Python and what pip finds today."""
        interpreter = find_python(PYTHONS[0])
        if interpreter is None:
            return f"left out: no Python {PYTHONS[0]} that works"
        test = ("-q", "-p", "no:cacheprovider", "tests/project/test_first_page.py")
        run(sys.executable, "-m", "pytest", *test, PGQ_STRANGERS_PYTHON=interpreter)
        return f"Python {PYTHONS[0]} follows docs/start/first-ten-minutes.md without a surprise"

    def install(self) -> str:
        """The wheel in new environments of each Python and Django: a project, a task, a pool that runs it."""
        ran, missing = [], []
        with Server() as server:
            for python, django in cells():
                interpreter = find_python(python)
                if interpreter is None:
                    missing.append(f"no Python {python}")
                    continue
                self._install(interpreter, python, django, server)
                ran.append(f"{python} with {django}")
                print(f"        Python {python}, Django {django}: a task was enqueued, and run by a pool", flush=True)
        if not ran:
            raise Wrong("; ".join(missing))
        return "; ".join([f"{len(ran)} environments", *dict.fromkeys(missing)])

    def _install(self, interpreter: str, python: str, django: str, server: Server) -> None:
        name = f"python{python}_django{django}".replace(".", "")
        project = self.folder / name
        run(interpreter, "-m", "venv", project / ".venv")
        own = project / ".venv" / "bin" / "python"
        pip = (own, "-m", "pip", "--disable-pip-version-check")
        run(*pip, "install", "--quiet", self.wheel, f"django~={django}.0", cwd=project)
        run(*pip, "check", cwd=project)
        run(own, "-m", "django", "startproject", "site_of_a_test", ".", cwd=project)
        run(own, "manage.py", "startapp", "shop", cwd=project)
        (project / "shop" / "tasks.py").write_text(TASKS)
        with psycopg.connect(server.dsn, autocommit=True) as session:
            session.execute(f"CREATE DATABASE {name}")
        url = server.url.rpartition("/")[0] + f"/{name}"
        with (project / "site_of_a_test" / "settings.py").open("a") as settings:
            settings.write(SETTINGS.format(url=url))
        run(own, "manage.py", "migrate", "--verbosity=0", cwd=project)
        run(own, "manage.py", "check", "--database", "default", "--fail-level", "WARNING", cwd=project)
        said = run(own, "manage.py", "shell", "-c", ENQUEUE, cwd=project)
        if f"{project}/.venv/" not in said or f" {pgq.__version__} " not in said:
            raise Wrong(f"it is not the wheel that was imported: {said}")
        run(own, "manage.py", "pgq_worker", "--run-once", cwd=project)
        result = run(own, "manage.py", "shell", "-c", RESULT, cwd=project).split()[-1]
        if result != "3":
            raise Wrong(f"Python {python}, Django {django}: 1 + 2 is {result}")


STEPS: tuple[tuple[str, Callable[[Release], str]], ...] = (
    ("version", Release.version),
    ("build", Release.build),
    ("metadata", Release.metadata),
    ("contents", Release.contents),
    ("readme", Release.readme),
    ("docs", Release.docs),
    ("page", Release.page),
    ("install", Release.install),
)
#: What the others look at.
ALWAYS = "build"


def cells() -> Iterator[tuple[str, str]]:
    for python in PYTHONS:
        for django in DJANGOS:
            if (python, django) not in APART:
                yield python, django


def main() -> int:
    names = [name for name, _ in STEPS]
    parser = argparse.ArgumentParser(prog="python -m tests.release", description=__doc__.split("\n", 1)[0])
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"only these: {', '.join(names)}; default: all")
    chosen = parser.parse_args().steps
    if unknown := [name for name in chosen if name not in names]:
        parser.error(f"there is no step {', '.join(unknown)}; there are {', '.join(names)}")
    failed = []
    with tempfile.TemporaryDirectory(prefix="pgq-release-") as folder:
        release = Release(Path(folder).resolve())
        for name, step in STEPS:
            if chosen and name not in (*chosen, ALWAYS):
                continue
            began = time.monotonic()
            try:
                said = step(release)
            except Wrong as error:
                said, failed = f"FAILED: {error}", [*failed, name]
            print(f"    {name:<9} {time.monotonic() - began:4.0f} s  {said}", flush=True)
            if name == ALWAYS and name in failed:
                break
    if failed:
        print(f"==> NOT READY: {', '.join(failed)}")
        return 1
    print(f"==> {'READY' if not chosen else 'These steps have passed'}: django-pgq {pgq.__version__}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
