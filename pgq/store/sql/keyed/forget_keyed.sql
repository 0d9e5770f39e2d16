-- Deletes lanes of keys that have been idle for so many seconds and have no ready row; 5000 at most. An insert of the very
-- instant of the deletion may see the lane as there: its row waits for the next sweep.
DELETE FROM pgq_keyed k
 WHERE (k.queue, k.key, k.priority) IN (
       SELECT i.queue, i.key, i.priority
         FROM pgq_keyed i
        WHERE i.idle_since < clock_timestamp() - %(age)s * interval '1 second'
          AND NOT EXISTS (SELECT FROM pgq_queue q
                           WHERE q.queue = i.queue AND q.key = i.key AND q.priority = i.priority AND q.lock IS NULL
                             AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL AND q.key IS NOT NULL)
        LIMIT 5000
          FOR UPDATE OF i SKIP LOCKED)
