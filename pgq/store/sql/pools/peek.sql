-- Raises the flag that a worker sleeps, for so many milliseconds, and returns whether a task without a key is ready, and
-- whether to look for those that have one, or are in a queue with a limit (see choose.sql).
-- A task that is committed after this statement's snapshot and before the flag was visible is found by the next call.
SELECT CASE WHEN %(milliseconds)s::bigint IS NULL THEN 0
            ELSE setval('pgq_sleep_until', (extract(epoch FROM clock_timestamp()) * 1000 + %(milliseconds)s::bigint)::bigint) END,
       EXISTS (
           SELECT
             FROM pgq_lane l
            CROSS JOIN LATERAL (
                  SELECT
                    FROM pgq_queue q
                   WHERE q.queue = l.queue AND q.priority = l.priority AND q.position > l.low
                     AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL AND q.key IS NULL
                   LIMIT 1) ready
            WHERE (%(queues)s::text[] IS NULL OR l.queue {among} (%(queues)s::text[]))
              AND (%(excluded)s::text[] IS NULL OR l.queue {apart} (%(excluded)s::text[]))
              AND NOT EXISTS (SELECT FROM pgq_lane p WHERE p.queue = l.queue AND p.paused)
              AND NOT EXISTS (SELECT FROM pgq_limit m WHERE m.scope = 'queue' AND m.name = l.queue)),
       EXISTS (SELECT FROM pgq_keyed WHERE idle_since IS NULL) OR EXISTS (SELECT FROM pgq_limit WHERE scope = 'queue')
