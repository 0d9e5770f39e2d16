-- Takes tasks that do not run out of the hands of workers, whatever they wait for, to end them as cancelled: claims them
-- by their ids, paused queues or not. A task that a worker holds is left out. It waits for rows that another transaction has
-- locked, in the order of the ids: a claim has them for an instant, and then the task runs.
WITH free AS MATERIALIZED (
    SELECT id
      FROM pgq_queue
     WHERE id = ANY (%(ids)s::uuid[]) AND lock IS NULL
     ORDER BY id
       FOR UPDATE
)
UPDATE pgq_queue q
   SET lock = clock_timestamp(), worker = %(worker)s, receipt = %(receipt)s, attempts = least(q.attempts + 1, 32767),
       cancelled = true, run_after = NULL, parked = NULL, remaining = NULL
  FROM free
 WHERE q.id = free.id
RETURNING q.id, q.priority, q.position, q.queue, q.func, q.args::text, q.kwargs::text, q.options::text,
          q.name, q."group", q.hook, q.timeout, q.attempts, q.crashes, q.max_attempts, q.schedule,
          q.enqueued_at, q.signature, q.cancelled, (q.history -> -1)::text AS last_error, q.ctid,
          CASE WHEN q.attempts > 1 AND q.options ? 'django' THEN nullif(q.history, '[]')::text END AS history,
          q.key, q.strand, q.expires_at <= clock_timestamp() AND q.attempts = 1 AS expired,
          date_part('epoch', clock_timestamp() - coalesce(q.ready_at, q.enqueued_at)) AS waited
