-- Runs failed tasks again, under their ids. Returns of each what became of it: true; false: it is no failed task any more;
-- NULL: a foreign key of another table keeps it where it is. In the order of the ids, so that two of these cannot deadlock.
SELECT f.id, CASE WHEN EXISTS (SELECT FROM pgq_task t WHERE t.id = f.id AND NOT t.success) THEN pgq_retry(f.id) ELSE false END
  FROM (SELECT unnest(%(ids)s::uuid[]) AS id ORDER BY 1) f
