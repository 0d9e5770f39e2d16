"""docs/operate/upgrading.md: what is told while the code is newer than the tables, and while they are newer."""

from __future__ import annotations

import re

from pgq.store import schema
from tests.support.pools import ROOT

PAGE = (ROOT / "docs" / "operate" / "upgrading.md").read_text()
TASKS = "from pgq import task\n\n@task\ndef add(a, b):\n    return a + b\n"
ENQUEUE = "from shop.tasks import add; print(add.enqueue(1, 2))"


def page_says(text: str) -> None:
    """The page quotes that, with the numbers of its time."""
    numbers = re.escape(re.sub(r"\d+", "N", text))
    assert re.search(numbers, re.sub(r"\d+", "N", PAGE)), text


def test_what_is_told_when_code_and_tables_differ(project):
    shop = project(apps={"shop": {"tasks.py": TASKS}}, warm=True)
    ours = schema.VERSION

    shop.manage("migrate", "pgq", f"{ours - 1:04}", "--verbosity=0")
    told = shop.manage("pgq_check", code=1).stdout
    for said in ("problem", f"version {ours - 1}, missing: {ours}", "Run: manage.py migrate pgq"):
        assert said in told
    page_says(f"version {ours - 1}, missing: {ours}")
    assert "pgq.W002" in shop.manage("check", "--database", "default").stderr
    shop.manage("check", "--database", "default", "--fail-level", "WARNING", code=1)
    sentence = f"this release needs its tables in version {ours}, and those of version {ours - 1} are there"
    page_says(sentence)
    assert (
        f"tables: {sentence}: run manage.py migrate pgq" in shop.manage("pgq_worker", "--check-config", code=1).stdout
    )
    shop.python(ENQUEUE)
    assert sentence in shop.manage("pgq_worker", "--run-once", code=1).stderr
    assert shop.sql("SELECT count(*) FROM pgq_queue") == [(1,)]

    shop.manage("migrate", "--verbosity=0")
    shop.sql("INSERT INTO pgq_schema VALUES (%s)", ours + 1)
    told = shop.manage("pgq_check", code=1).stdout
    newer = f"version {ours + 1}; this code is made for version {ours}"
    assert re.search(f"schema +warning +{newer}\n +Normal during a deploy", told)
    page_says(newer)
    assert "pgq.W" not in shop.manage("check", "--database", "default").stderr
    shop.manage("pgq_worker", "--check-config")
    shop.manage("pgq_worker", "--run-once")
    assert shop.sql("SELECT result FROM pgq_task") == [(3,)]
