-- Returns the tasks of a group in either table, at most {limit} of each, the oldest first, and the collectors that wait for them:
-- their states, and the functions of the links that follow in their chains.
WITH part AS (
    (SELECT q.id FROM pgq_queue q WHERE q."group" = %(group)s LIMIT {limit})
    UNION
    (SELECT t.id FROM pgq_task t WHERE t."group" = %(group)s ORDER BY t.id LIMIT {limit})
), collector AS (
    SELECT DISTINCT options ->> 'collector' AS id
      FROM (SELECT options FROM pgq_queue WHERE "group" = %(group)s LIMIT {limit}) live
     UNION
    SELECT DISTINCT options ->> 'collector'
      FROM (SELECT options FROM pgq_task WHERE "group" = %(group)s ORDER BY id LIMIT {limit}) finished
), wanted AS (
    SELECT id, false AS collects FROM part
     UNION ALL
    SELECT c.id::uuid, true FROM (SELECT id FROM collector WHERE id ~ '^[0-9a-f]{32}$' LIMIT 50) c
), found AS (
    SELECT q.id, q.name, q.func, w.collects, q.options,
           CASE WHEN q.cancelled THEN 'cancelled' WHEN q.lock IS NOT NULL THEN 'running' WHEN q.parked IS NOT NULL THEN 'parked'
                WHEN q.run_after IS NOT NULL OR q.remaining IS NOT NULL THEN 'waiting' ELSE 'ready' END AS state
      FROM wanted w JOIN pgq_queue q USING (id)
     UNION ALL
    SELECT t.id, t.name, t.func, w.collects, t.options,
           CASE WHEN t.success THEN 'succeeded' WHEN t.exception = 'pgq.errors.TaskCancelled' THEN 'cancelled' ELSE 'failed' END
      FROM wanted w JOIN pgq_task t USING (id)
)
SELECT id, name, func, bool_or(collects) AS collects, min(state) AS state,
       min(CASE WHEN jsonb_typeof(options -> 'chain') = 'array'
                THEN jsonb_path_query_array(options, '$.chain[*].func')::text END)::text AS chain
  FROM found
 GROUP BY id, name, func
 ORDER BY id
