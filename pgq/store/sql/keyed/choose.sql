-- 1 of 2 of a claim of rows with keys: which lanes to claim from, and the locks of their limits. The locks end with the
-- transaction. They are tried, not waited for: a worker that freezes between claim and commit must not hold up the others.
-- The LIMIT of the lanes comes before the locks (MATERIALIZED): else keys would be locked that are not used.
-- `locking` false: it only looks. Always returns one row. `queues`: what goes on behind the last lane looked at. Where the ring goes on in a queue: behind
-- the last lane that is kept; or, if fewer are kept than wanted, behind the last one looked at, so that full lanes do not hide
-- those behind them.
WITH RECURSIVE {lanes_with_room}, held AS MATERIALIZED (
    SELECT lane.*,
           CASE WHEN NOT %(locking)s THEN true
                WHEN queue_limited AND NOT pg_try_advisory_xact_lock(hashtextextended('pgq_limit queue ' || queue, 0)) THEN false
                WHEN key_limited THEN pg_try_advisory_xact_lock(hashtextextended('pgq_limit key ' || key, 0))
                ELSE true END AS mine
      FROM lane
), visited AS (
    SELECT looked.queue, looked.n, looked.key, looked.turn
      FROM looked
     WHERE (SELECT count(*) FROM lane) < {lanes}
        OR (looked.turn, looked.n) <= (SELECT turn, n FROM lane ORDER BY turn DESC, n DESC LIMIT 1)
), reached AS (
    SELECT DISTINCT ON (queue) queue, key FROM visited WHERE key <> '' ORDER BY queue, turn DESC
)
SELECT (SELECT priority FROM best) AS priority,
       coalesce(array_agg(queue ORDER BY turn, n) FILTER (WHERE mine), '{}') AS queues,
       coalesce(array_agg(key ORDER BY turn, n) FILTER (WHERE mine), '{}') AS keys,
       coalesce(array_agg(low ORDER BY turn, n) FILTER (WHERE mine), '{}') AS lows,
       coalesce(array_agg(queue_limited ORDER BY turn, n) FILTER (WHERE mine), '{}') AS queue_limited,
       coalesce(array_agg(key_limited ORDER BY turn, n) FILTER (WHERE mine), '{}') AS key_limited,
       coalesce(array_agg(queue_rated ORDER BY turn, n) FILTER (WHERE mine), '{}') AS queue_rated,
       coalesce(array_agg(key_rated ORDER BY turn, n) FILTER (WHERE mine), '{}') AS key_rated,
       count(*) FILTER (WHERE NOT mine) AS busy,
       (SELECT count(*) FROM looked) AS looked,
       (SELECT array_agg(queue) FROM reached) AS ring_queues,
       (SELECT array_agg(key) FROM reached) AS ring_keys,
       -- The last queue of these has the first turn next time, too: its turn may have been cut short.
       (SELECT (array_agg(queue ORDER BY n DESC))[least(count(*), 2)] FROM (SELECT DISTINCT queue, n FROM visited) v) AS after,
       EXISTS (SELECT FROM pgq_lane l WHERE l.priority > (SELECT priority FROM best)
                  AND l.low < pg_sequence_last_value('pgq_position'::regclass)) AS plain_above,
       EXISTS (SELECT FROM pgq_lane l WHERE l.priority = (SELECT priority FROM best)
                  AND l.low < pg_sequence_last_value('pgq_position'::regclass)) AS plain_beside,
       EXISTS (SELECT FROM pgq_limit l WHERE l.rate > 0) AS rates,
       -- A worker that freezes before its commit would keep the locks: PostgreSQL ends such a transaction after so many
       -- milliseconds.
       CASE WHEN %(idle_limit)s::text IS NOT NULL
            THEN set_config('idle_in_transaction_session_timeout', %(idle_limit)s::text, true) END AS idle_limit
  FROM held
