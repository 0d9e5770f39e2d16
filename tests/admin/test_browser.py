"""The admin in a real browser, with a real pool and under a strict Content-Security-Policy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from django.contrib.auth.models import Permission, User

from pgq.models import Failure, Progress, QueuedTask, Schedule, Success, Task
from pgq.tasks import async_task, schedule
from tests.support.browser import MARKS, Browser, log_in, read
from tests.support.pools import Pool, wait_for

pytestmark = MARKS
REGISTERED = "tests.functions.oracle.registered"


def test_a_failed_task_is_read_and_run_again(
    browser: Browser, server: str, pool: Callable[..., Pool], tmp_path: Path
) -> None:
    wanted = tmp_path / "wanted"
    task = async_task("os.path.getsize", str(wanted), task_name="size of a file", group="sizes")
    pool()
    wait_for(lambda: Failure.objects.filter(pk=task).exists(), "the task has failed")
    log_in(browser, server)
    browser.leave_by("a[href='/admin/pgq/failure/']")
    assert "size of a file" in browser.text
    assert "No such file or directory" in browser.text
    browser.leave_by(".field-task_name a")
    assert "Traceback (most recent call last)" in browser.text
    assert f"FileNotFoundError: [Errno 2] No such file or directory: '{wanted}'" in browser.text
    assert browser.run("return getComputedStyle(document.querySelector('.pgq-value')).fontFamily").count("mono")
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), "long lines are wrapped"
    # What was wrong is put right, and the task run again from its page.
    wanted.write_text("12345")
    browser.leave_by("button[value=resubmit_task]")
    assert "1 put back into the queue." in browser.text
    wait_for(lambda: Success.objects.filter(pk=task).exists(), "the task has succeeded")
    browser.open(f"{server}/admin/pgq/success/?group=sizes")
    browser.leave_by(".field-task_name a")
    assert browser.run("return document.querySelector('.field-result_block .pgq-value').innerText") == "5"
    browser.click(".pgq-history summary")
    assert "No such file or directory" in browser.text, "the failed attempt is in its history"
    assert browser.complaints() == []


def test_how_far_a_running_task_is(
    browser: Browser, server: str, pool: Callable[..., Pool], oracle: object, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    task = async_task("tests.functions.context.work_until", "it", str(go), task_name="import")
    pool(workers=1)
    wait_for(lambda: Progress.of(task), "it says how far it is")
    log_in(browser, server)
    browser.open(f"{server}/admin/pgq/queuedtask/")
    assert read(browser, "td.field-progress_cell", "25 % (1 / 4)")
    measure = "const bar = document.querySelector('progress').getBoundingClientRect(); return [bar.width, bar.height]"
    width, height = browser.run(measure)
    assert 50 < width < 200
    assert 5 < height < 20
    browser.leave_by(".field-task_name a")
    assert "it waits in attempt 1" in read(browser, ".field-log_block", "INFO")
    assert "it waits" in read(browser, ".field-progress_text", "it waits")
    go.touch()
    wait_for(lambda: Success.objects.filter(pk=task).exists(), "the task has succeeded")
    browser.open(f"{server}/admin/pgq/success/{task}/change/")
    assert "100 %" in read(browser, ".field-progress_cell", "4 / 4")
    assert "it waits in attempt 1" in read(browser, ".field-log_block", "INFO")
    assert browser.complaints() == []


def test_a_schedule_is_added_and_fires(browser: Browser, server: str, pool: Callable[..., Pool]) -> None:
    pool()
    log_in(browser, server)
    browser.leave_by(".model-schedule a.addlink")
    assert "os.system" not in browser.text
    browser.fill("#id_name", "often")
    browser.choose("#id_func", REGISTERED)
    browser.fill("#id_arguments", "'from the admin'")
    # The script shows the next firings, and the fields of the type, as the form is filled in.
    browser.choose("#id_schedule_type", "C")
    browser.fill("#id_cron", "61 * * * *")
    wait_for(lambda: "61" in browser.run("return document.querySelector('#pgq-firings').innerText"), "the error", 10)
    browser.fill("#id_cron", "0 9 * * 1-5")
    wait_for(lambda: "At 09:00 on Monday to Friday" in browser.text, "the words", 10)
    assert browser.run("return document.querySelectorAll('#pgq-firings li').length") == 5
    assert not browser.run("return document.querySelector('#id_seconds').checkVisibility()")
    browser.choose("#id_schedule_type", "S")
    browser.fill("#id_seconds", "1")
    wait_for(lambda: "Every second" in browser.text, "the words", 10)
    # Enter in a field saves, and does not press the button for the preview.
    with browser.another_page("Enter"):
        browser.do(f"element/{browser.find('#id_seconds')}/value", text="\ue007")
    assert "was added successfully" in browser.text
    wait_for(lambda: Success.objects.filter(func=REGISTERED).count() >= 2, "it has fired twice")
    browser.open(f"{server}/admin/pgq/schedule/")
    assert "every second" in browser.text
    assert browser.has(".field-last_success img[src*=icon-yes], .field-last_run a")
    # From its page it is paused, and then fires no more.
    browser.leave_by(".field-title a")
    browser.leave_by("button[value=pause]")
    assert "1 paused." in browser.text
    assert Schedule.objects.get().paused
    assert browser.complaints() == []


def test_without_the_script_a_button_shows_the_next_firings(browser: Browser, server: str) -> None:
    row = schedule(REGISTERED, name="monthly", schedule_type="M")
    log_in(browser, server)
    browser.ask("POST", f"/session/{browser.session}/goog/cdp/execute", {
        "cmd": "Emulation.setScriptExecutionDisabled", "params": {"value": True},
    })  # fmt: skip
    try:
        browser.open(f"{server}/admin/pgq/schedule/{row.pk}/change/")
        browser.choose("#id_schedule_type", "D")
        browser.click("[name=_preview]")
        shown = wait_for(lambda: read(browser, "#pgq-firings", "Every day"), "the next firings", 10)
    finally:
        browser.ask("POST", f"/session/{browser.session}/goog/cdp/execute", {
            "cmd": "Emulation.setScriptExecutionDisabled", "params": {"value": False},
        })  # fmt: skip
    assert len(re.findall(r"\d\d:\d\d:\d\d", shown)) == 5
    assert Schedule.objects.get().schedule_type == "M", "nothing was saved"


def test_who_may_only_look_sees_no_button(browser: Browser, server: str) -> None:
    task = async_task("os.path.getsize", "nowhere", run_after=3600)
    row = schedule("os.path.getsize", "nowhere", name="hourly", schedule_type="H")
    log_in(browser, server, "view_queuedtask", "view_schedule")
    for model, pk in (("queuedtask", task), ("schedule", row.pk)):
        browser.open(f"{server}/admin/pgq/{model}/")
        assert browser.has("#result_list")
        assert not browser.has("select[name=action]")
        assert not browser.has(".addlink")
        browser.open(f"{server}/admin/pgq/{model}/{pk}/change/")
        assert "os.path.getsize" in browser.text
        assert not browser.has("button[name=action]")
        assert not browser.has("#content input[type=submit], #content .deletelink, [name=_preview]")
    assert browser.complaints() == []
    # With one permission there is one button; it asks first, and the task is cancelled.
    user = User.objects.get()
    user.user_permissions.add(Permission.objects.get(codename="cancel_queuedtask"))
    browser.open(f"{server}/admin/pgq/queuedtask/{task}/change/")
    assert browser.run("return [...document.querySelectorAll('button[name=action]')].map(it => it.value)") == [
        "cancel_task"
    ]
    browser.leave_by("button[value=cancel_task]")
    assert "Are you sure?" in browser.text
    assert not QueuedTask.objects.get(pk=task).cancelled
    browser.leave_by("#content form [type=submit]")
    assert "1 cancelled." in browser.text
    assert Task.objects.get(pk=task).exception == "pgq.errors.TaskCancelled"
    assert browser.complaints() == []
    # That the browser would have complained.
    browser.run("document.body.setAttribute('style', 'color: red')")
    assert "Content Security Policy" in browser.complaints()[0]
