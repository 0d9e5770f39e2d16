-- Reads the next {limit} rows of a range of ids and deletes those that are old: successes up to one id, failures up to
-- another (NULL: none), finished before a time (NULL: any). It keeps results that a collector still has to read, that
-- another table refers to, or whose option `keep` is not over, and skips rows that another session is deleting.
-- Returns the last id read (NULL: the range is done), how many rows were deleted, and for each one that a foreign key
-- keeps, which.
WITH looked AS MATERIALIZED (
    SELECT t.id, t.success, t.queue, t.stopped, t.options ->> 'collector' AS collector,
           t.options ? 'keep' AND pgq_kept_until(t.options, t.stopped) > extract(epoch FROM statement_timestamp()) AS kept
      FROM pgq_task t
     WHERE t.id > %(after)s AND t.id <= %(to)s
     ORDER BY t.id
     LIMIT {limit}
), old AS MATERIALIZED (
    SELECT t.id
      FROM pgq_task t
      JOIN looked l USING (id)
     WHERE l.id <= CASE WHEN l.success THEN %(successes_to)s::uuid ELSE %(failures_to)s::uuid END
       AND (%(queue)s::text IS NULL OR l.queue = %(queue)s::text)
       AND (%(before)s::timestamptz IS NULL OR l.stopped < %(before)s::timestamptz)
       AND l.kept IS NOT TRUE
       AND NOT EXISTS (SELECT FROM pgq_queue q
                        WHERE q.id = CASE WHEN l.collector ~ '^[0-9a-f]{32}$' THEN l.collector::uuid END)
       FOR UPDATE OF t SKIP LOCKED
), done AS MATERIALIZED (
    SELECT d.reference FROM pgq_delete_results(ARRAY(SELECT id FROM old), false) d
)
SELECT (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last,
       count(*) FILTER (WHERE reference IS NULL) AS count,
       coalesce(array_agg(reference) FILTER (WHERE reference IS NOT NULL), '{}') AS kept
  FROM done
