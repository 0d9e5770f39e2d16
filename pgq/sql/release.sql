-- Gives back tasks that were claimed but not started: they keep their place and are not charged an attempt.
-- Fenced by the receipt. Returns the ids that were given back.
-- A row that keeps its position could reappear below its lane's watermark. So the lane is locked first, which
-- upkeep does too before it looks for the first ready row, and the watermark is lowered where it must be.
WITH receipt AS (
    SELECT * FROM unnest(%(id)s::uuid[], %(receipt)s::uuid[]) AS r (id, receipt)
), held AS MATERIALIZED (
    SELECT q.id, q.queue, q.priority, q.position
      FROM pgq_queue q
      JOIN receipt r ON q.id = r.id AND q.receipt = r.receipt
       FOR UPDATE OF q
), lane AS MATERIALIZED (
    SELECT l.queue, l.priority, l.low
      FROM pgq_lane l
     WHERE (l.queue, l.priority) IN (SELECT queue, priority FROM held)
     ORDER BY l.queue, l.priority
       FOR UPDATE
), lowered AS (
    UPDATE pgq_lane l
       SET low = first.position - 1
      FROM lane
      JOIN (SELECT queue, priority, min(position) AS position FROM held GROUP BY queue, priority) first
           USING (queue, priority)
     WHERE l.queue = lane.queue AND l.priority = lane.priority AND lane.low >= first.position
)
UPDATE pgq_queue q
   SET lock = NULL, worker = NULL, receipt = NULL, attempts = q.attempts - 1
  FROM held
 -- The count makes the lanes be locked even though nothing of them is read here.
 WHERE q.id = held.id AND (SELECT count(*) FROM lane) >= 0
RETURNING q.id
