-- Settles finished tasks: the row leaves pgq_queue and the result enters pgq_task, or neither.
-- Fenced by the receipt: a row that was rescued, cancelled or deleted meanwhile is left alone.
-- Returns the ids that were settled; those not returned had lost their lease.
-- Times come as microseconds before now, since only the clock of the database counts.
WITH receipt AS MATERIALIZED (
    SELECT *, clock_timestamp() AS now
      FROM unnest(%(id)s::uuid[], %(receipt)s::uuid[], %(success)s::boolean[], %(keep)s::boolean[],
                  %(started)s::bigint[], %(stopped)s::bigint[],
                  %(result)s::jsonb[], %(exception)s::text[], %(message)s::text[], %(traceback)s::text[])
        AS r (id, receipt, success, keep, started, stopped, result, exception, message, traceback)
), gone AS (
    DELETE FROM pgq_queue q
     USING receipt r
     WHERE q.id = r.id AND q.receipt = r.receipt
    RETURNING q.*, r.success, r.keep, r.result, r.exception, r.message, r.traceback,
              r.now - r.started * interval '1 microsecond' AS began,
              r.now - r.stopped * interval '1 microsecond' AS ended
), saved AS (
    INSERT INTO pgq_task (id, success, attempt_count, priority, max_attempts, timeout, started, stopped, enqueued_at, func, queue, args, kwargs,
                          options, result, name, "group", hook, cluster, worker, schedule, exception, message,
                          traceback, signature, history)
    SELECT id, success, attempts, priority, max_attempts, timeout, began, ended, enqueued_at, func, queue, args, kwargs,
           options, result, name, "group", hook, %(cluster)s, worker, schedule, exception, message,
           traceback, signature, history
      FROM gone
     WHERE keep
    -- Only a row put in by hand has the id of a finished task: pgq_retry takes the finished row away first. So whoever may
    -- insert changes nobody's result; that it was tried stands in the history.
    ON CONFLICT (id) DO UPDATE
       SET history = pgq_task.history || jsonb_build_object(
               'exception', 'pgq.errors.NotAllowed', 'traceback', '', 'attempt', excluded.attempt_count,
               'worker', excluded.worker, 'at', excluded.stopped,
               'message', 'a row with the id of this finished task was run; its outcome is not kept')
), told AS (
    -- Only if somebody waits for a result, since NOTIFY serialises commits.
    SELECT count(pg_notify('pgq_settled', ''))
      FROM pgq_wait_until
     WHERE last_value > extract(epoch FROM clock_timestamp()) * 1000 AND pg_notification_queue_usage() < 0.5
), patience AS MATERIALIZED (
    -- A worker that freezes between this and its commit would keep these rows locked, and nobody could rescue them.
    -- (NULL leaves it: a caller's own transaction is the caller's business.)
    -- MATERIALIZED, so that it is set once, not for each row.
    SELECT set_config('idle_in_transaction_session_timeout', %(patience)s::text, true)
     WHERE %(patience)s::text IS NOT NULL
     UNION ALL SELECT '' LIMIT 1
)
SELECT id
  FROM gone, told, patience
