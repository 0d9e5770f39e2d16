"""What is published works where there is no checkout: built, installed elsewhere, migrated, one task run."""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support import published
from tests.support.packages import ROOT, run

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


def test_wheel_and_sdist_have_every_file_and_no_other(built):
    assert published.wheel_problems(next(built.glob("*.whl"))) == []
    assert published.sdist_problems(next(built.glob("*.tar.gz"))) == []


def test_what_is_missing_from_a_wheel_or_too_much_in_it_is_found(built, tmp_path):
    spoiled = tmp_path / "spoiled.whl"
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel, zipfile.ZipFile(spoiled, "w") as other:
        for name in wheel.namelist():
            if name != "pgq/py.typed":
                other.writestr(name, "")
        other.writestr("tests/test_more.py", "")
    assert published.wheel_problems(spoiled) == [
        "the wheel lacks pgq/py.typed",
        "the wheel lacks the marker of types",
        "the wheel puts tests/test_more.py into site-packages",
        "the wheel has tests/test_more.py",
    ]


def test_the_readme_leads_nowhere_on_the_page_of_an_index(built):
    """Where pyproject.toml names no repository, it has none to lead to."""
    read = published.metadata(next(built.glob("*.whl")))
    assert read["Description-Content-Type"] == "text/markdown"
    assert re.findall(r"\]\((?!https?://)[^)]*\)", read.get_payload()) == []
    pytest.importorskip("readme_renderer", reason="needs the dependency group 'release'")
    assert published.page_problems(read.get_payload()) == []


def test_the_readme_leads_into_the_repository_that_the_metadata_name(built):
    pytest.importorskip("readme_renderer", reason="needs the dependency group 'release'")
    readme = (ROOT / "README.md").read_text()
    assert len(published.page_problems(readme)) > 10
    shown = published.hook().for_index(readme, "https://example.org/pgq/", "v1.2")
    assert published.page_problems(shown) == []
    assert published.link_problems(readme, shown, "https://example.org/pgq") == []
    leads = published.rendered(shown)[1]
    assert ("img", "https://example.org/pgq/raw/v1.2/docs/images/dashboard-overview.png") in leads
    assert ("a", "https://example.org/pgq/blob/v1.2/docs/guide/tasks.md") in leads
    wrong = readme.replace("docs/guide/tasks.md", "docs/guide/gone.md")
    gone = published.hook().for_index(wrong, "https://example.org/pgq", "v1.2")
    assert published.link_problems(wrong, gone, "https://example.org/pgq") == [
        "docs/guide/gone.md is not in the repository"
    ]


@pytest.fixture(scope="session")
def installed(wheelhouse, tmp_path_factory):
    """The interpreter of a new virtualenv with the wheel and what it says it needs."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    index = ("--no-index", "--find-links", wheelhouse, "--no-compile")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--quiet", *index, "django-pgq", cwd=folder, PIP_USER="0")
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
