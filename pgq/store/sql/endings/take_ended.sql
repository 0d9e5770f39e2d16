-- Takes tasks that are to end without being run and that no worker holds: those marked as cancelled, and those that were
-- to start before now and have not. Claims them, paused queues or not, so that they end also where no worker serves their
-- queue. SKIP LOCKED: a worker may be claiming them.
WITH cancelled AS MATERIALIZED (
    SELECT id
      FROM pgq_queue
     WHERE cancelled AND lock IS NULL
     ORDER BY id
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED
), expired AS MATERIALIZED (
    SELECT id
      FROM pgq_queue
     -- The predicate of the index pgq_queue_expires.
     WHERE expires_at <= statement_timestamp() AND lock IS NULL AND attempts = 0 AND NOT cancelled
     ORDER BY expires_at
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED
), ended AS (
    (SELECT id FROM cancelled UNION ALL SELECT id FROM expired) LIMIT %(limit)s
)
UPDATE pgq_queue q
   SET lock = clock_timestamp(), worker = %(worker)s, receipt = %(receipt)s, attempts = least(q.attempts + 1, 32767),
       run_after = NULL, parked = NULL, remaining = NULL
  FROM ended
 WHERE q.id = ended.id
RETURNING q.id, q.priority, q.position, q.queue, q.func, q.args::text, q.kwargs::text, q.options::text,
          q.name, q."group", q.hook, q.timeout, q.attempts, q.crashes, q.max_attempts, q.schedule,
          q.enqueued_at, q.signature, q.cancelled, (q.history -> -1)::text AS last_error, q.ctid,
          CASE WHEN q.attempts > 1 AND q.options ? 'django' THEN nullif(q.history, '[]')::text END AS history,
          q.key, q.strand, q.expires_at <= clock_timestamp() AND q.attempts = 1 AS expired,
          date_part('epoch', clock_timestamp() - coalesce(q.ready_at, q.enqueued_at)) AS waited
