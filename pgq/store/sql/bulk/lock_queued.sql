-- Locks those of some live tasks that are still in one of these states: a task that was to be cancelled while it waits must
-- not be interrupted once it runs. A row that another transaction has locked is being claimed or settled just now, and is
-- left alone.
SELECT id
  FROM pgq_queue
 WHERE id = ANY (%(ids)s)
   AND CASE WHEN cancelled THEN 'cancelled' WHEN lock IS NOT NULL THEN 'running' WHEN parked IS NOT NULL THEN 'parked'
            WHEN run_after IS NOT NULL OR remaining IS NOT NULL THEN 'waiting' ELSE 'ready' END = ANY (%(states)s)
 ORDER BY id
   FOR UPDATE SKIP LOCKED
