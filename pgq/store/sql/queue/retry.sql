-- Puts failed tasks back for another attempt, after a delay in seconds. A row whose receipt is another by now is left alone.
-- Returns the ids that were put back.
WITH receipt AS (
    SELECT *
      FROM unnest(%(id)s::uuid[], %(receipt)s::uuid[], %(delay)s::float8[], %(began)s::float8[], %(error)s::jsonb[])
        AS r (id, receipt, delay, began, error)
)
UPDATE pgq_queue q
   SET lock = NULL, worker = NULL, receipt = NULL, strand = NULL,
       run_after = clock_timestamp() + r.delay * interval '1 second',
       history = q.history || (r.error || jsonb_build_object(
                     'attempt', q.attempts, 'worker', q.worker, 'at', clock_timestamp(),
                     'started', statement_timestamp() - r.began * interval '1 second')
                     -- It has started, and goes on without its unique key, which another task may have by now.
                     || CASE WHEN q.unique_until IS NOT NULL AND q.unique_key IS NULL THEN '{"unique": false}' ELSE '{}' END::jsonb)
  FROM receipt r
 WHERE q.id = r.id AND q.receipt = r.receipt
RETURNING q.id
