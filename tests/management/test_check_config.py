"""pgq_worker --check-config, and the other names of its options."""

from __future__ import annotations

import io

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import override_settings

from pgq.models import Task
from pgq.store import schema
from pgq.tasks import async_task
from tests.support.hand import MARK


def check(*arguments: str) -> str:
    out = io.StringIO()
    call_command("pgq_worker", "--check-config", *arguments, stdout=out, no_color=True)
    return out.getvalue()


def refused(*arguments: str) -> tuple[str, str]:
    """Return what is printed, and the error."""
    out = io.StringIO()
    with pytest.raises(CommandError) as error:
        call_command("pgq_worker", "--check-config", *arguments, stdout=out, no_color=True)
    return out.getvalue(), str(error.value)


# pgq_worker refuses to run inside a transaction.
@pytest.mark.django_db(transaction=True)
class TestCheckConfig:
    def test_all_is_well(self):
        lines = check("--cluster-name", "shop", "--queues", "mail,default", "--workers", "3").splitlines()
        assert "settings: pool shop, 3 workers, queues mail, default, database default" in lines
        assert "keys: rows can be signed" in lines
        [database] = [line for line in lines if line.startswith("database: ")]
        parameters = connection.get_connection_params()
        assert f"database {parameters['dbname']}, role " in database
        assert "notifications" not in "".join(lines), "they arrive"
        assert f"tables: of version {schema.VERSION} or later, as this release needs" in lines

    def test_queues_that_are_not_served_are_named(self):
        with override_settings(PGQ={"name": "shop", "workers": 2, "exclude_queues": ["slow"]}):
            assert "settings: pool shop, 2 workers, queues all but slow, database default" in check().splitlines()

    def test_what_does_not_keep_a_pool_from_running_is_told(self):
        with override_settings(PGQ={"allowed": ["nowhere.at_all"], "redis": {}}):
            found = check()
        assert "settings: pgq.W001: PGQ['redis'] has no meaning in pgq" in found
        assert "settings: pgq.W005: PGQ['allowed'] names 'nowhere.at_all'" in found

    @pytest.mark.parametrize(
        ("wrong", "arguments", "line"),
        [
            ({"workers": -1, "time_out": 3}, (), "PGQ['workers'] is -1"),
            ({"database": "nowhere"}, (), "'nowhere' is not in DATABASES"),
            ({}, ("--workers", "0"), "--workers: must be 1 or more, got 0"),
        ],
    )
    def test_wrong_settings_are_named(self, wrong, arguments, line):
        with override_settings(PGQ=wrong):
            found, error = refused(*arguments)
        assert line in found
        assert error.startswith("a pool could not run: ")

    def test_an_empty_key(self):
        with override_settings(SECRET_KEY_FALLBACKS=[""]):
            found, error = refused()
        assert "keys: SECRET_KEY and SECRET_KEY_FALLBACKS must hold no empty key" in found
        assert error == "a pool could not run: 1 problem, see above"

    def test_a_server_that_is_away(self, monkeypatch):
        connection.close()
        monkeypatch.setitem(connection.settings_dict, "PORT", "1")
        monkeypatch.setitem(connection.settings_dict, "HOST", "127.0.0.1")
        assert "database: PostgreSQL cannot be reached: " in refused()[0]

    def test_missing_tables(self):
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE pgq_schema RENAME TO gone")
        try:
            wanted = f"version {schema.VERSION}, and there are none: run manage.py migrate pgq"
            assert f"tables: this release needs its tables in {wanted}" in refused()[0]
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE gone RENAME TO pgq_schema")

    def test_it_runs_nothing(self):
        async_task(MARK, 1)
        check()
        assert not Task.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_cluster_name_is_the_name(pool):
    running = pool("--cluster-name=shop", "--run-once", ready=False, workers=1)
    assert running.wait() == 0
    assert "pool shop: 1 workers" in running.log()
