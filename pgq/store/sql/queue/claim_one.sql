-- Claims one task by its id, ready or not, for a process that runs it without a pool.
UPDATE pgq_queue q
   SET lock = clock_timestamp(), worker = %(worker)s, receipt = %(receipt)s, attempts = q.attempts + 1,
       run_after = NULL, parked = NULL, remaining = NULL,
       unique_key = CASE WHEN q.unique_until = 'end' THEN q.unique_key END
 WHERE q.id = %(id)s AND q.lock IS NULL
RETURNING q.id, q.priority, q.position, q.queue, q.func, q.args::text, q.kwargs::text, q.options::text,
          q.name, q."group", q.hook, q.timeout, q.attempts, q.crashes, q.max_attempts, q.schedule,
          q.enqueued_at, q.signature, q.cancelled, (q.history -> -1)::text AS last_error, q.ctid,
          CASE WHEN q.attempts > 1 AND q.options ? 'django' THEN nullif(q.history, '[]')::text END AS history,
          q.key, q.strand, q.expires_at <= clock_timestamp() AND q.attempts = 1 AS expired,
          date_part('epoch', clock_timestamp() - coalesce(q.ready_at, q.enqueued_at)) AS waited
