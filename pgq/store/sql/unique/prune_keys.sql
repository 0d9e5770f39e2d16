-- Deletes keys that were taken for a time which is over.
DELETE FROM pgq_unique
 WHERE ctid IN (SELECT ctid FROM pgq_unique WHERE until <= clock_timestamp() ORDER BY until LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
