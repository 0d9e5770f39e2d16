-- Deletes the oldest successful tasks beyond the newest `keep` of each group, name or function, a small batch at a time:
-- {limit} with ids below `before`, newest first. Tasks without a group, or a name, count together. What it keeps and what
-- it returns: see prune.sql.
WITH ranked AS (
    SELECT t.id, t.options ->> 'collector' AS collector,
           t.options ? 'keep' AND pgq_kept_until(t.options, t.stopped) > extract(epoch FROM statement_timestamp()) AS kept,
           row_number() OVER (PARTITION BY CASE %(per)s WHEN 'group' THEN t."group" WHEN 'name' THEN t.name ELSE t.func END
                                  ORDER BY t.id DESC) AS place
      FROM pgq_task t
     WHERE t.success
), looked AS MATERIALIZED (
    SELECT id, collector, kept FROM ranked WHERE place > %(keep)s AND id < %(before)s ORDER BY id DESC LIMIT {limit}
), done AS MATERIALIZED (
    SELECT d.reference
      FROM pgq_delete_results(ARRAY(
           SELECT l.id
             FROM looked l
            WHERE NOT EXISTS (SELECT FROM pgq_queue q
                               WHERE q.id = CASE WHEN l.collector ~ '^[0-9a-f]{32}$' THEN l.collector::uuid END)
              AND l.kept IS NOT TRUE), false) d
)
SELECT (SELECT id FROM looked ORDER BY id DESC OFFSET {limit} - 1) AS last,
       count(*) FILTER (WHERE reference IS NULL) AS count,
       coalesce(array_agg(reference) FILTER (WHERE reference IS NOT NULL), '{}') AS kept
  FROM done
