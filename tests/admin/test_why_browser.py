"""Why a task waits, as an operator reads it in a browser: each reason, made by what makes it in earnest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission, User

from pgq.codec.signing import signed
from pgq.enqueue.make import make_task
from pgq.enqueue.write import enqueue
from pgq.models import Failure, Progress, QueuedTask, Success
from pgq.tasks import async_iter, async_task, cancel, pause, set_limit
from tests.support.admin import finished, sql
from tests.support.browser import MARKS, Browser, log_in
from tests.support.pools import Pool, wait_for

pytestmark = MARKS
REGISTERED, UNTIL = "tests.functions.oracle.registered", "tests.functions.oracle.wait_for_file"
HOME = "/admin/pgq/dashboard/"


@pytest.fixture
def verdict(browser: Browser, server: str) -> Callable[[object], str]:
    """What the page of a task says."""

    def read(task: object) -> str:
        browser.open(f"{server}{HOME}task/{task}/")
        return str(browser.run("return document.querySelector('.pgq-verdict').innerText"))

    return read


def test_each_reason_why_a_task_waits(
    browser: Browser, server: str, pool: Callable[..., Pool], tmp_path: Path, verdict: Callable[[object], str]
) -> None:
    go = tmp_path / "go"
    log_in(browser, server)
    # There is no pool yet, and psql cancels: what has a hook is ended by upkeep, which calls it.
    task = async_task(REGISTERED, 1)
    assert "No pool is running. Start one: manage.py pgq_worker." in verdict(task)
    cancelled = async_task(REGISTERED, 2, hook=REGISTERED)
    sql("SELECT pgq_cancel(%s)", cancelled)
    assert "It is cancelled: the upkeep of a pool ends it as failed, without running it" in verdict(cancelled)
    pause("paused")
    paused = async_task(REGISTERED, 3, queue="paused")

    running = pool("--queues", "default,paused", workers=2)
    wait_for(lambda: Failure.objects.filter(pk=cancelled).exists(), "upkeep has ended it")
    assert "It failed" in verdict(cancelled)
    assert "Its queue is paused: no worker claims from paused until it is resumed." in verdict(paused)
    unserved = async_task(REGISTERED, 4, queue="elsewhere")
    assert "No pool that runs serves its queue elsewhere." in verdict(unserved)
    assert "It waits for its time" in verdict(async_task(REGISTERED, 5, run_after=7200))
    assert "It waits for 2 of 2 other tasks to end." in verdict(async_iter(REGISTERED, [1, 2], queue="paused"))

    # What no release knows is given back, and what psql may not name is parked.
    unknown = enqueue(signed(make_task(REGISTERED)._replace(func="shop_to_come.sell"))).hex
    wait_for(lambda: QueuedTask.objects.filter(pk=unknown, run_after__isnull=False).exists(), "it is given back")
    assert "do not know the function shop_to_come.sell" in verdict(unknown)
    cancel(unknown)
    [[parked]] = sql("INSERT INTO pgq_queue (func) VALUES ('os.getcwd') RETURNING id")
    wait_for(lambda: QueuedTask.objects.filter(pk=parked, parked__isnull=False).exists(), "it is parked")
    assert "It is parked, since it cannot run as it is: " in verdict(parked.hex)
    assert "os.getcwd" in verdict(parked.hex)
    again = async_task("tests.functions.oracle.fail", 6, max_attempts=3, retry_backoff=600)
    wait_for(lambda: QueuedTask.objects.filter(pk=again, run_after__isnull=False).exists(), "it waits for its retry")
    assert "Attempt 2 begins at" in verdict(again)
    assert "the last one failed with builtins.ValueError" in verdict(again)

    # Limits: of a rate, and of what runs at the same time.
    set_limit("letters", rate="1/h")
    first, second = (async_task(REGISTERED, n, q_options={"key": "letters:7"}) for n in (7, 8))
    wait_for(lambda: Success.objects.filter(pk=first).exists(), "the first has started")
    assert "held by the limit of its key letters:7: the next may start in" in verdict(second)
    set_limit("stripe", concurrency=1)
    runs, held = (async_task(UNTIL, n, str(go), q_options={"key": "stripe:42"}) for n in (9, 10))
    wait_for(lambda: "It runs on" in verdict(runs), "it runs")
    assert f"({running.report() and sql('SELECT host FROM pgq_worker')[0][0]}, pid " in verdict(runs)
    assert "held by the limit of its key stripe:42: 1 of 1 run." in verdict(held)

    # Both workers are busy, and the others stand in line.
    other = async_task(UNTIL, 11, str(go))
    wait_for(lambda: "It runs on" in verdict(other), "it runs")
    line = [async_task(REGISTERED, n) for n in (12, 13, 14)]
    assert "the next one of its queue; 2 of 2 workers that serve the queue are busy." in verdict(line[0])
    assert "behind 2 other tasks of its queue" in verdict(line[2])

    # The page that is open tells when that is over, by the script alone.
    go.touch()
    wait_for(lambda: "It succeeded" in browser.text, "the page tells that it has run", 30)
    assert browser.complaints() == []


def test_a_failing_task_is_read_with_its_log_run_again_and_watched(
    browser: Browser, server: str, pool: Callable[..., Pool], oracle: object, tmp_path: Path
) -> None:
    wanted = tmp_path / "wanted"
    task = async_task("tests.functions.context.measure", str(wanted), task_name="size of a file")
    pool(workers=1)
    wait_for(lambda: Failure.objects.filter(pk=task).exists(), "it has failed")
    log_in(browser, server)
    browser.open(f"{server}{HOME}")
    browser.leave_by("section[aria-labelledby=pgq-last-errors] td a")
    browser.leave_by("section[aria-labelledby=pgq-the-newest-of-them] td a")
    assert f"FileNotFoundError: [Errno 2] No such file or directory: '{wanted}'" in browser.text
    assert f"INFO (1) measuring {wanted}" in browser.text
    wanted.write_text("12345")
    browser.leave_by("a[href$='/retry/']")
    browser.leave_by(".pgq-confirm button")
    wait_for(lambda: "It succeeded" in browser.text, "the page tells that it has succeeded", 20)
    assert browser.run("return document.querySelector('[aria-labelledby=pgq-result] .pgq-value').innerText") == "5"
    assert Progress.objects.filter(pk=task).exists()
    assert browser.complaints() == []


#: What a page of somebody else, or a user with the developer's tools, may try: the token is there, the button is not.
FORGED = """
const request = new XMLHttpRequest();
request.open("POST", arguments[0], false);
request.setRequestHeader("X-CSRFToken", document.cookie.match(/csrftoken=(\\w+)/)[1]);
request.send();
return request.status;
"""


def test_who_has_no_permission_sees_no_button_and_forges_in_vain(browser: Browser, server: str) -> None:
    failed, waiting = finished(False), async_task(REGISTERED, 1, queue="mail", run_after=3600)
    set_limit("stripe", concurrency=1)
    [[kind]] = sql("SELECT pgq_fingerprint(func, exception, message) FROM pgq_task")
    acts = {
        f"task/{failed}/": ["retry/"],
        f"task/{waiting}/": ["run/", "cancel/"],
        f"errors/{kind}/": ["retry/"],
        "queues/mail/": ["pause/", "resume/"],
        "limits/": ["new/", "key/stripe/set/", "key/stripe/drop/"],
    }
    log_in(browser, server, "view_dashboard", "view_queuedtask", "view_failure")
    for page, routes in acts.items():
        browser.open(f"{server}{HOME}{page}")
        offered = browser.run("return [...document.querySelectorAll('.pgq-dash a')].map(it => it.getAttribute('href'))")
        for route in routes:
            assert f"{HOME}{page}{route}" not in offered
            assert browser.run(FORGED, f"{HOME}{page}{route}") == 403, route
    assert all("403" in one for one in browser.complaints())
    assert not sql("SELECT FROM pgq_lane WHERE paused")
    assert (Failure.objects.filter(pk=failed).exists(), QueuedTask.objects.get(pk=waiting).cancelled) == (True, False)
    # The same call with the permission does it: so it was the permission that was missing.
    User.objects.get().user_permissions.add(Permission.objects.get(codename="pause_queue"))
    browser.open(f"{server}{HOME}queues/mail/")
    assert browser.has("a[href$='/pause/']")
    assert browser.run(FORGED, f"{HOME}queues/mail/pause/") == 200
    assert sql("SELECT queue FROM pgq_lane WHERE paused") == [("mail",)]
    assert browser.complaints() == []
