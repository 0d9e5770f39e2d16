-- Reads the ready rows with keys without the watermarks, and returns where claims do not find them: the lane is missing,
-- idle, or its watermark stands above the row. Walks from one lane to the next by the index, as sweep.sql does.
WITH RECURSIVE first AS (
    (SELECT queue, key, priority, position
       FROM pgq_queue
      WHERE lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL AND key IS NOT NULL
      ORDER BY queue, key, priority, position
      LIMIT 1)
    UNION ALL
    SELECT next.queue, next.key, next.priority, next.position
      FROM first
     CROSS JOIN LATERAL (
           SELECT queue, key, priority, position
             FROM pgq_queue q
            WHERE (q.queue, q.key, q.priority) > (first.queue, first.key, first.priority)
              AND lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL AND key IS NOT NULL
            ORDER BY queue, key, priority, position
            LIMIT 1) next
)
SELECT priority, queue, key, position
  FROM first
 WHERE NOT EXISTS (SELECT
                     FROM pgq_keyed k
                    WHERE k.queue = first.queue AND k.key = first.key AND k.priority = first.priority
                      AND k.low < first.position AND k.idle_since IS NULL)
