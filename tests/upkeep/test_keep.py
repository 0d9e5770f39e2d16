"""The option `keep`: a result goes when its own time is over, and no sooner."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import override_settings

from pgq.conf import Settings
from pgq.models import QueuedTask, Task
from pgq.store import connection as store_connection
from pgq.store import results
from pgq.tasks import async_task, enqueue_many, schedule, task
from pgq.testing import drain, fire_schedules
from pgq.upkeep.chores import Upkeep
from pgq.upkeep.retention import Retention
from tests.support.hand import MARK
from tests.support.pools import connect, wait_for
from tests.support.retention import DAYS, Session, finish, look_at_all, own, there, weeks  # noqa: F401  # fixtures

pytestmark = pytest.mark.django_db(transaction=True)

DAY = 86_400


def finished(options: str, *, days: float = 0.0, success: bool = True, count: int = 1) -> list[UUID]:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO pgq_task (id, success, started, stopped, enqueued_at, func, queue, options, exception)"
            " SELECT pgq_uuid7(at), %s, at, at, at, 'f', 'q', %s, %s"
            "   FROM generate_series(1, %s), (SELECT now() - %s * interval '1 day') a (at) RETURNING id",
            [success, options, None if success else "builtins.ValueError", count, days],
        )
        return [row[0] for row in cursor.fetchall()]


def there_are() -> set[UUID]:
    return {UUID(id) for id in Task.objects.values_list("id", flat=True)}


def expire(**options) -> results.Expiry:
    with connection.cursor() as cursor:
        return results.expire(cursor, now=datetime.now(UTC), **{"limit": 1000, **options})


@task(keep="7d")
def kept_a_week() -> None:
    pass


def fail() -> None:
    raise ValueError("on purpose")


def keeping(keep: object = None, backoff: object = None) -> object:
    return [keep, backoff]


def test_what_is_over_goes_failures_too_and_nothing_else():
    over = finished('{"keep": 86400}', days=1.1) + finished('{"keep": 0.5}', days=1, success=False)
    stays = finished('{"keep": 86400}', days=0.9) + finished("{}", days=400)
    # What psql may have written there is no time.
    for nonsense in ('{"keep": "1d"}', '{"keep": false}', '{"keep": null}', '{"keep": [1]}', '["keep"]', '"keep"'):
        stays += finished(nonsense, days=10)
    stays += finished('{"keep": 1e300}', days=10)
    assert expire().count == len(over) == 2
    assert there_are() == set(stays)
    assert finished('{"keep": -1e300}')
    assert expire().count == 1


def test_it_goes_on_behind_what_stays():
    """What a collector has to read, or another table refers to, does not keep the others from being found."""
    collector = UUID(async_task(MARK, run_after=3600)).hex
    held = finished(f'{{"keep": 1, "collector": "{collector}"}}', days=3, count=5)
    finished('{"keep": 1}', days=2, count=5)
    done, rounds = None, 0
    while done is None or done.last is not None:
        done, rounds = expire(limit=3, behind=done), rounds + 1
    assert (there_are(), rounds) == (set(held), 4)
    QueuedTask.objects.all().delete()
    assert expire().count == 5


@pytest.mark.parametrize("per", [None, "func"])
def test_the_limits_of_the_settings_leave_alone_what_is_not_over(per):
    kept = finished('{"keep": 86400}', count=3)
    finished('{"keep": 1}', days=1, count=2)
    newest = finished("{}", count=1)
    with connection.cursor() as cursor:
        assert results.prune(cursor, keep=1, limit=100, per=per).count == 2
    assert there_are() == {*kept, *newest}


def test_pgq_clean_deletes_what_is_over_and_leaves_what_is_not(capsys):
    kept = finished('{"keep": 864000}', days=8)
    finished('{"keep": 86400}', days=2, count=3)
    finished("{}", days=8)
    call_command("pgq_clean", "--older-than", "5", "--dry-run")
    assert "3 of them had a keep that is over" in capsys.readouterr().out
    assert len(there_are()) == 5
    call_command("pgq_clean", "--older-than", "5")
    said = capsys.readouterr().out
    assert "4 results deleted" in said
    assert "3 of them had a keep that is over" in said
    assert there_are() == set(kept)


def test_a_longer_keep_keeps_its_week(own: Session, weeks: list[str]) -> None:  # noqa: F811
    finish(own, 4, 2)
    finish(own, 3, 1, options=f'{{"keep": {365 * DAY}}}')
    finish(own, 2, 1, options=f'{{"keep": {DAY}}}')
    retention = Retention(DAYS, 0)
    look_at_all(retention, own)
    retention.drop(own)
    assert there(own) & set(weeks) == {weeks[1]}
    # As pgq_clean does it, which drops by itself.
    with override_settings(PGQ={"keep_days": DAYS, "save_limit": 0}):
        call_command("pgq_clean", verbosity=0)
    assert there(own) & set(weeks) == {weeks[1]}


def test_upkeep_does_it() -> None:
    over = finished('{"keep": 1}', days=1, count=30)
    kept = finished('{"keep": 60}')
    chores, session = Upkeep(Settings(tick=0.01, save_limit=0), "default"), connect()
    with session:
        wait_for(lambda: chores.tick(session) >= 0 and not there_are().intersection(over))
    assert there_are() == set(kept)


def test_it_is_found_by_its_index():
    with store_connection.connect("default", "tests") as session:
        session.execute(
            "INSERT INTO pgq_task (id, success, started, stopped, enqueued_at, func, queue, options)"
            " SELECT pgq_uuid7(), true, now(), now(), now(), 'f', 'q',"
            "        CASE WHEN n %% 100 = 0 THEN '{\"keep\": 60}' ELSE '{}' END::jsonb"
            "   FROM generate_series(1, 5000) n",
            {},
        )
        session.execute("ANALYZE pgq_task")
        parameters = {"now": datetime.now(UTC) + timedelta(days=1), "until": 0.0, "after": UUID(int=0)}
        plan = session.execute("EXPLAIN (FORMAT TEXT) " + results.sql("expire", limit=10), parameters).fetchall()
    text = "\n".join(row[0] for row in plan)
    # The other partitions are empty.
    assert re.search(r"Index Scan using pgq_task_\d+_pgq_kept_until_id_idx .*\n +Index Cond: .*<=.* AND .*ROW", text), (
        text
    )


# ------------------------------------------------------------------------------------------------- by which doors


@override_settings(PGQ={"save_limit": -1})
def test_a_result_with_a_keep_is_kept_whatever_the_settings_say():
    id = async_task(kept_a_week)
    call = async_task(keeping, 1, q_options={"keep": timedelta(hours=1)})
    neither = async_task(keeping, 1, q_options={"keep": False})
    failed = async_task(fail, q_options={"keep": False, "backoff": 3})
    drain()
    assert {task.id: task.options for task in Task.objects.all()} == {
        id: {"keep": 7 * DAY}, call: {"keep": 3600}, failed: {"keep": False, "backoff": 3}
    }  # fmt: skip
    assert not Task.objects.filter(id=neither).exists()


def test_a_call_says_so_over_the_function():
    for given, stored in ((None, 7 * DAY), (60, 60), (False, False)):
        id = async_task(kept_a_week, q_options={"keep": given})
        assert QueuedTask.objects.get(id=id).options == {"keep": stored}
    enqueue_many(MARK, [(1,)], group="many", keep="1h")
    assert QueuedTask.objects.get(group="many").options == {"keep": 3600}


def test_functions_may_have_arguments_of_these_names():
    id = async_task(f"{__name__}.keeping", keep=3, backoff=4)
    schedule(f"{__name__}.keeping", keep=5, backoff=6, q_options={"keep": "1d"})
    fire_schedules()
    drain()
    first, second = Task.objects.order_by("id")
    assert (first.id, first.result, first.options) == (id, [3, 4], {})
    assert (second.result, second.options) == ([5, 6], {"keep": DAY})
