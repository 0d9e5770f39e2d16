-- Looks at the next {window} live tasks by id: returns how many there were, the last of them, and how many match: which
-- these are only if that is wanted, since a million ids take longer to send than to find.
WITH looked AS MATERIALIZED (
     SELECT id, func, queue, "group", enqueued_at,
            CASE WHEN cancelled THEN 'cancelled' WHEN lock IS NOT NULL THEN 'running' WHEN parked IS NOT NULL THEN 'parked'
                 WHEN run_after IS NOT NULL OR remaining IS NOT NULL THEN 'waiting' ELSE 'ready' END AS state
       FROM pgq_queue
      WHERE id > %(after)s
      ORDER BY id
      LIMIT {window}),
matching AS (
     SELECT id
       FROM looked
      WHERE state = ANY (%(states)s)
        AND (%(queue)s::text IS NULL OR queue LIKE %(queue)s)
        AND (%(func)s::text IS NULL OR func LIKE %(func)s)
        AND (%(group)s::text IS NULL OR "group" LIKE %(group)s)
        AND (%(since)s::timestamptz IS NULL OR enqueued_at >= %(since)s)
        AND (%(until)s::timestamptz IS NULL OR enqueued_at < %(until)s))
SELECT (SELECT count(*) FROM looked) AS looked, (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last,
       (SELECT count(*) FROM matching) AS matched,
       CASE WHEN %(wanted)s THEN ARRAY(SELECT id FROM matching ORDER BY id) ELSE '{}' END AS ids
