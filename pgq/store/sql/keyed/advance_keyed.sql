-- Moves the watermarks of locked lanes of keys, as advance.sql does.
-- `idle`: marks those without a ready row as idle. A row whose transaction is still open may come into an idle lane: its
-- insert has not seen the mark. So upkeep sweeps once all transactions of that time have ended.
WITH found AS MATERIALIZED (
    SELECT k.queue, k.key, k.priority, (
               SELECT q.position - 1
                 FROM pgq_queue q
                WHERE q.queue = k.queue AND q.key = k.key AND q.priority = k.priority AND q.position > k.low
                  AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL
                  AND q.key IS NOT NULL
                ORDER BY q.queue, q.key, q.priority, q.position
                LIMIT 1) AS below
      FROM unnest(%(priorities)s::smallint[], %(queues)s::text[], %(keys)s::text[]) AS l (priority, queue, key)
      JOIN pgq_keyed k USING (priority, queue, key)
)
UPDATE pgq_keyed k
   SET low = greatest(k.low, least(%(safe)s::bigint, coalesce(found.below, %(safe)s::bigint))),
       idle_since = CASE WHEN %(idle)s AND found.below IS NULL THEN clock_timestamp() END
  FROM found
 WHERE k.queue = found.queue AND k.key = found.key AND k.priority = found.priority AND k.idle_since IS NULL
