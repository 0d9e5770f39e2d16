-- Locks those of some live tasks that are still in one of these states and in another queue; returns what their signatures
-- cover. A row that another transaction has locked is being claimed or settled just now, and is left alone.
SELECT id, queue, func, args::text, kwargs::text, options::text, hook, "group", timeout, max_attempts, key, signature
  FROM pgq_queue
 WHERE id = ANY (%(ids)s) AND queue <> %(queue)s
   AND CASE WHEN cancelled THEN 'cancelled' WHEN lock IS NOT NULL THEN 'running' WHEN parked IS NOT NULL THEN 'parked'
            WHEN run_after IS NOT NULL OR remaining IS NOT NULL THEN 'waiting' ELSE 'ready' END = ANY (%(states)s)
 ORDER BY id
   FOR UPDATE SKIP LOCKED
