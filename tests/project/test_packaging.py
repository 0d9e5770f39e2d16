"""What is published works where there is no checkout: built, installed elsewhere, migrated, one task run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.smoke, pytest.mark.xdist_group("packaging")]

SETTINGS = """
import os
from pgq.contrib.embedded import database_from_url

SECRET_KEY = "a key for the test of the package, as long as Django wants it to be"
USE_TZ = True
DATABASES = {"default": database_from_url(os.environ["DATABASE_URL"])}
INSTALLED_APPS = ["django.contrib.contenttypes", "pgq"]
"""
MANAGE = """
import sys
from django.core.management import execute_from_command_line

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
"""
ENQUEUE = """
import django
django.setup()
import pgq, pgq.tasks
print(pgq.__file__)
print(pgq.tasks.async_task("math.hypot", 3, 4))
"""
RESULT = """
import sys, django
django.setup()
from pgq.tasks import result
print(result(sys.argv[1]))
"""


def run(*args: object, cwd: Path, **env: str) -> str:
    """Run a program without what the test run has put into the environment; its output."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "DJANGO", "PYTHON", "PYTEST"))}
    command = [str(arg) for arg in args]
    try:
        done = subprocess.run(
            command, cwd=cwd, env=kept | env, capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"") + (error.stderr or b"")
        pytest.fail(f"{command} has not ended\n{said.decode(errors='replace')}")
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The sdist, and the wheel that is built from it."""
    pytest.importorskip("build", reason="needs the dependency group 'build'")
    pytest.importorskip("hatchling", reason="needs the dependency group 'build'")
    folder = tmp_path_factory.mktemp("dist")
    # Without isolation nothing is downloaded; without -s and -w, the wheel comes out of the sdist.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


def source_files(package: str) -> set[str]:
    paths = (ROOT / package).rglob("*")
    return {str(path.relative_to(ROOT)) for path in paths if path.is_file() and path.parent.name != "__pycache__"}


def test_wheel_has_every_file(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    migrations = {f"pgq/{name}" for name in source_files("migrations_sql")}
    assert migrations
    assert source_files("pgq") | migrations <= names
    others = {name for name in names if not name.startswith("pgq/") and ".dist-info/" not in name}
    assert not others, "nothing but the package goes into site-packages"


def test_readme_leads_nowhere_on_the_page_of_an_index(built):
    """It has no repository to lead to: links of the README are to files of ours, and an index has none of them."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith("/METADATA")]
        shown = wheel.read(name).decode()
    assert "Description-Content-Type: text/markdown" in shown
    assert "See docs/migrate/django-q.md." in " ".join(shown.split())
    assert re.findall(r"\]\((?!https?://)[^)]*\)", shown) == []
    readme = (ROOT / "README.md").read_text()
    targets = re.findall(r"\]\((?!https?://)([^)#]*)", readme)
    assert len(targets) > 5
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_sdist_has_what_a_build_needs(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames() if "/" in name}
    others = {"pyproject.toml", "hatch_build.py", "README.md", "LICENSE"}
    assert source_files("pgq") | source_files("migrations_sql") | others <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", ".pgq"))]


@pytest.fixture(scope="session")
def installed(built, tmp_path_factory):
    """The interpreter of a new virtualenv with the wheel; the dependencies are those of this test run."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    wheel = next(built.glob("*.whl"))
    installer = ("--python", python, "install", "--no-index", "--no-deps", "--quiet", wheel)
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *installer, cwd=folder, PIP_USER="0")
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    # Directories named in a .pth file come later in sys.path, and .pth files in them do not count: so the checkout,
    # which an editable install names in one, stays out.
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(ours)) + "\n")
    return python


def test_installed_wheel_migrates_and_runs_a_task(installed, new_database, tmp_path):
    (tmp_path / "project_settings.py").write_text(SETTINGS)
    (tmp_path / "manage.py").write_text(MANAGE)
    (tmp_path / "enqueue.py").write_text(ENQUEUE)
    (tmp_path / "result.py").write_text(RESULT)
    database = new_database()

    def python(*args: str) -> str:
        return run(installed, *args, cwd=tmp_path, DATABASE_URL=database, DJANGO_SETTINGS_MODULE="project_settings")

    python("manage.py", "migrate")
    python("manage.py", "check", "--database", "default", "--fail-level", "WARNING")
    python("manage.py", "makemigrations", "--check", "--dry-run", "pgq")
    where, task_id = python("enqueue.py").split()
    assert Path(where).is_relative_to(installed.parent.parent), "the wheel is what is being tested"
    assert re.fullmatch(r"[0-9a-f]{32}", task_id)
    python("manage.py", "pgq_worker", "--run-once")
    assert python("result.py", task_id).strip() == "5.0"
