"""The admin in a real browser, with a real pool and under a strict Content-Security-Policy.

Chromium is driven over the WebDriver protocol, which is JSON over HTTP: that takes no package.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from pytest_django.live_server_helper import LiveServer

from pgq.models import Failure, Progress, QueuedTask, Schedule, Success
from pgq.tasks import async_task, schedule
from tests.support.pools import Pool, wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)"),
    pytest.mark.xdist_group("browser"),
]

CSP = "default-src 'none'; form-action 'self'; " + "; ".join(
    f"{kind}-src 'self'" for kind in ("script", "style", "connect", "img")
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
REGISTERED = "tests.functions.oracle.registered"


def strict_csp(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", CSP)
        return response

    return middleware


class Browser:
    """A headless Chromium."""

    def __init__(self, log: Path) -> None:
        command = [str(DRIVER), "--port=0", f"--log-path={log}"]
        self.driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.driver.stdout is not None
        said = ""
        for line in self.driver.stdout:
            said += line
            if port := re.search(r"started successfully on port (\d+)", line):
                break
        else:
            pytest.fail(f"chromedriver did not start: {said}")
        self.address = f"http://127.0.0.1:{port[1]}"
        options = {
            "binary": CHROMIUM,
            "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
        }
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        self.do("window/rect", width=1280, height=900)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise LookupError(json.load(error)["value"]["message"].splitlines()[0]) from None

    def do(self, command: str, **arguments: Any) -> Any:
        return self.ask("POST", f"/session/{self.session}/{command}", arguments)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.ask("DELETE", f"/session/{self.session}")
        self.driver.terminate()
        self.driver.wait(10)
        if self.driver.stdout is not None:
            self.driver.stdout.close()

    def open(self, address: str) -> None:
        with self.another_page(address):
            self.do("url", url=address)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.do("execute/sync", script=script, args=list(arguments))

    @property
    def text(self) -> str:
        return str(self.run("return document.body.innerText"))

    def find(self, css: str) -> str:
        return str(self.do("element", using="css selector", value=css)[ELEMENT])

    def has(self, css: str) -> bool:
        return bool(self.run("return document.querySelector(arguments[0]) !== null", css))

    def click(self, css: str) -> None:
        self.do(f"element/{self.find(css)}/click")

    def leave_by(self, css: str) -> None:
        """Click what leads to another page."""
        with self.another_page(css):
            self.click(css)

    @contextlib.contextmanager
    def another_page(self, way: str) -> Iterator[None]:
        """Wait until another page is there and loaded: on a busy machine the driver says so sooner than it is."""
        self.run("document.documentElement.dataset.old = 1")
        yield
        wait_for(
            lambda: self.run("return document.readyState === 'complete' && !document.documentElement.dataset.old"),
            f"the page that {way} leads to", 10,
        )  # fmt: skip

    def fill(self, css: str, text: str) -> None:
        element = self.find(css)
        self.do(f"element/{element}/clear")
        self.do(f"element/{element}/value", text=text)

    def choose(self, css: str, value: str) -> None:
        self.click(f"{css} option[value={json.dumps(value)}]")

    def complaints(self) -> list[str]:
        """What the browser complained of in its console since it was last asked."""
        return [
            entry["message"] for entry in self.do("se/log", type="browser")
            if entry["level"] in ("SEVERE", "WARNING") and "favicon" not in entry["message"]
        ]  # fmt: skip


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium") / "driver.log")
    yield browser
    browser.close()


@pytest.fixture
def server(transactional_db: None, settings: Any) -> Iterator[str]:
    middleware = [*settings.MIDDLEWARE, "tests.admin.test_browser.strict_csp"]
    with override_settings(MIDDLEWARE=middleware, ALLOWED_HOSTS=["*"]):
        live = LiveServer("localhost")
        yield live.url
        live.stop()


@pytest.fixture
def browser(chromium: Browser, server: str) -> Iterator[Browser]:
    yield chromium
    chromium.open("about:blank")


def log_in(browser: Browser, server: str, *codenames: str) -> None:
    """Log in as somebody who may do this; without names, everything."""
    user = User.objects.create_user("somebody", password="secret", is_staff=True, is_superuser=not codenames)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="pgq", codename__in=codenames))
    browser.open(f"{server}/admin/login/?next=/admin/pgq/")
    browser.fill("#id_username", "somebody")
    browser.fill("#id_password", "secret")
    browser.leave_by("[type=submit]")
    browser.complaints()


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


def read(browser: Browser, css: str, wanted: str) -> str:
    """The text of an element if that is in it, got without running a script."""
    with contextlib.suppress(LookupError):
        text = str(browser.ask("GET", f"/session/{browser.session}/element/{browser.find(css)}/text"))
        return text if wanted in text else ""
    return ""


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
    assert QueuedTask.objects.get(pk=task).cancelled
    assert browser.complaints() == []
    # That the browser would have complained.
    browser.run("document.body.setAttribute('style', 'color: red')")
    assert "Content Security Policy" in browser.complaints()[0]
