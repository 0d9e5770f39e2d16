"""deploy/systemd: the units pass systemd's own checks, and their commands run a pool."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.deploy import DEPLOY, FULL, lines_of
from tests.support.notify import NotifySocket
from tests.support.projects import Project, clean_environment

UNITS = DEPLOY / "systemd"

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")


def directives(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def installed(name: str, folder: Path) -> Path:
    """Write a unit as an operator does, with paths of its own."""
    (folder / "etc").mkdir(parents=True, exist_ok=True)
    text = (UNITS / name).read_text().replace("/srv/app", str(folder)).replace("/etc/default", str(folder / "etc"))
    if not (folder / ".venv").exists():
        (folder / ".venv").symlink_to(sys.prefix)
    unit = folder / "etc" / name
    unit.write_text(text)
    return unit


@needs_analyze
@pytest.mark.parametrize("name", ["pgq.service", "pgq@.service"])
def test_systemd_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    unit = installed(name, tmp_path)
    analyze = ["systemd-analyze", "--man=no"]
    verified = subprocess.run([*analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    # Of 100: how much of the system a service can reach, by systemd's own count. Without a sandbox it is 96.
    rating = [*analyze, "security", "--offline=true", "--threshold=25", unit]
    secured = subprocess.run(rating, capture_output=True, text=True, check=False)
    assert secured.returncode == 0, secured.stdout


def test_the_units_differ_in_the_name_alone() -> None:
    one, several = lines_of(UNITS / "pgq.service"), lines_of(UNITS / "pgq@.service")
    assert set(several) - set(one) == {
        "Description=pgq pool %i",
        "EnvironmentFile=-/etc/default/pgq-%i",
        "ExecStart=/srv/app/.venv/bin/python manage.py pgq_worker --name %i $PGQ_ARGS",
    }


def test_what_the_reasons_say_holds() -> None:
    unit = directives((UNITS / "pgq.service").read_text())
    assert unit["Type"] == "notify"
    # The supervisor alone tells its workers.
    assert unit["KillMode"] == "mixed"
    assert unit["OOMPolicy"] == "continue"
    assert int(unit["WatchdogSec"]) >= 60, "four times what the loop may wait for one answer"
    assert int(unit["TimeoutStartSec"]) > 15


# ------------------------------------------------------------------------------------------------- its commands


@FULL
def test_the_commands_of_the_unit_run_reload_and_stop_a_pool(
    project: Callable[..., Project], notify_socket: Callable[[object], NotifySocket], tmp_path: Path
) -> None:
    """A socket in place of systemd: a systemd of its own would put all processes of the machine into its groups."""
    shop = project()
    unit = directives(installed("pgq@.service", shop.folder).read_text().replace("%i", "shop"))
    systemd = notify_socket(tmp_path / "notify")
    env = clean_environment(
        NOTIFY_SOCKET=systemd.name,
        WATCHDOG_USEC=str(int(unit["WatchdogSec"]) * 1_000_000),
        PGQ_ARGS="--workers 1 --log-format json",
    )
    log = tmp_path / "pool.log"
    with log.open("wb") as output:
        # systemd splits the variable into words as a shell does.
        command = ["sh", "-c", f"exec {unit['ExecStart']}"]
        pool = subprocess.Popen(command, cwd=unit["WorkingDirectory"], env=env, stdout=output, stderr=output)
    try:
        assert systemd.wait_for(lambda message: "READY" in message)["STATUS"] == "1 workers, 0 tasks run"
        reload = unit["ExecReload"].replace("$MAINPID", str(pool.pid)).split()
        subprocess.run(reload, check=True)
        systemd.wait_for(lambda message: "RELOADING" in message)
        systemd.wait_for(lambda message: "READY" in message)
        assert log.read_text().count("pool shop: 1 workers") == 2
        pool.terminate()
        systemd.wait_for(lambda message: "STOPPING" in message)
        assert pool.wait(int(unit["TimeoutStopSec"])) == 0
    finally:
        pool.kill()
        pool.wait()
