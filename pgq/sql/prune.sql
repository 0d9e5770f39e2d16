-- Deletes the oldest successful tasks beyond the newest `keep`, a small batch at a time. Returns how many.
-- What a collector still has to read stays.
WITH old AS (
    SELECT t.id
      FROM pgq_task t
     WHERE t.success
       -- The option may hold anything if psql wrote the row, and a wrong cast would stop all pruning.
       AND NOT EXISTS (SELECT FROM pgq_queue q
                        WHERE q.id = CASE WHEN t.options ->> 'collector' ~ '^[0-9a-f]{32}$'
                                          THEN (t.options ->> 'collector')::uuid END)
     ORDER BY t.id DESC
    OFFSET %(keep)s
     LIMIT %(limit)s
)
DELETE FROM pgq_task t USING old WHERE t.id = old.id
