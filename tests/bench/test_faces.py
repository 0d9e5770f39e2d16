"""Every page, list, endpoint, command and view answers by few statements: a short form of `python -m bench.faces`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bench.faces.__main__ import MOST
from pgq.urls.endpoint import ENDPOINTS
from tests.support.pools import ROOT, test_dsn

SIZE = ("--results", "3000", "--queued", "3000", "--history", "0.004", "--times", "1")


@pytest.mark.django_db
def test_everything_answers_by_few_statements(tmp_path: Path) -> None:
    """How long it takes is for the long form: other tests use this server as well."""
    server = make_conninfo(**{**conninfo_to_dict(test_dsn()), "dbname": "postgres"})
    out, page = tmp_path / "asked.json", tmp_path / "faces.md"
    command = [sys.executable, "-m", "bench.faces", *SIZE, "--json", str(out), "--out", str(page)]
    environment = {**os.environ, "DATABASE_URL": server}
    name = sql.Identifier(str(conninfo_to_dict(test_dsn())["dbname"]) + "_faces")
    command += ["--name", name.as_string(None).strip('"')]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert out.exists(), done.stderr
    asked = json.loads(out.read_text())
    assert {one["kind"] for one in asked} == {"page", "admin", "rest", "command", "sql"}
    assert [(one["name"], one["fault"]) for one in asked if one["fault"]] == []
    assert [(one["name"], one["statements"]) for one in asked if one["statements"] > MOST] == []
    # A new endpoint is asked without being named here.
    reads = [each.path for each in ENDPOINTS if each.method == "GET" and "result" not in each.path]
    names = " ".join(one["name"] for one in asked)
    assert [path for path in reads if path.partition("{")[0] not in names] == []
    assert "| pages of the dashboard |" in page.read_text()
    with psycopg.connect(server) as session:
        assert session.execute("SELECT count(*) FROM pg_database WHERE datname LIKE '%\\_faces'").fetchone() == (0,)
