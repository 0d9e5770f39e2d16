-- Gives a task that does not run another time; NULL, or one that has passed: it is ready. Returns whether it did.
WITH moved AS (
    UPDATE pgq_queue q
       SET run_after = CASE WHEN %(run_after)s::timestamptz > clock_timestamp() THEN %(run_after)s::timestamptz END,
           position = CASE WHEN q.run_after IS NULL THEN q.position ELSE nextval('pgq_position') END
     WHERE q.id = %(id)s AND q.lock IS NULL AND q.parked IS NULL AND q.remaining IS NULL
    RETURNING q.queue, q.key, q.priority, q.run_after
)
SELECT count(*), count(pgq_keyed_ready(queue, key, priority)::text) FILTER (WHERE key IS NOT NULL AND run_after IS NULL),
       count(pgq_wake()::text) FILTER (WHERE run_after IS NULL)
  FROM moved
