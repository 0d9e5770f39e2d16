-- Looks at the next {window} failures by id: returns how many there were, the last of them, and how many match: which
-- these are only if that is wanted.
WITH looked AS MATERIALIZED (
     SELECT id, func, queue, "group", stopped, exception
       FROM pgq_task
      WHERE NOT success AND id > %(after)s
      ORDER BY id
      LIMIT {window}),
matching AS (
     SELECT id
       FROM looked
      WHERE (%(queue)s::text IS NULL OR queue LIKE %(queue)s)
        AND (%(func)s::text IS NULL OR func LIKE %(func)s)
        AND (%(group)s::text IS NULL OR "group" LIKE %(group)s)
        AND (exception LIKE %(exception)s OR (%(exception)s::text IS NULL AND exception <> %(cancelled)s))
        AND (%(since)s::timestamptz IS NULL OR stopped >= %(since)s)
        AND (%(until)s::timestamptz IS NULL OR stopped < %(until)s))
SELECT (SELECT count(*) FROM looked) AS looked, (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last,
       (SELECT count(*) FROM matching) AS matched,
       CASE WHEN %(wanted)s THEN ARRAY(SELECT id FROM matching ORDER BY id) ELSE '{}' END AS ids
