-- Locks some lanes of keys, but those that another session has locked, and returns them: while upkeep moves their
-- watermarks, no session makes a claimed task ready again (see kept_places.sql).
SELECT k.priority, k.queue, k.key
  FROM pgq_keyed k
  JOIN unnest(%(priorities)s::smallint[], %(queues)s::text[], %(keys)s::text[]) AS l (priority, queue, key)
       USING (priority, queue, key)
 ORDER BY k.queue, k.key, k.priority
   FOR UPDATE OF k SKIP LOCKED
