-- Returns the last {limit} finished tasks of each of these schedules: whether they succeeded and how long they ran.
SELECT s.id AS schedule, t.id, t.success, t.started, extract(epoch FROM t.stopped - t.started)::float8 AS seconds
  FROM unnest(%(ids)s::bigint[]) s (id)
 CROSS JOIN LATERAL (
       SELECT id, success, started, stopped FROM pgq_task
        WHERE schedule = s.id
        ORDER BY id DESC LIMIT {limit}) t
 ORDER BY s.id, t.id
