"""The outputs on docs/reference/commands.md are what the commands print, but for numbers, times and ids.

`PGQ_RECORD=1 pytest tests/project/test_commands_page.py` writes them anew; `make docs` puts them on the page.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable

from tests.support.django_q import TABLES
from tests.support.pools import wait_for
from tests.support.projects import Project, clean_environment
from tests.support.reference.commands import OUTPUTS, command_names

#: What each is shown with. "ID": the id of a task that waits.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "pgq_check": (),
    "pgq_clean": ("--older-than", "30", "--dry-run"),
    "pgq_import_django_q": ("--dry-run",),
    "pgq_info": (),
    "pgq_mark": ("v1.2",),
    "pgq_memory": ("--run-once",),
    "pgq_monitor": ("--run-once",),
    "pgq_queues": (),
    "pgq_schedules": (),
    "pgq_token": ("grafana", "--scope", "metrics"),
    "pgq_why": ("ID",),
    "pgq_worker": ("--check-config",),
}
TASKS = """\
from pgq.tasks import task


@task(queue="mail")
def send_receipt(order):
    if order < 0:
        raise ValueError(f"there is no order {order}")


@task
def nightly():
    pass
"""
IDLE = "SELECT count(*) FROM pgq_worker, jsonb_array_elements(workers) WHERE value ->> 'state' = 'idle'"
ENQUEUE = """
from shop.tasks import nightly, send_receipt
from pgq.tasks import schedule

for order in (1, 2, -1):
    send_receipt.enqueue(order)
schedule(nightly, name="nightly", schedule_type="C", cron="30 2 * * *", time_zone="Europe/Paris")
"""
WAIT = """
from shop.tasks import send_receipt
from pgq.tasks import pause

pause("mail")
print(send_receipt.enqueue(3))
"""
RUN = """
import io, json, os, sys
from django.core.management import CommandError, call_command

# xdist sets it for its workers.
os.environ.pop("COLUMNS", None)
said = {}
for name, arguments in json.loads(sys.argv[1]).items():
    out = io.StringIO()
    try:
        call_command(name, *arguments, stdout=out)
    except CommandError as error:
        out.write(f"CommandError: {error}\\n")
    except SystemExit:
        pass
    said[name] = out.getvalue()
print(json.dumps(said))
"""


def test_each_command_prints_what_the_page_shows(project: Callable[..., Project]) -> None:
    assert list(EXAMPLES) == command_names()
    shop = project({"PGQ": {"workers": 2}}, apps={"shop": {"tasks.py": TASKS}}, warm=True)
    shop.sql(TABLES)
    # Cold: pgq_memory knows a pool by its command line.
    with tempfile.TemporaryFile() as log:
        pool = subprocess.Popen(
            [sys.executable, "manage.py", "pgq_worker"],
            cwd=shop.folder,
            env=clean_environment(),
            stdout=log,
            stderr=log,
        )
        try:
            shop.python(ENQUEUE)
            wait_for(lambda: shop.sql("SELECT count(*) FROM pgq_task") == [(3,)])
            wait_for(lambda: shop.sql(IDLE) == [(2,)])
            id = shop.python(WAIT).stdout.strip()
            asked = {name: [id if one == "ID" else one for one in arguments] for name, arguments in EXAMPLES.items()}
            said = json.loads(shop.python(RUN, json.dumps(asked)).stdout)
        finally:
            pool.terminate()
            pool.wait()
    made = {name: _shown(f"$ {' '.join(['manage.py', name, *asked[name]])}\n{said[name]}") for name in EXAMPLES}
    if os.environ.get("PGQ_RECORD"):
        for name, text in made.items():
            (OUTPUTS / f"{name}.txt").write_text(text, encoding="utf-8")
    for name, text in made.items():
        shown = (OUTPUTS / f"{name}.txt").read_text(encoding="utf-8")
        assert _shape(shown) == _shape(text), f"{name}: run this test with PGQ_RECORD=1, then make docs"


def _shown(text: str) -> str:
    """Return what a command has printed as the page has it: with a plain host and database, for those of this run."""
    text = re.sub(r"at /\S+:(\d+), database \w+", r"at localhost:\1, database shop", text)
    text = text.replace(socket.gethostname(), "vm")
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines()) + "\n"


def _shape(text: str) -> str:
    """Return a text without what differs from run to run: numbers, times, ids, and what a check saw besides."""
    if "pgq_check" in text.splitlines()[0]:
        return "\n".join(" ".join(line.split()[:2]) for line in text.splitlines() if not line.startswith(" "))
    text = re.sub(r"\b[0-9a-f]{32,64}\b|\b[0-9a-f]{8}\b|pgq_[A-Za-z0-9_-]{20,}", "0", text)
    text = re.sub(r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun|CES?T)\b|(?<=\s)-(?=\s|$)", "0", text)
    text = re.sub(r"[-+]?\d[\d:.,/T+-]*( (ms|s|min|h|d|MiB)\b)?", "0", text)
    return re.sub(r"\b0( 0)+\b", "0", " ".join(text.split()))
