"""The files of deploy/ say what docs/operate/deployment.md says; what can be seen without running them."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import tomllib
from typing import Any

import psycopg
import pytest
import yaml
from django.core.management import load_command_class
from django.db import connection

from pgq.contrib.prodserver import PgqWorker
from pgq.tasks import async_task
from tests.support.blocks import blocks
from tests.support.deploy import DEPLOY, lines_of

#: Seconds that running tasks are given in the page's example, and how long a pool may take after that.
GRACE, AFTER = 90, 3 + 5


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def commands() -> list[tuple[str, list[str]]]:
    """Return every command line of pgq_worker in deploy/, with its file."""
    found = []
    for file in sorted(DEPLOY.rglob("*")):
        for line in lines_of(file) if file.is_file() else []:
            listed = re.search(r'\[("python".*)\]', line)
            words = json.loads(f"[{listed[1]}]") if listed else shlex.split(line.partition("manage.py")[2])
            if "pgq_worker" in words:
                found.append((file.name, words[words.index("pgq_worker") + 1 :]))
    return found


def test_every_command_line_is_one() -> None:
    assert {name for name, _ in commands()} == {
        "Procfile", "Dockerfile", "compose.yaml", "worker.yaml", "pgq.conf", "pgq.service", "pgq@.service",
    }  # fmt: skip
    parser = load_command_class("pgq", "pgq_worker").create_parser("manage.py", "pgq_worker")
    for _, words in commands():
        parser.parse_args([word for word in words if word != "$PGQ_ARGS"])


def test_kubernetes_kills_no_pool_that_drains_or_whose_database_is_away() -> None:
    [worker] = documents("kubernetes/worker.yaml")
    pod = worker["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container["startupProbe"]["httpGet"]["path"] == "/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert pod["terminationGracePeriodSeconds"] > GRACE + AFTER
    assert f'"grace": {GRACE}' in (DEPLOY / "kubernetes" / "worker.yaml").read_text()
    assert "lifecycle" not in container
    assert worker["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    written = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert written == {"/tmp", "/dev/shm"}


def test_the_manifests_name_the_same_pods() -> None:
    labels = documents("kubernetes/worker.yaml")[0]["spec"]["template"]["metadata"]["labels"]
    assert documents("kubernetes/pdb.yaml")[0]["spec"]["selector"]["matchLabels"] == labels
    scaled = documents("kubernetes/keda.yaml")[0]["spec"]
    assert scaled["scaleTargetRef"]["name"] == documents("kubernetes/worker.yaml")[0]["metadata"]["name"]
    assert scaled["minReplicaCount"] >= 1, "upkeep and schedules live in the pools"
    by_processor = documents("kubernetes/hpa.yaml")[0]["spec"]
    assert by_processor["scaleTargetRef"]["name"] == scaled["scaleTargetRef"]["name"]
    assert by_processor["minReplicas"] > documents("kubernetes/pdb.yaml")[0]["spec"]["minAvailable"]
    pod = documents("kubernetes/worker.yaml")[0]["spec"]["template"]["spec"]
    # A share of what is requested, and no pod goes before the last had time to drain.
    assert "cpu" in pod["containers"][0]["resources"]["requests"]
    [step] = by_processor["behavior"]["scaleDown"]["policies"]
    assert (step["value"], step["periodSeconds"]) == (1, pod["terminationGracePeriodSeconds"])


@pytest.mark.django_db
def test_keda_counts_what_is_ready() -> None:
    query = documents("kubernetes/keda.yaml")[0]["spec"]["triggers"][0]["metadata"]["query"]
    for number in range(3):
        async_task("math.sqrt", number)
    async_task("math.sqrt", 4, run_after=60)
    with connection.cursor() as cursor:
        cursor.execute(query)
        assert cursor.fetchall() == [(3,)]


def test_compose_starts_in_order_and_gives_time() -> None:
    [compose] = documents("docker/compose.yaml")
    assert "version" not in compose
    services = compose["services"]
    assert services["migrate"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    for name in ("web", "worker"):
        assert services[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert int(services["worker"]["stop_grace_period"].removesuffix("s")) > GRACE + AFTER


def test_supervisor_gives_time_and_tells_one_process() -> None:
    conf = configparser.ConfigParser(inline_comment_prefixes=(" ;",), interpolation=None)
    conf.read(DEPLOY / "supervisor" / "pgq.conf")
    program = conf["program:pgq"]
    assert program["stopsignal"] == "TERM"
    assert int(program["stopwaitsecs"]) > GRACE + AFTER
    assert (program["stopasgroup"], program["killasgroup"]) == ("false", "true")


def test_the_image_runs_no_shell_and_no_root() -> None:
    lines = lines_of(DEPLOY / "docker" / "Dockerfile")
    for word in ("CMD ", "ENTRYPOINT "):
        for line in lines:
            if line.strip().startswith(word):
                json.loads(line.strip().removeprefix(word))
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001"]


def test_every_file_is_on_the_page() -> None:
    page = (DEPLOY.parent / "docs" / "operate" / "deployment.md").read_text()
    files = [str(file.relative_to(DEPLOY)) for file in DEPLOY.rglob("*") if file.is_file()]
    assert [name for name in files if f"deploy/{name}" not in page] == []


def test_the_snippets_of_the_page_can_be_read() -> None:
    snippets = [(block.language, block.text) for block in blocks("docs/operate/deployment.md") if block.language]
    assert {"toml", "yaml", "python", "sh"} == {language for language, _ in snippets}
    namespace: dict[str, Any] = {}
    several: dict[str, Any] = {}
    for language, text in snippets:
        if language == "toml":
            processes = tomllib.loads(text)["processes"]
            assert "pgq_worker" in processes["worker"]
        elif language == "yaml":
            services = yaml.safe_load(text.replace("    <<: *app\n", ""))["services"]
            if isinstance(services, list):
                assert services[0]["maxShutdownDelaySeconds"] <= 300
            else:
                # Beside the one of deploy/docker.
                [compose] = documents("docker/compose.yaml")
                several = {**services, "worker": compose["services"]["worker"]}
        elif language == "python":
            exec(text, namespace)
    commands = [service.pop("command") for service in several.values()]
    assert [command[3:-2] for command in commands] == [["--name", "reports"], []]
    assert several["worker-reports"].items() <= several["worker"].items()
    worker = namespace["PRODUCTION_PROCESSES"]["worker"]
    arguments = PgqWorker(**worker).prep_server_args()
    assert arguments == ["--workers=4", "--queues=mail,default", "--cluster-name=shop"]
    # The one of two hosts stands on the page of failovers.
    pages = [block.text for block in blocks("docs/operate/failover.md") if block.language == "python"]
    exec(next(text for text in pages if "DATABASES" in text), namespace)
    known = psycopg.conninfo.make_conninfo(**namespace["DATABASES"]["default"]["OPTIONS"])
    assert "read-write" in known
    assert namespace["LOGGING"]["handlers"]["pgq"]["class"] == "logging.handlers.WatchedFileHandler"
