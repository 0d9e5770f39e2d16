-- Reads rows as clean.sql does, but only counts what that would delete.
WITH looked AS MATERIALIZED (
    SELECT t.id, t.success, t.queue, t.stopped, t.options ->> 'collector' AS collector,
           t.options ? 'keep' AND pgq_kept_until(t.options, t.stopped) > extract(epoch FROM statement_timestamp()) AS kept
      FROM pgq_task t
     WHERE t.id > %(after)s AND t.id <= %(to)s
     ORDER BY t.id
     LIMIT {limit}
)
SELECT (SELECT id FROM looked ORDER BY id DESC LIMIT 1),
       (SELECT count(*)
          FROM looked l
         WHERE l.id <= CASE WHEN l.success THEN %(successes_to)s::uuid ELSE %(failures_to)s::uuid END
           AND (%(queue)s::text IS NULL OR l.queue = %(queue)s::text)
           AND (%(before)s::timestamptz IS NULL OR l.stopped < %(before)s::timestamptz)
           AND l.kept IS NOT TRUE
           AND NOT EXISTS (SELECT FROM pgq_queue q
                            WHERE q.id = CASE WHEN l.collector ~ '^[0-9a-f]{32}$' THEN l.collector::uuid END))
