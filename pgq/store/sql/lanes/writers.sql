-- Returns the transactions that may hold a position which other sessions do not see yet: a position is drawn under this
-- lock, and the lock ends with the transaction. `among` NULL: all of them; else those of them that still run.
SELECT DISTINCT virtualtransaction
  FROM pg_locks
 WHERE locktype = 'relation' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND relation = 'pgq_queue'::regclass AND mode = 'RowExclusiveLock' AND granted
   AND pid IS DISTINCT FROM pg_backend_pid()
   AND (%(among)s::text[] IS NULL OR virtualtransaction = ANY (%(among)s::text[]))
