"""Chromium, driven over the WebDriver protocol, which is JSON over HTTP: that takes no package."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from pytest_django.live_server_helper import LiveServer

from tests.support.pools import wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)"),
    pytest.mark.xdist_group("browser"),
]

CSP = "default-src 'none'; form-action 'self'; " + "; ".join(
    f"{kind}-src 'self'" for kind in ("script", "style", "connect", "img")
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


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

    def open_plainly(self, address: str) -> None:
        """Go to a page where scripts are turned off."""
        self.do("url", url=address)

    @property
    def source(self) -> str:
        """The text of the page as HTML, got without running a script."""
        return str(self.ask("GET", f"/session/{self.session}/source"))

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
        try:
            self.do(f"element/{self.find(css)}/click")
        except LookupError as error:
            if "stale element" not in str(error):
                raise
            # A page that refreshes itself has put another in its place meanwhile.
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

    def picture(self, file: Path) -> None:
        """Write what is seen as a PNG."""
        file.write_bytes(base64.b64decode(self.ask("GET", f"/session/{self.session}/screenshot")))

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self.ask("POST", f"/session/{self.session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def barriers(self) -> list[str]:
        """What axe-core finds in this page that keeps people out: what it calls serious or critical."""
        package = find_spec("axe_core_python")
        assert package is not None, "axe-core-python is in the dependency group `test`"
        axe = Path(os.environ.get("PGQ_AXE") or Path(str(package.origin)).with_name("axe.min.js"))
        self.run(axe.read_text(encoding="utf-8") + ";window.axe = axe")
        script = "const done = arguments[0], asked = axe.run(document, {preload: false});"
        script += "asked.then(it => done(it.violations), it => done(`${it}`))"
        found = self.do("execute/async", script=script, args=[])
        assert isinstance(found, list), found
        return [
            f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes'][:5]]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]

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
    middleware = [*settings.MIDDLEWARE, "tests.support.browser.strict_csp"]
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
    from django.contrib.auth.models import Permission, User  # The apps are not loaded yet where this file is.

    user = User.objects.create_user("somebody", password="secret", is_staff=True, is_superuser=not codenames)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="pgq", codename__in=codenames))
    browser.open(f"{server}/admin/login/?next=/admin/pgq/")
    browser.fill("#id_username", "somebody")
    browser.fill("#id_password", "secret")
    browser.leave_by("[type=submit]")
    browser.complaints()


def read(browser: Browser, css: str, wanted: str) -> str:
    """The text of an element if that is in it, got without running a script."""
    with contextlib.suppress(LookupError):
        text = str(browser.ask("GET", f"/session/{browser.session}/element/{browser.find(css)}/text"))
        return text if wanted in text else ""
    return ""
