"""Each file of deploy/ by the program that it is for, or by what checks such files: `make deploy-test`."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support.deploy import DEPLOY, FULL, install, lines_of, running
from tests.support.health import ask
from tests.support.pools import wait_for
from tests.support.ports import free_port
from tests.support.projects import Project

pytestmark = FULL

TASKS = {"shop": {"tasks.py": "import time\n\ndef nap(seconds):\n    time.sleep(seconds)\n    return seconds\n"}}
NAP = "from pgq.tasks import async_task; async_task('shop.tasks.nap', {})"
#: Where the page and the file for logrotate have the log.
PLACE = "/var/log/app/pgq.log"
LOGROTATE = shutil.which("logrotate", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
BOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@pytest.fixture
def shop(project: Callable[..., Project]) -> Project:
    """A project as the files expect it, by the name of its folder."""
    made: Project = project({"PGQ": {"workers": 1}}, apps=TASKS)
    install(made.folder)
    return made


def is_napping(shop: Project) -> bool:
    return bool(shop.sql("SELECT 1 FROM pgq_queue WHERE lock IS NOT NULL"))


# ------------------------------------------------------------------------------------------------- supervisord


def test_supervisord_starts_reloads_and_drains_a_pool(
    shop: Project, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    conf = (DEPLOY / "supervisor" / "pgq.conf").read_text().replace("/srv/app", str(shop.folder))
    # Without root there is no other user.
    conf = re.sub("^user=.*\n", "", conf, flags=re.MULTILINE).replace("/var/log/supervisor", str(tmp_path))
    (tmp_path / "pgq.conf").write_text(conf)
    # What Debian's package has in supervisord.conf.
    (tmp_path / "supervisord.conf").write_text(
        "[unix_http_server]\nfile=%(here)s/sock\n[supervisord]\nlogfile=%(here)s/main.log\npidfile=%(here)s/pid\n"
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        "[supervisorctl]\nserverurl=unix://%(here)s/sock\n[include]\nfiles=pgq.conf\n"
    )
    log = tmp_path / "pgq.log"

    def control(*words: str) -> str:
        ctl = [tool("supervisorctl"), "-c", str(tmp_path / "supervisord.conf"), *words]
        return subprocess.run(ctl, capture_output=True, text=True, check=False, timeout=60).stdout

    supervisord = [tool("supervisord"), "--nodaemon", "-c", str(tmp_path / "supervisord.conf")]
    with running(*supervisord, folder=tmp_path, log=tmp_path / "out"):
        wait_for(lambda: "RUNNING" in control("status", "pgq"), pause=0.2)
        # Before that, HUP ends a process that is still importing Django.
        wait_for(lambda: "pool default: 1 workers" in log.read_text())
        control("signal", "HUP", "pgq")
        wait_for(lambda: log.read_text().count("pool default: 1 workers") == 2)
        shop.python(NAP.format(3))
        wait_for(lambda: is_napping(shop))
        assert "pgq: stopped" in control("stop", "pgq")
        assert "pool default has stopped" in log.read_text()
        assert shop.sql("SELECT success, attempt_count FROM pgq_task") == [(True, 1)]


# ------------------------------------------------------------------------------------------------- logrotate


@pytest.mark.skipif(LOGROTATE is None, reason="no logrotate (Debian: apt install logrotate)")
def test_logrotate_moves_the_file_and_the_pool_writes_a_new_one(shop: Project, tmp_path: Path) -> None:
    page = (DEPLOY.parent / "docs" / "operate" / "deployment.md").read_text()
    log = tmp_path / "logs" / "pgq.log"
    log.parent.mkdir()
    shop.configure(re.findall(r"^LOGGING = .*?^}", page, re.MULTILINE | re.DOTALL)[-1].replace(PLACE, str(log)))
    conf = (DEPLOY / "logrotate" / "pgq").read_text().replace(PLACE, str(log))
    # Without root there is no other user.
    owner, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    (tmp_path / "conf").write_text(conf.replace(" app app", f" {owner} {group}"))
    (tmp_path / "conf").chmod(0o644)
    rotate = [str(LOGROTATE), "--force", "--state", str(tmp_path / "state"), str(tmp_path / "conf")]
    command = [sys.executable, "manage.py", "pgq_worker", "--workers", "1"]
    with running(*command, folder=shop.folder, log=tmp_path / "out") as pool:
        wait_for(lambda: log.exists() and "pool default: 1 workers" in log.read_text())
        subprocess.run(rotate, check=True, capture_output=True, timeout=60)
        assert "pool default: 1 workers" in log.with_suffix(".log.1").read_text()
        # Workers and supervisor, each by its own handler.
        shop.python("from pgq.tasks import async_task; async_task('shop.tasks.nap', 'no number')")
        wait_for(lambda: "TypeError" in log.read_text())
        pool.send_signal(signal.SIGTERM)
        assert pool.wait(20) == 0
    assert "pool default has stopped" in log.read_text()
    assert "TypeError" not in log.with_suffix(".log.1").read_text()


# ------------------------------------------------------------------------------------------------- Procfile


def test_honcho_runs_the_procfile(shop: Project, tmp_path: Path, tool: Callable[[str], str]) -> None:
    shutil.copy(DEPLOY / "Procfile", shop.folder)
    path = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    checked = shop.run(tool("honcho"), "check")
    assert "web, worker, release" in checked.stdout + checked.stderr
    # A platform runs this one before the others.
    release = next(line for line in lines_of(DEPLOY / "Procfile") if line.startswith("release: "))
    shop.run("sh", "-c", release.partition(": ")[2], env={"PATH": path})
    log = tmp_path / "log"
    with running(tool("honcho"), "start", "worker", folder=shop.folder, log=log, PATH=path) as honcho:
        wait_for(lambda: "pool default: 1 workers" in log.read_text())
        shop.python(NAP.format(1))
        wait_for(lambda: is_napping(shop))
        # It passes the signal on, and kills five seconds later.
        honcho.terminate()
        honcho.wait(20)
        assert "pool default has stopped" in log.read_text()
    assert shop.sql("SELECT success, attempt_count FROM pgq_task") == [(True, 1)]


# ------------------------------------------------------------------------------------------------- Docker


def test_hadolint_finds_nothing_in_the_dockerfile(tool: Callable[[str], str]) -> None:
    done = subprocess.run([tool("hadolint"), DEPLOY / "docker" / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_commands_of_the_image_run(shop: Project, tmp_path: Path) -> None:
    """There may be no Docker here; the pool and the probe of the image are these commands."""
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    port = free_port()
    # The second CMD is the pool, the first one, indented, the probe.
    probe, pool = [
        json.loads(found.replace("8001", str(port))) for found in re.findall(r"^ *CMD (\[.*\])$", text, re.MULTILINE)
    ]
    assert pool[:3] == ["python", "manage.py", "pgq_worker"]
    path = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    with running(*pool, folder=shop.folder, log=tmp_path / "log", PATH=path, PYTHONUNBUFFERED="1") as process:
        wait_for(lambda: ask(port, path="/health/ready")[0] == 200)
        shop.run(*probe, env={"PATH": path})
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    shop.run(*probe, env={"PATH": path}, code=1)


def test_compose_is_valid(tool: Callable[[str], str]) -> None:
    file = str(DEPLOY / "docker" / "compose.yaml")
    subprocess.run([tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", file], check=True)


# ------------------------------------------------------------------------------------------------- Kubernetes


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_the_manifests_are_valid(version: str, tool: Callable[[str], str]) -> None:
    """Strictly: a field that Kubernetes does not know is an error. KEDA's kind is its own."""
    files = [str(file) for file in (DEPLOY / "kubernetes").glob("*.yaml") if file.name != "keda.yaml"]
    assert len(files) == 5
    validate = [tool("kubernetes-validate"), "--strict", "-k", version, *files]
    done = subprocess.run(validate, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ------------------------------------------------------------------------------------------------- PgBouncer


@pytest.mark.skipif(BOUNCER is None, reason="no pgbouncer (Debian: apt install pgbouncer)")
def test_both_ways_through_pgbouncer(shop: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The configuration is read, and each way has the mode that its comment promises."""
    server = conninfo_to_dict(shop.dsn)
    account = pwd.getpwuid(Path(str(server["host"])).stat().st_uid)
    folder = Path(str(server["host"])).parent / f"bouncer-{os.getpid()}"
    folder.mkdir()
    ini = (DEPLOY / "pgbouncer" / "pgbouncer.ini").read_text()
    ini = re.sub(r"host=\S+ port=\S+ dbname=\S+", f"host={server['host']} port={server.get('port', 5432)} "
                 f"dbname={server['dbname']} user={server.get('user', 'postgres')}", ini)  # fmt: skip
    ini = re.sub(r"^auth_type.*|^auth_file.*|^listen_addr.*", "", ini, flags=re.MULTILINE)
    (folder / "ini").write_text(f"{ini}\nauth_type = any\nlisten_addr =\nunix_socket_dir = {folder}\n")
    switch = {}
    if os.geteuid() == 0:
        shutil.chown(folder, account.pw_uid, account.pw_gid)
        switch = {"user": account.pw_uid, "group": account.pw_gid}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(BOUNCER), str(folder / "ini")], stdout=log, stderr=log, cwd="/", **switch)
    try:
        wait_for(lambda: (folder / ".s.PGSQL.6432").exists() or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        for name, notified in (("app_pool", True), ("app", False)):
            dsn = f"host={folder} port=6432 dbname={name} user=anyone"
            shop.configure(f"DATABASES['default'] |= database_from_url({dsn!r})\n")
            found = shop.manage("pgq_worker", "--check-config").stdout
            assert ("a pooler in transaction mode stands between" not in found) is notified
        # Past or through it, both lead to the same tables.
        with psycopg.connect(f"host={folder} port=6432 dbname=app user=anyone", prepare_threshold=None) as session:
            session.execute("INSERT INTO pgq_queue (func) VALUES ('math.pi')")
        assert shop.sql("SELECT count(*) FROM pgq_queue") == [(1,)]
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)
