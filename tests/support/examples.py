"""Examples as a reader starts them: `python examples/run.py NAME`, and nothing may be left of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.pools import ROOT, wait_for
from tests.support.ports import free_port
from tests.support.projects import clean_environment

EXAMPLES = ROOT / "examples"
FULL = os.environ.get("PGQ_EXAMPLES") == "full"


class Example:
    """One that runs."""

    def __init__(self, name: str, dsn: str, log: Path, **environment: str) -> None:
        self.name, self.dsn, self.log = name, dsn, log
        self.mark = f"EXAMPLE_TEST={uuid.uuid4().hex}"
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        key, _, value = self.mark.partition("=")
        given = {key: value, "PORT": str(port), "PYTHONWARNINGS": "always::DeprecationWarning"}
        if dsn:
            given["DATABASE_URL"] = dsn
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self.output = log.open("w")
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "run.py"), name], env=clean_environment(**given, **environment),
            stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT,
        )  # fmt: skip

    @property
    def said(self) -> str:
        return self.log.read_text()

    def wait_for(self, read: Callable[[], Any], what: str) -> Any:
        def look() -> Any:
            found = read()
            if not found and self.process.poll() is not None:
                pytest.fail(f"{self.name} ended, waiting for {what}: {self.said}")
            return found

        return wait_for(look, what, 60, 0.1)

    def end(self) -> int:
        """Wait until it has ended by itself."""
        return self.process.wait(120)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        self.output.close()

    def left(self) -> list[str]:
        """The command lines of what is left running."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue  # It has ended meanwhile, or is another user's.
        return found

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as session:
            return session.execute(statement).fetchall()

    def get(self, path: str) -> str:
        with self.opener.open(self.address + path, timeout=60) as response:
            return str(response.read().decode())

    def json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def answers(self) -> bool:
        try:
            return bool(self.get("/"))
        except urllib.error.URLError:
            return False

    def ready(self) -> Example:
        """Wait until its page is served."""
        self.wait_for(self.answers, "the page")
        return self

    def post(self, path: str, **fields: str) -> str:
        """Send a form of the first page."""
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get("/"))
        assert token
        body = urllib.parse.urlencode({"csrfmiddlewaretoken": token[1], **fields}).encode()
        with self.opener.open(self.address + path, body, timeout=60) as response:
            return str(response.read().decode())


@pytest.fixture
def example(new_database: Callable[[], str], tmp_path: Path) -> Iterator[Callable[..., Example]]:
    """Start examples; when the test ends nothing of them may be left, and none may have warned of anything."""
    started: list[Example] = []

    def start(name: str, *, own_server: bool = False, **environment: str) -> Example:
        dsn = "" if own_server else new_database()
        started.append(Example(name, dsn, tmp_path / f"{name}.log", **environment))
        return started[-1]

    yield start
    for one in started:
        one.close()
    for one in started:
        assert not one.left()
        assert "Warning" not in one.said, one.said
