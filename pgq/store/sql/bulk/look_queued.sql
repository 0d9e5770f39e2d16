-- Looks at the next {window} live tasks by id: returns how many there were, the last of them, and those that match.
WITH looked AS MATERIALIZED (
     SELECT id, func, queue, "group", enqueued_at,
            CASE WHEN cancelled THEN 'cancelled' WHEN lock IS NOT NULL THEN 'running' WHEN parked IS NOT NULL THEN 'parked'
                 WHEN run_after IS NOT NULL OR remaining IS NOT NULL THEN 'waiting' ELSE 'ready' END AS state
       FROM pgq_queue
      WHERE id > %(after)s
      ORDER BY id
      LIMIT {window})
SELECT count(*) AS looked, (array_agg(id ORDER BY id DESC))[1] AS last,
       coalesce(array_agg(id ORDER BY id) FILTER (
           WHERE state = ANY (%(states)s)
             AND (%(queue)s::text IS NULL OR queue LIKE %(queue)s)
             AND (%(func)s::text IS NULL OR func LIKE %(func)s)
             AND (%(group)s::text IS NULL OR "group" LIKE %(group)s)
             AND (%(since)s::timestamptz IS NULL OR enqueued_at >= %(since)s)
             AND (%(until)s::timestamptz IS NULL OR enqueued_at < %(until)s)), '{}') AS ids
  FROM looked
