-- Brings tasks that run on under the new id of their worker, before what the old one holds is released. Fenced by the
-- receipt: one that was rescued meanwhile is another's.
UPDATE pgq_queue q
   SET worker = %(worker)s
  FROM unnest(%(id)s::uuid[], %(receipt)s::uuid[]) AS r (id, receipt)
 WHERE q.id = r.id AND q.receipt = r.receipt
