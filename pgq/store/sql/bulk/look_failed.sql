-- Looks at the next {window} failures by id: returns how many there were, the last of them, and those that match.
WITH looked AS MATERIALIZED (
     SELECT id, func, queue, "group", stopped, exception
       FROM pgq_task
      WHERE NOT success AND id > %(after)s
      ORDER BY id
      LIMIT {window})
SELECT count(*) AS looked, (array_agg(id ORDER BY id DESC))[1] AS last,
       coalesce(array_agg(id ORDER BY id) FILTER (
           WHERE (%(queue)s::text IS NULL OR queue LIKE %(queue)s)
             AND (%(func)s::text IS NULL OR func LIKE %(func)s)
             AND (%(group)s::text IS NULL OR "group" LIKE %(group)s)
             AND (exception LIKE %(exception)s OR (%(exception)s::text IS NULL AND exception <> %(cancelled)s))
             AND (%(since)s::timestamptz IS NULL OR stopped >= %(since)s)
             AND (%(until)s::timestamptz IS NULL OR stopped < %(until)s)), '{}') AS ids
  FROM looked
