"""``pgq_worker --autoreload`` in a project whose files are saved, well and badly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.pools import wait_for
from tests.support.projects import Project, clean_environment

ANSWER = "from pgq.tasks import task\n\n@task\ndef answer(): return {}\n"


def answers(shop: Project) -> list[int]:
    return [row[0] for row in shop.sql("SELECT result::int FROM pgq_task WHERE success ORDER BY id")]


def test_pool_waits_for_the_next_save(project, tmp_path):
    shop = project({"PGQ": {"workers": 1}}, apps={"shop": {"tasks.py": ANSWER.format(1)}})
    log = tmp_path / "log"
    with log.open("w") as output:
        pool = subprocess.Popen(
            [sys.executable, "manage.py", "pgq_worker", "--autoreload"], cwd=shop.folder, env=clean_environment(),
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        enqueue = "INSERT INTO pgq_queue (func) VALUES ('shop.tasks.answer')"
        shop.sql(enqueue)
        wait_for(lambda: answers(shop) == [1], "the pool works")
        # The first cannot be read, the second not be imported: neither has the pool end.
        for broken, error in (
            ("def answer(: return 2", "SyntaxError"),
            ("import nonesuch", "No module named 'nonesuch'"),
        ):
            shop.write("shop/tasks.py", broken)
            wait_for(lambda error=error: error in log.read_text(), error)
        assert "waits for the next save" in log.read_text()
        shop.sql(enqueue)
        wait_for(lambda: answers(shop) == [1, 1], "the pool goes on as it was")
        shop.write("shop/tasks.py", ANSWER.format(3))
        wait_for(lambda: "the code has changed: reloading" in log.read_text(), "the pool reloads")
        shop.sql(enqueue)
        wait_for(lambda: answers(shop) == [1, 1, 3], "the pool has the new code")
        assert pool.poll() is None
        pool.terminate()
        assert pool.wait(30) == 0
    finally:
        print(Path(log).read_text())  # noqa: T201  # shown if the test fails
        pool.kill()
        pool.wait()
