-- Looks at the next {limit} results whose option `keep` was over before a time, and deletes them, except those that a
-- collector still has to read or that another table refers to. They are read in the order of the index pgq_task_keep, from
-- behind those that the last call has read.
-- Returns the last one read (NULL: that was all) by its id and its end, how many were deleted, and for each one that a
-- foreign key keeps, which.
WITH looked AS MATERIALIZED (
    SELECT pgq_kept_until(t.options, t.stopped) AS until, t.id, t.options ->> 'collector' AS collector
      FROM pgq_task t
     WHERE t.options ? 'keep'
       AND pgq_kept_until(t.options, t.stopped) <= extract(epoch FROM %(now)s::timestamptz)::float8
       AND (pgq_kept_until(t.options, t.stopped), t.id) > (%(until)s::float8, %(after)s::uuid)
     ORDER BY pgq_kept_until(t.options, t.stopped), t.id
     LIMIT {limit}
), done AS MATERIALIZED (
    SELECT d.reference
      FROM pgq_delete_results(ARRAY(
           SELECT l.id
             FROM looked l
            WHERE NOT EXISTS (SELECT FROM pgq_queue q
                               WHERE q.id = CASE WHEN l.collector ~ '^[0-9a-f]{32}$' THEN l.collector::uuid END)), false) d
)
SELECT (SELECT id FROM looked ORDER BY until, id OFFSET {limit} - 1) AS last,
       count(*) FILTER (WHERE reference IS NULL) AS count,
       coalesce(array_agg(reference) FILTER (WHERE reference IS NOT NULL), '{}') AS kept,
       (SELECT until FROM looked ORDER BY until, id OFFSET {limit} - 1) AS until
  FROM done
