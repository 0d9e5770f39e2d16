-- Makes ready again what a dead worker held, and charges the task that it ran: with a crash, or, if the worker was killed
-- at the task's timeout, with a failed attempt. `task` NULL: several ran, so each task that the worker held is charged.
-- The others only waited in the worker's hands: they keep their place and are charged nothing. So does a charged task
-- keep its place at its first crash; at another one, and at a timeout, it goes to the end (see rescue_expired.sql).
-- A task that has no attempt or no crash left is settled as failed, without being run, by the worker that claims it next.
-- Returns (id, whether it was charged, queue, function, nothing); 1000 rows at most. A row that is locked, as by a
-- transaction of the dead worker that PostgreSQL has not ended yet, is left out.
WITH lost AS MATERIALIZED (
    SELECT id, queue, key, priority, position, charged, charged AND NOT (%(crash)s AND crashes = 0) AS to_end
      FROM pgq_queue
     CROSS JOIN LATERAL (SELECT %(task)s::uuid IS NULL OR id = %(task)s::uuid) AS blame (charged)
     -- `since` may be of before the clock was set back.
     WHERE lock >= least(%(since)s, statement_timestamp() - interval '30 seconds') AND worker = %(worker)s::uuid
     ORDER BY lock
     LIMIT 1000
       FOR UPDATE OF pgq_queue SKIP LOCKED
), {kept_places}
UPDATE pgq_queue q
   SET lock = NULL, worker = NULL, receipt = NULL, strand = NULL, position = coalesce(lost.place, nextval('pgq_position')),
       ready_at = CASE WHEN lost.charged THEN clock_timestamp() ELSE q.ready_at END,
       attempts = q.attempts - (NOT lost.charged)::integer,
       crashes = q.crashes + (lost.charged AND %(crash)s)::integer,
       history = CASE WHEN lost.charged THEN q.history || (%(error)s::jsonb || jsonb_build_object(
                     'attempt', q.attempts, 'worker', q.worker, 'at', clock_timestamp(), 'started', q.lock)
                     -- As in retry.sql: it goes on without its unique key.
                     || CASE WHEN q.unique_until IS NOT NULL AND q.unique_key IS NULL THEN '{"unique": false}' ELSE '{}' END::jsonb)
                 ELSE q.history END
  FROM placed lost
 WHERE q.id = lost.id
RETURNING q.id, lost.charged, q.queue, q.func,
          CASE WHEN lost.laneless THEN pgq_keyed_ready(q.queue, q.key, q.priority) END
