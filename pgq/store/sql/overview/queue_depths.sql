-- Returns for each queue in use: its ready tasks (each lane counted up to {limit}, from its watermark on; those with a key up
-- to {limit} of the queue), since how many seconds the first of them is ready, its running, waiting and parked tasks, and
-- whether it is paused.
-- Those are counted up to {most} in all, by the index that has each kind; those that wait for other tasks, which no index
-- has, among the first rows of the table.
WITH RECURSIVE named (queue) AS (
    SELECT min(queue) FROM pgq_keyed
     UNION ALL
    SELECT (SELECT min(k.queue) FROM pgq_keyed k WHERE k.queue > named.queue) FROM named WHERE named.queue IS NOT NULL
), lane AS (
    SELECT l.queue, l.paused, counted.ready, first.ready_at
      FROM pgq_lane l
     CROSS JOIN LATERAL (
           SELECT count(*) AS ready
             FROM (SELECT FROM pgq_queue q
                    WHERE q.queue = l.queue AND q.priority = l.priority AND q.position > l.low
                      AND lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL AND key IS NULL
                    ORDER BY q.position LIMIT {limit}) x) counted
      LEFT JOIN LATERAL (
           SELECT coalesce(q.ready_at, q.enqueued_at) AS ready_at FROM pgq_queue q
            WHERE q.queue = l.queue AND q.priority = l.priority AND q.position > l.low
              AND lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL AND key IS NULL
            ORDER BY q.position LIMIT 1) first ON true
     UNION ALL
    SELECT n.queue, false, counted.ready, counted.ready_at
      FROM named n
     CROSS JOIN LATERAL (
           SELECT count(*) AS ready, min(x.ready_at) AS ready_at
             FROM (SELECT coalesce(q.ready_at, q.enqueued_at) AS ready_at FROM pgq_queue q
                    WHERE q.queue = n.queue
                      AND lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL AND key IS NOT NULL
                    LIMIT {limit}) x) counted
     WHERE n.queue IS NOT NULL
)
SELECT lane.queue, sum(lane.ready)::bigint AS ready, bool_or(lane.ready >= {limit}) AS more,
       extract(epoch FROM clock_timestamp() - min(lane.ready_at))::float8 AS oldest,
       coalesce(max(other.running), 0) AS running, coalesce(max(other.waiting), 0) AS waiting,
       coalesce(max(other.parked), 0) AS parked, bool_or(lane.paused) AS paused
  FROM lane
  LEFT JOIN (SELECT queue, count(*) FILTER (WHERE state = 'running') AS running,
                    count(*) FILTER (WHERE state = 'waiting') AS waiting, count(*) FILTER (WHERE state = 'parked') AS parked
               FROM (SELECT * FROM (SELECT queue, 'running' AS state FROM pgq_queue WHERE lock IS NOT NULL
                                     ORDER BY lock LIMIT {most}) r
                      UNION ALL
                     SELECT * FROM (SELECT queue, 'waiting' FROM pgq_queue WHERE run_after IS NOT NULL AND parked IS NULL
                                     ORDER BY run_after LIMIT {most}) w
                      UNION ALL
                     SELECT queue, 'waiting' FROM (SELECT queue, remaining, run_after, parked FROM pgq_queue LIMIT {most}) c
                      WHERE remaining IS NOT NULL AND run_after IS NULL AND parked IS NULL
                      UNION ALL
                     SELECT * FROM (SELECT queue, 'parked' FROM pgq_queue WHERE parked IS NOT NULL
                                     ORDER BY id LIMIT {most}) p) live
              GROUP BY queue) other ON other.queue = lane.queue
 GROUP BY lane.queue
 ORDER BY lane.queue
