-- Makes the tasks ready again whose lease has run out: their worker, its host or its network is gone.
-- Which of them took its worker down cannot be known, so each is charged a crash. The first time a task keeps its place:
-- behind a long backlog it would wait for all of it. Another time it goes to the end, so that a lane does not begin with
-- nothing but tasks that take workers down.
-- A task that has no crash left is settled as failed, without being run, by the worker that claims it next.
-- Returns (id, true, queue, function, nothing); 1000 at most: for more, PostgreSQL 18 would find them
-- by reading the whole table.
WITH lost AS MATERIALIZED (
    SELECT id, queue, key, priority, position, crashes > 0 AS to_end
      FROM pgq_queue
     -- `since` may be of before the clock was set back.
     WHERE lock >= least(%(since)s, statement_timestamp() - interval '30 seconds')
       AND lock < least(%(before)s::timestamptz, statement_timestamp() - %(age)s * interval '1 second')
     ORDER BY lock
     LIMIT 1000
       FOR UPDATE SKIP LOCKED
), {kept_places}
UPDATE pgq_queue q
   SET lock = NULL, worker = NULL, receipt = NULL, strand = NULL, position = coalesce(lost.place, nextval('pgq_position')),
       ready_at = clock_timestamp(), crashes = q.crashes + 1,
       history = q.history || (%(error)s::jsonb || jsonb_build_object(
                     'attempt', q.attempts, 'worker', q.worker, 'at', clock_timestamp(), 'started', q.lock)
                     -- As in retry.sql: it goes on without its unique key.
                     || CASE WHEN q.unique_until IS NOT NULL AND q.unique_key IS NULL THEN '{"unique": false}' ELSE '{}' END::jsonb)
  FROM placed lost
 WHERE q.id = lost.id
RETURNING q.id, true, q.queue, q.func,
          CASE WHEN lost.laneless THEN pgq_keyed_ready(q.queue, q.key, q.priority) END
