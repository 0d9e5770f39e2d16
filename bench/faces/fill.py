"""Fills a database with as much as a large installation has: results, a backlog in many lanes, roll-ups, pools.

Which task is of which function, queue, tenant and state is random, by a fixed seed: a few functions have most of the
tasks, one in ten has failed, and a backlog has tasks that wait, run, are parked, or have a key with a limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg

#: Rows of one INSERT.
CHUNK = 500_000
#: Tenants are groups, keys are under a limit, entries are those of the admin's log.
QUEUES, PRIORITIES, FUNCTIONS, TENANTS, KEYS, POOLS, SCHEDULES, ENTRIES = 50, 20, 200, 5_000, 1_000, 20, 1_000, 20_000
#: Workers of a pool, and tasks that each of them holds.
WORKERS, HELD = 8, 50


class Size(NamedTuple):
    """How much there is."""

    results: int = 10_000_000
    queued: int = 1_000_000
    #: The share of the time for which roll-ups are kept: minutes of 2 days, ten minutes of 14, hours of 400.
    history: float = 1.0


_PARTITIONS = """
DO $$
DECLARE week timestamptz;
BEGIN
    FOR week IN SELECT generate_series(date_trunc('week', now() - interval '28 days', 'UTC'), now(), '7 days') LOOP
        EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF pgq_task FOR VALUES FROM (%L) TO (%L)',
                       'pgq_task_' || to_char(week AT TIME ZONE 'UTC', 'YYYYMMDD'),
                       pgq_uuid7_floor(week), pgq_uuid7_floor(week + interval '7 days'));
    END LOOP;
END $$
"""
_RESULTS = """
INSERT INTO pgq_task (id, success, attempt_count, priority, max_attempts, started, stopped, enqueued_at, func, queue,
       args, kwargs,
                      result, name, "group", cluster, schedule, exception, message, traceback)
SELECT pgq_uuid7(at), ok, 1 + (n %% 17 = 0)::int, p, 3, at + took, at + 2 * took, at, 'shop.tasks.function_' || f,
       'queue_' || q,
       jsonb_build_array(n, 'customer ' || t), jsonb_build_object('invoice', md5(n::text)),
       CASE WHEN ok THEN to_jsonb(md5(n::text) || ' is done') END,
       CASE WHEN n %% 50 = 0 THEN 'report ' || n END, CASE WHEN n %% 4 = 0 THEN 'tenant ' || t END, 'shop',
       CASE WHEN n %% 20 = 0 THEN t %% %(schedules)s + 1 END,
       CASE WHEN NOT ok THEN CASE WHEN e = 0 THEN 'pgq.errors.TaskCancelled' ELSE 'shop.errors.Error' || e END END,
       CASE WHEN NOT ok THEN 'customer ' || n || ' has no address in ' || e END,
       CASE WHEN NOT ok THEN 'Traceback (most recent call last):' || repeat(E'\\n  File "shop/tasks.py", line 12,
       in charge', 8) END
  FROM (SELECT n, now() - interval '28 days' * (1 - n::float8 / %(rows)s) AS at, random() > 0.1 AS ok,
               floor(%(functions)s * power(random(), 3))::int AS f, floor(%(queues)s * power(random(), 2))::int AS q,
               floor(%(priorities)s * random())::int AS p, floor(40 * power(random(), 2))::int AS e,
               floor(%(tenants)s * random())::int AS t, interval '1 second' * random() AS took
          FROM generate_series(%(first)s::bigint, %(last)s::bigint) n OFFSET 0) x
"""
_QUEUED = """
INSERT INTO pgq_queue (id, queue, priority, func, args, name, "group", attempts, max_attempts, enqueued_at, run_after,
       parked,
                       remaining, history, key)
SELECT pgq_uuid7(at), 'queue_' || q, p, 'shop.tasks.function_' || f, jsonb_build_array(n), CASE WHEN n %% 50 = 0
       THEN 'report ' || n END,
       CASE WHEN n %% 4 = 0 THEN 'tenant ' || t END, (s < 10)::int, 3, at, CASE WHEN s < 25
       THEN now() + interval '1 s' * n END,
       CASE WHEN s BETWEEN 25 AND 27 THEN 'the function is not known here' END, CASE WHEN s BETWEEN 28 AND 29
       THEN 3 END,
       CASE WHEN s < 10 THEN '[{"exception": "shop.errors.Error1", "message": "no",
       "attempt": 1}]'::jsonb ELSE '[]' END,
       CASE WHEN s >= 90 THEN 'tenant:' || t %% %(keys)s END
  FROM (SELECT n, now() - interval '2 days' * (1 - n::float8 / %(rows)s) AS at, n %% 100 AS s,
               floor(%(functions)s * power(random(), 3))::int AS f, floor(%(queues)s * power(random(), 2))::int AS q,
               floor(%(priorities)s * random())::int AS p, floor(%(tenants)s * random())::int AS t
          FROM generate_series(%(first)s::bigint, %(last)s::bigint) n OFFSET 0) x
"""
# What one worker holds has one claim.
_RUNNING = """
UPDATE pgq_queue q SET lock = now(), worker = md5('worker' || r.n / %(held)s)::uuid,
       receipt = md5('claim' || r.n / %(held)s)::uuid,
                       attempts = 1
  FROM (SELECT id, row_number() OVER () - 1 AS n FROM (
            SELECT id FROM pgq_queue WHERE lock IS NULL AND run_after IS NULL AND parked IS NULL
                   AND remaining IS NULL AND key IS NULL
             LIMIT %(running)s) x) r
 WHERE q.id = r.id
"""
_LANES = """
INSERT INTO pgq_lane (queue, priority)
SELECT 'queue_' || q, p FROM generate_series(0, %(queues)s - 1) q, generate_series(0,
       %(priorities)s - 1) p ON CONFLICT DO NOTHING
"""
_KEYED = """
SELECT pgq_make_keyed(array_agg(queue), array_agg(key), array_agg(priority))
  FROM (SELECT DISTINCT queue, key, priority FROM pgq_queue WHERE key IS NOT NULL LIMIT 20000) k
"""
_POOLS = """
INSERT INTO pgq_worker (id, name, host, pid, status, version, workers, started_at, heartbeat)
SELECT pgq_uuid7(), 'shop' || p %% 3, 'host' || p, 1000 + p, 'working', '1.0',
       (SELECT jsonb_agg(jsonb_build_object('number', w, 'id', md5('worker' || p * %(workers)s + w), 'pid', 2000 + w,
                                            'state', 'working', 'task', replace(h.id::text, '-', ''), 'seconds', 2.5,
                                            'succeeded', 5, 'failed', 1, 'restarts', 0))
          FROM generate_series(0, %(workers)s - 1) w
          LEFT JOIN LATERAL (SELECT id FROM pgq_queue q WHERE q.worker = md5('worker' || p * %(workers)s + w)::uuid
                                AND q.lock IS NOT NULL LIMIT 1) h ON true),
       now() - interval '1 day', now() + interval '1 day'
  FROM generate_series(0, %(pools)s - 1) p
"""
_SCHEDULES = """
INSERT INTO pgq_schedule (name, func, schedule_type, cron, next_run, last_slot, error)
SELECT 'schedule ' || n, 'shop.tasks.function_' || n %% %(functions)s, 'C', n %% 60 || ' ' || n %% 24 || ' * * *',
       now() + interval '1 day' * n / %(schedules)s, now() - interval '1 day', CASE WHEN n %% 100 = 0
       THEN 'it cannot be imported' END
  FROM generate_series(1, %(schedules)s) n
"""
_COUNTED = """succeeded, failed, retried, cancelled, run_us_sum, run_us_max, run_from, run_hist, wait_us_sum,
wait_us_max, wait_from,
       wait_hist"""
_NUMBERS = """900 + f, f %% 7, f %% 5, f %% 3, 90000000, 4000000, 28, '{5,20,100,300,300,150,40,10,5,1}', 45000000,
9000000, 20,
       '{50,100,300,300,150,40,10,5,1,2,1,1}'"""
_METRICS = f"""
INSERT INTO pgq_metric (span, at, queue, func, {_COUNTED})
SELECT %(span)s, at, 'queue_' || f %% %(queues)s, 'shop.tasks.function_' || f, {_NUMBERS}
  FROM generate_series(date_trunc('hour', now()) - interval '1 hour' * %(hours)s::int, now(),
  interval '1 minute' * %(span)s) at,
       generate_series(0, %(functions)s - 1) f
"""
_GAUGES = """
INSERT INTO pgq_gauge (span, at, queue, ready, running, waiting, parked, oldest_ready, workers, busy)
SELECT %(span)s, at, CASE WHEN q < 0 THEN '' ELSE 'queue_' || q END, 10000 - extract(minute FROM at) * 10, 20, 500, 3,
       120.5, 160, 150
  FROM generate_series(date_trunc('hour', now()) - interval '1 hour' * %(hours)s::int, now(),
  interval '1 minute' * %(span)s) at,
       generate_series(-1, %(queues)s - 1) q
"""
_TOTALS = f"""
INSERT INTO pgq_total (queue, func, {_COUNTED})
SELECT 'queue_' || f %% %(queues)s, 'shop.tasks.function_' || f, {_NUMBERS} FROM generate_series(0, 1999) f
"""
_REST = """
INSERT INTO pgq_mark (at, label, kind) SELECT now() - interval '1 hour' * n, 'v' || n, 'release'
       FROM generate_series(1, 300) n;
INSERT INTO pgq_finding ("check", status, detail) SELECT 'check ' || n, 'ok', 'all is well' FROM generate_series(1,
       30) n;
"""
_ENTRIES = """
INSERT INTO django_admin_log (action_time, object_id, object_repr, action_flag, change_message, content_type_id,
       user_id)
SELECT now() - interval '1 s' * n, n::text, 'task ' || n, 2, 'Run again.',
       (SELECT id FROM django_content_type WHERE app_label = 'pgq' LIMIT 1), (SELECT min(id) FROM auth_user)
  FROM generate_series(1, %(entries)s) n
"""


def fill(dsn: str, size: Size, say: Callable[[str], None]) -> None:
    """Fill the tables of a database that has been migrated, with a user in it."""
    numbers: dict[str, Any] = {
        "queues": QUEUES, "priorities": PRIORITIES, "functions": FUNCTIONS, "tenants": TENANTS, "keys": KEYS,
        "pools": POOLS,
        "schedules": SCHEDULES, "entries": ENTRIES, "workers": WORKERS, "held": HELD,
        "running": min(POOLS * WORKERS * HELD, size.queued // 20),
    }  # fmt: skip
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("SELECT setseed(0.42)")
        session.execute("SET synchronous_commit = off")
        session.execute(_PARTITIONS)
        session.execute("ALTER TABLE pgq_queue DISABLE TRIGGER USER")
        for what, text, rows in (("results", _RESULTS, size.results), ("queued tasks", _QUEUED, size.queued)):
            for first in range(1, rows + 1, CHUNK):
                began, last = time.monotonic(), min(first + CHUNK - 1, rows)
                session.execute(text, {**numbers, "rows": rows, "first": first, "last": last})
                say(f"{last:,} {what}, {(last - first + 1) / (time.monotonic() - began):,.0f} a second")
        session.execute("ALTER TABLE pgq_queue ENABLE TRIGGER USER")
        for text in (_RUNNING, _LANES, _KEYED, _POOLS, _SCHEDULES, _TOTALS, _ENTRIES):
            session.execute(text, numbers)
        session.execute("SELECT pgq_set_limit('tenant', concurrency => 2)")
        session.execute(_REST)
        for span, hours in ((1, 48), (10, 14 * 24), (60, 400 * 24), (1440, 400 * 24)):
            part = {**numbers, "span": span, "hours": max(2, int(hours * size.history))}
            session.execute(_METRICS, part)
            session.execute(_GAUGES, part)
        say("the rest")
        # As autovacuum would have long ago.
        session.execute("VACUUM ANALYZE")
