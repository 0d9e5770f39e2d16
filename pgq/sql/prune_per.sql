-- Deletes the oldest successful tasks beyond the newest `keep` of each group, name or function, a small batch at a time.
-- Those without a group, or a name, count together. What a collector still has to read stays. Returns how many.
WITH ranked AS (
    SELECT t.id, row_number() OVER (PARTITION BY CASE %(per)s WHEN 'group' THEN t."group" WHEN 'name' THEN t.name ELSE t.func END
                                        ORDER BY t.id DESC) AS place
      FROM pgq_task t
     WHERE t.success
       -- The option may hold anything if psql wrote the row, and a wrong cast would stop all pruning.
       AND NOT EXISTS (SELECT FROM pgq_queue q
                        WHERE q.id = CASE WHEN t.options ->> 'collector' ~ '^[0-9a-f]{32}$'
                                          THEN (t.options ->> 'collector')::uuid END)
), old AS (
    SELECT id FROM ranked WHERE place > %(keep)s LIMIT %(limit)s
)
DELETE FROM pgq_task t USING old WHERE t.id = old.id
