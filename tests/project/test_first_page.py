"""docs/start/first-ten-minutes.md as a stranger follows it: each block, in an empty virtualenv, with the wheel."""

from __future__ import annotations

import os
import re
import sys
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from pgq.contrib.embedded import find_binaries
from tests.support.blocks import ROOT, Block, blocks
from tests.support.pools import wait_for
from tests.support.ports import free_port
from tests.support.projects import clean_environment
from tests.support.reader import Reader

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]
PAGE = "docs/start/first-ten-minutes.md"
#: The stranger's interpreter, if it is not that of the test run. What pgq needs comes from pip's own index then.
OTHER_PYTHON = os.environ.get("PGQ_STRANGERS_PYTHON")


@pytest.fixture
def index(request: pytest.FixtureRequest, wheel: Path) -> dict[str, str]:
    """What pip is told of where packages are."""
    if OTHER_PYTHON:
        return {"PIP_FIND_LINKS": str(wheel.parent)}
    folder = request.getfixturevalue("wheelhouse")
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}


@pytest.fixture
def stranger(index: dict[str, str], tmp_path: Path, pg_dsn: str) -> dict[str, str]:
    """The environment of a machine with Python, an index of packages and a PostgreSQL, and nothing of this checkout."""
    pytest.importorskip("ensurepip", reason="needs ensurepip (Debian: python3-venv)")
    programs = tmp_path / "bin"
    programs.mkdir()
    python = programs / "python3"
    python.write_text(f'#!/bin/sh\nexec {OTHER_PYTHON or sys._base_executable} "$@"\n')  # type: ignore[attr-defined]
    python.chmod(0o755)
    names = {"dbname": "PGDATABASE"}
    server = {names.get(key, f"PG{key.upper()}"): str(value) for key, value in conninfo_to_dict(pg_dsn).items()}
    # Most of what pip would compile is never imported.
    quick = {"PIP_NO_COMPILE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    path = f"{programs}:{find_binaries()}:{os.environ['PATH']}"
    return clean_environment(PATH=path, HOME=str(tmp_path), **server, **index, **quick)


@pytest.fixture
def reader(stranger: dict[str, str], tmp_path: Path, pg_dsn: str) -> Iterator[Reader]:
    """Somebody who begins in an empty folder; ports and the name of the database are those that are free here."""
    home = tmp_path / "home"
    home.mkdir()
    database, web = f"mysite_{uuid.uuid4().hex[:12]}", str(free_port())
    replaced = {f"{before}mysite": before + database for before in ("createdb ", "psql ", '"NAME": "')}
    replaced |= {"manage.py runserver": f"manage.py runserver {web}", "127.0.0.1:8000": f"127.0.0.1:{web}"}
    reader = Reader(home, stranger, replaced | {"8001": str(free_port())})
    yield reader
    reader.stop()
    with psycopg.connect(pg_dsn, autocommit=True) as session:
        session.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))


def browse(address: str, user: str, password: str) -> str:
    """What a browser shows at that address of the admin, after a login."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    with opener.open(address, timeout=60) as form:
        login, shown = form.url, form.read().decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', shown)
    assert token
    where = urllib.parse.urlsplit(address).path
    fields = {"csrfmiddlewaretoken": token[1], "username": user, "password": password, "next": where}
    with opener.open(login, urllib.parse.urlencode(fields).encode(), timeout=60) as page:
        return str(page.read().decode())


def test_each_block_does_what_the_page_says(reader: Reader) -> None:
    for block in blocks(PAGE):
        reader.follow(block)
    where = reader.environment["VIRTUAL_ENV"]
    reader.follow(Block(PAGE, 0, "sh", "python -c 'import pgq; print(pgq.__file__)'\n"))
    assert reader.said.startswith(where), "the wheel is what is being tested"
    fired = "psql mysite -Atc 'SELECT func, result FROM pgq_task'\n"

    def results() -> bool:
        reader.follow(Block(PAGE, 0, "sh", fired))
        return "shop.tasks.count_orders|42" in reader.said

    wait_for(results, "the schedule has fired", 60, 0.5)
    # What the page leaves to a browser.
    [address] = re.findall(r"<(http://\S+/admin/\S+)>", (ROOT / PAGE).read_text())
    shown = browse(reader.here(address), "ada", "try-me")
    assert "count_orders" in shown
    assert reader.stop() == [0, 0, 0]
    for terminal in reader.terminals:
        assert "Traceback" not in terminal.said, terminal.said


@pytest.mark.parametrize(
    ("language", "text"),
    [("sh", "false\n"), ("text", "one …\ntwo\n"), ("python", "x = 1\n"), ("pycon", ">>> 1\n"), ("cobol", "x\n")],
)
def test_what_is_wrong_is_found(language: str, text: str, tmp_path: Path) -> None:
    reader = Reader(tmp_path, clean_environment(), {"three": "two"})
    reader.follow(Block(PAGE, 1, "sh", "mkdir more && cd more && export COUNT=three\n"))
    reader.follow(Block(PAGE, 2, "sh", "pwd; echo one $COUNT and so on; echo; echo three\n"))
    reader.follow(Block(PAGE, 3, "text", "…/more\none …\nthree\n"))
    with pytest.raises((AssertionError, AttributeError)):
        reader.follow(Block(PAGE, 4, language, text))
