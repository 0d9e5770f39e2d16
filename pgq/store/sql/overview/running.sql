-- Returns the tasks that workers run, longest first: as of the pools' last heartbeats, and still claimed.
SELECT q.id, q.name, q.func, q.queue, q.attempts AS attempt, q.cancelled, p.name AS pool, p.host,
       (w ->> 'pid')::integer AS pid,
       (w ->> 'seconds')::float8 + extract(epoch FROM clock_timestamp() - p.heartbeat)::float8 AS seconds
  FROM pgq_worker p
 CROSS JOIN LATERAL jsonb_array_elements(p.workers) w
  JOIN pgq_queue q ON q.id = (w ->> 'task')::uuid AND q.lock IS NOT NULL
 WHERE p.heartbeat > clock_timestamp() - %(alive)s * interval '1 second'
 ORDER BY seconds DESC NULLS LAST
 LIMIT %(limit)s
