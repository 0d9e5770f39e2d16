-- Looks at the next {limit} rows after `after`, in the order of their ids, and deletes those whose tasks are gone: neither
-- queued nor finished. Not rows of the last minute.
-- Returns the last id looked at (NULL: that was all), and how many were deleted.
WITH looked AS MATERIALIZED (
    SELECT p.task, p.updated_at
      FROM pgq_progress p
     WHERE p.task > %(after)s
     ORDER BY p.task
     LIMIT {limit}
), gone AS MATERIALIZED (
    -- (Not EXISTS, which may become a hash of all results.)
    SELECT l.task
      FROM looked l
     WHERE l.updated_at < clock_timestamp() - interval '1 minute'
       AND (SELECT true FROM pgq_queue q WHERE q.id = l.task LIMIT 1) IS NULL
       AND (SELECT true FROM pgq_task t WHERE t.id = l.task LIMIT 1) IS NULL
), deleted AS (
    -- If the task is queued anew meanwhile and says something, its row is of the last minute by now.
    DELETE FROM pgq_progress p
     USING gone g
     WHERE p.task = g.task AND p.updated_at < clock_timestamp() - interval '1 minute'
    RETURNING p.task
)
SELECT (SELECT task FROM looked ORDER BY task OFFSET {limit} - 1) AS last, (SELECT count(*) FROM deleted) AS count
