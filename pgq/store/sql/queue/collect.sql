-- Counts down collectors by how many of the tasks that they wait for have settled; the last one makes its collector ready.
-- It runs in the transaction that settles those tasks, and in the order of the ids, so that two of them cannot deadlock.
-- A role that may insert can name a collector in its rows: so a signed collector waits for signed tasks only.
-- Returns the number still awaited (NULL: none, the collector is ready).
WITH done AS (
    SELECT * FROM unnest(%(id)s::uuid[], %(signed)s::integer[], %(others)s::integer[]) AS d (id, signed, others)
), waiting AS MATERIALIZED (
    SELECT q.id, d.signed + CASE WHEN q.signature IS NULL THEN d.others ELSE 0 END AS count
      FROM pgq_queue q
      JOIN done d USING (id)
     WHERE q.remaining IS NOT NULL AND (d.signed > 0 OR q.signature IS NULL)
     ORDER BY q.id
       FOR UPDATE OF q
)
UPDATE pgq_queue q
   SET remaining = nullif(greatest(q.remaining - waiting.count, 0), 0),
       position = CASE WHEN q.remaining <= waiting.count THEN nextval('pgq_position') ELSE q.position END,
       ready_at = CASE WHEN q.remaining <= waiting.count THEN clock_timestamp() ELSE q.ready_at END
  FROM waiting
 WHERE q.id = waiting.id
RETURNING q.id, q.remaining,
          CASE WHEN q.key IS NOT NULL AND q.remaining IS NULL THEN pgq_keyed_ready(q.queue, q.key, q.priority) END
