-- Returns for each queue in use: its ready tasks (each lane counted up to {limit}, from its watermark on), how long the
-- first of them has been there, its running tasks, whether it is paused.
SELECT l.queue, sum(lane.ready)::bigint AS ready, bool_or(lane.ready >= {limit}) AS more,
       extract(epoch FROM clock_timestamp() - min(first.enqueued_at))::float8 AS oldest,
       coalesce(max(busy.running), 0) AS running, bool_or(l.paused) AS paused
  FROM pgq_lane l
 CROSS JOIN LATERAL (
       SELECT count(*) AS ready
         FROM (SELECT FROM pgq_queue q
                WHERE q.queue = l.queue AND q.priority = l.priority AND q.position > l.low
                  AND lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL
                ORDER BY q.position LIMIT {limit}) x) lane
  LEFT JOIN LATERAL (
       SELECT q.enqueued_at FROM pgq_queue q
        WHERE q.queue = l.queue AND q.priority = l.priority AND q.position > l.low
          AND lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL
        ORDER BY q.position LIMIT 1) first ON true
  LEFT JOIN (SELECT q.queue, count(*) AS running
               FROM (SELECT queue FROM pgq_queue WHERE lock IS NOT NULL ORDER BY lock LIMIT {limit}) q
              GROUP BY q.queue) busy ON busy.queue = l.queue
 GROUP BY l.queue
 ORDER BY l.queue
