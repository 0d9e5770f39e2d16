"""The dashboard in a real browser, with a real pool and under a strict Content-Security-Policy.

With PGQ_PICTURES=DIRECTORY it leaves a picture of each page there: light, dark and on a phone.
"""

from __future__ import annotations

import contextlib
import html
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User

from pgq.models import Failure, QueuedTask, Success
from pgq.tasks import async_iter, async_task, pause, schedule
from tests.support.browser import MARKS, Browser, log_in, read
from tests.support.pools import Pool, wait_for

pytestmark = MARKS
REGISTERED = "tests.functions.oracle.registered"
HOME = "/admin/pgq/dashboard/"
PICTURES = os.environ.get("PGQ_PICTURES")
DATA = Path(__file__).parents[1] / "support" / "data"


def asked(name: str) -> str:
    """The script that asks a page that."""
    return (DATA / f"{name}.js").read_text(encoding="utf-8")


def look_at(browser: Browser, name: str) -> None:
    """Look at a page in light and dark, wide and narrow."""
    for mode in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": mode}]
        browser.devtools("Emulation.setEmulatedMedia", features=features)
        # Links pass from one colour to the other in a quarter of a second.
        with contextlib.suppress(AssertionError, pytest.fail.Exception):
            wait_for(lambda: not browser.run(asked("contrasts")), "the colours have changed", 2)
        assert browser.run(asked("contrasts")) == [], (name, mode)
        assert browser.barriers() == [], (name, mode)
        take(browser, f"{name}-{mode}", 1280)
    assert browser.run(asked("names")) == [], name
    browser.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    phone = {"width": 320, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.devtools("Emulation.setDeviceMetricsOverride", **phone)
    assert browser.run(asked("too_wide")) == [], name
    take(browser, f"{name}-phone", 320)
    browser.devtools("Emulation.clearDeviceMetricsOverride")


def take(browser: Browser, name: str, width: int) -> None:
    if PICTURES:
        tall = min(int(browser.run("return document.documentElement.scrollHeight")), 2400)
        if width > 320:
            metrics = {"width": width, "height": max(tall, 700), "deviceScaleFactor": 1, "mobile": False}
            browser.devtools("Emulation.setDeviceMetricsOverride", **metrics)
        browser.picture(Path(PICTURES) / f"{name}.png")
        if width > 320:
            browser.devtools("Emulation.clearDeviceMetricsOverride")


def test_a_night_with_the_dashboard(
    browser: Browser, server: str, pool: Callable[..., Pool], oracle: object, tmp_path: Path
) -> None:
    """See what fails and why, mend it, retry one, retry all of them; pause a queue; see why a task waits."""
    wanted = tmp_path / "wanted"
    tasks = [async_task("os.path.getsize", f"{wanted}", task_name=f"size {n}", group="sizes") for n in range(6)]
    schedule(REGISTERED, 1, name="nightly report", schedule_type="C", cron="0 3 * * *")
    schedule(REGISTERED, 1, name="every quarter of an hour", schedule_type="I", minutes=15)
    pool()
    wait_for(lambda: Failure.objects.count() == 6, "the tasks have failed")
    pause("nobody")
    later = async_task(REGISTERED, 1, run_after=7200, task_name="later")
    async_task(REGISTERED, 1, queue="nobody", task_name="unserved", priority=3)
    whole = async_iter(REGISTERED, [1, 2], queue="nobody")
    log_in(browser, server)
    browser.open(f"{server}/admin/")
    browser.leave_by(f"a[href='{HOME}']")
    assert "Last errors" in browser.text
    look_at(browser, "overview")
    # The error, its traceback, one of them again: it fails once more.
    browser.leave_by("section[aria-labelledby=pgq-last-errors] td a")
    assert "FileNotFoundError" in browser.text
    look_at(browser, "error")
    browser.leave_by("section[aria-labelledby=pgq-the-newest-of-them] td a")
    assert "Traceback (most recent call last)" in browser.text
    look_at(browser, "task")
    # What was wrong is mended: one is run again, and watched until it succeeds, by the script alone.
    wanted.write_text("12345")
    browser.leave_by("a[href$='/retry/']")
    browser.leave_by(".pgq-confirm button")
    assert "It is in the queue" in browser.text
    wait_for(lambda: "It succeeded" in browser.text, "the page shows that it has succeeded", 20)
    # All the others.
    browser.open(f"{server}{HOME}errors/")
    look_at(browser, "errors")
    browser.leave_by(".pgq-list td a")
    browser.leave_by("a[href$='/retry/']")
    assert "5 tasks" in browser.text
    look_at(browser, "retry-all")
    browser.leave_by(".pgq-confirm button")
    assert "5 tasks of FileNotFoundError in os.path.getsize are in the queue again." in browser.text
    wait_for(lambda: Success.objects.filter(pk__in=tasks).count() == 6, "all have succeeded")
    # A queue is paused, and stands.
    browser.open(f"{server}{HOME}queues/default/")
    browser.leave_by("a[href$='/pause/']")
    browser.leave_by(".pgq-confirm button")
    assert "Paused: no worker claims from it." in browser.text
    held = async_task(REGISTERED, 2, task_name="held")
    browser.open(f"{server}{HOME}task/{held}/")
    assert "Its queue is paused: no worker claims from default until it is resumed." in browser.text
    look_at(browser, "why")
    assert QueuedTask.objects.filter(pk=held).exists()
    browser.open(f"{server}{HOME}queues/default/")
    look_at(browser, "queue")
    browser.leave_by("a[href$='/resume/']")
    browser.leave_by(".pgq-confirm button")
    wait_for(lambda: Success.objects.filter(pk=held).exists(), "it has run")
    for id, words in ((later, "It waits for its time"), (whole, "It waits for 2 of 2 other tasks to end.")):
        browser.open(f"{server}{HOME}task/{id}/")
        assert words in browser.text
    lists = ("tasks", "queues", "functions", "flows", "marks", "workers", "schedules", "doctor", "audit")
    pages = {page: page for page in lists}
    for name, page in {**pages, "function": f"functions/{REGISTERED}", "flow": f"flows/{whole}"}.items():
        browser.open(f"{server}{HOME}{page}/")
        look_at(browser, name)
    browser.open(f"{server}{HOME}queues/")
    browser.leave_by(".pgq-nav [aria-current=page]")
    # By keys: to the box of the search, and on to the tasks.
    browser.open(f"{server}{HOME}")
    browser.do(f"element/{browser.find('body')}/value", text="/")
    assert browser.run("return document.activeElement.id") == "pgq-q"
    with browser.another_page("the search"):
        browser.do(f"element/{browser.find('#pgq-q')}/value", text="group:sizes\ue007")
    assert browser.run("return document.querySelectorAll('.pgq-list tbody tr').length") == 6
    assert browser.complaints() == []


def test_who_may_only_look_sees_no_button_and_no_script_is_needed(browser: Browser, server: str) -> None:
    task = async_task(REGISTERED, 1, queue="mail", run_after=3600)
    log_in(browser, server, "view_dashboard")
    browser.devtools("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open_plainly(f"{server}{HOME}task/{task}/")
        shown: Any = browser.source
        assert "It waits for its time" in shown
        assert not any(f"/{act}/" in shown for act in ("retry", "run", "cancel", "pause"))
        User.objects.get().user_permissions.add(Permission.objects.get(codename="cancel_queuedtask"))
        browser.open_plainly(f"{server}{HOME}task/{task}/")
        browser.click("a[href$='/cancel/']")
        wait_for(lambda: "pgq-confirm" in browser.source, "the question", 10)
        browser.click(".pgq-confirm button")
        wait_for(lambda: "It is cancelled, and will not run." in browser.source, "the answer", 10)
    finally:
        browser.devtools("Emulation.setScriptExecutionDisabled", value=False)
    assert Failure.objects.filter(pk=task).exists()
    assert browser.complaints() == []


def test_every_page_tells_the_same_without_a_script(browser: Browser, server: str) -> None:
    whole = async_iter(REGISTERED, [1, 2], group="sizes")
    waits = async_task(REGISTERED, 1, queue="mail", run_after=3600)
    log_in(browser, server)
    lists = ("", "tasks", "queues", "limits", "functions", "errors", "flows", "marks", "workers", "schedules", "doctor")
    pages = (*lists, "audit", f"task/{waits}", "queues/mail", f"functions/{REGISTERED}", f"flows/{whole}")
    browser.devtools("Emulation.setScriptExecutionDisabled", value=True)
    try:
        for page in pages:
            browser.open_plainly(f"{server}{HOME}{page}{'/' if page else ''}")
            seen = read(browser, ".pgq-dash", "")
            headings = re.findall(r"<h2[^>]*>(.*?)</h2>", browser.source, re.DOTALL)
            told = [html.unescape(re.sub("<.*?>", "", heading)).strip() for heading in headings]
            assert told, page
            assert [heading for heading in told if heading not in seen] == [], page
    finally:
        browser.devtools("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.complaints() == []


#: What can have the focus, has it, and does not show it.
UNSEEN = """
const wanted = ":is(a[href], button, input:not([type=hidden]), summary, select)";
const found = [...document.querySelectorAll(`.pgq-dash ${wanted}`)];
return found.filter((it) => it.checkVisibility()).filter((it) => {
    it.focus();
    const style = getComputedStyle(it);
    return document.activeElement !== it || style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 1;
}).map((it) => it.outerHTML.slice(0, 120));
"""


def test_pages_are_used_by_keyboard(browser: Browser, server: str) -> None:
    async_task(REGISTERED, 1, queue="mail")
    log_in(browser, server)
    for page in ("", "queues/mail/", "queues/mail/pause/", "tasks/", "limits/new/", "doctor/"):
        browser.open(f"{server}{HOME}{page}")
        # The first key leads to the link that leads past the menus.
        browser.do("actions", actions=[{"type": "key", "id": "keys", "actions": [
            {"type": kind, "value": "\ue004"} for kind in ("keyDown", "keyUp")
        ]}])  # fmt: skip
        skip = "const link = document.activeElement; return [link.className, link.getBoundingClientRect().top >= 0]"
        assert browser.run(skip) == ["skip-to-content-link", True], page
        assert browser.run(UNSEEN) == [], page
    assert browser.complaints() == []
