"""A pool under django-prodserver, the real package: 3.0, and with `make deploy-test` 2.4 too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from pgq.contrib.prodserver import PgqWorker
from tests.support.deploy import FULL
from tests.support.pools import wait_for
from tests.support.projects import Project, clean_environment

BACKEND = "pgq.contrib.prodserver.PgqWorker"
#: Those of the seed's users, and some of pgq_worker's own.
ARGS = {"verbosity": "1", "cluster-name": "shop", "queues": ["mail", "default"], "workers": 1, "autoreload": False}
TASKS = {"shop": {"tasks.py": "def add(a, b): return a + b"}}


def configured(shop: Project, **more: object) -> None:
    shop.configure(
        f"INSTALLED_APPS += ['django_prodserver']\n"
        f"PRODUCTION_PROCESSES = {{'worker': {{'BACKEND': {BACKEND!r}, 'ARGS': {ARGS | more!r}}}}}\n"
    )


@pytest.fixture(params=["3.0", pytest.param("2.4", marks=FULL)])
def release(request, tmp_path) -> dict[str, str]:
    """The environment of programs that find this release."""
    if request.param == "3.0":
        return {}
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "old")]
    subprocess.run([*pip, "django-prodserver==2.4.0"], check=True, capture_output=True, timeout=120)
    return {"PYTHONPATH": str(tmp_path / "old"), "PGQ_TEST_OLD": "yes"}


def test_a_pool_runs_by_each_command(project, release):
    commands = ["prodserver"] if release else ["worker", "prodserver", "server"]
    shop = project(apps=TASKS)
    configured(shop, **{"run-once": True})
    for number, command in enumerate(commands):
        shop.python(f"from pgq.tasks import async_task; async_task('shop.tasks.add', {number}, 1)")
        shop.manage(command, "worker", env=release)
        assert shop.sql("SELECT result, cluster FROM pgq_task ORDER BY id DESC LIMIT 1") == [(number + 1, "shop")]


def test_a_pool_under_it_reloads_and_drains(project, release):
    shop = project(apps=TASKS)
    configured(shop)
    log = shop.folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "prodserver", "worker"],
            cwd=shop.folder, env=clean_environment(**release), stdout=output, stderr=output,
        )  # fmt: skip
    try:
        for signals in (0, 1):
            wait_for(lambda n=signals: log.read_text().count("pool shop: 1 workers on default, queues mail, def") > n)
            shop.python(f"from pgq.tasks import async_task; async_task('shop.tasks.add', {signals}, 1)")
            wait_for(lambda n=signals: shop.sql("SELECT count(*) FROM pgq_task") == [(n + 1,)])
            os.kill(process.pid, signal.SIGTERM if signals else signal.SIGHUP)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_a_wrong_option_stops_the_command(project, release):
    shop = project(migrate=False)
    configured(shop, bind="0.0.0.0:8000")
    failed = shop.manage("prodserver", "worker", code=1, env=release)
    assert "names 'bind', which is no option of pgq_worker" in failed.stderr


# ------------------------------------------------------------------------------------------------- ARGS


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        (None, []),
        ({}, []),
        ("--workers 4 --queues 'a b,c'", ["--workers", "4", "--queues", "a b,c"]),
        ({"workers": 4, "health_port": 8001}, ["--workers=4", "--health-port=8001"]),
        ({"--name": "-x", "n": "x", "w": 2}, ["--name=-x", "-nx", "-w2"]),
        ({"queues": ("mail", "default")}, ["--queues=mail,default"]),
        ({"run-once": None, "autoreload": True}, ["--run-once", "--autoreload"]),
        ({"run-once": False}, []),
        ({"cluster-name": "shop", "verbosity": "2"}, ["--cluster-name=shop", "--verbosity=2"]),
    ],
)
def test_args_become_options(given, arguments):
    worker = PgqWorker(BACKEND=BACKEND, ARGS=given) if given is not None else PgqWorker(BACKEND=BACKEND)
    assert worker.prep_server_args() == arguments


def test_an_unknown_one_is_refused_by_name():
    with pytest.raises(ImproperlyConfigured) as error:
        PgqWorker(ARGS={"worker": 4})
    assert "names 'worker', which is no option of pgq_worker. Did you mean 'workers'?" in str(error.value)
    assert "health-port" in str(error.value)


@override_settings(INSTALLED_APPS=["django.contrib.contenttypes"])
def test_pgq_has_to_be_installed():
    with pytest.raises(ImproperlyConfigured, match="Add 'pgq' to INSTALLED_APPS"):
        PgqWorker()


def test_each_release_is_the_one_it_should_be(release):
    """Else the tests above would run the same one twice."""
    code = "from django_prodserver.backends import base; print(hasattr(base, 'BaseWorkerBackend'), base.__file__)"
    shown = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(**release), capture_output=True, text=True
    )
    has_workers, path = shown.stdout.split()
    assert has_workers == str(not release)
    assert Path(release.get("PYTHONPATH", sys.prefix)) in Path(path).parents
