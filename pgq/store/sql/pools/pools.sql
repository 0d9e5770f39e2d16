-- Returns the pools that pgq_worker knows, with their ages by the database's clock, and how many tasks they have claimed.
-- `id` NULL: all of them.
SELECT p.id, p.name, p.host, p.pid, p.queues, p.exclude_queues, p.status, p.started_at, p.heartbeat, p.version, p.workers::text AS workers,
       extract(epoch FROM clock_timestamp() - p.started_at)::float8 AS uptime,
       extract(epoch FROM clock_timestamp() - p.heartbeat)::float8 AS silent,
       (SELECT count(*)
          FROM jsonb_path_query(p.workers, '$[*].id ? (@ like_regex "^[0-9a-f]{32}$")') AS w (id)
          JOIN pgq_queue q ON q.worker = (w.id #>> '{}')::uuid AND q.lock IS NOT NULL) AS claimed
  FROM pgq_worker p
 WHERE p.id = coalesce(%(id)s::uuid, p.id)
 ORDER BY p.started_at, p.id
