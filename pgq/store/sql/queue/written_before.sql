-- Returns which of these refused receipts had been written already, by a commit whose reply was lost: the tables hold their
-- outcome. The attempt tells this run from others of the same task. Of a result that was not to be kept no row remains;
-- then it is enough that the task is gone.
SELECT r.id
  FROM unnest(%(id)s::uuid[], %(attempt)s::integer[], %(success)s::boolean[], %(kept)s::boolean[], %(exception)s::text[],
              %(parked)s::text[]) AS r (id, attempt, success, kept, exception, parked)
  LEFT JOIN pgq_task t USING (id)
  LEFT JOIN pgq_queue q USING (id)
 WHERE CASE
       -- Tried again: an entry of its history.
       WHEN r.exception IS NOT NULL THEN coalesce(t.history, q.history)
            @> jsonb_build_array(jsonb_build_object('attempt', r.attempt, 'exception', r.exception))
       WHEN r.parked IS NOT NULL THEN q.parked = r.parked
       WHEN NOT r.kept THEN t.id IS NULL AND q.id IS NULL
       ELSE t.attempt_count = r.attempt AND t.success = r.success
       END
