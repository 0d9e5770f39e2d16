-- Reads the ready rows without the watermarks. Lowers a watermark that stands above a ready row, and makes lanes for rows
-- that have none (another transaction was to make the lane, and rolled back). Neither should be needed often.
-- Walks from one (queue, priority) to the next by the index, so a long queue costs no more than a short one.
-- Returns the lanes that were mended.
WITH RECURSIVE first AS (
    (SELECT queue, priority, position
       FROM pgq_queue
      WHERE lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL AND key IS NULL
      ORDER BY queue, priority, position
      LIMIT 1)
    UNION ALL
    SELECT next.queue, next.priority, next.position
      FROM first
     CROSS JOIN LATERAL (
           SELECT queue, priority, position
             FROM pgq_queue q
            WHERE (q.queue, q.priority) > (first.queue, first.priority)
              AND lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL AND key IS NULL
            ORDER BY queue, priority, position
            LIMIT 1) next
)
INSERT INTO pgq_lane AS l (queue, priority, low)
SELECT queue, priority, position - 1
  FROM first
 WHERE NOT EXISTS (SELECT
                     FROM pgq_lane lane
                    WHERE lane.queue = first.queue AND lane.priority = first.priority AND lane.low < first.position)
   -- The lock of the trigger: a lane that an open transaction is making is left to it, or this would wait for it.
   AND pg_try_advisory_xact_lock(hashtextextended('pgq_lane ' || priority || ' ' || queue, 0))
 ORDER BY queue, priority
ON CONFLICT (queue, priority) DO UPDATE SET low = least(l.low, excluded.low)
RETURNING queue, priority
