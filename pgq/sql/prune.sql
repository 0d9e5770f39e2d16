-- Deletes the oldest successful tasks beyond the newest `keep`, a small batch at a time. Returns how many.
-- What a collector still has to read stays.
WITH old AS (
    SELECT t.id
      FROM pgq_task t
     WHERE t.success
       AND NOT (t.options ? 'collector'
                AND EXISTS (SELECT FROM pgq_queue q WHERE q.id = (t.options ->> 'collector')::uuid))
     ORDER BY t.id DESC
    OFFSET %(keep)s
     LIMIT %(limit)s
)
DELETE FROM pgq_task t USING old WHERE t.id = old.id
