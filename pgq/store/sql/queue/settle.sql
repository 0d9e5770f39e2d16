-- Settles finished tasks: deletes their rows from pgq_queue and inserts the results into pgq_task.
-- A row whose receipt is another by now (its task was rescued, cancelled or deleted) is left alone.
-- Returns the ids of the tasks that were settled; the others had lost their lease.
-- Times come as microseconds before now, since only the clock of the database counts.
WITH receipt AS MATERIALIZED (
    SELECT claimed_id, claimed_receipt, success, keep, result, exception, message, traceback, claimed_ctid,
           statement_timestamp() - started * interval '1 microsecond' AS began,
           statement_timestamp() - stopped * interval '1 microsecond' AS ended
      FROM unnest(%(id)s::uuid[], %(receipt)s::uuid[], %(success)s::boolean[], %(keep)s::boolean[],
                  %(started)s::bigint[], %(stopped)s::bigint[],
                  %(result)s::jsonb[], %(exception)s::text[], %(message)s::text[], %(traceback)s::text[],
                  %(ctid)s::tid[])
        AS r (claimed_id, claimed_receipt, success, keep, started, stopped, result, exception, message, traceback,
              claimed_ctid)
), unmoved AS (
    -- The rows that lie where the claim left them. To search for each id costs 4 % more, and 7 % where queues are mixed.
    DELETE FROM pgq_queue q
     USING receipt r
     WHERE q.ctid = r.claimed_ctid AND q.id = r.claimed_id AND q.receipt = r.claimed_receipt
    RETURNING q.*, r.*
), written_since AS (
    -- The rows that were written since the claim, as by each renewal of a lease, and lie elsewhere. Most batches have
    -- none: then the counts are the same, and PostgreSQL does not search.
    DELETE FROM pgq_queue q
     USING receipt r
     WHERE q.id = r.claimed_id AND q.receipt = r.claimed_receipt
       AND (SELECT count(*) FROM unmoved) < (SELECT count(*) FROM receipt) AND r.claimed_id NOT IN (SELECT id FROM unmoved)
    RETURNING q.*, r.*
), settled AS NOT MATERIALIZED (
    SELECT * FROM unmoved UNION ALL SELECT * FROM written_since
), saved AS (
    INSERT INTO pgq_task (id, success, attempt_count, priority, max_attempts, timeout, started, stopped, enqueued_at, func, queue, args, kwargs,
                          options, result, name, "group", hook, cluster, worker, schedule, exception, message,
                          traceback, signature, history, key)
    SELECT id, success, attempts, priority, max_attempts, timeout, began, ended, enqueued_at, func, queue, args, kwargs,
           options, result, name, "group", hook, %(cluster)s, worker, schedule, exception, message,
           traceback, signature, history, key
      FROM settled
     WHERE keep
    -- Only a row that was inserted by hand has the id of a finished task: pgq_retry deletes the finished row first. So a
    -- role that may insert cannot change a result; the history shows that it was tried.
    ON CONFLICT (id) DO UPDATE
       SET history = pgq_task.history || jsonb_build_object(
               'exception', 'pgq.errors.NotAllowed', 'traceback', '', 'attempt', excluded.attempt_count,
               'worker', excluded.worker, 'at', excluded.stopped,
               'message', 'a row with the id of this finished task was run; its outcome is not kept')
), notified AS (
    -- Notifies only if a process waits for a result (see await_settled.sql), since NOTIFY serialises commits.
    SELECT count(pg_notify('pgq_settled', ''))
      FROM pgq_wait_until
     WHERE last_value > extract(epoch FROM clock_timestamp()) * 1000 AND pg_notification_queue_usage() < 0.5
), idle_limit AS MATERIALIZED (
    -- A worker that freezes between this and its commit would keep these rows locked, so that upkeep could not rescue
    -- them: PostgreSQL ends such a transaction after so many milliseconds. NULL: it stays as it is, since a caller's own
    -- transaction may take as long as the caller wants. MATERIALIZED, so that it is set once, not for each row.
    SELECT set_config('idle_in_transaction_session_timeout', %(idle_limit)s::text, true)
     WHERE %(idle_limit)s::text IS NOT NULL
     UNION ALL SELECT '' LIMIT 1
)
SELECT id
  FROM settled, notified, idle_limit
