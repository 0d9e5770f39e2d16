-- Writes the row with the oldest lease anew, as it is: if PostgreSQL refuses this, it refuses renewals as well.
UPDATE pgq_queue q
   SET lock = q.lock
  FROM (SELECT id FROM pgq_queue WHERE lock >= %(since)s ORDER BY lock LIMIT 1 FOR UPDATE SKIP LOCKED) oldest
 WHERE q.id = oldest.id
