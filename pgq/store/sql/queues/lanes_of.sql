-- Returns the lanes of a queue, the highest priority first: their watermarks, ready tasks up to {limit}, and how long the first
-- of them has been ready.
-- Tasks with a key are counted up to {limit} of the queue; they have lanes of their own, and a queue may have no others.
WITH lane AS (
    SELECT queue, priority, low, paused FROM pgq_lane WHERE queue = %(queue)s
)
SELECT l.priority, l.low, l.paused, ready.count AS ready, first.seconds AS oldest, coalesce(keyed.count, 0) AS keyed
  FROM (SELECT * FROM lane
         UNION ALL
        SELECT DISTINCT k.queue, k.priority, 0, false
          FROM (SELECT queue, priority FROM pgq_keyed WHERE queue = %(queue)s LIMIT {limit}) k
         WHERE NOT EXISTS (SELECT FROM lane WHERE lane.priority = k.priority)) l
  LEFT JOIN (SELECT priority, count(*) AS count
               FROM (SELECT priority FROM pgq_queue
                      WHERE queue = %(queue)s
                        AND lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL AND key IS NOT NULL
                      LIMIT {limit}) k
              GROUP BY priority) keyed USING (priority)
 CROSS JOIN LATERAL (
       SELECT count(*) AS count
         FROM (SELECT FROM pgq_queue q
                WHERE q.queue = l.queue AND q.priority = l.priority AND q.position > l.low
                  AND lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL AND key IS NULL
                ORDER BY q.position LIMIT {limit}) x) ready
  LEFT JOIN LATERAL (
       SELECT extract(epoch FROM clock_timestamp() - coalesce(q.ready_at, q.enqueued_at))::float8 AS seconds
         FROM pgq_queue q
        WHERE q.queue = l.queue AND q.priority = l.priority AND q.position > l.low
          AND lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL AND key IS NULL
        ORDER BY q.position LIMIT 1) first ON true
 ORDER BY l.priority DESC
 LIMIT 50
