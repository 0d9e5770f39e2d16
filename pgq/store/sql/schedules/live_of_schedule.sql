-- Counts the tasks of a schedule that run, and those that wait.
SELECT count(*) FILTER (WHERE lock IS NOT NULL), count(*) FILTER (WHERE lock IS NULL)
  FROM pgq_queue
 WHERE schedule = %(schedule)s
