-- Of these names, returns those of which a task has finished, and of these groups those of which so many tasks have.
SELECT w.name, NULL AS "group", 0 AS number
  FROM unnest(%(names)s::text[]) AS w (name)
 WHERE EXISTS (SELECT FROM pgq_task t WHERE t.name = w.name)
 UNION ALL
-- No more tasks are counted than are waited for: a group may have a million.
SELECT NULL, w."group", w.number
  FROM unnest(%(groups)s::text[], %(numbers)s::int[]) AS w ("group", number)
 WHERE w.number <= (SELECT count(*) FROM (SELECT FROM pgq_task t WHERE t."group" = w."group" LIMIT w.number) AS finished)
