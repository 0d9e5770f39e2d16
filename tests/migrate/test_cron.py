"""A project moves from the real django-crontab by the commands of the page. A program in cron's place has the table."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from tests.support.blocks import texts
from tests.support.projects import Project, clean_environment

SETTINGS = """
INSTALLED_APPS += ["django_crontab"]
CRONTAB_EXECUTABLE = str(BASE_DIR / "bin/crontab")
CRONTAB_LOCK_JOBS = True
CRONJOBS = [
    ("*/5 * * * *", "shop.cron.tidy", ["cache"]),
    ("30 2 * * 1-5", "shop.cron.tidy", ["orders"], {"deep": True}),
    ("0 4 * * *", "django.core.management.call_command", ["check"], {"verbosity": 0}, ">> /dev/null 2>&1"),
]
"""
JOBS = """
from pathlib import Path


def tidy(what, deep=False):
    with Path(__file__).with_name("ran").open("a") as file:
        print(what, deep, file=file)
"""
CRON = '#!/bin/sh\nif [ "$1" = -l ]; then cat {0} 2>/dev/null; else cp "$1" {0}; fi\n'
OWN_LINE = "15 3 * * * cd {0} && python manage.py clearsessions >> /dev/null 2>&1\n"


def ran(shop: Project) -> list[str]:
    file = shop.folder / "shop/ran"
    return file.read_text().splitlines() if file.exists() else []


def test_a_crontab_moves_in_five_steps(project: Callable[..., Project]) -> None:
    shop = project(SETTINGS, apps={"shop": {"cron.py": JOBS}}, warm=True)
    table = shop.folder / "table"
    program = shop.write("bin/crontab", CRON.format(table))
    program.chmod(0o755)
    table.write_text(OWN_LINE.format(shop.folder))
    shop.manage("crontab", "add")
    # What cron does at its time: it gives the line to a shell.
    [line] = [line for line in table.read_text().splitlines() if "*/5" in line]
    subprocess.run(["sh", "-c", line.split(None, 5)[5]], check=True, env=clean_environment(), timeout=60)
    assert ran(shop) == ["cache False"]

    [look] = texts("docs/migrate/cron.md", "sh")
    path = f"{program.parent}:{clean_environment()['PATH']}"
    python = f'python() {{ {sys.executable} "$@"; }}\n'
    seen = shop.run("bash", "-ec", python + look, env={"PATH": path}).stdout
    assert "django-crontab wrote it from CRONJOBS" in " ".join(seen.split())
    assert seen.count("would be taken") == 2
    assert shop.sql("SELECT count(*) FROM pgq_schedule") == [(0,)]

    shop.manage("crontab", "remove")
    assert "tidy" not in table.read_text()
    table.write_text("")
    _, imports = look.split("\n", 1)
    shop.run("bash", "-ec", python + imports.replace(" --dry-run", ""), env={"PATH": path})
    found = "SELECT name, cron, overlap, paused, next_run > now() FROM pgq_schedule ORDER BY id"
    assert shop.sql(found) == [
        ("clearsessions", "15 3 * * *", "allow", False, True),
        ("shop.cron.tidy", "*/5 * * * *", "skip", False, True),
        ("shop.cron.tidy 2", "30 2 * * 1-5", "skip", False, True),
        ("check", "0 4 * * *", "skip", False, True),
    ]
    assert "shop.cron.tidy 2" in shop.manage("pgq_schedules", "list").stdout
    shop.manage("pgq_schedules", "run", "shop.cron.tidy 2", "check", "clearsessions")
    shop.manage("pgq_worker", "--run-once", "--workers", "1")
    assert ran(shop) == ["cache False", "orders True"]
    assert shop.sql("SELECT count(*) FROM pgq_task WHERE success") == [(3,)]
    # Back again.
    shop.manage("pgq_schedules", "pause", "--all")
    shop.sql("UPDATE pgq_schedule SET next_run = now() - interval '1 minute'")
    shop.manage("pgq_worker", "--run-once", "--workers", "1")
    assert len(ran(shop)) == 2
