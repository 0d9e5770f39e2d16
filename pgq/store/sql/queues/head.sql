-- Returns the tasks of a queue that are claimed next, at most {limit}.
SELECT q.id, q.name, q.func, q.priority, q.attempts, extract(epoch FROM clock_timestamp() - q.enqueued_at)::float8 AS seconds
  FROM (SELECT * FROM pgq_lane WHERE queue = %(queue)s ORDER BY priority DESC LIMIT 50) l
 CROSS JOIN LATERAL (
       SELECT * FROM pgq_queue r
        WHERE r.queue = l.queue AND r.priority = l.priority AND r.position > l.low
          AND lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL
        ORDER BY r.position LIMIT {limit}) q
 ORDER BY q.priority DESC, q.position
 LIMIT {limit}
