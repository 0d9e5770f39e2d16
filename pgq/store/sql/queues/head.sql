-- Returns the tasks of a queue that are claimed next, at most {limit}: those without a key in their order, and some with one, whose
-- keys take turns.
SELECT q.id, q.name, q.func, q.key, q.priority, q.attempts,
       extract(epoch FROM clock_timestamp() - coalesce(q.ready_at, q.enqueued_at))::float8 AS seconds
  FROM (SELECT plain.*
          FROM (SELECT * FROM pgq_lane WHERE queue = %(queue)s ORDER BY priority DESC LIMIT 50) l
         CROSS JOIN LATERAL (
               SELECT * FROM pgq_queue r
                WHERE r.queue = l.queue AND r.priority = l.priority AND r.position > l.low
                  AND lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL AND key IS NULL
                ORDER BY r.position LIMIT {limit}) plain
         UNION ALL
        (SELECT * FROM pgq_queue r
          WHERE r.queue = %(queue)s
            AND lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL AND key IS NOT NULL
          LIMIT {limit})) q
 ORDER BY q.priority DESC, q.position
 LIMIT {limit}
