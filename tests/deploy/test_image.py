"""deploy/docker/Dockerfile, built by hand, one instruction after the other: few machines have a Docker."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.deploy import DEPLOY, FULL
from tests.support.health import ask
from tests.support.pools import ROOT, wait_for
from tests.support.ports import free_port
from tests.support.projects import Project, clean_environment
from tests.support.proxy import Proxy

pytestmark = FULL


class Build:
    """What the instructions make: a folder in the place of the image's file system, and what a container starts with.

    Paths lead below that folder, which stands at the same place for each stage, since a virtualenv cannot be moved.
    """

    def __init__(self, root: Path, context: Path, python: str) -> None:
        self.root, self.context = root, context
        self.stages: dict[str, Path] = {}
        self.workdir, self.user, self.stop, self.name = "/", 0, "", ""
        (root.parent / "bin").mkdir()
        # The image's own interpreter.
        (root.parent / "bin" / "python").symlink_to(python)
        self.base = f"{root.parent / 'bin'}:/usr/bin:/bin"
        self.env: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}

    def run(self, text: str) -> None:
        joined = re.sub(r"\\\n", " ", re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE))
        for line in filter(str.strip, joined.splitlines()):
            word, _, rest = line.partition(" ")
            getattr(self, f"_{word.lower()}")(rest.strip())

    def path(self, inside: str) -> Path:
        return self.root / str(Path(self.workdir, inside)).lstrip("/")

    def environment(self) -> dict[str, str]:
        mapped = self.env.get("PATH", "").replace("$PATH", self.base).replace("/venv", str(self.root / "venv"))
        return {**self.env, "PATH": mapped or self.base}

    def _from(self, rest: str) -> None:
        if self.name:
            self.stages[self.name] = self.root.rename(self.root.with_name(self.name))
        self.root.mkdir()
        self.name, self.env, self.workdir, self.user = rest.partition(" AS ")[2], {}, "/", 0

    def _env(self, rest: str) -> None:
        self.env.update(word.split("=", 1) for word in shlex.split(rest))

    def _workdir(self, rest: str) -> None:
        self.workdir = rest
        self.path(".").mkdir(parents=True, exist_ok=True)

    def _user(self, rest: str) -> None:
        self.user = int(rest)

    def _stopsignal(self, rest: str) -> None:
        self.stop = rest

    def _copy(self, rest: str) -> None:
        source, target = [word for word in rest.split() if not word.startswith("--")]
        stage = re.match(r"--from=(\w+)", rest)
        found = self.stages[stage[1]] / source.lstrip("/") if stage else self.context / source
        if found.is_dir():
            shutil.copytree(found, self.path(target), symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy(found, self.path(target))

    def _run(self, rest: str) -> None:
        assert self.user == 0
        if rest.startswith("apt-get"):
            # Of the distribution, and of the whole machine.
            assert re.findall(r"(?:^|&&) *(\S+)", rest) == ["apt-get", "apt-get", "rm", "useradd"]
            return
        line = re.sub(r"(?<![\w.])/(?=venv|requirements)", f"{self.root}/", rest)
        subprocess.run(line, shell=True, check=True, cwd=self.root, env=self.environment(), timeout=300)

    def _healthcheck(self, rest: str) -> None:
        self.lists["probe"] = json.loads(rest.partition("CMD ")[2])

    def _entrypoint(self, rest: str) -> None:
        self.lists["entrypoint"] = json.loads(rest)

    def _cmd(self, rest: str) -> None:
        self.lists["command"] = json.loads(rest)

    def start(self, name: str, port: int, **options: object) -> subprocess.Popen[bytes]:
        """Start the command of that name as a container does: as its user, with its environment and folder."""
        command = [word.replace("8001", str(port)) for word in self.lists[name]]
        who = {"user": self.user, "group": self.user, "extra_groups": []} if os.geteuid() == 0 else {}
        env = clean_environment() | self.environment()
        env.pop("HOME", None)
        program = shutil.which(command[0], path=env["PATH"])
        assert program is not None
        return subprocess.Popen([program, *command[1:]], cwd=self.path("."), env=env, **who, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    made = Path(tempfile.mkdtemp(prefix="pgq-image-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def interpreter() -> str:
    """Return an interpreter that other users may run, too: that of a virtualenv may lie in a home."""
    for python in (*[f"/usr/local/bin/python3.{minor}" for minor in (13, 12, 11)], "/usr/bin/python3", sys.executable):
        code = "import venv, ensurepip, sys; sys.exit(sys.version_info < (3, 11))"
        if Path(python).exists() and subprocess.run([python, "-c", code], capture_output=True).returncode == 0:
            return python
    raise AssertionError("there is no Python")


def test_the_image_is_built_and_its_pool_runs_as_its_user(
    project: Callable[..., Project], folder: Path, request: pytest.FixtureRequest
) -> None:
    shop = project(apps={"shop": {"tasks.py": "import os\n\ndef who(): return os.getuid()\n"}})
    (shop.folder / "requirements.txt").write_text(f"django-pgq @ {ROOT.as_uri()}\n")
    # Over TCP: the user of the image may not enter the folder of the server's socket.
    proxy = Proxy(shop.dsn)
    request.addfinalizer(proxy.close)
    shop.configure(f"DATABASES['default'] |= database_from_url({proxy.dsn!r})\nPGQ = {{'workers': 1}}\n")
    build = Build(folder / "image", shop.folder, interpreter())
    build.run((DEPLOY / "docker" / "Dockerfile").read_text())
    assert (build.stop, build.lists["entrypoint"]) == ("SIGTERM", ["tini", "--"])
    assert build.user != 0
    port = free_port()
    with (folder / "log").open("wb") as log:
        pool = build.start("command", port, stdout=log, stderr=log)
    try:
        wait_for(lambda: pool.poll() is not None or ask(port, path="/health/ready")[0] == 200)
        assert pool.poll() is None, (folder / "log").read_text()
        assert build.start("probe", port).wait(30) == 0
        shop.python("from pgq.tasks import async_task; async_task('shop.tasks.who')")
        uid = build.user if os.geteuid() == 0 else os.getuid()
        wait_for(lambda: shop.sql("SELECT success, result FROM pgq_task") == [(True, uid)])
        pool.send_signal(signal.Signals[build.stop])
        assert pool.wait(30) == 0
        assert build.start("probe", port, stderr=subprocess.DEVNULL).wait(30) != 0
    finally:
        print((folder / "log").read_text())  # noqa: T201  # shown if the test fails
        pool.kill()
        pool.wait()
