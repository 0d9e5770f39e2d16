-- Gives back tasks that were claimed but not started: they keep their place and are not charged an attempt.
-- Fenced by the receipt. Returns the ids that were given back.
WITH receipt AS (
    SELECT * FROM unnest(%(id)s::uuid[], %(receipt)s::uuid[]) AS r (id, receipt)
), lost AS MATERIALIZED (
    SELECT q.id, q.queue, q.key, q.priority, q.position, false AS to_end
      FROM pgq_queue q
      JOIN receipt r ON q.id = r.id AND q.receipt = r.receipt
       FOR UPDATE OF q
), {kept_places}
UPDATE pgq_queue q
   SET lock = NULL, worker = NULL, receipt = NULL, strand = NULL, attempts = q.attempts - 1
  FROM placed lost
 WHERE q.id = lost.id
RETURNING q.id, CASE WHEN lost.laneless THEN pgq_keyed_ready(q.queue, q.key, q.priority) END
