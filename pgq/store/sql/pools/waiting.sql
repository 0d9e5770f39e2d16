-- Returns whether a task without a key is ready that may be claimed from these queues; and whether tasks are ready though all of these
-- queues are paused. It reads as claims do, from the watermarks on, and raises no flag.
WITH lane AS MATERIALIZED (
    SELECT l.queue, l.priority, l.low, EXISTS (SELECT FROM pgq_lane p WHERE p.queue = l.queue AND p.paused) AS paused
      FROM pgq_lane l
     -- Tasks of a queue that has a limit may be held by it.
     WHERE l.queue NOT IN (SELECT m.name FROM pgq_limit m WHERE m.scope = 'queue')
       AND (%(queues)s::text[] IS NULL OR l.queue {among} (%(queues)s::text[]))
       AND (%(excluded)s::text[] IS NULL OR l.queue {apart} (%(excluded)s::text[]))
), ready AS (
    SELECT lane.paused
      FROM lane
     CROSS JOIN LATERAL (
           SELECT
             FROM pgq_queue q
            WHERE q.queue = lane.queue AND q.priority = lane.priority AND q.position > lane.low
              AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL AND q.key IS NULL
            LIMIT 1) first
)
SELECT EXISTS (SELECT FROM ready WHERE NOT paused),
       EXISTS (SELECT FROM ready WHERE paused) AND NOT EXISTS (SELECT FROM lane WHERE NOT paused)
