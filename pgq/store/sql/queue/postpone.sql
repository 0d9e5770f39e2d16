-- Gives back, for a while, tasks that the worker's code does not know: a worker of another release may. They are not
-- charged an attempt. A row whose receipt is another by now is left alone. Returns the ids that were given back.
-- The note replaces the last one of its kind, so that a history does not grow while no worker knows the task.
WITH receipt AS (
    SELECT *
      FROM unnest(%(id)s::uuid[], %(receipt)s::uuid[], %(delay)s::float8[], %(note)s::jsonb[])
        AS r (id, receipt, delay, note)
)
UPDATE pgq_queue q
   SET lock = NULL, worker = NULL, receipt = NULL, strand = NULL, attempts = q.attempts - 1,
       run_after = clock_timestamp() + r.delay * interval '1 second',
       history = CASE WHEN q.history -> -1 ? 'postponed' THEN q.history - -1 ELSE q.history END
                 || (r.note || jsonb_build_object('attempt', q.attempts, 'worker', q.worker, 'at', clock_timestamp())
                     -- As in retry.sql: it goes on without its unique key.
                     || CASE WHEN q.unique_until IS NOT NULL AND q.unique_key IS NULL THEN '{"unique": false}' ELSE '{}' END::jsonb)
  FROM receipt r
 WHERE q.id = r.id AND q.receipt = r.receipt
RETURNING q.id
