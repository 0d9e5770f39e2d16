-- Deletes the oldest successful tasks beyond the newest `keep`, a small batch at a time. Returns how many.
WITH old AS (
    SELECT id
      FROM pgq_task
     WHERE success
     ORDER BY id DESC
    OFFSET %(keep)s
     LIMIT %(limit)s
)
DELETE FROM pgq_task t USING old WHERE t.id = old.id
