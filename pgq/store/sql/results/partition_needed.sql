-- Returns whether a partition holds a row that clean.sql would leave.
SELECT EXISTS (
    SELECT
      FROM {partition} t
     WHERE (t.id <= CASE WHEN t.success THEN %(successes_to)s::uuid ELSE %(failures_to)s::uuid END
            AND (%(queue)s::text IS NULL OR t.queue = %(queue)s::text)
            AND (%(before)s::timestamptz IS NULL OR t.stopped < %(before)s::timestamptz)
            AND (t.options ? 'keep'
                 AND pgq_kept_until(t.options, t.stopped) > extract(epoch FROM statement_timestamp())) IS NOT TRUE
            AND NOT EXISTS (SELECT FROM pgq_queue q
                             WHERE q.id = CASE WHEN t.options ->> 'collector' ~ '^[0-9a-f]{32}$'
                                               THEN (t.options ->> 'collector')::uuid END)) IS NOT TRUE)
