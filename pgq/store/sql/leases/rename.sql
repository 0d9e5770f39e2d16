-- Gives tasks that run on the new id of their worker, before the tasks of the old id are released. A row whose receipt is
-- another by now is left alone: its task was rescued, and another worker holds it.
UPDATE pgq_queue q
   SET worker = %(worker)s
  FROM unnest(%(id)s::uuid[], %(receipt)s::uuid[]) AS r (id, receipt)
 WHERE q.id = r.id AND q.receipt = r.receipt
