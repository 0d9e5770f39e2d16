-- Takes back the attempt that was counted with the claim of a task which is settled without being run: it was cancelled, or
-- had no attempt or no crash left. A row whose receipt is another by now is left alone.
UPDATE pgq_queue q
   SET attempts = q.attempts - 1
  FROM unnest(%(id)s::uuid[], %(receipt)s::uuid[]) AS r (id, receipt)
 WHERE q.id = r.id AND q.receipt = r.receipt
