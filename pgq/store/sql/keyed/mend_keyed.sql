-- Brings lanes of keys back into use, below the rows that stray_keyed.sql found. A lane that another session has locked is
-- left to the next sweep.
UPDATE pgq_keyed k
   SET low = least(k.low, found.position - 1), idle_since = NULL
  FROM (SELECT k.queue, k.key, k.priority, l.position
          FROM pgq_keyed k
          JOIN unnest(%(priorities)s::smallint[], %(queues)s::text[], %(keys)s::text[], %(positions)s::bigint[])
               AS l (priority, queue, key, position) USING (priority, queue, key)
           FOR UPDATE OF k SKIP LOCKED) found
 WHERE k.queue = found.queue AND k.key = found.key AND k.priority = found.priority
