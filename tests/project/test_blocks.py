"""Each code block of the README and of each page in docs/ is run, here or by a test that is named here."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.blocks import ROOT, Block, Run, blocks, modules_of_the_page, pages

#: Pages that are made from the code, whose blocks are signatures and examples of docstrings.
MADE = {
    "backend": ["python"], "configuration": ["python"], "errors": ["python", "text"], "functions": ["python"],
    "integrations": ["python"], "models": ["python"], "options": ["python"], "signals": ["python"],
    "status": ["python"], "testing": ["python"],
}  # fmt: skip
FIRST_PAGE = "tests/project/test_first_page.py::test_each_block_does_what_the_page_says"
#: Blocks that a test of their own runs: page, language, and the test; or `none: ` and the reason why nothing is run.
ELSEWHERE = {
    ("README.md", "python"): "tests/integration/test_readme.py::test_first_page",
    ("docs/architecture.md", ""): "none: drawings",
    ("docs/explain/reliability.md", ""): "none: a drawing",
    ("docs/guide/configuration.md", "python"): (
        "tests/project/test_docs.py::test_snippets_of_schedules_and_of_the_configuration"
    ),
    ("docs/guide/schedules.md", "python"): (
        "tests/project/test_docs.py::test_snippets_of_schedules_and_of_the_configuration"
    ),
    ("docs/guide/examples.md", "sh"): "tests/examples/test_examples.py::test_each_has_a_readme_that_says_the_command",
    ("docs/guide/examples.md", "text"): "tests/examples/test_examples.py::test_letters_do_not_wait_for_reports",
    ("docs/guide/context.md", "python"): "tests/project/test_docs.py::test_snippets_of_the_context",
    ("docs/guide/limits.md", "python"): "tests/project/test_docs.py::test_snippets_of_limits",
    ("docs/guide/limits.md", "sql"): "tests/project/test_docs.py::test_snippets_of_limits",
    ("docs/guide/tasks.md", "python"): "tests/project/test_docs.py::test_snippets_of_tasks",
    ("docs/guide/testing.md", "python"): "tests/project/test_docs.py::test_snippets_for_tests",
    ("docs/guide/unique.md", "python"): "tests/project/test_docs.py::test_snippets_of_unique",
    ("docs/guide/unique.md", "sql"): "tests/project/test_docs.py::test_snippets_of_unique",
    (
        "docs/index.md",
        "{toctree}",
    ): "tests/project/test_site.py::test_the_site_builds_without_a_warning_and_needs_no_other_host",
    ("docs/migrate/cron.md", "sh"): "tests/migrate/test_cron.py::test_a_crontab_moves_in_five_steps",
    ("docs/migrate/django-cfg.md", "python"): (
        "tests/migrate/test_django_cfg.py::test_schedules_of_the_configuration_are_here_once_and_nothing_fires_by_it"
    ),
    ("docs/migrate/django-q.md", "python"): "tests/project/test_docs.py::test_snippets_for_those_who_move",
    ("docs/migrate/django-q.md", "sql"): "tests/contrib/test_django_q.py::test_foreign_keys_follow_their_rows",
    (
        "docs/migrate/django-tasks.md",
        "python",
    ): "tests/migrate/test_django_tasks.py::test_what_waits_moves_while_both_run",
    ("docs/migrate/django-tasks.md", "sql"): "tests/migrate/test_django_tasks.py::test_what_waits_moves_while_both_run",
    (
        "docs/migrate/procrastinate.md",
        "sql",
    ): "tests/migrate/test_procrastinate.py::test_what_waits_moves_while_both_run",
    ("docs/migrate/celery-beat.md", "python"): (
        "tests/migrate/test_celery_beat.py::test_a_pool_goes_on_where_beat_has_stopped"
    ),
    ("docs/migrate/celery.md", "python"): (
        "tests/migrate/test_celery.py::test_the_example_does_the_same_in_both_and_what_waits_moves_over"
    ),
    ("docs/migrate/huey.md", "python"): (
        "tests/migrate/test_huey.py::test_the_example_does_the_same_in_both_and_what_waits_moves_over"
    ),
    ("docs/migrate/rq.md", "python"): (
        "tests/migrate/test_rq.py::test_the_example_does_the_same_in_both_and_what_waits_is_run"
    ),
    ("docs/operate/deployment.md", "yaml"): "tests/deploy/test_files.py::test_the_snippets_of_the_page_can_be_read",
    ("docs/operate/metrics.md", ""): "none: a drawing",
    ("docs/operate/observability.md", ""): "none: a drawing",
    (
        "docs/operate/poolers.md",
        "text",
    ): "tests/project/test_troubleshooting.py::test_lines_of_a_log_on_other_pages_are_those_of_the_source",
    **{
        (f"docs/reference/{name}.md", language): "tests/project/test_reference.py::test_each_page_is_what_the_code_says"
        for name, languages in MADE.items()
        for language in languages
    },
    ("docs/reference/commands.md", "console"): (
        "tests/project/test_commands_page.py::test_each_command_prints_what_the_page_shows"
    ),
    ("docs/reference/settings.md", "python"): "tests/project/test_docs.py::test_snippets_of_the_settings",
    ("docs/reference/sql.md", "python"): "tests/project/test_docs.py::test_snippets_of_sql",
    ("docs/reference/sql.md", "sql"): "tests/project/test_docs.py::test_snippets_of_sql",
    ("docs/reference/sql.md", ""): "tests/project/test_docs.py::test_snippets_of_sql",
    ("docs/start/everyday.md", "python"): "tests/integration/test_readme.py::test_first_page",
    ("docs/start/everyday.md", "sql"): "tests/integration/test_readme.py::test_first_page",
    ("docs/start/first-ten-minutes.md", "ini"): FIRST_PAGE,
    ("docs/start/first-ten-minutes.md", "pycon"): FIRST_PAGE,
    ("docs/start/first-ten-minutes.md", "python"): FIRST_PAGE,
    ("docs/start/first-ten-minutes.md", "sh"): FIRST_PAGE,
    ("docs/start/first-ten-minutes.md", "text"): FIRST_PAGE,
}
#: Pages whose blocks change what the whole process does: tracing, Sentry. They need no database.
APART = {"docs/operate/observability.md"}


def here(page: str) -> list[Block]:
    return [block for block in blocks(page) if (page, block.language) not in ELSEWHERE]


@pytest.mark.django_db
@pytest.mark.parametrize("page", [page for page in pages() if page not in APART and here(page)])
def test_every_block_of_the_page_runs(page: str) -> None:
    run = Run()
    with modules_of_the_page():
        for block in here(page):
            run.block(block)


@pytest.mark.parametrize("page", sorted(APART))
def test_every_block_of_a_page_runs_in_a_process_of_its_own(page: str) -> None:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    others = [language for of, language in ELSEWHERE if of == page]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.support.blocks", page, *others],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr


def test_what_is_run_elsewhere_is_there_and_so_is_its_test() -> None:
    there = {(page, block.language) for page in pages() for block in blocks(page)}
    assert set(ELSEWHERE) - there == set()
    for by in ELSEWHERE.values():
        if not by.startswith("none: "):
            file, _, name = by.partition("::")
            tree = ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
            assert name in {node.name for node in tree if isinstance(node, ast.FunctionDef)}, by


@pytest.mark.parametrize(
    ("language", "text", "error"),
    [
        ("python", "1 / 0\n", ZeroDivisionError),
        ("python", "PGQ = {'workerz': 4}\n", AssertionError),
        ("sh", "manage.py pgq_worker --wrokers 4\n", Exception),
        ("sh", "make nothing-of-that-name\n", AssertionError),
        ("sh", "if true\n", AssertionError),
        ("toml", "a = \n", ValueError),
        ("json", "{a: 1}", ValueError),
        ("ini", "a = 1\n", Exception),
        ("dockerfile", "FORM python\n", AssertionError),
        ("cobol", "x", AssertionError),
        ("", "an output that follows nothing", AssertionError),
    ],
)
def test_a_wrong_block_is_found(language: str, text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        Run().block(Block(str(Path("docs") / "page.md"), 1, language, text))
