-- Parks tasks that cannot be run as they are: each stays with its reason, and is not charged an attempt.
-- A row whose receipt is another by now is left alone. Returns the ids that were parked.
WITH receipt AS (
    SELECT * FROM unnest(%(id)s::uuid[], %(receipt)s::uuid[], %(reason)s::text[]) AS r (id, receipt, reason)
)
UPDATE pgq_queue q
   SET lock = NULL, worker = NULL, receipt = NULL, strand = NULL, attempts = q.attempts - 1, parked = r.reason,
       -- Once released from parking, it is postponed as often again as a new task.
       history = CASE WHEN q.history -> -1 ? 'postponed' THEN q.history #- '{-1,postponed}' ELSE q.history END
  FROM receipt r
 WHERE q.id = r.id AND q.receipt = r.receipt
RETURNING q.id
