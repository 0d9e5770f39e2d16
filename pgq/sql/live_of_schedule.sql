-- How many tasks of a schedule run, and how many wait.
SELECT count(*) FILTER (WHERE lock IS NOT NULL), count(*) FILTER (WHERE lock IS NULL)
  FROM pgq_queue
 WHERE schedule = %(schedule)s
