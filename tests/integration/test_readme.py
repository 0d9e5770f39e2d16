"""The README and docs/start/everyday.md are true: a new project made of their snippets does what they say."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.blocks import texts
from tests.support.django_settings import SETTINGS

#: Boots by a manage.py of its own; see `Project.boot_by_importer`.
CONFIGURATIONS = "django-configurations"
snippets = partial(texts, "README.md")
everyday = partial(texts, "docs/start/everyday.md")


RESULTS = """
from pgq.models import Schedule, Task
from pgq.tasks import count_group

def finished(name, **lookups):
    return Task.objects.filter(func=f"shop.tasks.{name}", **lookups)

assert Task.objects.get(func="math.copysign").result == -2.0
# One was cancelled in psql, and one enqueued there.
assert finished("send_receipt", success=False).get().args == (41,)
assert finished("send_receipt", success=True).count() == 1 + 98 + 1
assert count_group("receipts") == 99
assert finished("greet").get().args == (1,)
assert finished("all_sent").get().args == ("receipts",)
assert finished("report").get().success
assert Schedule.objects.get().cron == "30 2 * * *"
"""
USER = "from django.contrib.auth.models import User; User.objects.create_user('ada')\n"


@pytest.mark.parametrize(
    "name",
    [
        "as startproject leaves them",
        "USE_TZ = False",
        "LOGGING",
        "router with a replica",
        "pool of connections",
        "assume_role",
        CONFIGURATIONS,
    ],
)
def test_first_page(project, name):
    settings, tasks, first_call = snippets("python")
    more_tasks, calls = everyday("python")
    modules = {"tasks.py": f"{tasks}\n\n{more_tasks}"}
    # Cold once as readers start it, and once as that importer does.
    options = {"installed": (), "migrate": False, "warm": name not in ("as startproject leaves them", CONFIGURATIONS)}
    shop = project(f"{settings}\n{SETTINGS.get(name, '')}", apps={"shop": modules}, **options)
    run = shop.python
    if name == CONFIGURATIONS:
        shop.boot_by_importer("LANGUAGE_CODE = 'de'")
        run = partial(shop.manage, "shell", "-c")
    install, commands = snippets("sh")
    assert (install, commands) == (
        "pip install django-pgq\n", "python manage.py migrate\npython manage.py pgq_worker\n"
    )  # fmt: skip
    shop.sql("DO $$ BEGIN CREATE ROLE pgq_stranger; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$")
    shop.sql("GRANT CREATE ON SCHEMA public TO pgq_stranger")
    shop.manage("migrate", "--verbosity=0")
    run(USER + first_call + calls)
    for statement in everyday("sql")[0].split(";\n"):
        if statement.strip():
            shop.sql(statement)
    assert "math.copysign True -2.0" in shop.manage("pgq_worker", "--run-once").stdout
    run(RESULTS)
