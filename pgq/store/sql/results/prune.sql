-- Reads the next {limit} successful tasks beyond the newest `keep` of those with an id below `before`, newest first, and
-- deletes them, except results that a collector still has to read, that another table refers to, or whose option `keep` is
-- not over.
-- Returns the last id read (NULL: that was all), how many were deleted, and for each one that a foreign key keeps,
-- which.
WITH looked AS MATERIALIZED (
    SELECT t.id, t.options ->> 'collector' AS collector,
           t.options ? 'keep' AND pgq_kept_until(t.options, t.stopped) > extract(epoch FROM statement_timestamp()) AS kept
      FROM pgq_task t
     WHERE t.success AND t.id < %(before)s
     ORDER BY t.id DESC
    OFFSET %(keep)s
     LIMIT {limit}
), done AS MATERIALIZED (
    SELECT d.reference
      FROM pgq_delete_results(ARRAY(
           SELECT l.id
             FROM looked l
            -- The option may hold anything if psql wrote the row, and a wrong cast would stop all pruning.
            WHERE NOT EXISTS (SELECT FROM pgq_queue q
                               WHERE q.id = CASE WHEN l.collector ~ '^[0-9a-f]{32}$' THEN l.collector::uuid END)
              AND l.kept IS NOT TRUE), false) d
)
SELECT (SELECT id FROM looked ORDER BY id DESC OFFSET {limit} - 1) AS last,
       count(*) FILTER (WHERE reference IS NULL) AS count,
       coalesce(array_agg(reference) FILTER (WHERE reference IS NOT NULL), '{}') AS kept
  FROM done
